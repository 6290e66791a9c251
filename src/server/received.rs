//! The memory of messages: each may be long, and a client may begin many and end none, send many
//! that wait for their turn, or read none of the answers.
//!
//! What a call has received counts until its answer does; of a stream, what is not all there, and
//! each document until its outcome is taken. An answer counts until it is sent. Answers have as
//! much room as what they answer, and while those of a client wait, less is taken on for it: so it
//! is new calls that are refused first, and an answer only where those before left no room. One
//! client may hold half of what there is, of each.

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
/// What the answer to a document takes in memory, about. Those that take more are to documents
/// that have held more themselves.
const OUTCOME_BYTES: usize = 1_024;
/// What a question about the server's health may have, and its answer.
const HEALTH_BYTES: usize = 16 * 1024;

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
    /// Wakes those of a client that wait for room, one at a time.
    waiting: HashMap<Arc<str>, Arc<Notify>>,
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
    /// Wakes one of them when there may be some.
    freed: Arc<Notify>,
}

/// What one call has received, and holds of a [`Budget`].
#[derive(Debug)]
pub(crate) struct Received {
    hold: Hold,
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
            held.waiting.values().for_each(|waiting| waiting.notify_one());
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
        let mut hold = Self::none(budget, client, Kind::Received);
        if hold.resize(bytes) {
            return hold;
        }
        let turn = Turn::wait(Arc::clone(&hold.budget), Arc::clone(&hold.client));
        while !hold.resize(bytes) {
            turn.freed.notified().await;
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
        let freed = {
            let mut held = budget.held.lock();
            Arc::clone(held.waiting.entry(Arc::clone(&client)).or_default())
        };
        Self { budget, client, freed }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut held = self.budget.held.lock();
        // This one, and that of the table.
        if Arc::strong_count(&self.freed) <= 2 {
            held.waiting.remove(&self.client);
        } else {
            // There may be room for the next, too.
            self.freed.notify_one();
        }
    }
}

