//! The third stage: groups classified, one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use super::{Group, Item, Sent, Work, no_answer};
use crate::archive::error::ArchiveError;
use crate::archive::output::Schema;
use crate::archive::row::{Reject, RejectReason};
use crate::engine::EngineError;
use crate::pipeline::{Classifier, ClassifyError, Options, Prepared, TaskResult};

/// Classifies groups, one at a time.
pub(in crate::archive) struct Scorer<'a> {
    pub(in crate::archive) classifier: &'a Classifier,
    pub(in crate::archive) runtime: &'a tokio::runtime::Handle,
    pub(in crate::archive) options: &'a Options,
    pub(in crate::archive) schema: &'a Schema,
    pub(in crate::archive) stop: &'a AtomicBool,
}

impl Scorer<'_> {
    pub(in crate::archive) fn run(
        &self,
        from: &Receiver<Sent<Group>>,
        to: &SyncSender<Sent<Group>>,
    ) {
        for group in from {
            let group = match group {
                Ok(Some(_)) if self.stop.load(Ordering::Relaxed) => Err(ArchiveError::Stopped),
                Ok(Some(group)) => self.score(group).map(Some),
                end => end,
            };
            let goes_on = matches!(group, Ok(Some(_)));
            if to.send(group).is_err() || !goes_on {
                return;
            }
        }
    }

    fn score(&self, mut group: Group) -> Result<Group, ArchiveError> {
        let texts = |item: &Item| match &item.work {
            Work::Text(_, Ok(prepared)) => Some(prepared.clone()),
            _ => None,
        };
        let documents: Vec<Prepared> = group.items.iter().filter_map(texts).collect();
        let mut answers = self.classify(documents)?.into_iter();
        for item in &mut group.items {
            if let Work::Text(key, prepared) = &mut item.work {
                let outcome = match prepared {
                    Err(reject) => Err(reject.clone()),
                    Ok(prepared) => {
                        let results = answers.next().unwrap_or_else(|| Err(no_answer("none")));
                        results
                            .map(|results| Arc::new(self.schema.answer(&results, prepared.usage())))
                    }
                };
                item.work = Work::Done(*key, outcome);
            }
        }
        Ok(group)
    }

    /// The answers of all, or, if these fail together, what each gives alone: a text that the encoder fails on, or that is
    /// longer than the queue, is no reason to end.
    fn classify(
        &self,
        documents: Vec<Prepared>,
    ) -> Result<Vec<Result<Vec<TaskResult>, Reject>>, ArchiveError> {
        if documents.is_empty() {
            return Ok(vec![]);
        }
        let run = |documents| {
            self.runtime.block_on(self.classifier.classify_together(documents, self.options))
        };
        match run(documents.clone()) {
            Ok(answers) => Ok(answers.into_iter().map(Ok).collect()),
            Err(ClassifyError::Engine(
                EngineError::Encode { .. } | EngineError::TooLarge { .. },
            )) => {
                let alone = |document| match run(vec![document]) {
                    Ok(mut answers) => Ok(answers.pop().ok_or_else(|| no_answer("none"))),
                    Err(ClassifyError::Engine(EngineError::Encode { message })) => {
                        Ok(Err(no_answer(&message)))
                    }
                    Err(ClassifyError::Engine(error @ EngineError::TooLarge { .. })) => {
                        Ok(Err(Reject::new(RejectReason::TooLong, error.to_string())))
                    }
                    Err(error) => Err(error.into()),
                };
                documents.into_iter().map(alone).collect()
            }
            Err(error) => Err(error.into()),
        }
    }
}
