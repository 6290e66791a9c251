//! Who gets into the queue.
//!
//! The queue holds `max_queued_tokens`, of which bulk jobs may hold three quarters,
//! so that a flood of them never shuts interactive jobs out. One client may hold
//! `max_queued_tokens_per_client`, bulk jobs three quarters of that too. Of those that
//! wait for room each lane holds `max_waiting_tokens`. They get in in the order of
//! their [`FairLine`](super::fair::FairLine): a client's in the order of arrival, and
//! clients in turn. While one waits for room, later jobs of its lane wait behind it or
//! are refused; but one that only waits for its own client's jobs to leave holds up no
//! other client.
//!
//! Between the lanes, the job whose turn it is in a lane's line claims its tokens:
//! later jobs of the *other* lane must leave that much room. So a stream of small jobs
//! cannot keep a large one waiting for ever. A job that waits for its own lane to
//! shrink claims nothing, since the other lane is not what holds it up; so bulk jobs
//! with their claim never hold more than their three quarters, and an interactive
//! job within the last quarter is never refused on account of bulk. Of two claims
//! the older counts, so they cannot block each other.
//!
//! A job that would be refused rather than wait is also refused if it cannot be
//! expected to end by its deadline: at the speed of the last batches, after its
//! client's share of what is queued. So under overload the queue holds what will be
//! answered, and the rest is told at once. One that finds its lane empty may always try.

use std::time::Duration;

use tokio::time::Instant;

use super::entry::Entry;
use super::fair::Tag;
use super::{DRAINING, JobId, Queue, Reply};
use crate::engine::error::EngineError;
use crate::engine::job::{Admission, ClientId, Job, Lane};
use crate::engine::rate::retry_after;

