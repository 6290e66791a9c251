//! Which sentences speak for an answer: those without which its score falls.
//!
//! Each sentence is left out in turn and the rest is classified again, which is
//! occlusion (Zeiler and Fergus, 2014, arXiv 1311.2901) with sentences as patches.
//! It costs one forward pass a sentence, so the number of sentences is bounded.

use std::ops::Range;

use tokio::time::Instant;

use super::classifier::Classifier;
use super::decision;
use super::reader::Windows;
use super::types::{ClassifyError, Document, Evidence, Options, TaskResult};
use crate::text::sentences;

/// Tokens of one job, about: a few batches, so that a long document with many
/// sentences neither waits a batch for each nor takes the whole queue.
const JOB_TOKENS: usize = 8_192;

/// The evidence for one document's answers.
pub(super) struct Run<'a> {
    pub(super) classifier: &'a Classifier,
    pub(super) document: &'a Document,
    pub(super) options: &'a Options,
    pub(super) deadline: Option<Instant>,
}

impl Run<'_> {
    /// Fills in the evidence of `results`, which answer the tasks with the indices
    /// `tasks`.
    pub(super) async fn explain(
        &self,
        tasks: &[usize],
        results: &mut [TaskResult],
    ) -> Result<(), ClassifyError> {
        let mut ranges = sentences(&self.document.text);
        ranges.truncate(self.classifier.max_evidence_sentences());
        let mut pending: Vec<(Range<usize>, Windows)> = Vec::new();
        let mut pending_tokens = 0;
        for range in ranges {
            let rest = self.without(&range);
            match self.classifier.read(rest, self.options.long_text).await {
                Ok(windows) => {
                    pending_tokens += windows.sequences.iter().map(Vec::len).sum::<usize>();
                    pending.push((range, windows));
                }
                // Nothing is left to compare with: the sentence is the whole text.
                Err(ClassifyError::Empty) => {}
                Err(error) => return Err(error),
            }
            if pending_tokens >= JOB_TOKENS {
                self.weigh(std::mem::take(&mut pending), tasks, results).await?;
                pending_tokens = 0;
            }
        }
        if !pending.is_empty() {
            self.weigh(pending, tasks, results).await?;
        }
        for result in results {
            result.evidence.sort_by(|a, b| b.weight.total_cmp(&a.weight));
            result.evidence.truncate(self.options.evidence);
        }
        Ok(())
    }

    /// The document without the bytes `range` of its text.
    fn without(&self, range: &Range<usize>) -> Document {
        let text = &self.document.text;
        let before = text.get(..range.start).unwrap_or_default();
        let after = text.get(range.end..).unwrap_or_default();
        Document { text: [before, after].concat(), ..self.document.clone() }
    }

    /// Adds to `results` the sentences of `pending` without which a score falls.
    async fn weigh(
        &self,
        pending: Vec<(Range<usize>, Windows)>,
        tasks: &[usize],
        results: &mut [TaskResult],
    ) -> Result<(), ClassifyError> {
        let (ranges, windows): (Vec<_>, Vec<_>) = pending.into_iter().unzip();
        let logits = self.classifier.logits(windows, self.options.lane, self.deadline).await?;
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
        Ok(())
    }

    /// The Unicode scalars of the bytes `range` of the document's text.
    fn scalars(&self, range: &Range<usize>) -> (usize, usize) {
        let count = |part: Option<&str>| part.map_or(0, |part| part.chars().count());
        let start = count(self.document.text.get(..range.start));
        (start, start + count(self.document.text.get(range.clone())))
    }
}
