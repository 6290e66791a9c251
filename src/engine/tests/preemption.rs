//! Urgent work that runs while a batch pauses for it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::advance;

use super::fake::*;
use super::panics::arm;
use crate::engine::{DrainReport, Engine, EngineConfig, EngineError, JobTiming, Output};

const MS: Duration = Duration::from_millis(1);

/// Batches of 40 tokens, and urgent ones of 10.
fn wide() -> EngineConfig {
    EngineConfig { max_batch_tokens: 40, max_queued_tokens: 1_000, ..EngineConfig::default() }
}

/// The tag of the jobs in a batch, and the layer it is in.
fn at(call: &Call) -> (u32, usize) {
    let mut tags = call.tags();
    tags.dedup();
    assert_eq!(tags.len(), 1, "{tags:?}");
    (tags[0], call.layer)
}

/// An engine in the first of the two layers of a bulk batch.
async fn in_a_bulk_batch() -> (Arc<Engine>, Calls, Begun<Result<Output, EngineError>>, Call) {
    let (engine, calls) = layered(2, wide());
    let slow = submit(&engine, bulk(9, &[10, 10])).await;
    let layer = calls.next().await;
    (engine, calls, slow, layer)
}

/// Lets `layers` of whatever runs go, and returns what they were.
async fn let_go(calls: &Calls, layers: usize) -> Vec<(u32, usize)> {
    let mut order = Vec::new();
    for _ in 0..layers {
        let call = calls.next().await;
        order.push(at(&call));
        call.go();
    }
    order
}

