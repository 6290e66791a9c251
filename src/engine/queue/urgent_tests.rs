//! What may run while a batch pauses.

use super::tests::*;
use super::{Batch, Ran};
use crate::engine::error::EngineError;
use crate::engine::job::{Job, JobTiming};

impl Fixture {
    /// Forms a batch of urgent work to run within `outer`.
    fn urgent(&mut self, outer: &mut Batch) -> Option<Batch> {
        self.queue.next_urgent(&mut outer.running, self.now)
    }

    /// Ends a batch that ran within `outer`.
    fn finish_urgent(&mut self, outer: &mut Batch, batch: Batch) {
        let ran = batch.pieces.into_iter().map(|piece| {
            let rows = piece.sequences.iter().map(|ids| ids[0] as f32).collect();
            (piece, Ok(rows))
        });
        let ran: Vec<Ran> = ran.collect();
        self.queue.finish_urgent(&mut outer.running, batch.running, ran, self.now);
    }

    /// Runs all urgent work within `outer` and returns the tags of each batch.
    fn run_urgent(&mut self, outer: &mut Batch) -> Vec<Vec<u32>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.urgent(outer) {
            batches.push(tags(&batch));
            self.finish_urgent(outer, batch);
        }
        batches
    }
}

fn wide() -> Fixture {
    fixture(|config| {
        config.max_batch_tokens = 40;
        config.max_queued_tokens = 10_000;
    })
}

#[test]
fn interactive_jobs_run_within_a_bulk_batch_in_small_batches() {
    let mut f = wide();
    let _bulk = f.submit(bulk(9, &[10; 8]));
    let mut outer = f.batch();
    assert!(f.urgent(&mut outer).is_none());
    let (_, mut first) = f.submit(interactive(1, &[4, 4, 4]));
    let _more = [interactive(2, &[20]), interactive(3, &[5])].map(|job| f.submit(job));
    let batch = f.urgent(&mut outer).unwrap();
    assert_eq!(tags(&batch), [1, 1], "a quarter of 40 tokens");
    f.finish_urgent(&mut outer, batch);
    assert!(first.try_recv().is_err(), "it has a sequence left");
    assert_eq!(f.run_urgent(&mut outer), [vec![1], vec![2], vec![3]]);
    assert!(first.try_recv().unwrap().is_ok(), "before the batch it interrupted");
    assert_eq!(f.queue.stats().preemptions, 4);
    f.finish(outer);
    assert_eq!(f.tags(), [9; 4]);
}

#[test]
fn no_more_runs_within_a_batch_than_it_has_tokens() {
    let mut f = wide();
    let _bulk = f.submit(bulk(9, &[10, 10, 5]));
    let _calls: Vec<_> = (0..9).map(|_| f.submit(interactive(1, &[8]))).collect();
    let mut outer = {
        let first = f.batch();
        f.finish(first);
        let second = f.batch();
        f.finish(second);
        let _more: Vec<_> = (0..9).map(|_| f.submit(interactive(1, &[8]))).collect();
        f.queue.interactive_run = f.queue.config.max_interactive_run;
        f.batch()
    };
    assert_eq!(tags(&outer), [9, 9, 9]);
    assert_eq!(f.run_urgent(&mut outer).concat(), [1, 1, 1], "24 of 25 tokens");
    f.finish(outer);
}

#[test]
fn bulk_work_goes_on_however_much_interactive_work_there_is() {
    let mut f = wide();
    let _bulk: Vec<_> = (0..100).map(|_| f.submit(bulk(9, &[10]))).collect();
    let (mut answers, mut done, mut all) = (Vec::new(), 0, 0);
    for _ in 0..60 {
        let mut outer = {
            answers.extend((0..8).map(|_| f.submit(interactive(1, &[10]))));
            f.batch()
        };
        let urgent = f.run_urgent(&mut outer).concat().len();
        done += tags(&outer).iter().filter(|tag| **tag == 9).count();
        all += urgent + tags(&outer).len();
        f.finish(outer);
    }
    // 4 batches of interactive work, then 1 of bulk with as much within.
    assert_eq!((done, all), (12 * 4, 12 * 6 * 4));
}

#[test]
fn nothing_interrupts_urgent_work() {
    let mut f = wide();
    let _bulk = f.submit(bulk(9, &[10; 4]));
    let mut outer = f.batch();
    let _first = f.submit(of("a", interactive(1, &[10])));
    let mut inner = f.urgent(&mut outer).unwrap();
    let _second = f.submit(of("b", interactive(2, &[1])));
    assert!(f.urgent(&mut inner).is_none());
    f.finish_urgent(&mut outer, inner);
    assert_eq!(f.run_urgent(&mut outer), [[2]]);
}

