//! Which sequences run next.
//!
//! One lane goes first and the other fills the room that is left, each in the order of
//! its [`FairLine`](super::fair::FairLine), sequence by sequence: the first sequence of
//! a lane that does not fit ends that lane's part. Interactive
//! goes first, but after `max_interactive_run` such batches in a row while bulk work
//! was queued, bulk goes first once. So the oldest bulk sequence waits for at most
//! that many batches, however much interactive work there is.

use tokio::time::Instant;

use super::fair::Head;
use super::{JobId, Queue};
use crate::engine::job::Lane;

/// What a free worker should do.
#[derive(Debug)]
pub(in crate::engine) enum Step {
    /// Run this.
    Run(Batch),
    /// Look again then, or when told.
    WaitUntil(Instant),
    /// Look again when told.
    Wait,
}

/// Sequences to run in one forward pass.
#[derive(Debug)]
pub(in crate::engine) struct Batch {
    /// In the order in which they run; a job may have several.
    pub(in crate::engine) pieces: Vec<Piece>,
    /// Tokens over all pieces.
    pub(in crate::engine) tokens: usize,
    /// When it was formed.
    pub(in crate::engine) started: Instant,
}

/// Neighbouring sequences of one job.
#[derive(Debug)]
pub(in crate::engine) struct Piece {
    /// The job.
    pub(in crate::engine) job: JobId,
    /// Index in the job of the first of `sequences`.
    pub(in crate::engine) first: usize,
    /// Token ids.
    pub(in crate::engine) sequences: Vec<Vec<u32>>,
}

impl Piece {
    /// Tokens over all its sequences.
    pub(in crate::engine) fn tokens(&self) -> usize {
        self.sequences.iter().map(Vec::len).sum()
    }
}

impl Queue {
    /// Drops what has expired and gives a free worker its next batch.
    pub(in crate::engine) fn next(&mut self, now: Instant) -> Step {
        self.expire(now);
        match self.lingers(now) {
            Some(ready) => Step::WaitUntil(ready),
            None => self.form(now).map_or(Step::Wait, Step::Run),
        }
    }

    /// Until when a free worker waits for a fuller batch, if it does.
    fn lingers(&self, now: Instant) -> Option<Instant> {
        let full = self.queued_tokens() >= self.config.max_batch_tokens;
        if full || self.config.linger.is_zero() || self.drain.is_some() {
            return None;
        }
        let heads = self.lanes.each().into_iter().flat_map(|lane| lane.queued.heads());
        let oldest =
            heads.filter_map(|head| self.jobs.get(&head.job)).map(|job| job.admitted).min();
        oldest.map(|oldest| oldest + self.config.linger).filter(|ready| now < *ready)
    }

    fn form(&mut self, now: Instant) -> Option<Batch> {
        let first = self.first_lane()?;
        let mut batch = Batch { pieces: Vec::new(), tokens: 0, started: now };
        self.fill(&mut batch, first);
        self.fill(&mut batch, first.other());
        for piece in &batch.pieces {
            if let Some(entry) = self.jobs.get_mut(&piece.job) {
                entry.starts(now, batch.tokens);
            }
        }
        self.running_tokens += batch.tokens;
        self.running_batches += 1;
        self.admit_waiting(now);
        Some(batch)
    }

    /// The lane that goes first in the next batch; `None` if nothing is queued.
    fn first_lane(&mut self) -> Option<Lane> {
        let bulk_waits = !self.lanes.bulk.queued.is_empty();
        let bulk_is_due = self.interactive_run >= self.config.max_interactive_run;
        if self.lanes.interactive.queued.is_empty() || (bulk_waits && bulk_is_due) {
            self.interactive_run = 0;
            return bulk_waits.then_some(Lane::Bulk);
        }
        self.interactive_run = if bulk_waits { self.interactive_run + 1 } else { 0 };
        Some(Lane::Interactive)
    }

    /// Takes sequences of `lane` while they fit. The first of a batch always fits: one
    /// over the budget runs alone.
    fn fill(&mut self, batch: &mut Batch, lane: Lane) {
        let lane = self.lanes.get_mut(lane);
        if let Some(Head { tag, .. }) = lane.queued.first() {
            lane.queued.start(tag);
        }
        while let Some(Head { job, client, .. }) = lane.queued.first()
            && let Some(entry) = self.jobs.get_mut(&job)
            && let tokens = entry.next_tokens()
            && (batch.tokens == 0 || batch.tokens + tokens <= self.config.max_batch_tokens)
        {
            entry.take_into(job, &mut batch.pieces);
            batch.tokens += tokens;
            lane.queued.serve(&client, tokens, entry.rest.is_empty());
            lane.queued_sequences -= 1;
        }
    }
}
