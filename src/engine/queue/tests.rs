//! The policy, step by step, at times that the tests choose.

use super::*;
use crate::engine::job::{Admission, ClientId, JobTiming, Lane};
use crate::nn::Rows;

pub(super) type Answer = oneshot::Receiver<Result<Output, EngineError>>;

pub(super) const MS: Duration = Duration::from_millis(1);

/// A queue at a time, with batches of 10 tokens and room for 100.
pub(super) struct Fixture {
    pub(super) queue: Queue,
    pub(super) now: Instant,
}

pub(super) fn fixture(change: impl FnOnce(&mut EngineConfig)) -> Fixture {
    let mut config =
        EngineConfig { max_batch_tokens: 10, max_queued_tokens: 100, ..Default::default() };
    change(&mut config);
    Fixture { queue: Queue::new(config, 1), now: Instant::now() }
}

/// A job with sequences of these lengths; every token is `tag`.
pub(super) fn job(lane: Lane, tag: u32, lengths: &[usize]) -> Job {
    let sequences = lengths.iter().map(|length| vec![tag; *length]).collect();
    Job { sequences, lane, ..Job::default() }
}

pub(super) fn interactive(tag: u32, lengths: &[usize]) -> Job {
    job(Lane::Interactive, tag, lengths)
}

pub(super) fn bulk(tag: u32, lengths: &[usize]) -> Job {
    job(Lane::Bulk, tag, lengths)
}

pub(super) fn of(client: &str, job: Job) -> Job {
    Job { client: ClientId::new(client), ..job }
}

pub(super) fn waits(job: Job) -> Job {
    Job { admission: Admission::Wait, ..job }
}

impl Fixture {
    pub(super) fn try_submit(&mut self, job: Job) -> Result<(JobId, Answer), EngineError> {
        let (reply, answer) = oneshot::channel();
        self.queue.submit(job, reply, self.now).map(|id| (id, answer))
    }

    pub(super) fn submit(&mut self, job: Job) -> (JobId, Answer) {
        self.try_submit(job).unwrap()
    }

    pub(super) fn batch(&mut self) -> Batch {
        match self.queue.next(self.now) {
            Step::Run(batch) => batch,
            other => panic!("expected a batch, not {other:?}"),
        }
    }

    /// Forms a batch and returns the tag of every sequence in it.
    pub(super) fn tags(&mut self) -> Vec<u32> {
        tags(&self.batch())
    }

    /// Ends a batch; the row of a sequence is its tag.
    pub(super) fn finish(&mut self, batch: Batch) {
        let rows = |piece: Piece| {
            let rows = piece.sequences.iter().map(|ids| ids[0] as f32).collect();
            (piece, Ok(rows))
        };
        let ran = batch.pieces.into_iter().map(rows).collect();
        self.queue.finish(batch.running, ran, self.now);
    }
}

pub(super) fn tags(batch: &Batch) -> Vec<u32> {
    batch.pieces.iter().flat_map(|piece| &piece.sequences).map(|ids| ids[0]).collect()
}

#[test]
fn a_lane_is_first_come_first_served() {
    let mut f = fixture(|_| ());
    let _answers: Vec<_> =
        [1, 2, 3, 4].map(|tag| f.submit(interactive(tag, &[4]))).into_iter().collect();
    assert_eq!(f.tags(), [1, 2]);
    assert_eq!(f.tags(), [3, 4]);
    assert!(matches!(f.queue.next(f.now), Step::Wait));
}

#[test]
fn a_sequence_that_does_not_fit_is_not_overtaken_in_its_lane() {
    let mut f = fixture(|_| ());
    let _a =
        [interactive(1, &[6]), interactive(2, &[6]), interactive(3, &[2])].map(|j| f.submit(j));
    assert_eq!(f.tags(), [1]);
    assert_eq!(f.tags(), [2, 3]);
}

#[test]
fn a_sequence_over_the_budget_runs_alone() {
    let mut f = fixture(|_| ());
    let _a = [interactive(1, &[25]), interactive(2, &[1])].map(|job| f.submit(job));
    let batch = f.batch();
    assert_eq!((tags(&batch), batch.running.tokens), (vec![1], 25));
    assert_eq!(f.tags(), [2]);
}

