//! Who gets in, who waits, and who is refused.

use std::time::Duration;

use tokio::time::Instant;

use super::tests::*;
use super::{Batch, Step};
use crate::engine::error::EngineError;
use crate::engine::job::Job;

#[test]
fn over_the_limit_is_overloaded_with_the_time_until_there_is_room() {
    let mut f = fixture(|_| ());
    let _first = f.submit(interactive(1, &[10]));
    let batch = f.batch();
    f.now += Duration::from_secs(1); // 10 tokens a second
    f.finish(batch);
    let _full = f.submit(interactive(2, &[50, 50]));
    let refused = f.try_submit(interactive(3, &[30])).unwrap_err();
    let retry_after = Duration::from_secs(3);
    assert_eq!(refused, EngineError::Overloaded { queued_tokens: 100, limit: 100, retry_after });
    let _batch = f.batch(); // takes 50 from the queue
    assert!(f.try_submit(interactive(4, &[50])).is_ok());
}

#[test]
fn a_job_that_can_never_fit_is_too_large_even_if_it_would_wait() {
    let mut f = fixture(|_| ());
    let too_large = |tokens, limit| Some(EngineError::TooLarge { tokens, limit });
    assert_eq!(f.try_submit(interactive(1, &[60, 41])).err(), too_large(101, 100));
    assert_eq!(f.try_submit(waits(interactive(1, &[101]))).err(), too_large(101, 100));
    assert_eq!(f.try_submit(bulk(1, &[76])).err(), too_large(76, 75));
    assert!(f.queue.is_empty());
    assert!(f.try_submit(interactive(1, &[60, 40])).is_ok());
}

#[test]
fn a_flood_of_bulk_jobs_leaves_room_for_interactive_ones() {
    let mut f = fixture(|_| ());
    let _queued: Vec<_> = (0..3).map(|_| f.submit(bulk(9, &[25]))).collect();
    let _waiting: Vec<_> = (0..9).map(|_| f.submit(waits(bulk(9, &[25])))).collect();
    assert!(matches!(
        f.try_submit(bulk(9, &[1])),
        Err(EngineError::Overloaded { queued_tokens: 300, limit: 75, .. })
    ));
    assert!(f.try_submit(interactive(1, &[25])).is_ok());
    assert!(f.try_submit(interactive(1, &[1])).is_err());
}

#[test]
fn waiting_jobs_get_in_in_order_as_room_appears() {
    let mut f = fixture(|_| ());
    let _full = f.submit(interactive(1, &[50, 50]));
    let (_, mut second) = f.submit(waits(interactive(2, &[60])));
    let (_, _third) = f.submit(waits(interactive(3, &[10])));
    let stats = f.queue.stats();
    assert_eq!((stats.open_jobs, stats.waiting_jobs, stats.queued_tokens), (1, 2, 100));

    f.now += 3 * MS;
    let first = f.batch();
    assert_eq!(
        f.queue.stats().waiting_jobs,
        2,
        "3 must not overtake 2, for which 50 is too little"
    );
    let other = f.batch();
    assert_eq!(f.queue.stats().waiting_jobs, 0);
    f.finish(first);
    f.finish(other);

    f.now += 4 * MS;
    let batch = f.batch();
    assert_eq!(tags(&batch), [2]);
    f.finish(batch);
    let timing = second.try_recv().unwrap().unwrap().timing;
    assert_eq!(timing.queue, 4 * MS, "from admission, not from the call");
    assert_eq!(f.tags(), [3]);
}

#[test]
fn small_jobs_do_not_starve_one_that_waits_in_their_lane() {
    let mut f = fixture(|_| ());
    let _queued: Vec<_> = (0..9).map(|_| f.submit(interactive(1, &[10]))).collect();
    let _large = f.submit(waits(interactive(2, &[30])));
    let mut batches = 0;
    while f.queue.stats().waiting_jobs > 0 {
        assert!(f.try_submit(interactive(1, &[5])).is_err(), "it would overtake");
        let batch = f.batch();
        f.finish(batch);
        batches += 1;
    }
    assert_eq!(batches, 2);
}

#[test]
fn interactive_jobs_do_not_starve_a_bulk_job_that_waits() {
    let mut f = fixture(|_| ());
    let _queued: Vec<_> = (0..10).map(|_| f.submit(interactive(1, &[10]))).collect();
    let _large = f.submit(waits(bulk(9, &[70])));
    let mut batches = 0;
    while f.queue.stats().waiting_jobs > 0 {
        assert!(f.try_submit(interactive(1, &[10])).is_err(), "the claim of the older job counts");
        let batch = f.batch();
        f.finish(batch);
        batches += 1;
    }
    assert_eq!(batches, 7);
}

