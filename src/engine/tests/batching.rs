//! What runs when, and what comes back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::advance;

use super::fake::*;
use crate::engine::{Admission, Engine, EngineConfig, EngineError, Job, JobTiming};

const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn a_free_worker_takes_what_is_there_at_once() {
    let (engine, calls) = gated(small());
    let first = submit(&engine, job(1, &[2])).await;
    let call = calls.next().await;
    assert_eq!(call.tags(), [1], "it does not wait for more");
    let mut later = Vec::new();
    for tag in [2, 3, 4] {
        later.push(submit(&engine, job(tag, &[2])).await);
    }
    call.go();
    assert_eq!(calls.next().await.tags(), [2, 3, 4], "what came meanwhile runs together");
    first.await.unwrap();
    for open in later {
        open.await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_equals_its_single_runs() {
    let jobs: Vec<Job> = [vec![vec![5, 6, 7]], vec![vec![8]], vec![vec![7, 6, 5], vec![9, 9]]]
        .into_iter()
        .map(|sequences| Job { sequences, ..Job::default() })
        .collect();
    let (engine, calls) = gated(small());
    let blocker = submit(&engine, job(1, &[1])).await;
    let held = calls.next().await;
    let mut open = Vec::new();
    for job in &jobs {
        open.push(submit(&engine, job.clone()).await);
    }
    held.go();
    assert_eq!(calls.next().await.sequences.len(), 4);
    blocker.await.unwrap();
    for (job, open) in jobs.iter().zip(open) {
        let together = open.await.unwrap();
        assert_eq!((&together.rows, together.timing.batch_tokens), (&rows(job), 9));
        let alone = submit(&engine, job.clone()).await;
        calls.next().await.go();
        assert_eq!(alone.await.unwrap().rows, together.rows);
    }
}

#[tokio::test]
async fn interactive_work_goes_first_and_bulk_in_its_turn() {
    let (engine, calls) = gated(EngineConfig { max_interactive_run: 2, ..small() });
    let mut open = vec![submit(&engine, job(1, &[10])).await];
    let mut call = calls.next().await;
    for tag in [8, 9] {
        open.push(submit(&engine, bulk(tag, &[10])).await);
    }
    for tag in [2, 3, 4, 5] {
        open.push(submit(&engine, job(tag, &[10])).await);
    }
    let mut order = Vec::new();
    for _ in 0..6 {
        call.go();
        call = calls.next().await;
        order.extend(call.tags());
    }
    call.go();
    assert_eq!(order, [2, 3, 8, 4, 5, 9]);
    for open in open {
        open.await.unwrap();
    }
}

#[tokio::test]
async fn the_windows_of_a_job_run_on_all_workers_and_come_back_in_order() {
    let (engine, calls) = gated(EngineConfig { workers: 3, ..small() });
    let long = Job { sequences: (1..=3).map(|tag| vec![tag; 8]).collect(), ..Job::default() };
    // Again and again, since the threads look for work by themselves when they start,
    // and from then on only when they are woken.
    for round in 1..=50 {
        let open = submit(&engine, long.clone()).await;
        let mut held = [calls.next().await, calls.next().await, calls.next().await];
        assert_eq!(engine.stats().running_tokens, 24);
        held.sort_by_key(Call::tags);
        for call in held.into_iter().rev() {
            call.go();
        }
        assert_eq!(open.await.unwrap().rows, rows(&long));
        let stats = engine.stats();
        let finished = (stats.batches, stats.finished_sequences, stats.finished_tokens);
        assert_eq!(finished, (3 * round, 3 * round, 24 * round));
    }
}

#[tokio::test(start_paused = true)]
async fn timing_says_how_long_a_job_was_queued_and_ran() {
    let _clock = freeze();
    let (engine, calls) = gated(small());
    let blocker = submit(&engine, job(1, &[1])).await;
    let held = calls.next().await;
    let open = submit(&engine, job(2, &[4, 8])).await;
    advance(5 * MS).await;
    held.go();
    let first = calls.next().await;
    advance(7 * MS).await;
    first.go();
    let second = calls.next().await;
    advance(11 * MS).await;
    second.go();
    let timing = JobTiming { queue: 5 * MS, inference: 18 * MS, batch_tokens: 4 };
    assert_eq!(open.await.unwrap().timing, timing);
    let timing = JobTiming { queue: Duration::ZERO, inference: 5 * MS, batch_tokens: 1 };
    assert_eq!(blocker.await.unwrap().timing, timing);
}

#[tokio::test(start_paused = true)]
async fn a_lingering_worker_takes_a_full_batch_at_once_and_a_small_one_when_its_time_is_up() {
    let _clock = freeze();
    let (engine, calls) = gated(EngineConfig { linger: 10 * MS, ..small() });
    let first = submit(&engine, job(1, &[5])).await;
    let second = submit(&engine, job(2, &[5])).await;
    assert_eq!(calls.next().await.tags(), [1, 2]);
    first.await.unwrap();
    second.await.unwrap();

    let third = submit(&engine, job(3, &[1])).await;
    advance(9 * MS).await;
    let fourth = submit(&engine, job(4, &[1])).await;
    advance(MS).await;
    assert_eq!(calls.next().await.tags(), [3, 4]);
    assert_eq!(third.await.unwrap().timing.queue, 10 * MS);
    fourth.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_with_a_time_measured_on_its_batches() {
    let _clock = freeze();
    let (engine, calls) = gated(small());
    let measured = submit(&engine, job(1, &[10])).await;
    let call = calls.next().await;
    advance(Duration::from_secs(2)).await;
    call.go(); // 5 tokens a second
    measured.await.unwrap();
    assert_eq!(engine.stats().tokens_per_second, 5.0);

    let _running = submit(&engine, job(2, &[10])).await;
    let _held = calls.next().await;
    let _full = submit(&engine, job(3, &[50, 50])).await;
    let retry_after = Duration::from_secs(4);
    assert_eq!(
        engine.submit(job(4, &[20])).await,
        Err(EngineError::Overloaded { queued_tokens: 100, limit: 100, retry_after })
    );
    assert_eq!(
        engine.submit(job(5, &[60, 60])).await,
        Err(EngineError::TooLarge { tokens: 120, limit: 100 })
    );
}

#[tokio::test]
async fn a_job_that_waits_for_room_runs_when_there_is_some() {
    let (engine, calls) = gated(small());
    let mut open = vec![submit(&engine, job(1, &[10])).await];
    let mut call = calls.next().await;
    open.push(submit(&engine, job(2, &[50, 50])).await);
    for tag in [3, 4] {
        let waits = Job { admission: Admission::Wait, ..job(tag, &[60]) };
        open.push(submit(&engine, waits).await);
    }
    assert_eq!(engine.stats().waiting_jobs, 2);
    let mut order = Vec::new();
    for _ in 0..4 {
        call.go();
        call = calls.next().await;
        order.extend(call.tags());
    }
    call.go();
    assert_eq!(order, [2, 2, 3, 4]);
    for open in open {
        open.await.unwrap();
    }
    assert_eq!(engine.stats().waiting_jobs, 0);
}

#[tokio::test]
async fn an_invalid_job_is_refused_and_says_why() {
    let engine = Engine::start(Arc::new(Echo), small()).unwrap();
    let cases = [
        (vec![], "no sequences"),
        (vec![vec![1], vec![]], "sequence 1 has 0 tokens"),
        (vec![vec![1; MAX_SEQUENCE + 1]], "sequence 0 has 65 tokens; the encoder takes 1 to 64"),
    ];
    for (sequences, expected) in cases {
        let error = engine.submit(Job { sequences, ..Job::default() }).await.unwrap_err();
        assert!(matches!(error, EngineError::InvalidJob { .. }));
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn an_engine_can_be_started_outside_a_runtime() {
    let engine = Engine::start(Arc::new(Echo), small()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let output = runtime.block_on(engine.submit(job(1, &[3, 4]))).unwrap();
    assert_eq!(output.rows, rows(&job(1, &[3, 4])));
}
