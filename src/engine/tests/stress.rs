//! Many callers at once on several workers: each gets the one answer that is right
//! for it, and nothing is left behind.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::time::Instant;

use super::fake::*;
use crate::engine::{
    Admission, ClientId, Engine, EngineConfig, EngineError, EngineStats, Job, Lane, Output,
};

#[derive(Clone, Debug)]
struct Plan {
    job: Job,
    deadline: Option<Duration>,
    /// The caller leaves after it has let others run this often.
    leaves_after: Option<usize>,
}

fn plan(poison: bool) -> impl Strategy<Value = Plan> {
    let sequence = prop::collection::vec(1..900_u32, 1..12);
    let sequences = prop::collection::vec(sequence, 1..5);
    let poison = prop_oneof![
        8 => Just(None),
        u32::from(poison) => prop::sample::select(vec![FAILS, NAN, PANICS, NO_ROW]).prop_map(Some),
    ];
    let deadline = prop::option::weighted(0.2, (0..2_000_u64).prop_map(Duration::from_micros));
    let leaves_after = prop::option::weighted(0.2, 0..20_usize);
    let (bulk, wait) = (any::<bool>(), any::<bool>());
    (sequences, poison, bulk, wait, deadline, leaves_after).prop_map(
        |(mut sequences, poison, bulk, wait, deadline, leaves_after)| {
            sequences[0].extend(poison);
            let lane = if bulk { Lane::Bulk } else { Lane::Interactive };
            let admission = if wait { Admission::Wait } else { Admission::Reject };
            let client = ClientId::new(if wait ^ bulk { "a" } else { "b" });
            let job = Job { sequences, client, lane, admission, deadline: None };
            Plan { job, deadline, leaves_after }
        },
    )
}

/// What `call` gives, or `None` if its caller has left.
async fn until_left<T>(call: impl Future<Output = T>, leaves_after: Option<usize>) -> Option<T> {
    let leave = async {
        match leaves_after {
            None => std::future::pending().await,
            Some(times) => {
                for _ in 0..times {
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        result = call => Some(result),
        () = leave => None,
    }
}

fn check(plan: &Plan, result: &Result<Output, EngineError>, panics: bool, drains: bool) {
    let has = |token: &u32| plan.job.sequences[0].last() == Some(token);
    let poisoned = [FAILS, NAN, PANICS, NO_ROW].iter().any(has);
    let expected = match result {
        Ok(output) => !poisoned && output.rows == rows(&plan.job),
        Err(EngineError::Encode { .. }) => poisoned,
        Err(EngineError::WorkerPanicked) => panics,
        Err(EngineError::DeadlineExceeded) => plan.deadline.is_some(),
        Err(EngineError::Overloaded { retry_after, .. }) => {
            plan.job.admission == Admission::Reject && !retry_after.is_zero()
        }
        // The jobs of a client that wait are limited, too.
        Err(EngineError::ClientOverloaded { retry_after, .. }) => !retry_after.is_zero(),
        Err(EngineError::WouldExpire { .. }) => {
            plan.job.admission == Admission::Reject && plan.deadline.is_some()
        }
        Err(EngineError::Draining { .. }) => drains,
        Err(_) => false,
    };
    assert!(expected, "{plan:?} gave {result:?}");
}

async fn run(plans: Vec<Plan>, drains: bool) {
    let config = EngineConfig {
        max_batch_tokens: 24,
        max_queued_tokens: 80,
        max_queued_tokens_per_client: 60,
        workers: 3,
        ..EngineConfig::default()
    };
    let engine = Arc::new(Engine::start(Arc::new(Echo), config).unwrap());
    let panics = plans.iter().any(|plan| plan.job.sequences[0].contains(&PANICS));
    let (half, mut callers) = (plans.len() / 2, Vec::new());
    for (index, plan) in plans.into_iter().enumerate() {
        if drains && index == half {
            drain(&engine, Duration::from_secs(60)).await;
        }
        let engine = Arc::clone(&engine);
        callers.push(tokio::spawn(async move {
            let deadline = plan.deadline.map(|deadline| Instant::now() + deadline);
            let job = Job { deadline, ..plan.job.clone() };
            if let Some(result) = until_left(engine.submit(job), plan.leaves_after).await {
                check(&plan, &result, panics, drains);
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    // Every caller has its answer or has left, so there is nothing to abandon.
    assert_eq!(engine.drain(Duration::ZERO).await.abandoned, 0);
    // A batch whose callers have all left may still run.
    while engine.stats().running_batches > 0 {
        tokio::task::yield_now().await;
    }
    let stats = engine.stats();
    let zero = EngineStats {
        finished_sequences: stats.finished_sequences,
        finished_tokens: stats.finished_tokens,
        batches: stats.batches,
        preemptions: stats.preemptions,
        worker_restarts: stats.worker_restarts,
        tokens_per_second: stats.tokens_per_second,
        ..EngineStats::default()
    };
    assert_eq!(stats, zero);
}

fn run_on_threads(plans: Vec<Plan>, drains: bool) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(3).enable_time().build().unwrap();
    runtime.block_on(run(plans, drains));
}

fn cases(cases: u32) -> ProptestConfig {
    // The same plans in every run; how the threads interleave is up to the system.
    let rng_seed = RngSeed::Fixed(1);
    ProptestConfig { rng_seed, failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(cases(30))]

    #[test]
    fn every_caller_gets_its_one_answer(plans in prop::collection::vec(plan(false), 1..200)) {
        run_on_threads(plans, false);
    }

    #[test]
    fn every_caller_gets_its_one_answer_during_a_drain(
        plans in prop::collection::vec(plan(false), 1..200),
    ) {
        run_on_threads(plans, true);
    }

    #[test]
    fn every_caller_gets_its_one_answer_from_a_failing_encoder(
        plans in prop::collection::vec(plan(true), 1..100),
    ) {
        run_on_threads(plans, false);
    }
}