impl Received {
    /// A call of `client` that holds nothing yet.
    pub(crate) fn new(budget: Arc<Budget>, client: Arc<str>) -> Self {
        Self {
            hold: Hold::none(budget, client, Kind::Received),
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
        if is_stream {
            self.complete = 0;
        }
        if self.hold.resize(self.complete + self.partial) {
            return Ok(ends_message);
        }
        Err(self.hold.budget.no_room())
    }

    /// Counts the call as what the answers to its `documents` will take, if that is more: they are
    /// kept until the last is there.
    ///
    /// # Errors
    /// There is no room for them.
    pub(crate) fn expect_answers(&mut self, documents: usize) -> Result<(), CallError> {
        let answers = documents.saturating_mul(OUTCOME_BYTES).min(self.hold.budget.limit / 2);
        self.complete = self.complete.max(answers);
        let fits = self.hold.resize(self.complete + self.partial);
        if fits { Ok(()) } else { Err(self.hold.budget.no_room()) }
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(lengths: &[usize]) -> Vec<u8> {
        let frame = |length: &usize| {
            let mut frame = vec![0];
            frame.extend((*length as u32).to_be_bytes());
            frame.extend(vec![7; *length]);
            frame
        };
        lengths.iter().flat_map(frame).collect()
    }

    fn budget(limit: usize) -> Arc<Budget> {
        Arc::new(Budget::new(limit, HeldBytes::default()))
    }

    fn call(budget: &Arc<Budget>, client: &str) -> Received {
        Received::new(Arc::clone(budget), client.into())
    }

    #[test]
    fn what_a_call_has_received_counts_until_it_ends() {
        let budget = budget(200);
        let bytes = framed(&[50, 40]);
        let mut unary = call(&budget, "a");
        unary.add(&bytes[..70], false).unwrap();
        assert_eq!(unary.hold.bytes, 70);
        let mut stream = call(&budget, "b");
        stream.add(&bytes[..70], true).unwrap();
        assert_eq!(stream.hold.bytes, 15, "the first message is all there");
        stream.add(&bytes[70..], true).unwrap();
        assert_eq!(stream.hold.bytes, 0);
        drop(unary);
        assert_eq!(budget.held.lock().all, Bytes::default());
        assert!(budget.held.lock().clients.is_empty());
    }

    #[test]
    fn one_client_may_hold_half_and_all_no_more_than_there_is() {
        let budget = budget(200);
        let hundred = framed(&[95]);
        let mut first = call(&budget, "a");
        first.add(&hundred, false).unwrap();
        let refused = call(&budget, "a").add(&hundred[..1], false);
        assert!(matches!(refused, Err(CallError::NoRoom { limit: 200, .. })));
        let mut other = call(&budget, "b");
        other.add(&hundred, false).unwrap();
        assert!(call(&budget, "c").add(&hundred[..1], false).is_err());
        drop(first);
        assert!(call(&budget, "c").add(&hundred, false).is_ok());
    }

    #[tokio::test]
    async fn a_document_waits_for_room() {
        let budget = budget(200);
        let wait = |bytes| Hold::wait(Arc::clone(&budget), "a".into(), bytes);
        let held = wait(100).await;
        let mut waiting = std::pin::pin!(wait(1_000));
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("there is no room"),
            () = std::future::ready(()) => {}
        }
        drop(held);
        assert_eq!(waiting.await.bytes, 100);
    }

    #[tokio::test]
    async fn all_who_wait_get_their_turn() {
        let budget = budget(200);
        let wait = |client: &str, bytes| Hold::wait(Arc::clone(&budget), client.into(), bytes);
        let held = [wait("a", 100).await, wait("b", 100).await];
        let (mut tasks, mut cancelled) = (Vec::new(), Vec::new());
        for round in 0..20 {
            for client in ["a", "b", "c"] {
                let hold = wait(client, 30 + round);
                let task = tokio::spawn(async { drop(hold.await) });
                if round % 3 == 1 { cancelled.push(task) } else { tasks.push(task) }
            }
        }
        tokio::task::yield_now().await;
        cancelled.iter().for_each(tokio::task::JoinHandle::abort);
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        for task in cancelled {
            assert!(task.await.unwrap_err().is_cancelled());
        }
        let held = budget.held.lock();
        assert_eq!((held.all, held.clients.len(), held.waiting.len()), (Bytes::default(), 0, 0));
    }

    #[test]
    fn an_answer_takes_the_place_of_its_message_and_of_new_ones() {
        let budget = budget(200);
        let message = framed(&[35]);
        let begin = |client| {
            let mut call = call(&budget, client);
            call.add(&message, false).map(|_| call)
        };
        let (mut first, mut second) = (begin("a").unwrap(), begin("a").unwrap());
        let unread = first.answer(Kind::Answer, 70).unwrap();
        assert_eq!(budget.held.lock().all, Bytes { received: 40, answers: 70 });
        // More is not taken on, what was is answered as far as there is room, and a stream in any
        // case.
        assert!(begin("a").is_err());
        let other = begin("b").unwrap();
        assert!(second.answer(Kind::Answer, 31).is_err());
        let outcomes = second.answer(Kind::Outcomes, 90).unwrap();
        assert_eq!(budget.held.lock().all, Bytes { received: 40, answers: 160 });
        drop((unread, outcomes, other));
        // One that is over the limit by itself is the only one.
        let huge = begin("a").unwrap().answer(Kind::Answer, 5_000).unwrap();
        assert_eq!(budget.held.lock().all, Bytes { received: 0, answers: 100 });
        drop(huge);
        assert!(budget.held.lock().clients.is_empty());
    }

    #[test]
    fn nobody_is_taken_on_when_no_answer_has_room() {
        let budget = budget(200);
        let answer = |client| call(&budget, client).answer(Kind::Answer, 100).unwrap();
        let held = [answer("a"), answer("b")];
        assert!(call(&budget, "c").add(&[0], false).is_err());
        drop(held);
        assert!(call(&budget, "c").add(&[0], false).is_ok());
    }

    #[test]
    fn answers_that_are_kept_for_the_last_have_their_room_before() {
        let budget = budget(10_000);
        let mut batch = call(&budget, "a");
        batch.add(&framed(&[95]), false).unwrap();
        batch.expect_answers(3).unwrap();
        assert_eq!(batch.hold.bytes, 3 * OUTCOME_BYTES);
        assert!(call(&budget, "a").expect_answers(2).is_err());
        drop(batch);
        // All that there is for one client, if they are more.
        call(&budget, "a").expect_answers(1_000).unwrap();
    }

    proptest! {
        #[test]
        fn however_it_is_cut_a_stream_ends_with_nothing_held(
            lengths in prop::collection::vec(0_usize..40, 0..6),
            cut in 1_usize..20,
        ) {
            let budget = budget(1_000);
            let mut stream = call(&budget, "a");
            for piece in framed(&lengths).chunks(cut) {
                stream.add(piece, true).unwrap();
                prop_assert!(stream.hold.bytes < 45);
                prop_assert_eq!(budget.held.lock().all.received, stream.hold.bytes);
            }
            prop_assert_eq!(stream.hold.bytes, 0);
        }
    }
}