#[test]
fn bulk_work_is_never_urgent() {
    let mut f = wide();
    for make in [interactive, bulk] {
        let _flood = f.submit(of("flood", make(9, &[10; 4])));
        let mut outer = f.batch();
        let _other = f.submit(of("other", bulk(1, &[1])));
        assert!(f.urgent(&mut outer).is_none());
        f.finish(outer);
        let rest = f.batch();
        f.finish(rest);
    }
}

#[test]
fn a_client_need_not_wait_for_a_batch_of_a_flood_of_its_lane() {
    let mut f = wide();
    let _flood: Vec<_> = (0..50).map(|_| f.submit(of("flood", interactive(9, &[10])))).collect();
    for round in 0..5 {
        let mut outer = f.batch();
        assert!(f.urgent(&mut outer).is_none(), "the flood does not interrupt itself");
        let _call = f.submit(of("other", interactive(1, &[5])));
        assert_eq!(f.run_urgent(&mut outer), [[1]], "round {round}");
        let _own = f.submit(of("flood", interactive(8, &[1])));
        assert!(f.urgent(&mut outer).is_none());
        f.finish(outer);
    }
}

#[test]
fn a_client_gets_no_more_than_its_share_by_interrupting() {
    let mut f = wide();
    let _one: Vec<_> = (0..40).map(|_| f.submit(of("one", interactive(1, &[10])))).collect();
    let mut outer = f.batch();
    let _two: Vec<_> = (0..40).map(|_| f.submit(of("two", interactive(2, &[10])))).collect();
    let mut order = f.run_urgent(&mut outer).concat();
    assert_eq!(order, [2; 3], "it stays behind the batch");
    order.extend(tags(&outer));
    f.finish(outer);
    for _ in 0..10 {
        let mut outer = f.batch();
        order.extend(f.run_urgent(&mut outer).concat());
        order.extend(tags(&outer));
        f.finish(outer);
        let [one, two] = [1, 2].map(|tag| order.iter().filter(|other| **other == tag).count());
        assert!(one.abs_diff(two) <= 4, "{order:?}");
    }
}

#[test]
fn clients_with_equal_needs_do_not_interrupt_each_other() {
    let mut f = wide();
    let submit = |f: &mut Fixture, client: u32| {
        f.submit(of(&client.to_string(), interactive(client, &[10])))
    };
    let _all: Vec<_> = (0..12).map(|client| submit(&mut f, client)).collect();
    let mut outer = f.batch();
    assert_eq!(tags(&outer), [0, 1, 2, 3]);
    let _new = submit(&mut f, 12);
    assert!(f.urgent(&mut outer).is_none());
}

#[test]
fn what_would_be_urgent_within_a_batch_runs_before_it() {
    let mut f = wide();
    let _flood = f.submit(of("flood", interactive(9, &[10; 8])));
    let _calls = [(1, "a", 5), (2, "b", 2), (3, "c", 4)]
        .map(|(tag, client, tokens)| f.submit(of(client, interactive(tag, &[tokens]))));
    let mut outer = f.batch();
    assert!(outer.running.has_left_out);
    assert_eq!(tags(&outer), [9, 1, 9], "b and c are left out, and a does not fit with them");
    assert_eq!(f.run_urgent(&mut outer), [[2, 3]], "in the order in which they came");
    f.finish(outer);
    let rest = f.batch();
    assert_eq!((tags(&rest), rest.running.has_left_out), (vec![9; 4], false));
}

#[test]
fn what_is_urgent_and_has_expired_does_not_run() {
    let mut f = wide();
    let _bulk = f.submit(bulk(9, &[10; 4]));
    let mut outer = f.batch();
    let deadline = Some(f.now + 5 * MS);
    let (_, mut late) = f.submit(Job { deadline, ..interactive(1, &[1]) });
    f.now += 5 * MS;
    assert!(f.urgent(&mut outer).is_none());
    assert_eq!(late.try_recv().unwrap(), Err(EngineError::DeadlineExceeded));
}

