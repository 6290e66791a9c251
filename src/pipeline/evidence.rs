//! Which sentences speak for an answer: those without which its score falls.
//!
//! Each sentence is left out in turn and the rest is classified again, which is
//! occlusion (Zeiler and Fergus, 2014, arXiv 1311.2901) with sentences as patches.
//! It costs the document's tokens for each sentence, so both the sentences and
//! the tokens are bounded, and it runs in the bulk lane, where it cannot hold up
//! the documents of others. Of a text of which only the head was read, only that is
//! looked at: the rest has no part in the answer, and would be tokenised each time.
//! An answer that is there is never given up for it.

use std::ops::Range;

use tokio::time::{Instant, timeout_at};

use super::classifier::Classifier;
use super::decision;
use super::reading::Windows;
use super::types::{Document, Evidence, LongText, Options, Submission, TaskResult};
use crate::engine::{Admission, Lane};
use crate::text::sentences;

/// Tokens of one job, about: a few batches, so that a long document with many
/// sentences neither waits a batch for each nor takes the whole queue.
const JOB_TOKENS: usize = 8_192;

/// How much of the time that is left until the deadline it may take: the rest is for the answer.
const SHARE_OF_DEADLINE: f64 = 0.9;

/// The evidence for one document's answers.
pub(super) struct Run<'a> {
    pub(super) classifier: &'a Classifier,
    pub(super) document: &'a Document,
    pub(super) options: &'a Options,
    /// Tokens of the document's windows.
    pub(super) tokens: usize,
    pub(super) submission: &'a Submission,
    /// When to end, see [`until`].
    pub(super) until: Option<Instant>,
}

/// Until when evidence may take, of a call that ends at `deadline`.
pub(super) fn until(deadline: Option<Instant>) -> Option<Instant> {
    let now = Instant::now();
    let share = |deadline: Instant| {
        now + deadline.saturating_duration_since(now).mul_f64(SHARE_OF_DEADLINE)
    };
    deadline.map(share)
}

impl Run<'_> {
    /// Fills in the evidence of `results`, which answer the tasks with the indices
    /// `tasks`.
    pub(super) async fn explain(&self, tasks: &[usize], results: &mut [TaskResult]) {
        let gathered = self.gather(tasks, results);
        match self.until {
            None => gathered.await,
            // What was found until then stays.
            Some(until) => drop(timeout_at(until, gathered).await),
        }
        for result in results {
            result.evidence.sort_by(|a, b| b.weight.total_cmp(&a.weight));
            result.evidence.truncate(self.options.evidence);
        }
    }

    /// Adds to `results` all sentences that can be weighed in time, in no order.
    async fn gather(&self, tasks: &[usize], results: &mut [TaskResult]) {
        let mut pending: Vec<(Range<usize>, Windows)> = Vec::new();
        let mut pending_tokens = 0;
        let line = (Lane::Bulk, self.submission.client.clone());
        let head;
        let read = if self.options.long_text == LongText::Head {
            match self.classifier.head(self.document.clone(), &line).await {
                Ok(found) => head = found,
                Err(_) => return,
            }
            &head
        } else {
            self.document
        };
        for range in self.candidates(read.text.len()) {
            // What is left may be empty: then there is nothing to compare with.
            let rest = without(read, &range);
            let Ok(windows) = self.classifier.read(rest, self.long_text(), &line).await else {
                continue;
            };
            let tokens = windows.tokens();
            if pending_tokens + tokens > JOB_TOKENS && !pending.is_empty() {
                pending_tokens = 0;
                if !self.weigh(std::mem::take(&mut pending), tasks, results).await {
                    return;
                }
            }
            pending_tokens += tokens;
            pending.push((range, windows));
        }
        if !pending.is_empty() {
            self.weigh(pending, tasks, results).await;
        }
    }

    /// The sentences to try, of those that begin in the first `read` bytes of the text: from the
    /// first, as many as the limits allow.
    fn candidates(&self, read: usize) -> Vec<Range<usize>> {
        let limits = self.classifier.limits();
        let affordable = limits.max_evidence_tokens / self.tokens.max(1);
        let mut ranges = sentences(&self.document.text);
        ranges.retain(|range| range.start < read);
        ranges.truncate(affordable.min(limits.max_evidence_sentences));
        ranges
    }

    /// The rest of a document of one window may, tokenised anew, take two.
    fn long_text(&self) -> LongText {
        match self.options.long_text {
            LongText::Reject => LongText::Windows,
            as_asked => as_asked,
        }
    }

    /// Adds to `results` the sentences of `pending` without which a score falls;
    /// `false` if the engine has no room for evidence, or no time.
    async fn weigh(
        &self,
        pending: Vec<(Range<usize>, Windows)>,
        tasks: &[usize],
        results: &mut [TaskResult],
    ) -> bool {
        let (ranges, windows): (Vec<_>, Vec<_>) = pending.into_iter().unzip();
        let submission = Submission {
            admission: Admission::Wait,
            deadline: self.until,
            ..self.submission.clone()
        };
        let logits = match self.classifier.run(windows, Lane::Bulk, &submission).await {
            Ok((logits, _)) => logits,
            Err(reason) => {
                tracing::debug!(%reason, "no evidence");
                return false;
            }
        };
        for (range, logits) in ranges.iter().zip(&logits) {
            let (start, end) = self.scalars(range);
            for (result, &index) in results.iter_mut().zip(tasks) {
                let Some((task, logits)) =
                    self.classifier.tasks().get(index).zip(logits.get(index))
                else {
                    continue;
                };
                let scores = decision::probabilities(task, logits);
                let mut labels = task.labels.iter().zip(scores);
                let score = labels.find(|(label, _)| label.id == result.label);
                let weight = result.score - score.map_or(0.0, |(_, score)| score);
                if weight > 0.0 {
                    result.evidence.push(Evidence { start, end, weight });
                }
            }
        }
        true
    }

    /// The Unicode scalars of the bytes `range` of the document's text.
    fn scalars(&self, range: &Range<usize>) -> (usize, usize) {
        let count = |part: Option<&str>| part.map_or(0, |part| part.chars().count());
        let start = count(self.document.text.get(..range.start));
        (start, start + count(self.document.text.get(range.clone())))
    }
}

/// `document` without the bytes `range` of its text.
fn without(document: &Document, range: &Range<usize>) -> Document {
    let Document { id, title, text } = document;
    let before = text.get(..range.start).unwrap_or_default();
    let after = text.get(range.end..).unwrap_or_default();
    Document { id: id.clone(), title: title.clone(), text: [before, after].concat() }
}
