//! The state of the engine as a pure machine: no threads, no clock, no I/O.
//!
//! Every job is an [`Entry`] that holds the way to its caller. A job is answered
//! by taking its entry out, so it cannot be answered twice, and an entry leaves
//! only by being answered or cancelled, so none is forgotten; a reset after a panic
//! answers by closing the way to the caller. Callers pass the time, which must not
//! go backwards.
//!
//! [`admission`] decides who gets in, [`forming`] who runs next; [`fair`] is the order
//! between clients in both.

mod admission;
#[cfg(test)]
mod admission_tests;
mod entry;
mod fair;
#[cfg(test)]
mod fair_tests;
mod forming;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod urgent_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use self::entry::Entry;
use self::fair::FairLine;
pub(super) use self::forming::{Batch, Piece, Running, Step};
use super::config::EngineConfig;
use super::error::EngineError;
use super::job::{Job, Lane, Output, PerLane};
use super::rate::DrainRate;
use super::stats::{DrainReport, EngineStats};

/// What callers are told while the engine drains: time for a balancer to see that
/// this instance is leaving.
const DRAINING: EngineError = EngineError::Draining { retry_after: Duration::from_secs(1) };

/// The way to a job's caller.
pub(super) type Reply = oneshot::Sender<Result<Output, EngineError>>;

/// Names a job for as long as it is in the queue; later jobs have higher ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct JobId(u64);

/// A piece of a batch that has run, with its rows `[sequences * width]`.
pub(super) type Ran = (Piece, Result<Vec<f32>, EngineError>);

/// All jobs that are waiting, queued or running.
#[derive(Debug)]
pub(super) struct Queue {
    config: EngineConfig,
    /// Values in a row.
    width: usize,
    next_id: u64,
    /// Jobs before this one were given up by a reset, with their batches.
    first_id: u64,
    jobs: BTreeMap<JobId, Entry>,
    deadlines: BTreeSet<(Instant, JobId)>,
    lanes: PerLane<LaneState>,
    /// Batches in a row in which interactive work went before bulk work.
    interactive_run: usize,
    drain: Option<Drain>,
    rate: DrainRate,
    finished_sequences: u64,
    finished_tokens: u64,
    batches: u64,
    preemptions: u64,
}

/// The jobs of a lane.
#[derive(Debug, Default)]
struct LaneState {
    /// Accepted jobs that have sequences in no batch yet.
    queued: FairLine,
    queued_sequences: usize,
    /// Jobs that wait for room.
    waiting: FairLine,
    running_tokens: usize,
    running_batches: usize,
}

#[derive(Debug)]
struct Drain {
    /// Jobs that were accepted when it began.
    accepted: usize,
    refused: usize,
    abandoned: usize,
}

impl Queue {
    /// An empty queue for an encoder of rows of `width` values.
    pub(super) fn new(config: EngineConfig, width: usize) -> Self {
        Self {
            config,
            width,
            next_id: 0,
            first_id: 0,
            jobs: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            lanes: PerLane::default(),
            interactive_run: 0,
            drain: None,
            rate: DrainRate::new(config.workers),
            finished_sequences: 0,
            finished_tokens: 0,
            batches: 0,
            preemptions: 0,
        }
    }

