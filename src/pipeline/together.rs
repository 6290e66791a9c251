//! Documents that run together, in one job: for whoever has many and cares that
//! the same ones share a batch each time.

use super::classifier::Classifier;
use super::decision;
use super::reading::Windows;
use super::types::{ClassifyError, Document, LongText, Options, Submission, TaskResult, Usage};
use crate::engine::{Admission, Lane};

/// A document cut into the windows that the model will read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared(Windows);

impl Prepared {
    /// What will be read.
    pub fn usage(&self) -> Usage {
        Usage {
            tokens: self.0.tokens(),
            windows: self.0.sequences.len(),
            truncated: self.0.truncated,
            cached: false,
        }
    }
}

impl Classifier {
    /// Checks, normalises and tokenises `document` on the calling thread.
    ///
    /// # Errors
    /// A fault of the document.
    pub fn prepare(
        &self,
        document: &Document,
        long_text: LongText,
    ) -> Result<Prepared, ClassifyError> {
        self.read_here(document, long_text).map(Prepared)
    }

    /// The answers for `documents`, which run as one job in the bulk lane. While the
    /// model has no other work, the batches are a function of the documents alone.
    /// The lane, evidence and long text of `options` do not matter here.
    ///
    /// # Errors
    /// A fault of the options, or the engine's, for all of them.
    pub async fn classify_together(
        &self,
        documents: Vec<Prepared>,
        options: &Options,
    ) -> Result<Vec<Vec<TaskResult>>, ClassifyError> {
        let tasks = self.select(options)?;
        let windows = documents.into_iter().map(|prepared| prepared.0).collect();
        let submission = Submission { admission: Admission::Wait, ..Submission::default() };
        let (logits, _) = self.run(windows, Lane::Bulk, &submission).await?;
        let answer = |logits: &Vec<decision::TaskLogits>| {
            let chosen =
                tasks.iter().filter_map(|&task| Some((self.tasks().get(task)?, logits.get(task)?)));
            chosen.map(|(task, logits)| decision::decide(task, logits, options)).collect()
        };
        Ok(logits.iter().map(answer).collect())
    }
}
