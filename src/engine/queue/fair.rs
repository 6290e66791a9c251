//! The jobs of a line, in an order that is fair between clients.
//!
//! This is start-time fair queueing on tokens (Goyal, Vin and Cheng, "Start-time Fair
//! Queueing", SIGCOMM 1996). Each client has its jobs in the order of arrival, and a
//! tag: how far it has been served, on a clock that all share. The client with the
//! lowest tag goes next, and what is served moves its tag on. A client that had
//! nothing in the line starts at the clock's time at the earliest, so it gains nothing
//! by having been idle; one that leaves before it has run has paid nothing. With one
//! client the order is that of arrival.
//!
//! The clock shows the tag of what runs. Beyond the paper, it also moves on by each
//! client's share of what was served, up to the client that was served most: else one
//! new client after another could start before a client that stays.
//!
//! A client is remembered while it has jobs, or has been served further than the clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::JobId;
use crate::engine::job::ClientId;

/// A time on the clock of a line. [`PER_TOKEN`] of it is a token.
pub(super) type Tag = u64;

/// Fine enough to share a token out among many clients.
const PER_TOKEN: Tag = 1 << 16;

/// `tokens` in units of a [`Tag`].
pub(super) fn span(tokens: usize) -> Tag {
    (tokens as Tag).saturating_mul(PER_TOKEN)
}

/// Jobs of many clients, of each in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct FairLine {
    clients: HashMap<ClientId, Flow>,
    /// The clients that have jobs, in the order in which they are served: by tag, then
    /// by the age of their first job.
    order: BTreeMap<(Tag, JobId), ClientId>,
    /// Those that have none, but have been served further than the clock.
    ahead: BTreeSet<(Tag, ClientId)>,
    clock: Tag,
    /// Served since the clock last moved.
    served: Tag,
    jobs: usize,
    tokens: usize,
}

/// One client in a line.
#[derive(Debug, Default)]
struct Flow {
    tag: Tag,
    jobs: BTreeSet<JobId>,
    tokens: usize,
}

/// The first job of a client, which is the next of it to be served.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) tag: Tag,
    pub(super) job: JobId,
    pub(super) client: ClientId,
}

impl FairLine {
    /// Puts a job of `tokens`, which is newer than all others of its client, in line.
    pub(super) fn push(&mut self, client: &ClientId, job: JobId, tokens: usize) {
        let flow = self.clients.entry(client.clone()).or_default();
        if flow.jobs.is_empty() {
            self.ahead.remove(&(flow.tag, client.clone()));
            flow.tag = flow.tag.max(self.clock);
            self.order.insert((flow.tag, job), client.clone());
        }
        flow.jobs.insert(job);
        flow.tokens += tokens;
        self.jobs += 1;
        self.tokens += tokens;
    }

    /// The first job of each client, in the order in which they are served.
    pub(super) fn heads(&self) -> impl Iterator<Item = Head> + '_ {
        let head =
            |(&(tag, job), client): (&_, &ClientId)| Head { tag, job, client: client.clone() };
        self.order.iter().map(head)
    }

    /// The job that is served next.
    pub(super) fn first(&self) -> Option<Head> {
        self.heads().next()
    }

    /// Notes that what is taken from now on starts to run, with `tag` first of all.
    pub(super) fn start(&mut self, tag: Tag) {
        let clients = self.order.len().max(1) as Tag;
        let last = self.order.last_key_value().map_or(tag, |((last, _), _)| *last);
        let shared_out = self.clock.saturating_add(self.served / clients);
        self.clock = shared_out.min(last).max(tag).max(self.clock);
        self.served = 0;
        while let Some((tag, _)) = self.ahead.first()
            && *tag <= self.clock
            && let Some((_, client)) = self.ahead.pop_first()
        {
            self.clients.remove(&client);
        }
    }

    /// Takes `tokens` of the first job of `client`, or the rest of it if it is `done`.
    /// Returns how far the client has been served with them.
    pub(super) fn serve(&mut self, client: &ClientId, tokens: usize, done: bool) -> Tag {
        let span = span(tokens);
        let Some(flow) = self.clients.get_mut(client) else { return 0 };
        let Some(&job) = flow.jobs.first() else { return 0 };
        self.order.remove(&(flow.tag, job));
        flow.tag = flow.tag.saturating_add(span);
        flow.tokens -= tokens;
        if done {
            flow.jobs.remove(&job);
            self.jobs -= 1;
        }
        self.served = self.served.saturating_add(span);
        self.tokens -= tokens;
        let tag = flow.tag;
        self.place(client);
        tag
    }

    /// Undoes [`serve`](Self::serve): `tokens` of `job` come back, and with all of
    /// them the client's tag is again as it was `before`.
    pub(super) fn give_back(&mut self, client: &ClientId, job: JobId, tokens: usize, before: Tag) {
        let flow = self.clients.entry(client.clone()).or_default();
        match flow.jobs.first() {
            Some(&first) => drop(self.order.remove(&(flow.tag, first))),
            None => drop(self.ahead.remove(&(flow.tag, client.clone()))),
        }
        flow.tag = before;
        flow.tokens += tokens;
        self.jobs += usize::from(flow.jobs.insert(job));
        self.served = self.served.saturating_sub(span(tokens));
        self.tokens += tokens;
        self.place(client);
    }

    /// Takes out a job, of which `tokens` have not been served. Returns whether it was there.
    pub(super) fn remove(&mut self, client: &ClientId, job: JobId, tokens: usize) -> bool {
        let Some(flow) = self.clients.get_mut(client) else { return false };
        let Some(&first) = flow.jobs.first() else { return false };
        if !flow.jobs.remove(&job) {
            return false;
        }
        flow.tokens -= tokens;
        self.jobs -= 1;
        self.tokens -= tokens;
        if first == job {
            self.order.remove(&(flow.tag, job));
            self.place(client);
        }
        true
    }

    /// Puts a client, which is not in the order, where it belongs.
    fn place(&mut self, client: &ClientId) {
        let Some(flow) = self.clients.get(client) else { return };
        if let Some(&job) = flow.jobs.first() {
            self.order.insert((flow.tag, job), client.clone());
        } else if flow.tag > self.clock {
            self.ahead.insert((flow.tag, client.clone()));
        } else {
            self.clients.remove(client);
        }
    }

    /// Forgets who has been served, once nobody is in line and nothing of it runs.
    pub(super) fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Whether there is no job.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs == 0
    }

    /// Jobs in line.
    pub(super) fn len(&self) -> usize {
        self.jobs
    }

    /// Tokens of all jobs.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens of the jobs of `client`.
    pub(super) fn tokens_of(&self, client: &ClientId) -> usize {
        self.clients.get(client).map_or(0, |flow| flow.tokens)
    }

    /// Tokens by which `client` has been served further than the clock: about what of
    /// it runs.
    pub(super) fn lead_of(&self, client: &ClientId) -> usize {
        let tag = self.clients.get(client).map_or(0, |flow| flow.tag);
        (tag.saturating_sub(self.clock) / PER_TOKEN) as usize
    }

    /// Clients that have jobs.
    pub(super) fn clients(&self) -> usize {
        self.order.len()
    }

    /// Every job.
    pub(super) fn ids(&self) -> impl Iterator<Item = JobId> + '_ {
        self.clients.values().flat_map(|flow| flow.jobs.iter().copied())
    }

    /// Clients that are remembered, those without jobs too.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.clients.len()
    }
}
