//! What is counted while an archive is scored. A part's counts are kept in the
//! manifest, so that a resumed run reports what an undisturbed one would.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::output::{Answer, TaskAnswer};
use super::row::{Reject, RejectReason};

/// Bins of a score from 0 to 1.
pub(super) const SCORE_BINS: usize = 20;
/// Bins of a length: bin `i` has those from `2^i` tokens on.
pub(super) const LENGTH_BINS: usize = 18;
/// Longest documents listed.
const MAX_LONGEST: usize = 20;
/// Rejected rows listed.
const MAX_REJECTED: usize = 50;
/// True labels counted that the model does not have, in a part and in all.
const MAX_UNKNOWN: usize = 1_000;
/// Characters of a title or id listed.
const MAX_SHOWN_CHARS: usize = 120;

/// Counts over rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Rows with an answer.
    pub scored: u64,
    /// Rows among them whose answer was that of an equal text before.
    pub duplicates: u64,
    /// Tokens of all scored rows, duplicates included.
    pub tokens: u64,
    /// Windows of all scored rows.
    pub windows: u64,
    /// Rows not read to their end.
    pub truncated: u64,
    /// Rows without an answer, by reason.
    pub rejects: BTreeMap<RejectReason, u64>,
    /// For each task.
    pub tasks: Vec<TaskStats>,
    /// Rows by the labels of the first task and each other one:
    /// `[other task - 1][label of the first][label of the other]`.
    pub crossed: Vec<Vec<Vec<u64>>>,
    /// Rows by month, as `2015-07`, task and label.
    pub months: BTreeMap<String, Vec<Vec<u64>>>,
    /// Rows whose date is missing or cannot be read.
    pub undated: u64,
    /// Rows by length.
    pub lengths: Vec<u64>,
    /// The longest documents, longest first.
    pub longest: Vec<Longest>,
    /// The first rejected rows.
    pub rejected: Vec<Rejected>,
}

/// Counts of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStats {
    /// Rows by label, also where the model abstained.
    pub labels: Vec<u64>,
    /// Of these, rows where it abstained.
    pub abstained: Vec<u64>,
    /// Rows by the score of their label.
    pub scores: Vec<u64>,
    /// Rows by true and given label, if there are true ones.
    pub gold: Option<Gold>,
}

/// Answers beside the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gold {
    /// `[true label][given label]`.
    pub confusion: Vec<Vec<u64>>,
    /// Of these, the rows where the model did not abstain: right ones.
    pub sure_right: u64,
    /// And wrong ones.
    pub sure_wrong: u64,
    /// Rows without a true label.
    pub missing: u64,
    /// True labels that the model does not have, with their rows; at most 1,000.
    pub unknown: BTreeMap<String, u64>,
    /// Rows with such a label, those past the 1,000 included.
    pub unknown_rows: u64,
}

/// A long document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Longest {
    /// Its tokens.
    pub tokens: u64,
    /// Where it is.
    pub file: String,
    /// Its row there.
    pub row: u64,
    /// Its id.
    pub id: String,
    /// Its title, shortened.
    pub title: String,
}

/// A row without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Where it is.
    pub file: String,
    /// Its row there.
    pub row: u64,
    /// Why.
    #[serde(flatten)]
    pub reject: Reject,
}

/// A scored row as it is counted.
pub(super) struct Counted<'a> {
    pub(super) file: &'a str,
    pub(super) row: u64,
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    /// Its month, if the archive has dates: `Some(None)` where it cannot be read.
    pub(super) month: Option<Option<String>>,
    pub(super) answer: &'a Answer,
    pub(super) duplicate: bool,
    /// The true label of each task, if the archive has any.
    pub(super) gold: Vec<Option<GoldLabel>>,
}

/// A true label.
pub(super) enum GoldLabel {
    Known(usize),
    Unknown(String),
    Missing,
}

impl Stats {
    /// No rows, of tasks with this many labels.
    pub(super) fn new(labels: &[usize]) -> Self {
        let task = |&labels: &usize| TaskStats {
            labels: vec![0; labels],
            abstained: vec![0; labels],
            scores: vec![0; SCORE_BINS],
            gold: None,
        };
        let first = labels.first().copied().unwrap_or_default();
        Self {
            tasks: labels.iter().map(task).collect(),
            crossed: labels.iter().skip(1).map(|&other| vec![vec![0; other]; first]).collect(),
            lengths: vec![0; LENGTH_BINS],
            ..Self::default()
        }
    }

    /// Rows without an answer.
    pub fn rejected_rows(&self) -> u64 {
        self.rejects.values().sum()
    }

