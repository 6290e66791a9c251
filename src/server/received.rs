//! The memory of messages: each may be long, and a client may begin many and end none, send many
//! that wait for their turn, or read none of the answers.
//!
//! What a call has received counts, decompressed, until its answer does; of a stream, what is not
//! all there, and each document until its outcome is taken. An answer counts until it is sent.
//! Answers have as much room as what they answer, and while those of a client wait, less is taken
//! on for it: so it is new calls that are refused first, and an answer only where those before left
//! no room. One client may hold half of what there is, of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::status::CallError;
use super::telemetry::HeldBytes;

/// Before each message: whether it is compressed, and its length.
const HEADER_BYTES: usize = 5;
/// When to try again while there is no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What the answer to a document takes in memory, about: that of the shipped models has the names
/// of 20 labels. Those that take more are to documents that have held more themselves.
const OUTCOME_BYTES: usize = 6 * 1_024;
/// What a question about the server's health may have, and its answer.
const HEALTH_BYTES: usize = 1_024;

/// The bytes that all messages may hold, and as many that their answers may.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    held: Mutex<Held>,
    /// Shows what is held.
    shown: HeldBytes,
}

#[derive(Debug, Default)]
struct Held {
    all: Bytes,
    clients: HashMap<Arc<str>, Bytes>,
    /// Those that wait for room.
    waiting: HashMap<Arc<str>, Waiting>,
}

/// Those of one client that wait for room.
#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    queue: Arc<Queue>,
}

/// Where those of one client wait in the order in which they came, so that small documents do not
/// for ever overtake a large one.
#[derive(Debug, Default)]
struct Queue {
    /// Held by the first.
    first: tokio::sync::Mutex<()>,
    /// Wakes the first when there may be room.
    freed: Notify,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bytes {
    received: usize,
    answers: usize,
}

/// What bytes are held for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A message, or a document of one.
    Received,
    /// The answer to it.
    Answer,
    /// Outcomes of a stream, which are sent in any case: there are no more than its documents had
    /// room for.
    Outcomes,
}

/// Bytes of a client, which count until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    budget: Arc<Budget>,
    client: Arc<str>,
    kind: Kind,
    bytes: usize,
}

/// One of those of a client that wait for room.
struct Turn {
    budget: Arc<Budget>,
    client: Arc<str>,
    queue: Arc<Queue>,
}

/// What one call has received, and holds of a [`Budget`].
#[derive(Debug)]
pub(crate) struct Received {
    hold: Hold,
    /// Whether messages count only until they are all there.
    is_stream: bool,
    /// Bytes of messages that are all there.
    complete: usize,
    /// Bytes of the one that is not.
    partial: usize,
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// Bytes of the message that are still to come.
    missing: usize,
}

impl Budget {
    /// A budget of `limit` bytes, half of which one client may hold. What is held is `shown`.
    pub(crate) fn new(limit: usize, shown: HeldBytes) -> Self {
        Self { limit, held: Mutex::default(), shown }
    }

    /// Changes what `client` holds by `to - from` bytes, if there is room.
    fn change(&self, client: &Arc<str>, kind: Kind, from: usize, to: usize) -> bool {
        let mut held = self.held.lock();
        let all = held.all.changed(kind, from, to);
        let own = held.clients.get(client).copied().unwrap_or_default().changed(kind, from, to);
        let fits = match kind {
            Kind::Received => {
                all.received <= self.limit
                    && all.answers < self.limit
                    && own.received + own.answers <= self.limit / 2
            }
            Kind::Answer => all.answers <= self.limit && own.answers <= self.limit / 2,
            Kind::Outcomes => true,
        };
        if to > from && !fits {
            return false;
        }
        held.all = all;
        self.shown.set(all.received, all.answers);
        if own == Bytes::default() {
            held.clients.remove(client);
        } else {
            held.clients.insert(Arc::clone(client), own);
        }
        if to < from {
            // What is free now may be what another client lacks.
            held.waiting.values().for_each(|waiting| waiting.queue.freed.notify_one());
        }
        true
    }

    /// That of one call which asks for the health of the server: it is answered even if clients that
    /// read nothing hold all that there is for answers.
    pub(crate) fn of_health() -> Arc<Self> {
        Arc::new(Self::new(2 * HEALTH_BYTES, HeldBytes::default()))
    }

    fn no_room(&self) -> CallError {
        CallError::NoRoom { limit: self.limit, retry_after: RETRY_AFTER }
    }
}

impl Bytes {
    fn changed(mut self, kind: Kind, from: usize, to: usize) -> Self {
        let bytes = match kind {
            Kind::Received => &mut self.received,
            Kind::Answer | Kind::Outcomes => &mut self.answers,
        };
        *bytes = *bytes - from + to;
        self
    }
}

impl Hold {
    fn none(budget: Arc<Budget>, client: Arc<str>, kind: Kind) -> Self {
        Self { budget, client, kind, bytes: 0 }
    }

