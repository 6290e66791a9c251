//! Who gets into the queue.
//!
//! The queue holds `max_queued_tokens`, of which bulk jobs may hold three quarters,
//! so that a flood of them never shuts interactive jobs out. Of those that wait for
//! room each lane holds `max_waiting_tokens`. They get in in the order of their
//! [`FairLine`](super::fair::FairLine): a client's in the order of arrival, and clients
//! in turn. While one waits for room, later jobs of its lane wait behind it or are
//! refused.
//!
//! Between the lanes, the job at the head of a lane's line claims its tokens: later
//! jobs of the *other* lane must leave that much room. So a stream of small jobs
//! cannot keep a large one waiting for ever. A job that waits for its own lane to
//! shrink claims nothing, since the other lane is not what holds it up; so bulk jobs
//! with their claim never hold more than their three quarters, and an interactive
//! job within the last quarter is never refused on account of bulk. Of two claims
//! the older counts, so they cannot block each other.

use tokio::time::Instant;

use super::entry::Entry;
use super::fair::Head;
use super::{JobId, Queue, Reply};
use crate::engine::error::EngineError;
use crate::engine::job::{Admission, Job, Lane};

impl Queue {
    /// Puts a job in its lane, or in the line before it.
    pub(super) fn admit(
        &mut self,
        job: Job,
        reply: Reply,
        now: Instant,
    ) -> Result<JobId, EngineError> {
        let tokens = job.sequences.iter().map(Vec::len).sum();
        let limit = self.config.lane_limit(job.lane);
        if tokens > limit {
            return Err(EngineError::TooLarge { tokens, limit });
        }
        let id = JobId(self.next_id);
        let enters =
            self.lanes.get(job.lane).waiting.is_empty() && self.has_room(id, job.lane, tokens);
        if !enters {
            match job.admission {
                Admission::Reject => return Err(self.overloaded(id, job.lane, tokens)),
                Admission::Wait => self.check_line(job.lane, tokens)?,
            }
        }
        self.next_id += 1;
        let lane = self.lanes.get_mut(job.lane);
        if enters {
            lane.queued.push(&job.client, id, tokens);
            lane.queued_sequences += job.sequences.len();
        } else {
            lane.waiting.push(&job.client, id, tokens);
        }
        self.deadlines.extend(job.deadline.map(|deadline| (deadline, id)));
        self.jobs.insert(id, Entry::new(job, tokens, reply, now));
        if !enters {
            // It may be its client's turn before that of those who wait already.
            self.admit_waiting(now);
        }
        Ok(id)
    }

    /// Moves jobs from the heads of the lines into their lanes while there is room.
    pub(super) fn admit_waiting(&mut self, now: Instant) {
        // A head that moves on may end a claim on the other lane, so look at both again.
        while self.admit_head(Lane::Interactive, now) || self.admit_head(Lane::Bulk, now) {}
    }

    fn admit_head(&mut self, lane: Lane, now: Instant) -> bool {
        let Some((Head { tag, job: id, client }, tokens)) = self.head(lane) else { return false };
        if !self.has_room(id, lane, tokens) {
            return false;
        }
        let Some(entry) = self.jobs.get_mut(&id) else { return false };
        entry.admitted = now;
        let lane = self.lanes.get_mut(lane);
        lane.waiting.start(tag);
        lane.waiting.serve(&client, tokens, true);
        lane.waiting.rest();
        lane.queued.push(&client, id, tokens);
        lane.queued_sequences += entry.rest.len();
        true
    }

    /// The job whose turn it is to get into `lane` next, and its tokens.
    pub(super) fn head(&self, lane: Lane) -> Option<(Head, usize)> {
        let head = self.lanes.get(lane).waiting.first()?;
        self.jobs.get(&head.job).map(|entry| (head, entry.rest_tokens))
    }

    /// Whether job `id` may enter `lane` with its `tokens` now.
    pub(super) fn has_room(&self, id: JobId, lane: Lane, tokens: usize) -> bool {
        let in_lane = self.lanes.get(lane).queued.tokens() + tokens;
        let in_all = self.queued_tokens() + self.claim_on(lane, id) + tokens;
        in_lane <= self.config.lane_limit(lane) && in_all <= self.config.max_queued_tokens
    }

    /// Tokens that job `id` of `lane` must leave free for the head of the other line.
    fn claim_on(&self, lane: Lane, id: JobId) -> usize {
        let other = lane.other();
        let room = self.config.lane_limit(other) - self.lanes.get(other).queued.tokens();
        match self.head(other) {
            Some((head, tokens)) if head.job < id && tokens <= room => tokens,
            _ => 0,
        }
    }

    /// Refuses a job for which the line of `lane` is too long. It takes any job while
    /// it is empty, since one over its limit could otherwise never run.
    fn check_line(&self, lane: Lane, tokens: usize) -> Result<(), EngineError> {
        let waiting = self.lanes.get(lane).waiting.tokens();
        let limit = self.config.max_waiting_tokens;
        if waiting == 0 || waiting + tokens <= limit {
            return Ok(());
        }
        // There is room at the latest once the line is empty.
        let retry_after = self.rate.retry_after((waiting + tokens - limit).min(waiting));
        Err(EngineError::Overloaded { queued_tokens: waiting, limit, retry_after })
    }

    fn overloaded(&self, id: JobId, lane: Lane, tokens: usize) -> EngineError {
        let state = self.lanes.get(lane);
        let in_lane = state.queued.tokens() + state.waiting.tokens();
        let lane_limit = self.config.lane_limit(lane);
        let (queued_tokens, limit) = if in_lane + tokens > lane_limit {
            (in_lane, lane_limit)
        } else {
            let in_all = self.queued_tokens() + state.waiting.tokens() + self.claim_on(lane, id);
            (in_all, self.config.max_queued_tokens)
        };
        let retry_after = self.rate.retry_after((queued_tokens + tokens).saturating_sub(limit));
        EngineError::Overloaded { queued_tokens, limit, retry_after }
    }
}