#[test]
fn bulk_jobs_do_not_starve_an_interactive_job_that_waits() {
    let mut f = fixture(|_| ());
    let _queued: Vec<_> = (0..7).map(|_| f.submit(bulk(9, &[10]))).collect();
    let _large = f.submit(waits(interactive(1, &[90])));
    let mut batches = 0;
    while f.queue.stats().waiting_jobs > 0 {
        assert!(f.try_submit(bulk(9, &[10])).is_err(), "the claim of the older job counts");
        let batch = f.batch();
        f.finish(batch);
        batches += 1;
    }
    assert_eq!(batches, 6);
}

#[test]
fn two_large_jobs_that_wait_in_both_lanes_do_not_block_each_other() {
    for bulk_first in [false, true] {
        let mut f = fixture(|_| ());
        let _queued = f.submit(interactive(1, &[10; 10]));
        let mut jobs = [waits(interactive(2, &[90])), waits(bulk(9, &[70]))];
        if bulk_first {
            jobs.reverse();
        }
        let _answers = jobs.map(|job| f.submit(job));
        let mut order = Vec::new();
        while !f.queue.is_empty() {
            let batch = f.batch();
            order.extend(tags(&batch));
            f.finish(batch);
        }
        order.sort_unstable();
        assert_eq!(order[10..], [2, 9], "bulk first: {bulk_first}");
    }
}

#[test]
fn a_job_for_which_the_line_is_too_long_is_overloaded_even_if_it_would_wait() {
    let mut f = fixture(|config| config.max_waiting_tokens = 40);
    let _first = f.submit(interactive(1, &[10]));
    let batch = f.batch();
    f.now += Duration::from_secs(1); // 10 tokens a second
    f.finish(batch);
    let _full = f.submit(interactive(2, &[10; 10]));
    let _waiting = [20, 15].map(|tokens| f.submit(waits(interactive(3, &[tokens]))));
    let overloaded = |seconds| {
        let retry_after = Duration::from_secs(seconds);
        Some(EngineError::Overloaded { queued_tokens: 35, limit: 40, retry_after })
    };
    assert_eq!(f.try_submit(waits(interactive(4, &[15]))).err(), overloaded(1));
    assert_eq!(f.try_submit(waits(interactive(4, &[25]))).err(), overloaded(2));
    assert_eq!(f.queue.stats().waiting_jobs, 2);
    assert!(f.try_submit(waits(interactive(4, &[5]))).is_ok(), "just fits");
    assert!(f.try_submit(waits(interactive(4, &[1]))).is_err());

    // As the line moves on there is room at its end.
    let _batches = [f.batch(), f.batch()];
    assert_eq!(f.queue.stats().waiting_jobs, 2);
    assert!(f.try_submit(waits(interactive(5, &[20]))).is_ok());
}

#[test]
fn a_job_longer_than_the_line_may_wait_while_nobody_else_does() {
    let mut f = fixture(|config| config.max_waiting_tokens = 1);
    let _full = f.submit(interactive(1, &[10; 10]));
    let (_, mut large) = f.submit(waits(interactive(2, &[90])));
    let error = f.try_submit(waits(interactive(3, &[90]))).unwrap_err();
    assert!(
        matches!(error, EngineError::Overloaded { queued_tokens: 90, limit: 1, .. }),
        "{error:?}"
    );
    while !f.queue.is_empty() {
        let batch = f.batch();
        f.finish(batch);
    }
    assert!(large.try_recv().unwrap().is_ok());
}

#[test]
fn a_flood_of_bulk_jobs_that_wait_leaves_the_interactive_line_free() {
    let mut f = fixture(|config| config.max_waiting_tokens = 50);
    let _full = f.submit(interactive(1, &[10; 10]));
    let _flood = f.submit(waits(bulk(8, &[50])));
    assert!(f.try_submit(waits(bulk(8, &[1]))).is_err());
    assert!(f.try_submit(waits(interactive(2, &[50]))).is_ok());
}

#[test]
fn a_line_that_is_full_does_not_matter_to_a_job_that_finds_room() {
    let mut f = fixture(|config| config.max_waiting_tokens = 10);
    let _bulk = f.submit(bulk(8, &[75]));
    let _line = f.submit(waits(bulk(8, &[10])));
    assert!(f.try_submit(waits(interactive(1, &[25]))).is_ok());
    assert_eq!(f.queue.stats().waiting_jobs, 1);
}