    /// Counts a scored row.
    pub(super) fn count(&mut self, row: &Counted<'_>) {
        let answer = row.answer;
        self.scored += 1;
        self.duplicates += u64::from(row.duplicate);
        self.tokens += answer.tokens as u64;
        self.windows += answer.windows as u64;
        self.truncated += u64::from(answer.truncated);
        let length = answer.tokens.checked_ilog2().unwrap_or_default() as usize;
        add_one(&mut self.lengths, length.min(LENGTH_BINS - 1));
        for (index, (task, answer)) in self.tasks.iter_mut().zip(&answer.tasks).enumerate() {
            task.count(answer, row.gold.get(index).and_then(Option::as_ref));
        }
        let mut answers = answer.tasks.iter();
        if let Some(first) = answers.next() {
            for (table, other) in self.crossed.iter_mut().zip(answers) {
                if let Some(counts) = table.get_mut(first.label) {
                    add_one(counts, other.label);
                }
            }
        }
        match &row.month {
            None => {}
            Some(None) => self.undated += 1,
            Some(Some(month)) => {
                let empty = || self.tasks.iter().map(|task| vec![0; task.labels.len()]).collect();
                let counts = self.months.entry(month.clone()).or_insert_with(empty);
                for (counts, answer) in counts.iter_mut().zip(&answer.tasks) {
                    add_one(counts, answer.label);
                }
            }
        }
        self.longest.push(Longest {
            tokens: answer.tokens as u64,
            file: row.file.to_owned(),
            row: row.row,
            id: shortened(row.id),
            title: shortened(row.title),
        });
        if self.longest.len() > 2 * MAX_LONGEST {
            self.keep_longest();
        }
    }

    /// Counts a row without an answer.
    pub(super) fn count_reject(&mut self, file: &str, row: u64, reject: &Reject) {
        *self.rejects.entry(reject.reason).or_default() += 1;
        if self.rejected.len() < MAX_REJECTED {
            self.rejected.push(Rejected { file: file.to_owned(), row, reject: reject.clone() });
        }
    }

    /// Drops what is more than is listed, before the counts are kept.
    pub(super) fn settle(&mut self) {
        self.keep_longest();
    }

    /// Adds `later`, the counts of rows that come after these.
    pub(super) fn add(&mut self, later: Self) {
        self.scored += later.scored;
        self.duplicates += later.duplicates;
        self.tokens += later.tokens;
        self.windows += later.windows;
        self.truncated += later.truncated;
        self.undated += later.undated;
        for (reason, rows) in later.rejects {
            *self.rejects.entry(reason).or_default() += rows;
        }
        for (task, later) in self.tasks.iter_mut().zip(later.tasks) {
            task.add(later);
        }
        for (table, later) in self.crossed.iter_mut().zip(&later.crossed) {
            add_tables(table, later);
        }
        for (month, later) in later.months {
            match self.months.get_mut(&month) {
                Some(counts) => add_tables(counts, &later),
                None => drop(self.months.insert(month, later)),
            }
        }
        add_counts(&mut self.lengths, &later.lengths);
        self.longest.extend(later.longest);
        self.keep_longest();
        self.rejected.extend(later.rejected);
        self.rejected.truncate(MAX_REJECTED);
    }

    fn keep_longest(&mut self) {
        // Stable: of equal ones the first stay.
        self.longest.sort_by_key(|document| std::cmp::Reverse(document.tokens));
        self.longest.truncate(MAX_LONGEST);
    }
}

impl TaskStats {
    fn count(&mut self, answer: &TaskAnswer, gold: Option<&GoldLabel>) {
        add_one(&mut self.labels, answer.label);
        if answer.abstained {
            add_one(&mut self.abstained, answer.label);
        }
        let bin = (answer.score().clamp(0.0, 1.0) * SCORE_BINS as f32) as usize;
        add_one(&mut self.scores, bin.min(SCORE_BINS - 1));
        let Some(truth) = gold else { return };
        let labels = self.labels.len();
        let gold = self.gold.get_or_insert_with(|| Gold {
            confusion: vec![vec![0; labels]; labels],
            ..Gold::default()
        });
        match truth {
            GoldLabel::Missing => gold.missing += 1,
            GoldLabel::Unknown(label) => {
                gold.unknown_rows += 1;
                gold.count_unknown(shortened(label), 1);
            }
            GoldLabel::Known(label) => {
                if let Some(counts) = gold.confusion.get_mut(*label) {
                    add_one(counts, answer.label);
                }
                if !answer.abstained {
                    let right = *label == answer.label;
                    gold.sure_right += u64::from(right);
                    gold.sure_wrong += u64::from(!right);
                }
            }
        }
    }

    fn add(&mut self, later: Self) {
        add_counts(&mut self.labels, &later.labels);
        add_counts(&mut self.abstained, &later.abstained);
        add_counts(&mut self.scores, &later.scores);
        match (&mut self.gold, later.gold) {
            (_, None) => {}
            (none @ None, later) => *none = later,
            (Some(gold), Some(later)) => {
                add_tables(&mut gold.confusion, &later.confusion);
                gold.sure_right += later.sure_right;
                gold.sure_wrong += later.sure_wrong;
                gold.missing += later.missing;
                gold.unknown_rows += later.unknown_rows;
                for (label, rows) in later.unknown {
                    gold.count_unknown(label, rows);
                }
            }
        }
    }
}

impl Gold {
    fn count_unknown(&mut self, label: String, rows: u64) {
        if self.unknown.len() < MAX_UNKNOWN || self.unknown.contains_key(&label) {
            *self.unknown.entry(label).or_default() += rows;
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

fn add_one(counts: &mut [u64], place: usize) {
    if let Some(count) = counts.get_mut(place) {
        *count += 1;
    }
}

fn add_counts(counts: &mut [u64], later: &[u64]) {
    for (count, later) in counts.iter_mut().zip(later) {
        *count += later;
    }
}

fn add_tables(table: &mut [Vec<u64>], later: &[Vec<u64>]) {
    for (counts, later) in table.iter_mut().zip(later) {
        add_counts(counts, later);
    }
}