#[test]
fn the_time_of_urgent_work_is_not_that_of_the_batch_it_interrupts() {
    let mut f = wide();
    let (_, mut slow) = f.submit(bulk(9, &[10, 10]));
    f.now += 3 * MS;
    let mut outer = f.batch();
    f.now += 100 * MS;
    let (_, mut quick) = f.submit(interactive(1, &[5]));
    f.now += 7 * MS;
    let inner = f.urgent(&mut outer).unwrap();
    f.now += 50 * MS; // 100 tokens a second
    f.finish_urgent(&mut outer, inner);
    f.now += 93 * MS; // 20 tokens in 200 ms
    f.finish(outer);
    let timing = JobTiming { queue: 7 * MS, inference: 50 * MS, batch_tokens: 5 };
    assert_eq!(quick.try_recv().unwrap().unwrap().timing, timing);
    // Both sequences were in the batch, which paused once.
    let timing = JobTiming { queue: 53 * MS, inference: 200 * MS, batch_tokens: 20 };
    assert_eq!(slow.try_recv().unwrap().unwrap().timing, timing);
    let speed = f.queue.stats().tokens_per_second;
    assert!((speed - 100.0).abs() < 0.01, "{speed}");
}

#[test]
fn a_batch_given_up_by_a_reset_may_still_pause() {
    let mut f = wide();
    let _bulk = f.submit(bulk(9, &[10; 4]));
    let mut outer = f.batch();
    f.queue.reset();
    let (_, mut answer) = f.submit(interactive(1, &[1]));
    assert_eq!(f.run_urgent(&mut outer), [[1]]);
    assert!(answer.try_recv().unwrap().is_ok());
    f.finish(outer);
    let stats = f.queue.stats();
    assert_eq!((stats.running_batches, stats.running_tokens, stats.batches), (0, 0, 1));
}

/// A worker at 1,000 tokens a second, in ten layers.
#[derive(Default)]
struct Machine {
    outer: Option<Batch>,
    inner: Option<Batch>,
    layers_left: u32,
    /// When what runs now, an inner batch or a layer of the outer one, ends.
    ends: u32,
}

impl Machine {
    fn at(&mut self, tick: u32, f: &mut Fixture) {
        if tick < self.ends {
            return;
        }
        if let Some(mut outer) = self.outer.take() {
            match self.inner.take() {
                Some(inner) => f.finish_urgent(&mut outer, inner),
                None => self.layers_left -= 1,
            };
            if self.layers_left == 0 {
                f.finish(outer);
            } else {
                self.inner = f.urgent(&mut outer);
                self.outer = Some(outer);
            }
        }
        let outer = self.outer.get_or_insert_with(|| {
            let mut outer = f.batch();
            if outer.running.has_left_out {
                self.inner = f.urgent(&mut outer);
            }
            self.layers_left = 10;
            outer
        });
        let layer = outer.running.tokens as u32 / 10;
        self.ends = tick + self.inner.as_ref().map_or(layer, |inner| inner.running.tokens as u32);
    }
}

/// The 99th percentile of the times in which calls of 50 tokens are answered, one about
/// every 500 ms, beside as much of `flood` as there is room for.
fn p99_ms_beside(flood: impl Fn() -> Job) -> u32 {
    let mut f = fixture(|config| {
        config.max_batch_tokens = 1_000;
        config.max_queued_tokens = 20_000;
    });
    let mut machine = Machine::default();
    let (mut calls, mut times, mut flooded) = (Vec::new(), Vec::new(), Vec::new());
    for tick in 0..200_000_u32 {
        f.now += MS;
        while f.queue.stats().queued_tokens < 10_000 {
            flooded.push(f.submit(flood()));
        }
        // Not in step with the batches.
        if tick % 500 == tick / 500 % 499 {
            let (_, answer) = f.submit(of("caller", interactive(1, &[50])));
            calls.push((tick, answer));
        }
        machine.at(tick, &mut f);
        calls.retain_mut(|(since, answer)| match answer.try_recv() {
            Ok(result) => {
                assert!(result.is_ok());
                times.push(tick - *since);
                false
            }
            Err(_) => true,
        });
    }
    assert!(times.len() >= 390, "{}", times.len());
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[test]
fn a_call_beside_a_flood_waits_for_a_layer_and_not_for_a_batch() {
    // Alone it takes 50 ms; a layer of a full batch takes 100 ms.
    let beside_bulk = p99_ms_beside(|| of("flood", bulk(9, &[100; 5])));
    assert!(beside_bulk <= 160, "{beside_bulk} ms");
    let in_its_lane = p99_ms_beside(|| of("flood", interactive(9, &[100; 5])));
    assert!(in_its_lane <= 160, "{in_its_lane} ms");
}