/// A client may hold 40 of the 100 tokens, 30 of them bulk.
fn limited() -> Fixture {
    let mut f = fixture(|config| config.max_queued_tokens_per_client = 40);
    let _first = f.submit(interactive(1, &[10]));
    let batch = f.batch();
    f.now += Duration::from_secs(1); // 10 tokens a second
    f.finish(batch);
    f
}

fn client_overloaded(queued_tokens: usize, limit: usize, seconds: u64) -> Option<EngineError> {
    let retry_after = Duration::from_secs(seconds);
    Some(EngineError::ClientOverloaded { queued_tokens, limit, retry_after })
}

#[test]
fn a_client_over_its_share_is_refused_and_others_are_not() {
    let mut f = limited();
    let _full = f.submit(of("a", interactive(1, &[40])));
    let refused = f.try_submit(of("a", interactive(1, &[20])));
    assert_eq!(refused.err(), client_overloaded(40, 40, 2));
    let _other = f.submit(of("b", interactive(2, &[30])));
    // Now each turn of one is a turn of the other, too.
    let refused = f.try_submit(of("a", interactive(1, &[20])));
    assert_eq!(refused.err(), client_overloaded(40, 40, 4));
    let _all = f.submit(of("c", interactive(3, &[30])));
    let refused = f.try_submit(of("b", interactive(2, &[5])));
    assert!(matches!(refused, Err(EngineError::Overloaded { queued_tokens: 100, limit: 100, .. })));
}

#[test]
fn bulk_jobs_of_a_client_leave_room_for_its_interactive_ones() {
    let mut f = limited();
    let _bulk = f.submit(of("a", bulk(9, &[30])));
    assert_eq!(f.try_submit(of("a", bulk(9, &[10]))).err(), client_overloaded(30, 30, 1));
    let _interactive = f.submit(of("a", interactive(1, &[10])));
    // The bulk lane has its turns, too: 1 token for each 4.
    let retry_after = Duration::from_millis(1_200);
    let expected = EngineError::ClientOverloaded { queued_tokens: 40, limit: 40, retry_after };
    assert_eq!(f.try_submit(of("a", interactive(1, &[10]))).unwrap_err(), expected);
}

#[test]
fn a_job_over_its_clients_share_enters_while_its_client_has_no_other_in_the_lane() {
    let mut f = limited();
    let _large = f.submit(of("a", bulk(9, &[60])));
    assert!(f.try_submit(of("a", bulk(9, &[1]))).is_err());
    assert!(f.try_submit(of("a", interactive(1, &[5]))).is_ok());
    assert!(f.try_submit(of("a", interactive(1, &[1]))).is_err());
}

#[test]
fn a_client_that_waits_for_its_own_jobs_to_leave_holds_up_no_other() {
    let mut f = limited();
    let _full = f.submit(of("a", interactive(1, &[10; 4])));
    let _waits = f.submit(of("a", waits(interactive(2, &[35]))));
    let _small = f.submit(of("a", waits(interactive(3, &[1]))));
    assert!(f.try_submit(of("b", interactive(4, &[20]))).is_ok(), "there is room for others");
    assert!(f.try_submit(of("b", waits(bulk(5, &[20])))).is_ok());
    assert!(f.try_submit(of("a", interactive(6, &[1]))).is_err(), "it would overtake its own");
    assert_eq!(f.queue.stats().waiting_jobs, 2);
    let mut order = Vec::new();
    while !f.queue.is_empty() {
        let batch = f.batch();
        order.extend(tags(&batch));
        f.finish(batch);
    }
    order.retain(|tag| [2, 3].contains(tag));
    assert_eq!(order, [2, 3], "in the order of arrival");
}

#[test]
fn the_jobs_of_a_client_that_wait_leave_room_in_the_line_for_others() {
    let mut f = limited();
    let _full: Vec<_> =
        ["x", "y", "z"].map(|client| f.submit(of(client, interactive(9, &[33])))).into();
    let _waiting = [10, 30].map(|tokens| f.submit(of("a", waits(interactive(1, &[tokens])))));
    let refused = f.try_submit(of("a", waits(interactive(1, &[10]))));
    assert!(matches!(
        refused,
        Err(EngineError::ClientOverloaded { queued_tokens: 40, limit: 40, .. })
    ));
    assert!(f.try_submit(of("b", waits(interactive(2, &[40])))).is_ok());
}

fn within(f: &Fixture, seconds: u64, job: Job) -> Job {
    Job { deadline: Some(f.now + Duration::from_secs(seconds)), ..job }
}

