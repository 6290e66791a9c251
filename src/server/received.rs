//! The memory of messages: each may be long, and a client may begin many and end none, or send many
//! that wait for their turn.
//!
//! What a call has received counts until the call ends; of a stream, what is not all there, and each
//! document until it is answered. One client may hold half of what there is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::status::CallError;

/// Before each message: whether it is compressed, and its length.
const HEADER_BYTES: usize = 5;
/// When to try again while there is no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The bytes that all messages may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    held: Mutex<HeldBytes>,
    /// Wakes those who wait for room.
    freed: Notify,
}

#[derive(Debug, Default)]
struct HeldBytes {
    all: usize,
    clients: HashMap<Arc<str>, usize>,
}

/// Bytes of a client, which count until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    budget: Arc<Budget>,
    client: Arc<str>,
    bytes: usize,
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
    /// A budget of `limit` bytes, half of which one client may hold.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, held: Mutex::default(), freed: Notify::new() }
    }

    /// Changes what `client` holds by `to - from` bytes, if there is room.
    fn change(&self, client: &Arc<str>, from: usize, to: usize) -> bool {
        let mut held = self.held.lock();
        let all = held.all - from + to;
        let own = held.clients.get(client).copied().unwrap_or_default() - from + to;
        if to > from && (all > self.limit || own > self.limit / 2) {
            return false;
        }
        held.all = all;
        if own == 0 {
            held.clients.remove(client);
        } else {
            held.clients.insert(Arc::clone(client), own);
        }
        drop(held);
        if to < from {
            self.freed.notify_waiters();
        }
        true
    }
}

impl Hold {
    fn none(budget: Arc<Budget>, client: Arc<str>) -> Self {
        Self { budget, client, bytes: 0 }
    }

    /// Waits until `client` may hold `bytes`; half of the budget, if they are more.
    pub(crate) async fn wait(budget: Arc<Budget>, client: Arc<str>, bytes: usize) -> Self {
        let bytes = bytes.min(budget.limit / 2);
        let mut hold = Self::none(Arc::clone(&budget), client);
        loop {
            let mut freed = std::pin::pin!(budget.freed.notified());
            // Registered before the look, so that no room is missed in between.
            freed.as_mut().enable();
            if hold.resize(bytes) {
                return hold;
            }
            freed.await;
        }
    }

    /// Holds `bytes` from now on, if there is room for those that are new.
    fn resize(&mut self, bytes: usize) -> bool {
        let changed = self.budget.change(&self.client, self.bytes, bytes);
        if changed {
            self.bytes = bytes;
        }
        changed
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.change(&self.client, self.bytes, 0);
        }
    }
}

impl Received {
    /// A call of `client` that holds nothing yet.
    pub(crate) fn new(budget: Arc<Budget>, client: Arc<str>) -> Self {
        Self {
            hold: Hold::none(budget, client),
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
        let limit = self.hold.budget.limit;
        Err(CallError::Receiving { limit, retry_after: RETRY_AFTER })
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

    fn call(budget: &Arc<Budget>, client: &str) -> Received {
        Received::new(Arc::clone(budget), client.into())
    }

    #[test]
    fn what_a_call_has_received_counts_until_it_ends() {
        let budget = Arc::new(Budget::new(200));
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
        assert_eq!(budget.held.lock().all, 0);
        assert!(budget.held.lock().clients.is_empty());
    }

    #[test]
    fn one_client_may_hold_half_and_all_no_more_than_there_is() {
        let budget = Arc::new(Budget::new(200));
        let hundred = framed(&[95]);
        let mut first = call(&budget, "a");
        first.add(&hundred, false).unwrap();
        let refused = call(&budget, "a").add(&hundred[..1], false);
        assert!(matches!(refused, Err(CallError::Receiving { limit: 200, .. })));
        let mut other = call(&budget, "b");
        other.add(&hundred, false).unwrap();
        assert!(call(&budget, "c").add(&hundred[..1], false).is_err());
        drop(first);
        assert!(call(&budget, "c").add(&hundred, false).is_ok());
    }

    #[tokio::test]
    async fn a_document_waits_for_room() {
        let budget = Arc::new(Budget::new(200));
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

    proptest! {
        #[test]
        fn however_it_is_cut_a_stream_ends_with_nothing_held(
            lengths in prop::collection::vec(0_usize..40, 0..6),
            cut in 1_usize..20,
        ) {
            let budget = Arc::new(Budget::new(1_000));
            let mut stream = call(&budget, "a");
            for piece in framed(&lengths).chunks(cut) {
                stream.add(piece, true).unwrap();
                prop_assert!(stream.hold.bytes < 45);
                prop_assert_eq!(budget.held.lock().all, stream.hold.bytes);
            }
            prop_assert_eq!(stream.hold.bytes, 0);
        }
    }
}