    /// Takes in a job, or puts it in the line of those that wait for room.
    ///
    /// # Errors
    /// If the job is too large, too late, or not wanted now. `reply` is then unused.
    pub(super) fn submit(
        &mut self,
        job: Job,
        reply: Reply,
        now: Instant,
    ) -> Result<JobId, EngineError> {
        if self.drain.is_some() {
            return Err(DRAINING);
        }
        if job.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(EngineError::DeadlineExceeded);
        }
        // What has expired must not take the room of a live job; those that wait go first.
        self.expire(now);
        self.admit(job, reply, now)
    }

    /// Forgets a job whose caller has gone. Its queued sequences leave at once;
    /// the rows of running ones will be dropped.
    pub(super) fn cancel(&mut self, id: JobId, now: Instant) {
        if self.remove(id).is_some() {
            self.admit_waiting(now);
        }
    }

    /// Answers the jobs that a batch of urgent work, which ran within `outer`, completes
    /// or fails.
    pub(super) fn finish_urgent(
        &mut self,
        outer: &mut Running,
        running: Running,
        ran: Vec<Ran>,
        now: Instant,
    ) {
        outer.paused += now.saturating_duration_since(running.started);
        self.finish(running, ran, now);
    }

    /// Answers the jobs that a batch completes or fails.
    pub(super) fn finish(&mut self, running: Running, ran: Vec<Ran>, now: Instant) {
        if ran.iter().any(|(piece, _)| piece.job.0 < self.first_id) {
            return; // formed before a reset, which has answered its jobs
        }
        let lane = self.lanes.get_mut(running.lane);
        lane.running_tokens -= running.tokens;
        lane.running_batches -= 1;
        self.batches += 1;
        let jobs: BTreeSet<JobId> = ran.iter().map(|(piece, _)| piece.job).collect();
        for id in jobs {
            if let Some(entry) = self.jobs.get_mut(&id) {
                entry.paused += running.paused;
            }
        }
        // Also the jobs of this very batch: a late answer is none.
        self.expire(now);
        let mut done_tokens = 0;
        for (piece, result) in ran {
            match result {
                Ok(rows) => {
                    done_tokens += piece.tokens();
                    self.finished_sequences += piece.sequences.len() as u64;
                    self.store(&piece, &rows, now);
                }
                Err(error) => self.answer(piece.job, Err(error)),
            }
        }
        self.finished_tokens += done_tokens as u64;
        self.rate.observe(done_tokens, running.time(now), running.alone);
        self.rest(running.lane);
        self.admit_waiting(now);
    }

    /// Takes no more work and refuses the jobs that wait for room. Doing it again
    /// changes nothing.
    pub(super) fn begin_drain(&mut self) {
        if self.drain.is_some() {
            return;
        }
        let waiting: BTreeSet<JobId> =
            self.lanes.each().into_iter().flat_map(|lane| lane.waiting.ids()).collect();
        let refused = waiting.len();
        let accepted = self.jobs.len() - refused;
        // First of all, so that it holds whatever happens while jobs are answered.
        self.drain = Some(Drain { accepted, refused, abandoned: 0 });
        for id in waiting {
            self.answer(id, Err(DRAINING));
        }
    }

    /// Answers every job that is left with `Draining`, those in a running batch too.
    pub(super) fn abandon(&mut self) {
        let left: Vec<JobId> = self.jobs.keys().copied().collect();
        if let Some(drain) = &mut self.drain {
            drain.abandoned += left.len();
        }
        for id in left {
            self.answer(id, Err(DRAINING));
        }
    }

    /// Gives up every job and every batch that runs, after a panic that may have left
    /// them half-changed. A drain goes on, and what has been counted stays.
    pub(super) fn reset(&mut self) {
        let fresh = Self {
            next_id: self.next_id,
            first_id: self.next_id,
            drain: self.drain.take(),
            finished_sequences: self.finished_sequences,
            finished_tokens: self.finished_tokens,
            batches: self.batches,
            preemptions: self.preemptions,
            ..Self::new(self.config, self.width)
        };
        // To drop a job closes the way to its caller, who takes that for a panic.
        drop(std::mem::replace(self, fresh));
    }

    /// What became of the jobs since the drain began; all zero before.
    pub(super) fn drain_report(&self) -> DrainReport {
        self.drain.as_ref().map_or_else(DrainReport::default, |drain| DrainReport {
            finished: drain.accepted - drain.abandoned - self.jobs.len(),
            abandoned: drain.abandoned,
            refused: drain.refused,
        })
    }

    /// Whether every job has been answered.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether there is work for a free worker.
    pub(super) fn has_queued(&self) -> bool {
        !self.lanes.interactive.queued.is_empty() || !self.lanes.bulk.queued.is_empty()
    }

    /// Whether it is certain that no batch runs: those from before a reset are not counted.
    pub(super) fn no_batch_runs(&self) -> bool {
        self.running_batches() == 0 && self.first_id == 0
    }

    /// Batches that run, or pause for others.
    fn running_batches(&self) -> usize {
        self.lanes.each().iter().map(|lane| lane.running_batches).sum()
    }

    /// The counters. The queue does not know of panics and leaves them zero.
    pub(super) fn stats(&self) -> EngineStats {
        let PerLane { interactive, bulk } = &self.lanes;
        let waiting_jobs = interactive.waiting.len() + bulk.waiting.len();
        EngineStats {
            open_jobs: self.jobs.len() - waiting_jobs,
            waiting_jobs,
            waiting_tokens: interactive.waiting.tokens() + bulk.waiting.tokens(),
            queued_clients: interactive.queued.clients() + bulk.queued.clients(),
            queued_tokens: self.queued_tokens(),
            queued_bulk_tokens: bulk.queued.tokens(),
            queued_sequences: interactive.queued_sequences + bulk.queued_sequences,
            running_tokens: interactive.running_tokens + bulk.running_tokens,
            running_batches: interactive.running_batches + bulk.running_batches,
            finished_sequences: self.finished_sequences,
            finished_tokens: self.finished_tokens,
            batches: self.batches,
            preemptions: self.preemptions,
            worker_restarts: 0,
            tokens_per_second: self.rate.tokens_per_second(),
        }
    }

    /// Answers every job whose deadline has passed, wherever it is, and gives the
    /// room to those that wait. The two belong together: whoever expires jobs may
    /// then return early, and nobody else would look at the line.
    fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            self.answer(id, Err(EngineError::DeadlineExceeded));
        }
        self.admit_waiting(now);
    }

    fn store(&mut self, piece: &Piece, rows: &[f32], now: Instant) {
        let Some(entry) = self.jobs.get_mut(&piece.job) else {
            return; // cancelled, expired, failed in another batch, or abandoned
        };
        entry.store(piece, rows, self.width);
        if entry.is_complete()
            && let Some(entry) = self.remove(piece.job)
        {
            entry.complete(self.width, now);
        }
    }

    fn answer(&mut self, id: JobId, result: Result<Output, EngineError>) {
        if let Some(entry) = self.remove(id) {
            entry.answer(result);
        }
    }

    /// Takes a job out of every index, and its queued tokens out of the count.
    fn remove(&mut self, id: JobId) -> Option<Entry> {
        let entry = self.jobs.remove(&id)?;
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        let lane = self.lanes.get_mut(entry.lane);
        if lane.queued.remove(&entry.client, id, entry.rest_tokens) {
            lane.queued_sequences -= entry.rest.len();
            self.rest(entry.lane);
        } else if lane.waiting.remove(&entry.client, id, entry.rest_tokens) {
            lane.waiting.rest();
        }
        Some(entry)
    }

    /// Lets a lane forget whom it has served, once nothing of it is queued or runs.
    fn rest(&mut self, lane: Lane) {
        let lane = self.lanes.get_mut(lane);
        if lane.running_batches == 0 {
            lane.queued.rest();
        }
    }

    fn queued_tokens(&self) -> usize {
        self.lanes.interactive.queued.tokens() + self.lanes.bulk.queued.tokens()
    }
}