#[test]
fn a_batch_holds_sequences_of_one_lane() {
    let mut f = fixture(|_| ());
    let _a = [bulk(8, &[3]), bulk(9, &[3]), interactive(1, &[4])].map(|job| f.submit(job));
    assert_eq!(f.tags(), [1]);
    assert_eq!(f.tags(), [8, 9]);

    let mut f = fixture(|config| config.max_interactive_run = 1);
    let _a = [interactive(1, &[9]), interactive(2, &[2]), bulk(8, &[5])].map(|job| f.submit(job));
    assert_eq!(f.tags(), [1]);
    assert_eq!(f.tags(), [8], "bulk is due");
    assert_eq!(f.tags(), [2]);
}

#[test]
fn bulk_waits_for_at_most_max_interactive_run_batches() {
    for max_run in [1, 2, 4] {
        let mut f = fixture(|config| {
            config.max_interactive_run = max_run;
            config.max_queued_tokens = 10_000;
        });
        let mut answers: Vec<_> = (0..3).map(|_| f.submit(bulk(9, &[10]))).collect();
        let mut order = Vec::new();
        for _ in 0..(max_run + 1) * 3 {
            // There is always more interactive work than a batch takes.
            answers.extend([f.submit(interactive(1, &[10])), f.submit(interactive(1, &[10]))]);
            order.extend(f.tags());
        }
        let round: Vec<u32> = std::iter::repeat_n(1, max_run).chain([9]).collect();
        assert_eq!(order, round.repeat(3), "max_interactive_run {max_run}");
    }
}

#[test]
fn interactive_batches_count_only_while_bulk_waits() {
    let mut f = fixture(|config| config.max_interactive_run = 2);
    let _i: Vec<_> = (0..8).map(|tag| f.submit(interactive(tag, &[10]))).collect();
    assert_eq!([f.tags(), f.tags(), f.tags()].concat(), [0, 1, 2]);
    let _b = f.submit(bulk(9, &[10]));
    assert_eq!([f.tags(), f.tags(), f.tags(), f.tags()].concat(), [3, 4, 9, 5]);
}

#[test]
fn a_jobs_windows_may_run_in_several_batches_that_end_in_any_order() {
    let mut f = fixture(|_| ());
    let sequences = vec![vec![1; 6], vec![2; 6], vec![3; 3], vec![4; 9]];
    let (_, mut answer) = f.submit(Job { sequences, ..Job::default() });
    f.now += 5 * MS;
    let batches = [f.batch(), f.batch(), f.batch()];
    assert_eq!(batches.each_ref().map(tags), [vec![1], vec![2, 3], vec![4]]);
    for batch in batches.into_iter().rev() {
        assert!(answer.try_recv().is_err(), "answered before its last batch");
        f.now += 7 * MS;
        f.finish(batch);
    }
    let output = answer.try_recv().unwrap().unwrap();
    assert_eq!(output.rows, Rows::new(vec![1.0, 2.0, 3.0, 4.0], 1).unwrap());
    let timing = JobTiming { queue: 5 * MS, inference: 21 * MS, batch_tokens: 6 };
    assert_eq!(output.timing, timing);
}

#[test]
fn a_failed_batch_fails_its_jobs_and_takes_out_what_they_have_queued() {
    let mut f = fixture(|_| ());
    let (_, mut answer) = f.submit(interactive(1, &[10, 10, 10]));
    let (first, second) = (f.batch(), f.batch());
    assert_eq!(f.queue.stats().queued_tokens, 10);
    let ran = first.pieces.into_iter().map(|piece| (piece, Err(EngineError::WorkerPanicked)));
    f.queue.finish(first.running, ran.collect(), f.now);
    assert_eq!(answer.try_recv().unwrap(), Err(EngineError::WorkerPanicked));
    assert_eq!(f.queue.stats().queued_tokens, 0);
    f.finish(second);
    assert!(f.queue.is_empty());
    assert_eq!(f.queue.stats().running_tokens, 0);
}

