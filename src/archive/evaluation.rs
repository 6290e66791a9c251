//! How good the answers are, where the archive has true labels.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use super::stats::Gold;
use crate::bundle::Task;

/// Rows that a class has to have to be a frequent one: fewer say little about it.
const MIN_FREQUENT_ROWS: u64 = 5;
/// True labels listed that the model does not have.
const MAX_UNKNOWN: usize = 20;

/// The answers of one task beside its true labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// The task.
    pub task: String,
    /// Rows with a true label that the model has.
    pub rows: u64,
    /// Share of them with the right label, also where the model abstained.
    pub accuracy: f64,
    /// Mean F1 of the classes that occur among the true labels.
    pub macro_f1: f64,
    /// The same of the classes that at least 5 rows have, as the cards of the shipped models and
    /// `verify` have it; `None` where there are none.
    pub macro_f1_frequent: Option<f64>,
    /// How many these are.
    pub frequent_classes: usize,
    /// Share of the rows on which the model did not abstain.
    pub coverage: f64,
    /// Share of those with the right label.
    pub accuracy_when_sure: f64,
    /// One for each label of the model.
    pub classes: Vec<ClassScore>,
    /// Rows by `[true label][given label]`, in the order of `classes`.
    pub confusion: Vec<Vec<u64>>,
    /// Rows without a true label, which do not count.
    pub missing_rows: u64,
    /// Rows with a true label that the model does not have, which do not count.
    pub unknown_rows: u64,
    /// Such labels with their rows, the 20 that have most.
    pub unknown: Vec<(String, u64)>,
}

/// How one class is found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassScore {
    /// The label.
    pub label: String,
    /// Share of the rows with this answer that are of the class; 0 if there are none.
    pub precision: f64,
    /// Share of the rows of the class with this answer; 0 if there are none.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Rows of the class.
    pub support: u64,
}

impl Evaluation {
    /// The evaluation of `task` by its counts.
    pub(super) fn new(task: &Task, gold: &Gold) -> Self {
        let confusion = &gold.confusion;
        let classes: Vec<ClassScore> = task
            .labels
            .iter()
            .enumerate()
            .map(|(class, label)| {
                let support = confusion.get(class).map_or(0, |row| row.iter().sum());
                let given = confusion.iter().filter_map(|row| row.get(class)).sum();
                let right = cell(confusion, class, class);
                let (precision, recall) = (share(right, given), share(right, support));
                let f1 = 2.0 * right as f64 / (given + support).max(1) as f64;
                ClassScore { label: label.id.clone(), precision, recall, f1, support }
            })
            .collect();
        let rows = classes.iter().map(|class| class.support).sum();
        let right = (0..classes.len()).map(|class| cell(confusion, class, class)).sum();
        let (_, macro_f1) = mean_f1(&classes, 1);
        let (frequent_classes, macro_f1_frequent) = mean_f1(&classes, MIN_FREQUENT_ROWS);
        let sure = gold.sure_right + gold.sure_wrong;
        Self {
            task: task.name.clone(),
            rows,
            accuracy: share(right, rows),
            macro_f1: macro_f1.unwrap_or_default(),
            macro_f1_frequent,
            frequent_classes,
            coverage: share(sure, rows),
            accuracy_when_sure: share(gold.sure_right, sure),
            classes,
            confusion: confusion.clone(),
            missing_rows: gold.missing,
            unknown_rows: gold.unknown_rows,
            unknown: most_frequent(&gold.unknown),
        }
    }

    /// [`Self::macro_f1_frequent`] where there are rarer classes, so that it is not
    /// [`Self::macro_f1`].
    pub fn macro_f1_without_rare(&self) -> Option<f64> {
        let occurring = self.classes.iter().filter(|class| class.support > 0).count();
        self.macro_f1_frequent.filter(|_| self.frequent_classes < occurring)
    }
}

/// The labels with the most rows.
fn most_frequent(labels: &BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let mut labels: Vec<_> = labels.iter().map(|(label, &rows)| (label.clone(), rows)).collect();
    labels.sort_by_key(|(_, rows)| Reverse(*rows));
    labels.truncate(MAX_UNKNOWN);
    labels
}

/// How many classes have at least `rows` rows, and the mean of their F1.
fn mean_f1(classes: &[ClassScore], rows: u64) -> (usize, Option<f64>) {
    let counting = || classes.iter().filter(|class| class.support >= rows);
    let (count, sum) = (counting().count(), counting().map(|class| class.f1).sum::<f64>());
    (count, (count > 0).then_some(sum / count as f64))
}

fn cell(confusion: &[Vec<u64>], truth: usize, given: usize) -> u64 {
    confusion.get(truth).and_then(|row| row.get(given)).copied().unwrap_or_default()
}

/// `part` of `whole`; 0 of nothing.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{HeadKind, Label, Pooling};

    #[test]
    fn the_numbers_are_those_of_the_textbook() {
        let label = |id: &str| Label {
            id: id.to_owned(),
            name_ar: String::new(),
            name_en: String::new(),
            code: String::new(),
        };
        let task = Task {
            name: "topic".into(),
            multi_label: false,
            pooling: Pooling::Mean,
            head: HeadKind::Linear,
            temperature: 1.0,
            abstain_below: 0.5,
            labels: ["a", "b", "c"].map(label).into(),
        };
        // scikit-learn: accuracy 0.7, F1 0.8, 0.571429 and 0 (no support).
        let gold = Gold {
            confusion: vec![vec![4, 1, 1], vec![0, 3, 1], vec![0, 0, 0]],
            sure_right: 4,
            sure_wrong: 1,
            ..Gold::default()
        };
        let evaluation = Evaluation::new(&task, &gold);
        assert_eq!((evaluation.rows, evaluation.accuracy), (10, 0.7));
        let f1: Vec<f64> = evaluation.classes.iter().map(|class| class.f1).collect();
        assert_eq!(f1, [0.8, 0.75, 0.0]);
        assert_eq!((evaluation.macro_f1, evaluation.coverage), (0.775, 0.5));
        // Only the first has 5 rows.
        assert_eq!((evaluation.macro_f1_frequent, evaluation.frequent_classes), (Some(0.8), 1));
        assert_eq!(evaluation.macro_f1_without_rare(), Some(0.8));
        assert_eq!(evaluation.accuracy_when_sure, 0.8);
        let empty = Evaluation::new(&task, &Gold::default());
        assert_eq!((empty.rows, empty.accuracy, empty.macro_f1), (0, 0.0, 0.0));
        assert_eq!((empty.macro_f1_frequent, empty.frequent_classes), (None, 0));
    }
}