/// A job that asks for a place in the queue.
#[derive(Debug)]
pub(super) struct Applicant {
    pub(super) id: JobId,
    pub(super) client: ClientId,
    pub(super) lane: Lane,
    pub(super) tokens: usize,
}

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
        let applicant = Applicant { id, client: job.client.clone(), lane: job.lane, tokens };
        let enters = self.check_place(&applicant, job.admission, job.deadline, now)?;
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
        // If it waits, it may be its client's turn before that of those who wait already;
        // if it has entered, its client's turn in the other line may have passed to another.
        self.admit_waiting(now);
        Ok(id)
    }

    /// Refuses what would be refused of a job of about `tokens`, if it came now; not that it is
    /// too large, which is only known of the job itself.
    pub(in crate::engine) fn look(
        &mut self,
        (lane, client): (Lane, &ClientId),
        tokens: usize,
        admission: Admission,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<(), EngineError> {
        if self.drain.is_some() {
            return Err(DRAINING);
        }
        self.expire(now);
        let id = JobId(self.next_id);
        let tokens = tokens.min(self.config.lane_limit(lane));
        let applicant = Applicant { id, client: client.clone(), lane, tokens };
        self.check_place(&applicant, admission, deadline, now).map(drop)
    }

    /// Whether a job enters its lane at once; else it waits in the line before it.
    fn check_place(
        &self,
        applicant: &Applicant,
        admission: Admission,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<bool, EngineError> {
        let enters = self.is_next(applicant) && self.has_room(applicant);
        match (admission, enters) {
            (Admission::Reject, true) => self.check_deadline(applicant, deadline, now)?,
            (Admission::Reject, false) => return Err(self.overloaded(applicant)),
            (Admission::Wait, true) => {}
            (Admission::Wait, false) => self.check_line(applicant)?,
        }
        Ok(enters)
    }

    /// Moves jobs from the lines into their lanes while there is room.
    pub(super) fn admit_waiting(&mut self, now: Instant) {
        // A job that moves on may end a claim on the other lane, so look at both again.
        while self.admit_head(Lane::Interactive, now) || self.admit_head(Lane::Bulk, now) {}
    }

    fn admit_head(&mut self, lane: Lane, now: Instant) -> bool {
        let Some((tag, head)) = self.head(lane) else { return false };
        if !self.has_room(&head) {
            return false;
        }
        let Applicant { id, client, tokens, .. } = head;
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

    /// The job whose turn it is to get into `lane`, and its place in the line. Clients
    /// that hold all they may are passed over: few, since each of them holds much.
    pub(super) fn head(&self, lane: Lane) -> Option<(Tag, Applicant)> {
        let applicant = |id: JobId, client| {
            let tokens = self.jobs.get(&id)?.rest_tokens;
            Some(Applicant { id, client, lane, tokens })
        };
        let heads = self.lanes.get(lane).waiting.heads();
        heads
            .filter_map(|head| Some((head.tag, applicant(head.job, head.client)?)))
            .find(|(_, head)| self.over_client_limit(head, 0).is_none())
    }

    /// Whether no other job is to get into the lane before this one.
    fn is_next(&self, job: &Applicant) -> bool {
        let waiting = &self.lanes.get(job.lane).waiting;
        waiting.tokens_of(&job.client) == 0 && self.head(job.lane).is_none()
    }

    /// Whether a job may enter its lane now.
    pub(super) fn has_room(&self, job: &Applicant) -> bool {
        let in_lane = self.lanes.get(job.lane).queued.tokens() + job.tokens;
        let in_all = self.queued_tokens() + self.claim_on(job) + job.tokens;
        in_lane <= self.config.lane_limit(job.lane)
            && in_all <= self.config.max_queued_tokens
            && self.over_client_limit(job, 0).is_none()
    }

    /// What the job's client has queued, with `waiting` tokens ahead of the job, and the
    /// limit on it that the job would go over.
    fn over_client_limit(&self, job: &Applicant, waiting: usize) -> Option<(usize, usize)> {
        let queued = |lane| self.lanes.get(lane).queued.tokens_of(&job.client);
        let own = queued(job.lane) + waiting;
        let limits = [
            (own, self.config.client_limit(job.lane)),
            (own + queued(job.lane.other()), self.config.max_queued_tokens_per_client),
        ];
        // A job over the limit by itself could otherwise never run.
        let over = |&(held, limit): &(usize, usize)| own > 0 && held + job.tokens > limit;
        limits.into_iter().find(over)
    }

    /// Tokens that a job must leave free for the head of the other line.
    fn claim_on(&self, job: &Applicant) -> usize {
        let other = job.lane.other();
        let room = self.config.lane_limit(other) - self.lanes.get(other).queued.tokens();
        match self.head(other) {
            Some((_, head)) if head.id < job.id && head.tokens <= room => head.tokens,
            _ => 0,
        }
    }

    /// Refuses a job for which the line is too long, or its client's part of it. It
    /// takes any job while it is empty, since one over its limit could otherwise never
    /// run.
    fn check_line(&self, job: &Applicant) -> Result<(), EngineError> {
        let line = &self.lanes.get(job.lane).waiting;
        let excess = |held: usize, limit: usize| {
            // There is room at the latest once the line is empty.
            let over = held > 0 && held + job.tokens > limit;
            over.then(|| (held + job.tokens - limit).min(held))
        };
        let (own, limit) = (line.tokens_of(&job.client), self.config.max_queued_tokens_per_client);
        if let Some(excess) = excess(own, limit) {
            return Err(self.client_overloaded(job, own, limit, excess));
        }
        let (held, limit) = (line.tokens(), self.config.max_waiting_tokens);
        match excess(held, limit) {
            None => Ok(()),
            Some(excess) => {
                let retry_after = self.retry_after(job.lane, excess);
                Err(EngineError::Overloaded { queued_tokens: held, limit, retry_after })
            }
        }
    }

    fn overloaded(&self, job: &Applicant) -> EngineError {
        let state = self.lanes.get(job.lane);
        let waiting = state.waiting.tokens_of(&job.client);
        if let Some((held, limit)) = self.over_client_limit(job, waiting) {
            let excess = (held + job.tokens).saturating_sub(limit).min(held);
            return self.client_overloaded(job, held, limit, excess);
        }
        let in_lane = state.queued.tokens() + state.waiting.tokens();
        let lane_limit = self.config.lane_limit(job.lane);
        let (queued_tokens, limit) = if in_lane + job.tokens > lane_limit {
            (in_lane, lane_limit)
        } else {
            let in_all = self.queued_tokens() + state.waiting.tokens() + self.claim_on(job);
            (in_all, self.config.max_queued_tokens)
        };
        let excess = (queued_tokens + job.tokens).saturating_sub(limit);
        let retry_after = self.retry_after(job.lane, excess);
        EngineError::Overloaded { queued_tokens, limit, retry_after }
    }

    /// Refuses a job of whose client `held` tokens are there, `excess` of them too many.
    fn client_overloaded(
        &self,
        job: &Applicant,
        held: usize,
        limit: usize,
        excess: usize,
    ) -> EngineError {
        let line = &self.lanes.get(job.lane).queued;
        // In a turn of the client each other client with work has one too.
        let turns = excess.saturating_mul(line.clients().max(1));
        let ahead = turns.min(line.tokens().max(excess));
        let retry_after = self.retry_after(job.lane, ahead);
        EngineError::ClientOverloaded { queued_tokens: held, limit, retry_after }
    }

    /// Refuses a job that cannot be expected to end by its deadline.
    fn check_deadline(
        &self,
        job: &Applicant,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<(), EngineError> {
        let line = &self.lanes.get(job.lane).queued;
        let Some(deadline) = deadline.filter(|_| !line.is_empty()) else { return Ok(()) };
        let own = line.tokens_of(&job.client);
        let clients = line.clients() + usize::from(own == 0);
        let turns = (line.lead_of(&job.client) + own + job.tokens).saturating_mul(clients);
        let running = self.lanes.get(job.lane).running_tokens;
        // What runs is in the way too, except of a client whose share of it is still to come: it
        // pauses for that one.
        let in_the_way = if own > 0 && clients == 1 || turns > running { running } else { 0 };
        let ahead = in_the_way + turns.min(line.tokens() + job.tokens);
        let left = deadline.saturating_duration_since(now);
        match self.rate.safe_time_for(self.with_other_lane(job.lane, ahead)) {
            Some(needed) if needed > left => {
                let retry_after = retry_after(needed - left);
                Err(EngineError::WouldExpire { needed, left, retry_after })
            }
            _ => Ok(()),
        }
    }

    /// When `tokens` of `lane` should have left it.
    fn retry_after(&self, lane: Lane, tokens: usize) -> Duration {
        self.rate.retry_after(self.with_other_lane(lane, tokens))
    }

    /// `tokens` of `lane` with what runs of the other lane meanwhile.
    fn with_other_lane(&self, lane: Lane, tokens: usize) -> usize {
        let run = self.config.max_interactive_run;
        let turns = match lane {
            Lane::Interactive => tokens / run,
            Lane::Bulk => tokens.saturating_mul(run),
        };
        tokens.saturating_add(turns.min(self.lanes.get(lane.other()).queued.tokens()))
    }
}