    /// Waits until `client` may hold a document of `bytes`, or its outcome; half of the budget, if
    /// they are more.
    pub(crate) async fn wait(budget: Arc<Budget>, client: Arc<str>, bytes: usize) -> Self {
        let bytes = bytes.max(OUTCOME_BYTES).min(budget.limit / 2);
        let turn = Turn::wait(Arc::clone(&budget), Arc::clone(&client));
        let _first = turn.queue.first.lock().await;
        let mut hold = Self::none(budget, client, Kind::Received);
        while !hold.resize(bytes) {
            turn.queue.freed.notified().await;
        }
        hold
    }

    /// Holds `bytes` from now on, if there is room for those that are new.
    fn resize(&mut self, bytes: usize) -> bool {
        let changed = self.budget.change(&self.client, self.kind, self.bytes, bytes);
        if changed {
            self.bytes = bytes;
        }
        changed
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.change(&self.client, self.kind, self.bytes, 0);
        }
    }
}

impl Turn {
    fn wait(budget: Arc<Budget>, client: Arc<str>) -> Self {
        let queue = {
            let mut held = budget.held.lock();
            let waiting = held.waiting.entry(Arc::clone(&client)).or_default();
            waiting.count += 1;
            Arc::clone(&waiting.queue)
        };
        Self { budget, client, queue }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut held = self.budget.held.lock();
        let Some(waiting) = held.waiting.get_mut(&self.client) else { return };
        waiting.count -= 1;
        if waiting.count == 0 {
            held.waiting.remove(&self.client);
        }
    }
}

impl Received {
    /// A call of `client` that holds nothing yet.
    pub(crate) fn new(budget: Arc<Budget>, client: Arc<str>) -> Self {
        Self {
            hold: Hold::none(budget, client, Kind::Received),
            is_stream: false,
            complete: 0,
            partial: 0,
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            missing: 0,
        }
    }

    /// Counts `data`, which has come in, and says whether it ends a message. Messages that are all
    /// there are no longer counted here if the call is a stream.
    ///
    /// # Errors
    /// There is no room for it.
    pub(crate) fn add(&mut self, data: &[u8], is_stream: bool) -> Result<bool, CallError> {
        let before = self.complete;
        self.read(data);
        let ends_message = self.complete > before;
        self.is_stream = is_stream;
        if is_stream {
            self.complete = 0;
        }
        self.settle()?;
        Ok(ends_message)
    }

    /// Counts a message that is all there as what is in it: it came in as `compressed` bytes, and
    /// has `bytes` without compression.
    ///
    /// # Errors
    /// There is no room for it.
    pub(crate) fn decompressed(
        &mut self,
        compressed: usize,
        bytes: usize,
    ) -> Result<(), CallError> {
        if !self.is_stream {
            self.complete = (self.complete + bytes).saturating_sub(compressed);
        }
        self.settle()
    }

    /// Counts the call as what the answers to its `documents` will take, if that is more: they are
    /// kept until the last is there.
    ///
    /// # Errors
    /// There is no room for them.
    pub(crate) fn expect_answers(&mut self, documents: usize) -> Result<(), CallError> {
        let answers = documents.saturating_mul(OUTCOME_BYTES).min(self.hold.budget.limit / 2);
        self.complete = self.complete.max(answers);
        self.settle()
    }

    /// Holds `bytes` of an answer, half of the budget if they are more, in place of the messages
    /// that it answers.
    ///
    /// # Errors
    /// There is no room for them.
    pub(crate) fn answer(&mut self, kind: Kind, bytes: usize) -> Result<Hold, CallError> {
        self.complete = 0;
        self.hold.resize(self.partial);
        let Hold { budget, client, .. } = &self.hold;
        let mut answer = Hold::none(Arc::clone(budget), Arc::clone(client), kind);
        let fits = answer.resize(bytes.min(budget.limit / 2));
        if fits { Ok(answer) } else { Err(budget.no_room()) }
    }

    /// Holds what there is now, if there is room for what is new.
    fn settle(&mut self) -> Result<(), CallError> {
        let fits = self.hold.resize(self.complete + self.partial);
        if fits { Ok(()) } else { Err(self.hold.budget.no_room()) }
    }

    /// Follows the messages through `data`.
    fn read(&mut self, mut data: &[u8]) {
        loop {
            if self.header_bytes < HEADER_BYTES {
                let space = self.header.iter_mut().skip(self.header_bytes);
                let copied = space.zip(data).map(|(space, byte)| *space = *byte).count();
                self.header_bytes += copied;
                self.partial += copied;
                data = data.get(copied..).unwrap_or_default();
                if self.header_bytes < HEADER_BYTES {
                    return;
                }
                let [_, length @ ..] = self.header;
                self.missing = u32::from_be_bytes(length) as usize;
            }
            let here = self.missing.min(data.len());
            self.missing -= here;
            self.partial += here;
            if self.missing > 0 {
                return;
            }
            data = data.get(here..).unwrap_or_default();
            self.complete += std::mem::take(&mut self.partial);
            self.header_bytes = 0;
        }
    }
}

#[cfg(test)]
#[path = "received_tests.rs"]
mod tests;
