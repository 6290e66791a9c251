//! Ending with work in every state.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::advance;

use super::fake::*;
use crate::engine::{Admission, DrainReport, Engine, EngineConfig, EngineError, Job};

const SECOND: Duration = Duration::from_secs(1);

fn waits(job: Job) -> Job {
    Job { admission: Admission::Wait, ..job }
}

fn is_draining<T>(result: &Result<T, EngineError>) -> bool {
    matches!(result, Err(EngineError::Draining { retry_after }) if !retry_after.is_zero())
}

#[tokio::test(start_paused = true)]
async fn an_idle_engine_drains_at_once() {
    let (engine, _calls) = gated(small());
    assert_eq!(engine.drain(Duration::ZERO).await, DrainReport::default());
    assert!(is_draining(&engine.submit(job(1, &[1])).await));
    assert_eq!(engine.drain(Duration::MAX).await, DrainReport::default());
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_what_runs_and_is_queued_and_refuses_the_rest() {
    let _clock = freeze();
    let (engine, calls) = gated(small());
    let running = submit(&engine, job(1, &[10])).await;
    let held = calls.next().await;
    let queued = [submit(&engine, job(2, &[50])).await, submit(&engine, bulk(3, &[50])).await];
    let waiting =
        [submit(&engine, waits(job(4, &[10]))).await, submit(&engine, waits(bulk(5, &[30]))).await];
    let report = drain(&engine, SECOND).await;
    for open in waiting {
        assert!(is_draining(&open.await), "refused while the worker is still busy");
    }
    assert!(!report.is_finished());
    held.go();
    calls.next().await.go();
    calls.next().await.go();
    assert_eq!(running.await.unwrap().rows, rows(&job(1, &[10])));
    for (open, tag) in queued.into_iter().zip([2, 3]) {
        assert_eq!(open.await.unwrap().rows, rows(&job(tag, &[50])));
    }
    let expected = DrainReport { finished: 3, abandoned: 0, refused: 2 };
    assert_eq!(report.await.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn at_the_timeout_every_job_that_is_left_is_answered() {
    let _clock = freeze();
    let (engine, calls) = gated(small());
    let done = submit(&engine, job(1, &[10])).await;
    let running = submit(&engine, job(2, &[10])).await;
    let queued = submit(&engine, job(3, &[50])).await;
    let held = calls.next().await;
    let report = drain(&engine, SECOND).await;
    held.go();
    done.await.unwrap();
    let held = calls.next().await;
    advance(SECOND).await;
    let expected = DrainReport { finished: 1, abandoned: 2, refused: 0 };
    assert_eq!(report.await.unwrap(), expected);
    assert!(is_draining(&running.await));
    assert!(is_draining(&queued.await));
    assert_eq!(engine.stats().queued_tokens, 0);
    held.go();
    assert_eq!(engine.drain(SECOND).await, expected, "the late batch changes nothing");
}

#[tokio::test(start_paused = true)]
async fn drains_at_the_same_time_end_together_at_the_first_timeout() {
    let _clock = freeze();
    let (engine, calls) = gated(small());
    let running = submit(&engine, job(1, &[10])).await;
    let _held = calls.next().await;
    let long = drain(&engine, 100 * SECOND).await;
    let short = drain(&engine, SECOND).await;
    advance(SECOND).await;
    let expected = DrainReport { finished: 0, abandoned: 1, refused: 0 };
    assert_eq!(short.await.unwrap(), expected);
    assert_eq!(long.await.unwrap(), expected);
    assert!(is_draining(&running.await));
}

#[tokio::test(start_paused = true)]
async fn callers_that_leave_or_expire_do_not_hold_a_drain_up() {
    let _clock = freeze();
    let (engine, calls) = gated(small());
    let leaves = submit(&engine, job(1, &[10])).await;
    let _held = calls.next().await;
    let deadline = Some(tokio::time::Instant::now() + SECOND);
    let expires = submit(&engine, Job { deadline, ..job(2, &[10]) }).await;
    let report = drain(&engine, 100 * SECOND).await;
    drop(leaves);
    advance(SECOND).await;
    assert_eq!(expires.await, Err(EngineError::DeadlineExceeded));
    let expected = DrainReport { finished: 2, abandoned: 0, refused: 0 };
    assert_eq!(report.await.unwrap(), expected);
}

#[tokio::test]
async fn dropping_an_engine_does_not_wait_for_a_batch_that_runs() {
    let (engine, calls) = gated(small());
    let open = submit(&engine, job(1, &[10])).await;
    let held = calls.next().await;
    drop(open);
    drop(Arc::into_inner(engine).expect("the last owner"));
    held.go();
}

#[tokio::test]
async fn dropping_an_idle_engine_ends_its_threads() {
    let encoder = Arc::new(Echo);
    for workers in [1, 4] {
        let config = EngineConfig { workers, ..small() };
        let engine = Engine::start(encoder.clone(), config).unwrap();
        engine.submit(job(1, &[10, 10, 10, 10])).await.unwrap();
        drop(engine);
        assert_eq!(Arc::strong_count(&encoder), 1, "a thread still holds the encoder");
    }
}