#[tokio::test]
async fn an_interactive_job_runs_between_the_layers_of_a_bulk_batch() {
    let (engine, calls) = layered(3, wide());
    let slow = submit(&engine, bulk(9, &[10; 4])).await;
    let layer = calls.next().await;
    assert_eq!(at(&layer), (9, 0));
    let quick = submit(&engine, job(1, &[5])).await;
    layer.go();
    assert_eq!(let_go(&calls, 3).await, [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(quick.await.unwrap().rows, rows(&job(1, &[5])));
    let layer = calls.next().await;
    assert_eq!(at(&layer), (9, 1), "answered before the bulk batch has gone on");
    let stats = engine.stats();
    assert_eq!((stats.preemptions, stats.running_batches, stats.running_tokens), (1, 1, 40));
    layer.go();
    assert_eq!(let_go(&calls, 1).await, [(9, 2)]);
    assert_eq!(slow.await.unwrap().rows, rows(&bulk(9, &[10; 4])));
    assert_eq!(engine.stats().batches, 2);
}

#[tokio::test]
async fn a_call_of_one_client_runs_between_the_layers_of_the_flood_of_another() {
    let (engine, calls) = layered(2, wide());
    let flood = submit(&engine, of("flood", job(9, &[10; 8]))).await;
    let layer = calls.next().await;
    let own = submit(&engine, of("flood", job(8, &[1]))).await;
    let other = submit(&engine, of("other", job(1, &[5]))).await;
    layer.go();
    let expected = [(1, 0), (1, 1), (9, 1), (9, 0), (9, 1), (8, 0), (8, 1)];
    assert_eq!(let_go(&calls, 7).await, expected);
    for open in [flood, own, other] {
        open.await.unwrap();
    }
}

#[tokio::test]
async fn a_call_does_not_share_the_batch_of_a_flood_even_if_the_encoder_cannot_pause() {
    let (engine, calls) = gated(wide());
    let blocker = submit(&engine, job(7, &[1])).await;
    let held = calls.next().await;
    let flood = submit(&engine, of("flood", job(9, &[10; 4]))).await;
    let call = submit(&engine, of("other", job(1, &[5]))).await;
    held.go();
    assert_eq!(let_go(&calls, 3).await, [(1, 0), (9, 0), (9, 0)]);
    for open in [blocker, flood, call] {
        open.await.unwrap();
    }
}

#[tokio::test]
async fn urgent_work_is_not_interrupted_and_does_not_go_on_for_ever() {
    let (engine, calls, slow, layer) = in_a_bulk_batch().await;
    let mut open = vec![submit(&engine, of("1", job(1, &[8]))).await];
    layer.go();
    let mut order = Vec::new();
    for tag in 2..7 {
        // There is always urgent work.
        let call = calls.next().await;
        order.push(at(&call));
        open.push(submit(&engine, of(&tag.to_string(), job(tag, &[8]))).await);
        call.go();
    }
    // 16 of the 20 tokens that may run within the bulk batch.
    assert_eq!(order, [(1, 0), (1, 1), (2, 0), (2, 1), (9, 1)]);
    slow.await.unwrap();
    drop(calls);
    for open in open {
        open.await.unwrap();
    }
}

#[tokio::test]
async fn a_panic_of_the_encoder_on_urgent_work_leaves_the_batch_it_interrupts_alone() {
    let (engine, calls, slow, layer) = in_a_bulk_batch().await;
    let bad = submit(&engine, job(PANICS, &[5])).await;
    layer.go();
    assert_eq!(let_go(&calls, 2).await, [(PANICS, 0), (PANICS, 1)]);
    assert_eq!(bad.await, Err(EngineError::WorkerPanicked));
    let good = submit(&engine, job(2, &[5])).await;
    assert_eq!(let_go(&calls, 3).await, [(9, 1), (2, 0), (2, 1)]);
    assert_eq!(slow.await.unwrap().rows, rows(&bulk(9, &[10, 10])));
    good.await.unwrap();
    assert_eq!((engine.stats().worker_restarts, engine.stats().preemptions), (1, 1));
}

#[tokio::test]
async fn urgent_work_that_fails_to_encode_fails_alone() {
    let (engine, calls, slow, layer) = in_a_bulk_batch().await;
    let [bad, good] =
        [submit(&engine, job(FAILS, &[3])).await, submit(&engine, job(2, &[3])).await];
    drop((layer, calls));
    assert!(matches!(bad.await, Err(EngineError::Encode { .. })));
    assert_eq!(good.await.unwrap().rows, rows(&job(2, &[3])));
    assert_eq!(slow.await.unwrap().rows, rows(&bulk(9, &[10, 10])));
}

#[tokio::test]
async fn a_panic_of_the_queue_in_a_pause_answers_every_job_and_the_engine_goes_on() {
    let (engine, calls, slow, layer) = in_a_bulk_batch().await;
    let mut armed = pin!(engine.submit(job(1, &[5])));
    arm(armed.as_mut());
    let waiting = submit(&engine, bulk(8, &[10])).await;
    layer.go();
    assert_eq!(let_go(&calls, 2).await, [(1, 0), (1, 1)]);
    for open in [slow, waiting] {
        assert_eq!(open.await, Err(EngineError::WorkerPanicked));
    }
    assert_eq!(armed.await.unwrap().rows, rows(&job(1, &[5])), "it was given before the panic");
    let next = submit(&engine, job(2, &[5])).await;
    drop(calls);
    assert_eq!(next.await.unwrap().rows, rows(&job(2, &[5])));
    assert_eq!(engine.stats().worker_restarts, 1);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_urgent_work_counts_once() {
    let _clock = freeze();
    let (engine, calls, slow, layer) = in_a_bulk_batch().await;
    let quick = submit(&engine, job(1, &[5])).await;
    advance(100 * MS).await;
    layer.go();
    for _ in 0..2 {
        let call = calls.next().await;
        advance(25 * MS).await;
        call.go();
    }
    let timing = JobTiming { queue: 100 * MS, inference: 50 * MS, batch_tokens: 5 };
    assert_eq!(quick.await.unwrap().timing, timing);
    let layer = calls.next().await;
    advance(100 * MS).await;
    layer.go();
    let timing = JobTiming { queue: 50 * MS, inference: 200 * MS, batch_tokens: 20 };
    assert_eq!(slow.await.unwrap().timing, timing);
    let speed = engine.stats().tokens_per_second;
    assert!((speed - 100.0).abs() < 0.01, "{speed}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_urgent_work_and_for_the_batch_it_interrupts() {
    let _clock = freeze();
    let (engine, calls, slow, layer) = in_a_bulk_batch().await;
    let quick = submit(&engine, job(1, &[5])).await;
    let report = drain(&engine, 10 * MS).await;
    layer.go();
    assert_eq!(let_go(&calls, 3).await, [(1, 0), (1, 1), (9, 1)]);
    quick.await.unwrap();
    slow.await.unwrap();
    let expected = DrainReport { finished: 2, abandoned: 0, refused: 0 };
    assert_eq!(report.await.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn at_the_timeout_of_a_drain_a_batch_and_what_interrupts_it_are_given_up() {
    let _clock = freeze();
    let (engine, calls, slow, layer) = in_a_bulk_batch().await;
    let quick = submit(&engine, job(1, &[5])).await;
    let report = drain(&engine, 10 * MS).await;
    layer.go();
    let held = calls.next().await;
    advance(10 * MS).await;
    let expected = DrainReport { finished: 0, abandoned: 2, refused: 0 };
    assert_eq!(report.await.unwrap(), expected);
    for open in [slow, quick] {
        assert!(matches!(open.await, Err(EngineError::Draining { .. })));
    }
    held.go();
}
