//! Callers who stop waiting, at a deadline or by leaving.

use std::time::Duration;

use tokio::time::{Instant, advance};

use super::fake::*;
use crate::engine::{Admission, EngineError, EngineStats, Job};

const MS: Duration = Duration::from_millis(1);

fn within(time: Duration, job: Job) -> Job {
    Job { deadline: Some(Instant::now() + time), ..job }
}

fn waits(job: Job) -> Job {
    Job { admission: Admission::Wait, ..job }
}

/// The counters that must be zero once nothing is open.
fn open_work(stats: EngineStats) -> [usize; 6] {
    let EngineStats { open_jobs, waiting_jobs, queued_tokens, queued_sequences, .. } = stats;
    let (tokens, batches) = (stats.running_tokens, stats.running_batches);
    [open_jobs, waiting_jobs, queued_tokens, queued_sequences, tokens, batches]
}

#[tokio::test(start_paused = true)]
async fn a_job_past_its_deadline_is_not_queued() {
    let (engine, calls) = gated(small());
    let result = engine.submit(within(Duration::ZERO, job(1, &[1]))).await;
    assert_eq!(result, Err(EngineError::DeadlineExceeded));
    assert_eq!(open_work(engine.stats()), [0; 6]);
    let next = submit(&engine, job(2, &[1])).await;
    assert_eq!(calls.next().await.tags(), [2]);
    next.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_that_expires_while_queued_is_answered_then_and_never_runs() {
    let _clock = freeze();
    let (engine, calls) = gated(small());
    let running = submit(&engine, job(1, &[10])).await;
    let held = calls.next().await;
    let expires = submit(&engine, within(20 * MS, job(2, &[10]))).await;
    let stays = submit(&engine, within(60 * MS, job(3, &[10]))).await;
    assert_eq!(engine.stats().queued_tokens, 20);
    advance(20 * MS).await;
    assert_eq!(expires.await, Err(EngineError::DeadlineExceeded));
    assert_eq!(engine.stats().queued_tokens, 10, "freed while the worker is still busy");
    held.go();
    assert_eq!(calls.next().await.tags(), [3]);
    running.await.unwrap();
    stays.await.unwrap();
    assert_eq!(open_work(engine.stats()), [0; 6]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_job_does_not_run_even_if_its_caller_has_not_noticed() {
    let _clock = freeze();
    let (engine, calls) = gated(small());
    let running = submit(&engine, job(1, &[10])).await;
    let held = calls.next().await;
    let expires = submit(&engine, within(20 * MS, job(2, &[10]))).await;
    let stays = submit(&engine, job(3, &[10])).await;
    advance(20 * MS).await;
    held.go();
    assert_eq!(calls.next().await.tags(), [3]);
    assert_eq!(expires.await, Err(EngineError::DeadlineExceeded));
    running.await.unwrap();
    stays.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_job_that_expires_while_running_is_answered_then_and_its_rows_are_dropped() {
    let _clock = freeze();
    let (engine, calls) = gated(small());
    let expires = submit(&engine, within(20 * MS, job(1, &[4, 10]))).await;
    let neighbour = submit(&engine, within(60 * MS, job(2, &[5]))).await;
    let held = calls.next().await;
    advance(20 * MS).await;
    assert_eq!(expires.await, Err(EngineError::DeadlineExceeded));
    let stats = engine.stats();
    assert_eq!((stats.open_jobs, stats.queued_tokens, stats.running_tokens), (1, 5, 4));
    held.go();
    assert_eq!(calls.next().await.tags(), [2], "what was left of the expired job does not run");
    neighbour.await.unwrap();
    assert_eq!(open_work(engine.stats()), [0; 6]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_expires_while_it_waits_for_room_is_answered_then() {
    let _clock = freeze();
    let (engine, calls) = gated(small());
    let _running = submit(&engine, job(1, &[10])).await;
    let _held = calls.next().await;
    let _full = submit(&engine, job(2, &[50, 50])).await;
    let expires = submit(&engine, waits(within(20 * MS, job(3, &[10])))).await;
    let _next = submit(&engine, waits(job(4, &[10]))).await;
    advance(20 * MS).await;
    assert_eq!(expires.await, Err(EngineError::DeadlineExceeded));
    assert_eq!(engine.stats().waiting_jobs, 1);
}

#[tokio::test]
async fn a_caller_that_leaves_while_queued_frees_its_tokens_at_once() {
    let (engine, calls) = gated(small());
    let running = submit(&engine, job(1, &[10])).await;
    let held = calls.next().await;
    let leaves = submit(&engine, job(2, &[50, 50])).await;
    let waiting = submit(&engine, waits(job(3, &[10]))).await;
    assert_eq!(engine.stats().waiting_jobs, 1);
    drop(leaves);
    let stats = engine.stats();
    assert_eq!((stats.queued_tokens, stats.queued_sequences, stats.waiting_jobs), (10, 1, 0));
    held.go();
    assert_eq!(calls.next().await.tags(), [3]);
    running.await.unwrap();
    waiting.await.unwrap();
    assert_eq!(open_work(engine.stats()), [0; 6]);
}

#[tokio::test]
async fn a_caller_that_leaves_while_it_waits_for_room_lets_the_next_in() {
    let (engine, calls) = gated(small());
    let _running = submit(&engine, job(1, &[10])).await;
    let _held = calls.next().await;
    let _queued = submit(&engine, job(2, &[50])).await;
    let leaves = submit(&engine, waits(job(3, &[60]))).await;
    let _next = submit(&engine, waits(job(4, &[50]))).await;
    assert_eq!(engine.stats().waiting_jobs, 2);
    drop(leaves);
    assert_eq!((engine.stats().waiting_jobs, engine.stats().queued_tokens), (0, 100));
}

#[tokio::test]
async fn a_caller_that_leaves_while_running_does_not_disturb_its_neighbours() {
    let (engine, calls) = gated(small());
    let first = submit(&engine, job(1, &[1])).await;
    let held = calls.next().await;
    let leaves = submit(&engine, job(2, &[4, 10])).await;
    let stays = submit(&engine, of("other", job(3, &[4]))).await;
    held.go();
    let held = calls.next().await;
    assert_eq!(held.tags(), [3, 2]);
    drop(leaves);
    assert_eq!(engine.stats().queued_tokens, 0);
    held.go();
    assert_eq!(stays.await.unwrap().rows, rows(&job(3, &[4])));
    first.await.unwrap();
    assert_eq!(open_work(engine.stats()), [0; 6]);
    assert!(calls.try_next().is_none());
}
