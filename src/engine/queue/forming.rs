//! Which sequences run next.
//!
//! A batch holds sequences of one lane, in the order of its
//! [`FairLine`](super::fair::FairLine); the first that does not fit ends it. Room that
//! is left is not filled from the other lane: that would make a call as slow as the
//! bulk work beside it, and gain little, as small batches are hardly slower a token.
//!
//! Interactive goes first, but after `max_interactive_run` such batches in a row while
//! bulk work was queued, bulk goes first once. So the oldest bulk sequence waits for at
//! most that many batches, however much interactive work there is.
//!
//! An encoder that can pause lets urgent jobs run within a batch. Only interactive jobs
//! are urgent, since nobody waits for bulk ones:
//! - while a bulk batch runs, all of them;
//! - while an interactive one runs, those of clients that have nothing in it and that,
//!   served one sequence more, will still have been served less than the client in it
//!   that was served most. So a client need not wait for the batches of a flood, and
//!   clients with equal needs do not interrupt each other.
//!
//! What would be urgent within a batch is left out of it, and runs before its first layer.
//!
//! Urgent jobs run in batches of at most a quarter of `max_batch_tokens`, or of one longer
//! sequence, so that the next urgent job does not wait long either. All of them within
//! a batch have at most as many tokens as it has, so it takes at most about twice its
//! time, and bulk work is not starved. They are not interrupted themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::fair::{Head, Tag, span};
use super::{JobId, Queue};
use crate::engine::job::{ClientId, Lane};

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
    /// To be given back when they have run.
    pub(in crate::engine) running: Running,
}

/// What the queue must know of a batch that runs.
#[derive(Debug)]
pub(in crate::engine) struct Running {
    pub(super) lane: Lane,
    /// Tokens over all its sequences.
    pub(in crate::engine) tokens: usize,
    /// When it was formed.
    pub(super) started: Instant,
    /// Whether no other ran then, so that the encoder had all threads for it.
    pub(super) alone: bool,
    clients: BTreeSet<ClientId>,
    /// How far the client in it has been served that was served most.
    furthest: Tag,
    /// Tokens of urgent work that may still run within it.
    room: usize,
    /// Whether work was left out of it, which should run before.
    pub(in crate::engine) has_left_out: bool,
    /// How long it has paused for urgent work.
    pub(super) paused: Duration,
}

impl Running {
    /// How long it has run by `now`.
    pub(in crate::engine) fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started).saturating_sub(self.paused)
    }
}

/// Sequences that have left their lane for a batch.
#[derive(Debug, Default)]
struct Picked {
    pieces: Vec<Piece>,
    tokens: usize,
    shares: BTreeMap<ClientId, Share>,
}

/// What a client has in a batch.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    tokens: usize,
    /// How far the client has been served with them.
    tag: Tag,
}

impl Picked {
    /// How far the client has been served that was served most.
    fn furthest(&self) -> Tag {
        self.shares.values().map(|share| share.tag).max().unwrap_or_default()
    }
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

    /// Forms a batch of urgent work, if there is any, to run now within `outer`.
    pub(in crate::engine) fn next_urgent(
        &mut self,
        outer: &mut Running,
        now: Instant,
    ) -> Option<Batch> {
        let (room, furthest, clients) = (outer.room, outer.furthest, &outer.clients);
        if room == 0 {
            return None;
        }
        self.expire(now);
        let is_urgent = |head: &Head, tokens: usize| {
            let would_have_been_first = || {
                !clients.contains(&head.client) && head.tag.saturating_add(span(tokens)) < furthest
            };
            tokens <= room && (outer.lane == Lane::Bulk || would_have_been_first())
        };
        let limit = self.config.max_urgent_tokens().min(room);
        let picked = self.pick(Lane::Interactive, limit, is_urgent)?;
        outer.room -= picked.tokens;
        self.preemptions += 1;
        let mut batch = self.start(Lane::Interactive, picked, now);
        batch.running.room = 0;
        // The one that it runs within pauses.
        batch.running.alone = self.running_batches() == 2;
        Some(batch)
    }

