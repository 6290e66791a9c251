//! Encoders that fail, and whom it concerns.

use std::sync::Arc;

use super::fake::*;
use crate::engine::{Engine, EngineConfig, EngineError, Job, Output, StartError};
use crate::nn::{EncodeError, Encoder, PackedTokens, Rows};

/// Runs `jobs` in one batch and returns their results and how often it was encoded.
async fn together(jobs: &[Job]) -> (Arc<Engine>, Vec<Result<Output, EngineError>>, usize) {
    let (engine, calls) = gated(EngineConfig { max_batch_tokens: 100, ..small() });
    let blocker = submit(&engine, job(1, &[1])).await;
    let held = calls.next().await;
    let mut open = Vec::new();
    for job in jobs {
        open.push(submit(&engine, job.clone()).await);
    }
    held.go();
    blocker.await.unwrap();
    // Lets every call go until all are answered.
    let answers = tokio::spawn(async move {
        let mut results = Vec::new();
        for open in open {
            results.push(open.await);
        }
        results
    });
    let first = calls.next().await;
    assert_eq!(first.sequences.len(), jobs.iter().map(|job| job.sequences.len()).sum::<usize>());
    first.go();
    let mut encoded = 1;
    while !answers.is_finished() {
        match calls.try_next() {
            Some(call) => {
                call.go();
                encoded += 1;
            }
            None => tokio::task::yield_now().await,
        }
    }
    (engine, answers.await.unwrap(), encoded)
}

fn assert_answered(job: &Job, result: &Result<Output, EngineError>) {
    assert_eq!(result.as_ref().map(|output| &output.rows), Ok(&rows(job)));
}

fn assert_encode(result: &Result<Output, EngineError>, part: &str) {
    let Err(error @ EngineError::Encode { .. }) = result else {
        panic!("expected an Encode error, not {result:?}")
    };
    assert!(error.to_string().contains(part), "{error}");
}

#[tokio::test]
async fn a_job_that_fails_to_encode_fails_alone() {
    let jobs = [job(2, &[3, 4]), job(FAILS, &[2]), job(3, &[5])];
    let (engine, results, encoded) = together(&jobs).await;
    assert_answered(&jobs[0], &results[0]);
    assert_encode(&results[1], "token id 1001 is not in the vocabulary");
    assert_answered(&jobs[2], &results[2]);
    assert_eq!(encoded, 4, "once together and once each");
    let stats = engine.stats();
    assert_eq!((stats.batches, stats.worker_restarts, stats.running_tokens), (2, 0, 0));
    assert_eq!(stats.finished_sequences, 1 + 3);
}

#[tokio::test]
async fn a_job_that_fails_by_itself_is_not_tried_again() {
    let (_, results, encoded) = together(&[job(FAILS, &[2, 2])]).await;
    assert_encode(&results[0], "1001");
    assert_eq!(encoded, 1);
}

#[tokio::test]
async fn a_row_of_nan_fails_its_job_alone() {
    let jobs = [job(2, &[3]), job(NAN, &[2]), job(3, &[5])];
    let (_, results, encoded) = together(&jobs).await;
    assert_answered(&jobs[0], &results[0]);
    assert_encode(&results[1], "value 1 of row 0 is not finite");
    assert_answered(&jobs[2], &results[2]);
    assert_eq!(encoded, 1);
}

#[tokio::test]
async fn a_missing_row_fails_its_job_alone() {
    let jobs = [job(2, &[3]), job(NO_ROW, &[2]), job(3, &[5])];
    let (_, results, _) = together(&jobs).await;
    assert_answered(&jobs[0], &results[0]);
    assert_encode(&results[1], "it gave 0 rows of 3 values; expected 1 of 3");
    assert_answered(&jobs[2], &results[2]);
}

#[tokio::test]
async fn a_panic_fails_its_batch_and_the_engine_goes_on() {
    let jobs = [job(2, &[3]), job(PANICS, &[2])];
    let (engine, results, encoded) = together(&jobs).await;
    assert_eq!(results, [Err(EngineError::WorkerPanicked), Err(EngineError::WorkerPanicked)]);
    assert_eq!(encoded, 1);
    assert_eq!((engine.stats().worker_restarts, engine.stats().running_tokens), (1, 0));
}

#[tokio::test]
async fn every_worker_serves_again_after_any_number_of_panics() {
    let config = EngineConfig { workers: 2, ..small() };
    let engine = Engine::start(Arc::new(Echo), config).unwrap();
    for restarts in 1..=10 {
        let result = engine.submit(job(PANICS, &[2])).await;
        assert_eq!(result, Err(EngineError::WorkerPanicked));
        assert_eq!(engine.stats().worker_restarts, restarts);
        assert_answered(&job(2, &[3]), &engine.submit(job(2, &[3])).await);
    }
}

#[tokio::test]
async fn a_panic_in_one_batch_of_a_job_takes_the_rest_of_it_out() {
    let (engine, calls) = gated(small());
    let sequences = vec![vec![PANICS; 8], vec![2; 8], vec![3; 8]];
    let open = submit(&engine, Job { sequences, ..Job::default() }).await;
    let next = submit(&engine, job(4, &[8])).await;
    calls.next().await.go();
    assert_eq!(open.await, Err(EngineError::WorkerPanicked));
    assert_eq!(calls.next().await.tags(), [4]);
    next.await.unwrap();
}

/// Gives rows of another width than it says.
struct Liar(usize);

impl Encoder for Liar {
    fn width(&self) -> usize {
        self.0
    }

    fn max_sequence_tokens(&self) -> usize {
        MAX_SEQUENCE
    }

    fn encode(&self, batch: &PackedTokens, _: &mut dyn FnMut()) -> Result<Rows, EncodeError> {
        let width = self.0 + 1;
        Ok(Rows::new(vec![0.0; batch.sequences() * width], width).unwrap())
    }
}

#[tokio::test]
async fn rows_of_a_wrong_width_are_an_error() {
    let engine = Engine::start(Arc::new(Liar(2)), small()).unwrap();
    let result = engine.submit(job(1, &[3, 4])).await;
    assert_encode(&result, "it gave 2 rows of 3 values; expected 2 of 2");
}

#[test]
fn an_engine_that_cannot_work_does_not_start() {
    assert!(matches!(Engine::start(Arc::new(Liar(0)), small()), Err(StartError::NoWidth)));
    let config = EngineConfig { workers: 0, ..small() };
    let error = Engine::start(Arc::new(Echo), config).err().unwrap();
    assert_eq!(error.to_string(), "engine setting workers is 0; it must be 1 to 1024");
}
