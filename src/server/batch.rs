//! `ClassifyBatch`: many documents in one call, each with an outcome of its own.

use std::collections::VecDeque;
use std::time::Duration;
use std::vec;

use super::convert;
use super::proto;
use super::status::CallError;
use super::telemetry::CallObserver;
use super::work::{RunningItem, Work};
use crate::engine::Lane;
use crate::pipeline::{Classification, Document, Timing};

/// Documents up to which a batch is interactive unless it says otherwise; the API promises it.
const MAX_INTERACTIVE_DOCUMENTS: usize = 8;

/// The id and the answer of a document.
pub(crate) type Outcome = (String, Result<Classification, CallError>);

/// The documents of a call, of which a bounded number runs side by side. Dropping it cancels them.
pub(crate) struct InOrder {
    work: Work,
    waiting: vec::IntoIter<Document>,
    running: VecDeque<RunningItem>,
    in_flight: usize,
}

impl InOrder {
    /// `documents`, to be run at most `in_flight` at a time.
    pub(crate) fn new(work: Work, documents: Vec<Document>, in_flight: usize) -> Self {
        let running = VecDeque::with_capacity(in_flight.min(documents.len()));
        Self { work, waiting: documents.into_iter(), running, in_flight }
    }

    /// Waits for the next outcome, in the documents' order.
    pub(crate) async fn next(&mut self) -> Option<Outcome> {
        while self.running.len() < self.in_flight
            && let Some(document) = self.waiting.next()
        {
            self.running.push_back(self.work.clone().start(Ok(document), None));
        }
        let oldest = self.running.pop_front()?;
        Some(oldest.finish().await)
    }
}

/// The lane of a batch of `documents` that asks for none.
pub(crate) fn default_lane(documents: usize) -> Lane {
    if documents <= MAX_INTERACTIVE_DOCUMENTS { Lane::Interactive } else { Lane::Bulk }
}

/// Checks the number of documents in a batch. An empty one is refused: it is more likely a
/// mistake of the caller's than a question.
///
/// # Errors
/// There are none, or more than `limit`.
pub(crate) fn check_size(documents: usize, limit: usize) -> Result<(), CallError> {
    if (1..=limit).contains(&documents) {
        Ok(())
    } else {
        Err(CallError::BatchSize { limit, actual: documents })
    }
}

/// Classifies the documents, at most `in_flight` at a time. The outcomes are in their order.
///
/// # Errors
/// Every document was refused for the same reason that is worth trying again: then the call as a
/// whole is.
pub(crate) async fn classify(
    work: Work,
    documents: Vec<Document>,
    in_flight: usize,
) -> Result<proto::ClassifyBatchResponse, CallError> {
    let started = tokio::time::Instant::now();
    let observer = work.observer();
    let mut outcomes = Vec::with_capacity(documents.len());
    let mut running = InOrder::new(work, documents, in_flight);
    while let Some(outcome) = running.next().await {
        outcomes.push(outcome);
    }
    if let Some(error) = common_refusal(&outcomes) {
        return Err(error);
    }
    let timing = timing(&outcomes, started.elapsed());
    let results = outcomes.into_iter().map(|outcome| item(outcome, observer.as_ref()));
    Ok(proto::ClassifyBatchResponse {
        results: results.collect(),
        timing: Some(convert::timing(&timing)),
    })
}

/// What a batch or stream says of a document. Its error is counted as that of a document, since the
/// call goes on.
pub(crate) fn item((id, outcome): Outcome, observer: Option<&CallObserver>) -> proto::ItemResult {
    if let (Err(error), Some(observer)) = (&outcome, observer) {
        observer.document_failed(error);
    }
    convert::item_result(id, outcome)
}

/// The first error, if every document has one of its code and it is worth trying again.
fn common_refusal(outcomes: &[Outcome]) -> Option<CallError> {
    let (_, first) = outcomes.first()?;
    let first = first.as_ref().err().filter(|error| error.is_retriable())?;
    let same = |(_, outcome): &Outcome| {
        outcome.as_ref().is_err_and(|error| error.is_retriable() && error.code() == first.code())
    };
    outcomes.iter().all(same).then(|| first.clone())
}

/// Documents of a batch run side by side, so the longest of each stage is told, not the sum.
fn timing(outcomes: &[Outcome], total: Duration) -> Timing {
    let answers = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok());
    let start = Timing { total, ..Timing::default() };
    answers.map(|answer| &answer.timing).fold(start, |longest, timing| Timing {
        tokenize: longest.tokenize.max(timing.tokenize),
        queue: longest.queue.max(timing.queue),
        inference: longest.inference.max(timing.inference),
        batch_tokens: longest.batch_tokens.max(timing.batch_tokens),
        total,
    })
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::engine::EngineError;
    use crate::pipeline::{ClassifyError, Usage};

    fn failed(error: impl Into<CallError>) -> Outcome {
        (String::new(), Err(error.into()))
    }

    fn answered(timing: Timing) -> Outcome {
        let answer = Classification {
            id: String::new(),
            model: String::new(),
            tasks: Vec::new(),
            usage: Usage::default(),
            timing,
        };
        (String::new(), Ok(answer))
    }

    fn overloaded() -> Outcome {
        let retry_after = Duration::from_millis(5);
        failed(EngineError::Overloaded { queued_tokens: 1, limit: 1, retry_after })
    }

    fn draining() -> Outcome {
        failed(EngineError::Draining { retry_after: Duration::from_millis(5) })
    }

    #[test]
    fn a_batch_refused_as_a_whole_fails_as_a_whole() {
        let refusal = common_refusal(&[overloaded(), overloaded()]).unwrap();
        assert_eq!(refusal.code(), Code::ResourceExhausted);
        let refusal = common_refusal(&[draining()]).unwrap();
        assert_eq!(refusal.code(), Code::Unavailable);
    }

    #[test]
    fn a_batch_that_is_not_refused_as_a_whole_answers_each_document() {
        let bad = || failed(ClassifyError::Empty);
        assert_eq!(common_refusal(&[bad(), bad()]), None);
        assert_eq!(common_refusal(&[overloaded(), bad()]), None);
        assert_eq!(common_refusal(&[overloaded(), draining()]), None);
        assert_eq!(common_refusal(&[overloaded(), answered(Timing::default())]), None);
        assert_eq!(common_refusal(&[]), None);
    }

    #[test]
    fn the_longest_stage_is_told() {
        let (short, long) = (Duration::from_millis(1), Duration::from_millis(9));
        let one = Timing { tokenize: long, queue: short, batch_tokens: 70, ..Timing::default() };
        let two = Timing { tokenize: short, queue: long, batch_tokens: 30, ..Timing::default() };
        let total = Duration::from_millis(12);
        let expected =
            Timing { tokenize: long, queue: long, batch_tokens: 70, total, ..Timing::default() };
        assert_eq!(timing(&[answered(one), overloaded(), answered(two)], total), expected);
    }

    #[test]
    fn small_batches_are_interactive() {
        assert_eq!((default_lane(8), default_lane(9)), (Lane::Interactive, Lane::Bulk));
    }

    #[test]
    fn the_limit_belongs_to_the_sizes_allowed() {
        assert!(check_size(1, 2).is_ok() && check_size(2, 2).is_ok());
        assert_eq!(check_size(0, 2), Err(CallError::BatchSize { limit: 2, actual: 0 }));
        assert_eq!(check_size(3, 2), Err(CallError::BatchSize { limit: 2, actual: 3 }));
    }
}