    fn form(&mut self, now: Instant) -> Option<Batch> {
        let lane = self.first_lane()?;
        let queued = &mut self.lanes.get_mut(lane).queued;
        let first = queued.first()?;
        queued.start(first.tag);
        let mut picked = self.pick(lane, self.config.max_batch_tokens, |_, _| true)?;
        let has_left_out = lane == Lane::Interactive && self.leave_urgent_out(lane, &mut picked);
        let mut batch = self.start(lane, picked, now);
        batch.running.has_left_out = has_left_out;
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

    /// Picks the sequences of `lane` that `may_run`, given the head of their client and
    /// their tokens, while they fit in `limit` tokens. The first always fits: one over
    /// the limit runs alone.
    fn pick(
        &mut self,
        lane: Lane,
        limit: usize,
        may_run: impl Fn(&Head, usize) -> bool,
    ) -> Option<Picked> {
        let state = self.lanes.get_mut(lane);
        let mut picked = Picked::default();
        loop {
            let mut heads = state.queued.heads().filter_map(|head| {
                let next = self.jobs.get(&head.job)?.next_tokens();
                Some((head, next))
            });
            let Some((head, next)) = heads.find(|(head, next)| may_run(head, *next)) else { break };
            if picked.tokens > 0 && picked.tokens + next > limit {
                break;
            }
            drop(heads);
            let Some(entry) = self.jobs.get_mut(&head.job) else { break };
            entry.take_into(head.job, &mut picked.pieces);
            let tag = state.queued.serve(&head.client, next, entry.rest.is_empty());
            state.queued_sequences -= 1;
            picked.tokens += next;
            let share = picked.shares.entry(head.client).or_default();
            share.tokens += next;
            share.tag = tag;
        }
        (picked.tokens > 0).then_some(picked)
    }

    /// Gives back what would be urgent while the rest runs, if that is much: the
    /// sequences of those clients that have been served least, up to an urgent batch.
    /// Returns whether there are any.
    fn leave_urgent_out(&mut self, lane: Lane, picked: &mut Picked) -> bool {
        let limit = self.config.max_urgent_tokens();
        let furthest = picked.furthest();
        let mut behind: Vec<(ClientId, Share)> = picked.shares.clone().into_iter().collect();
        behind.retain(|(_, share)| share.tag < furthest);
        behind.sort_by_key(|(_, share)| share.tag);
        let mut tokens = 0;
        let out: BTreeMap<ClientId, Share> = behind
            .into_iter()
            .take_while(|(_, share)| {
                tokens += share.tokens;
                tokens <= limit
            })
            .collect();
        let tokens: usize = out.values().map(|share| share.tokens).sum();
        if tokens == 0 || picked.tokens - tokens <= limit {
            return false;
        }
        picked.tokens -= tokens;
        picked.shares.retain(|client, _| !out.contains_key(client));
        let state = self.lanes.get_mut(lane);
        let pieces = std::mem::take(&mut picked.pieces);
        // The last first, so that the sequences of a job come back in their order.
        for piece in pieces.into_iter().rev() {
            let Some(entry) = self.jobs.get_mut(&piece.job) else { continue };
            match out.get(&entry.client) {
                None => picked.pieces.push(piece),
                Some(share) => {
                    let before = share.tag.saturating_sub(span(share.tokens));
                    state.queued.give_back(&entry.client, piece.job, piece.tokens(), before);
                    state.queued_sequences += piece.sequences.len();
                    entry.give_back(piece.sequences);
                }
            }
        }
        picked.pieces.reverse();
        true
    }

    /// Notes that what was picked runs.
    fn start(&mut self, lane: Lane, picked: Picked, now: Instant) -> Batch {
        let furthest = picked.furthest();
        let Picked { pieces, tokens, shares } = picked;
        let state = self.lanes.get_mut(lane);
        state.running_tokens += tokens;
        state.running_batches += 1;
        for piece in &pieces {
            if let Some(entry) = self.jobs.get_mut(&piece.job) {
                entry.starts(now, tokens);
            }
        }
        self.admit_waiting(now);
        let running = Running {
            lane,
            tokens,
            started: now,
            alone: self.running_batches() == 1,
            clients: shares.into_keys().collect(),
            furthest,
            room: tokens,
            has_left_out: false,
            paused: Duration::ZERO,
        };
        Batch { pieces, running }
    }
}
