//! Which sequences run next.
//!
//! One lane goes first and the other fills the room that is left, each in order:
//! the first sequence of a lane that does not fit ends that lane's part. Interactive
//! goes first, but after `max_interactive_run` such batches in a row while bulk work
//! was queued, bulk goes first once. So the oldest bulk sequence waits for at most
//! that many batches, however much interactive work there is.

use tokio::time::Instant;

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
    /// One a job, in the order in which they run.
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
        let Some(oldest) = self.oldest_admission() else { return Step::Wait };
        let ready = oldest + self.config.linger;
        let full = self.queued_tokens() >= self.config.max_batch_tokens;
        if !full && now < ready && self.drain.is_none() {
            return Step::WaitUntil(ready);
        }
        self.form(now).map_or(Step::Wait, Step::Run)
    }

    fn oldest_admission(&self) -> Option<Instant> {
        let heads = [&self.lanes.interactive, &self.lanes.bulk].map(|lane| lane.queued.first());
        heads.into_iter().flatten().filter_map(|id| self.jobs.get(id)).map(|job| job.admitted).min()
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

    fn fill(&mut self, batch: &mut Batch, lane: Lane) {
        let lane = self.lanes.get_mut(lane);
        while let Some(&id) = lane.queued.first()
            && let Some(entry) = self.jobs.get_mut(&id)
        {
            let (tokens, sequences) = (entry.rest_tokens, entry.rest.len());
            entry.take_into(id, batch, self.config.max_batch_tokens);
            lane.queued_tokens -= tokens - entry.rest_tokens;
            lane.queued_sequences -= sequences - entry.rest.len();
            if !entry.rest.is_empty() {
                break; // its next sequence does not fit
            }
            lane.queued.pop_first();
        }
    }
}
