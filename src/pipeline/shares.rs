//! What is had only so often, and shared between those who want it: memory for documents, cores for
//! their text.
//!
//! Each line (a client's documents of one lane) may hold a share at a time, and waits for more of it
//! behind itself. In the line of all there is then at most a share of each, so that whoever wants
//! little waits for little, however much another wants.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::{ClientId, Lane};

/// Lines are forgotten when there are this many, if nothing is held or waited for in them.
const SWEEP_AT: usize = 1_024;

/// Whose documents, and in which lane.
pub(super) type Line = (Lane, ClientId);

/// Permits for everybody.
pub(super) struct Shares {
    all: Arc<Semaphore>,
    share: u32,
    lines: Mutex<HashMap<Line, Weak<Semaphore>>>,
}

/// Permits that are held until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    /// Keeps the line known while something is held in it.
    _line: Arc<Semaphore>,
}

impl Shares {
    /// `permits`, half of which one line may hold.
    pub(super) fn new(permits: u32) -> Self {
        Self {
            all: Arc::new(Semaphore::new(permits as usize)),
            share: (permits / 2).max(1),
            lines: Mutex::default(),
        }
    }

    /// Waits for `count` permits; for the whole share of a line, if they are more.
    pub(super) fn acquire(
        &self,
        line: &Line,
        count: u32,
    ) -> impl Future<Output = Option<Held>> + Send + use<> {
        let (all, own, count) = (Arc::clone(&self.all), self.line(line), count.min(self.share));
        async move {
            // Neither is ever closed.
            let own_permit = Arc::clone(&own).acquire_many_owned(count).await.ok()?;
            let permit = all.acquire_many_owned(count).await.ok()?;
            Some(Held { _all: permit, _own: own_permit, _line: own })
        }
    }

    /// As [`acquire`](Self::acquire), but without waiting; `None`: not now.
    pub(super) fn try_acquire(&self, line: &Line, count: u32) -> Option<Held> {
        let (own, count) = (self.line(line), count.min(self.share));
        let own_permit = Arc::clone(&own).try_acquire_many_owned(count).ok()?;
        let permit = Arc::clone(&self.all).try_acquire_many_owned(count).ok()?;
        Some(Held { _all: permit, _own: own_permit, _line: own })
    }

    fn line(&self, line: &Line) -> Arc<Semaphore> {
        let mut lines = self.lines.lock();
        if let Some(known) = lines.get(line).and_then(Weak::upgrade) {
            return known;
        }
        if lines.len() >= SWEEP_AT {
            lines.retain(|_, semaphore| semaphore.strong_count() > 0);
        }
        let new = Arc::new(Semaphore::new(self.share as usize));
        lines.insert(line.clone(), Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn line(client: &str) -> Line {
        (Lane::Interactive, ClientId::new(client))
    }

    #[tokio::test]
    async fn a_line_that_wants_everything_leaves_half_to_others() {
        let shares = Shares::new(4);
        let (greedy, modest) = (line("greedy"), line("modest"));
        let first = shares.try_acquire(&greedy, 2).unwrap();
        assert!(shares.try_acquire(&greedy, 1).is_none());
        let mut waiting = pin!(shares.acquire(&greedy, 1));
        let held = tokio::select! {
            biased;
            _ = &mut waiting => panic!("over its share"),
            held = shares.acquire(&modest, 2) => held,
        };
        assert!(shares.try_acquire(&line("late"), 1).is_none());
        drop(first);
        assert!(waiting.await.is_some());
        drop(held);
    }

    #[tokio::test]
    async fn one_permit_is_shared_in_turn_and_a_large_wish_is_cut_to_the_share() {
        let one = Shares::new(1);
        let held = one.acquire(&line("a"), 1).await;
        assert!(one.try_acquire(&line("b"), 1).is_none());
        drop(held);
        assert!(one.try_acquire(&line("b"), 100).is_some());
    }

    #[test]
    fn lines_that_are_not_used_are_forgotten() {
        let shares = Shares::new(4);
        let held = shares.try_acquire(&line("held"), 2).unwrap();
        for client in 0..3 * SWEEP_AT {
            drop(shares.try_acquire(&line(&client.to_string()), 1));
        }
        assert!(shares.lines.lock().len() <= SWEEP_AT);
        assert!(shares.try_acquire(&line("held"), 1).is_none());
        drop(held);
        assert!(shares.try_acquire(&line("held"), 1).is_some());
    }
}