#[test]
fn a_cancelled_job_leaves_at_once_wherever_it_is() {
    let mut f = fixture(|_| ());
    let (running, _a) = f.submit(interactive(1, &[10, 40]));
    let batch = f.batch();
    let (queued, _b) = f.submit(interactive(2, &[60]));
    let (waiting, _c) = f.submit(waits(interactive(3, &[90])));
    let (next, _d) = f.submit(waits(interactive(4, &[40])));
    f.queue.cancel(waiting, f.now);
    assert_eq!(f.queue.stats().waiting_jobs, 1);
    f.queue.cancel(running, f.now);
    let stats = f.queue.stats();
    assert_eq!((stats.queued_tokens, stats.waiting_jobs), (100, 0), "its rest made room for 4");
    f.queue.cancel(queued, f.now);
    f.queue.cancel(next, f.now);
    f.queue.cancel(next, f.now);
    f.finish(batch);
    assert!(f.queue.is_empty() && f.queue.deadlines.is_empty());
    let stats = f.queue.stats();
    assert_eq!((stats.queued_tokens, stats.queued_sequences, stats.running_tokens), (0, 0, 0));
    assert_eq!(stats.finished_sequences, 1);
}

#[test]
fn expired_jobs_are_dropped_before_a_batch_forms_and_before_a_job_is_refused() {
    let mut f = fixture(|_| ());
    let until = |f: &Fixture, ms: u32, job| Job { deadline: Some(f.now + ms * MS), ..job };
    let soon = until(&f, 10, interactive(1, &[50]));
    let late = until(&f, 30, interactive(2, &[50]));
    let [(_, mut soon), (_, mut late)] = [soon, late].map(|job| f.submit(job));
    f.now += 10 * MS;
    let (_, mut live) = f.submit(interactive(3, &[50]));
    assert_eq!(soon.try_recv().unwrap(), Err(EngineError::DeadlineExceeded));
    f.now += 20 * MS;
    let batch = f.batch();
    assert_eq!(tags(&batch), [3]);
    assert_eq!(late.try_recv().unwrap(), Err(EngineError::DeadlineExceeded));
    f.finish(batch);
    assert!(live.try_recv().unwrap().is_ok());
}

#[test]
fn room_that_a_refused_job_finds_by_expiry_goes_to_those_that_wait() {
    let mut f = fixture(|_| ());
    let deadline = Some(f.now + 10 * MS);
    let _expires = f.submit(Job { deadline, ..interactive(1, &[100]) });
    let _waiting = f.submit(waits(interactive(2, &[10])));
    f.now += 10 * MS;
    assert!(matches!(
        f.try_submit(interactive(3, &[101])),
        Err(EngineError::TooLarge { tokens: 101, limit: 100 })
    ));
    // Nothing else may ever happen, so a worker must be told of it now.
    assert!(f.queue.has_queued());
    assert_eq!(f.queue.stats().waiting_jobs, 0);
    assert_eq!(f.tags(), [2]);
}

#[test]
fn a_result_after_the_deadline_is_dropped() {
    let mut f = fixture(|_| ());
    let deadline = Some(f.now + 10 * MS);
    let (_, mut answer) = f.submit(Job { deadline, ..interactive(1, &[1]) });
    let batch = f.batch();
    f.now += 10 * MS;
    f.finish(batch);
    assert_eq!(answer.try_recv().unwrap(), Err(EngineError::DeadlineExceeded));
}

#[test]
fn linger_waits_for_a_full_batch_but_not_longer_and_not_in_a_drain() {
    let mut f = fixture(|config| config.linger = 5 * MS);
    let ready = f.now + 5 * MS;
    let _a = f.submit(interactive(1, &[4]));
    f.now += 2 * MS;
    let _b = f.submit(interactive(9, &[4]));
    assert!(matches!(f.queue.next(f.now), Step::WaitUntil(at) if at == ready));
    f.now = ready;
    assert_eq!(f.tags(), [1, 9]);

    let _full = f.submit(interactive(2, &[10]));
    assert_eq!(f.tags(), [2]);

    let _c = f.submit(interactive(3, &[1]));
    assert!(matches!(f.queue.next(f.now), Step::WaitUntil(_)));
    f.queue.begin_drain();
    assert_eq!(f.tags(), [3]);
}

#[test]
fn a_drain_refuses_who_waits_and_reports_what_became_of_the_rest() {
    let mut f = fixture(|_| ());
    let (_, mut runs) = f.submit(interactive(1, &[10]));
    let batch = f.batch();
    let (_, mut queued) = f.submit(interactive(2, &[100]));
    let (_, mut waiting) = f.submit(waits(bulk(3, &[10])));
    assert_eq!(f.queue.drain_report(), DrainReport::default());
    f.queue.begin_drain();
    f.queue.begin_drain();
    assert_eq!(waiting.try_recv().unwrap(), Err(DRAINING));
    assert_eq!(f.try_submit(interactive(4, &[1])).unwrap_err(), DRAINING);
    f.finish(batch);
    assert!(runs.try_recv().unwrap().is_ok());
    assert!(queued.try_recv().is_err());
    f.queue.abandon();
    f.queue.abandon();
    assert_eq!(queued.try_recv().unwrap(), Err(DRAINING));
    let report = DrainReport { finished: 1, abandoned: 1, refused: 1 };
    assert_eq!(f.queue.drain_report(), report);
    assert_eq!(f.queue.stats().queued_tokens, 0);
}