#[test]
fn a_job_that_cannot_run_by_its_deadline_is_refused_at_once() {
    let mut f = limited();
    let queued = within(&f, 1, interactive(1, &[30]));
    assert!(f.try_submit(queued).is_ok(), "one that finds the lane empty may try");
    // 40 tokens take 4 seconds, and with the margin 6.
    let late = within(&f, 4, interactive(1, &[10]));
    let expected = EngineError::WouldExpire {
        needed: Duration::from_secs(6),
        left: Duration::from_secs(4),
        retry_after: Duration::from_secs(2),
    };
    assert_eq!(f.try_submit(late.clone()).unwrap_err(), expected);
    assert!(f.try_submit(of("b", late.clone())).is_ok(), "its turn comes sooner");
    assert!(f.try_submit(waits(late)).is_ok(), "it would rather wait");
    let later = within(&f, 7, of("b", interactive(1, &[1])));
    assert!(f.try_submit(later).is_ok());
}

#[test]
fn what_runs_is_in_the_way_of_its_client_but_not_of_another() {
    let mut f = limited();
    let _running = [(); 2].map(|()| (f.submit(interactive(1, &[30])), f.batch()));
    let _queued = f.submit(interactive(1, &[10]));
    // 80 tokens with those that run take 8 seconds, and with the margin 12.
    let late = within(&f, 9, interactive(1, &[10]));
    assert!(matches!(f.try_submit(late.clone()), Err(EngineError::WouldExpire { .. })));
    assert!(f.try_submit(of("b", late)).is_ok(), "a batch pauses for it");
}

#[test]
fn no_job_is_refused_for_its_deadline_before_the_speed_is_known() {
    let mut f = fixture(|_| ());
    let _queued = f.submit(interactive(1, &[90]));
    let soon = Some(f.now + MS);
    assert!(f.try_submit(Job { deadline: soon, ..interactive(1, &[10]) }).is_ok());
}

#[test]
fn under_overload_nearly_all_that_is_accepted_is_answered_in_time() {
    // 1,000 tokens a second on two workers, so 10 jobs, of 100 that come.
    let mut f = fixture(|config| {
        config.workers = 2;
        config.max_batch_tokens = 500;
        config.max_queued_tokens = 200_000;
    });
    let (mut open, mut answered, mut late, mut refused) = (Vec::new(), 0, 0, 0);
    let mut running: Vec<(Batch, Instant)> = Vec::new();
    for tick in 0..60_000 {
        f.now += MS;
        if tick % 10 == 0 {
            match f.try_submit(within(&f, 3, interactive(1, &[100]))) {
                Ok((_, answer)) => open.push(answer),
                Err(_) => refused += 1,
            }
        }
        while let Some(ended) = running.iter().position(|(_, ends)| *ends <= f.now) {
            f.finish(running.remove(ended).0);
        }
        while running.len() < 2
            && let Step::Run(batch) = f.queue.next(f.now)
        {
            let ends = f.now + 2 * batch.running.tokens as u32 * MS;
            running.push((batch, ends));
        }
        open.retain_mut(|answer: &mut Answer| match answer.try_recv() {
            Ok(Ok(_)) => {
                answered += 1;
                false
            }
            Ok(Err(_)) => {
                late += 1;
                false
            }
            Err(_) => true,
        });
    }
    assert!(answered >= 540, "{answered} of 600 that could be");
    assert!(late <= answered / 100, "{late} late, {answered} in time");
    assert_eq!(answered + late + refused + open.len(), 6_000);
}

#[test]
fn a_look_is_refused_as_the_job_would_be_and_changes_nothing() {
    let mut f = limited();
    // What a guess takes for too large may be less.
    let job = interactive(1, &[1]);
    let line = (job.lane, &job.client);
    let look = f.queue.look(line, usize::MAX, job.admission, job.deadline, f.now);
    assert_eq!(look, Ok(()));
    let _queued = f.submit(interactive(1, &[30]));
    let before = f.queue.stats();
    for (seconds, tokens) in [(4, 10), (60, 10), (4, 1), (60, 90)] {
        let job = within(&f, seconds, interactive(1, &[tokens]));
        let (line, now) = ((job.lane, &job.client), f.now);
        let look = f.queue.look(line, tokens, job.admission, job.deadline, now);
        assert_eq!(f.queue.stats(), before);
        let submitted = f.try_submit(job);
        assert_eq!(look.err(), submitted.as_ref().err().cloned(), "{seconds} {tokens}");
        drop(submitted);
        if f.queue.stats() != before {
            f = limited();
            let _queued = f.submit(interactive(1, &[30]));
            assert_eq!(f.queue.stats(), before);
        }
    }
}