#[test]
fn a_reset_gives_up_every_job_and_forgets_the_batches_that_run() {
    let mut f = fixture(|_| ());
    let deadline = Some(f.now + 10 * MS);
    let _done = f.submit(interactive(1, &[10]));
    let batch = f.batch();
    f.finish(batch);
    let (_, mut runs) = f.submit(Job { deadline, ..interactive(2, &[10, 100 - 10]) });
    let late = f.batch();
    let (_, mut queued) = f.submit(bulk(3, &[10]));
    let (old, mut waiting) = f.submit(waits(interactive(4, &[10])));
    f.queue.reset();
    for answer in [&mut runs, &mut queued, &mut waiting] {
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
    assert!(f.queue.is_empty() && f.queue.deadlines.is_empty() && !f.queue.no_batch_runs());

    let (new, mut answer) = f.submit(interactive(5, &[10]));
    assert!(new > old, "an old caller that leaves must not cancel a new job");
    let batch = f.batch();
    f.finish(late);
    let stats = f.queue.stats();
    assert_eq!((stats.running_batches, stats.running_tokens), (1, 10), "the new one still runs");
    f.finish(batch);
    assert!(answer.try_recv().unwrap().is_ok());
    let stats = f.queue.stats();
    assert_eq!((stats.running_batches, stats.running_tokens), (0, 0));
    assert_eq!((stats.batches, stats.finished_tokens), (2, 20), "what was counted stays");
}

#[test]
fn a_reset_does_not_end_a_drain() {
    let mut f = fixture(|_| ());
    let _queued = f.submit(interactive(1, &[10]));
    f.queue.begin_drain();
    f.queue.reset();
    assert_eq!(f.try_submit(interactive(2, &[1])).unwrap_err(), DRAINING);
    let report = DrainReport { finished: 1, abandoned: 0, refused: 0 };
    assert_eq!(f.queue.drain_report(), report);
}

#[test]
fn a_batch_that_runs_alone_has_the_speed_of_all_workers() {
    let mut f = fixture(|config| config.workers = 4);
    let _lone = f.submit(interactive(1, &[10]));
    let lone = f.batch();
    f.now += 1_000 * MS;
    f.finish(lone);
    assert_eq!(f.queue.stats().tokens_per_second, 10.0);
    // So what is relied on at the start of a burst is what one batch at a time does.
    let _running = f.submit(interactive(1, &[10]));
    let _batch = f.batch();
    let _queued = f.submit(interactive(2, &[10]));
    let hurried = Job { deadline: Some(f.now + 2_000 * MS), ..interactive(3, &[10]) };
    let refused = f.try_submit(hurried).unwrap_err();
    assert!(matches!(refused, EngineError::WouldExpire { .. }), "{refused:?}");
}

#[test]
fn batches_side_by_side_have_the_speed_of_a_worker_each() {
    let mut f = fixture(|config| config.workers = 4);
    let _jobs = [1, 2].map(|tag| f.submit(interactive(tag, &[10])));
    let (_first, second) = (f.batch(), f.batch());
    f.now += 1_000 * MS;
    f.finish(second);
    assert_eq!(f.queue.stats().tokens_per_second, 40.0);
}

#[test]
fn the_batch_that_pauses_does_not_run_beside_the_one_within_it() {
    let mut f = fixture(|config| config.workers = 4);
    let _bulk = f.submit(bulk(9, &[10]));
    let mut outer = f.batch();
    let _call = f.submit(interactive(1, &[2]));
    let urgent = f.queue.next_urgent(&mut outer.running, f.now).unwrap();
    f.now += 1_000 * MS;
    let ran = urgent.pieces.into_iter().map(|piece| (piece, Ok(vec![0.0]))).collect();
    f.queue.finish_urgent(&mut outer.running, urgent.running, ran, f.now);
    assert_eq!(f.queue.stats().tokens_per_second, 2.0);
}
