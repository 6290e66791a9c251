//! The memory of messages that are on their way in: each may be long, and a client may begin many
//! and end none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::status::CallError;

/// Before each message: whether it is compressed, and its length.
const HEADER_BYTES: usize = 5;
/// When to try again while there is no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The bytes that all messages on their way in may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    held: AtomicUsize,
}

/// What one call holds of a [`Budget`]: the bytes of its message that is not all there.
#[derive(Debug)]
pub(crate) struct Received {
    budget: Arc<Budget>,
    held: usize,
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// Bytes of the message that are still to come.
    missing: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, held: AtomicUsize::new(0) }
    }
}

impl Received {
    /// A call that holds nothing yet.
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, held: 0, header: [0; HEADER_BYTES], header_bytes: 0, missing: 0 }
    }

    /// Counts `data`, which has come in.
    ///
    /// # Errors
    /// There is no room for it.
    pub(crate) fn add(&mut self, data: &[u8]) -> Result<(), CallError> {
        let held = self.partial(data);
        if held > self.held {
            let more = held - self.held;
            let limit = self.budget.limit;
            let before = self.budget.held.fetch_add(more, Ordering::Relaxed);
            if before + more > limit {
                self.budget.held.fetch_sub(more, Ordering::Relaxed);
                return Err(CallError::Receiving { limit, retry_after: RETRY_AFTER });
            }
        } else {
            self.budget.held.fetch_sub(self.held - held, Ordering::Relaxed);
        }
        self.held = held;
        Ok(())
    }

    /// Bytes of a message that is not all there, after `data`.
    fn partial(&mut self, mut data: &[u8]) -> usize {
        let mut held = self.held;
        loop {
            if self.header_bytes < HEADER_BYTES {
                let space = self.header.iter_mut().skip(self.header_bytes);
                let copied = space.zip(data).map(|(space, byte)| *space = *byte).count();
                self.header_bytes += copied;
                held += copied;
                data = data.get(copied..).unwrap_or_default();
                if self.header_bytes < HEADER_BYTES {
                    return held;
                }
                let [_, length @ ..] = self.header;
                self.missing = u32::from_be_bytes(length) as usize;
            }
            let here = self.missing.min(data.len());
            self.missing -= here;
            if self.missing > 0 {
                return held + here;
            }
            data = data.get(here..).unwrap_or_default();
            (held, self.header_bytes) = (0, 0);
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.held, Ordering::Relaxed);
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

    #[test]
    fn a_message_counts_until_it_is_all_there() {
        let budget = Arc::new(Budget::new(100));
        let mut call = Received::new(Arc::clone(&budget));
        let bytes = framed(&[50, 0, 90]);
        call.add(&bytes[..3]).unwrap();
        assert_eq!(call.held, 3);
        call.add(&bytes[3..54]).unwrap();
        assert_eq!(call.held, 54);
        call.add(&bytes[54..60]).unwrap();
        assert_eq!(call.held, 0);
        call.add(&bytes[60..100]).unwrap();
        let mut other = Received::new(Arc::clone(&budget));
        assert!(matches!(other.add(&bytes[60..130]), Err(CallError::Receiving { limit: 100, .. })));
        drop((call, other));
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }

    proptest! {
        #[test]
        fn however_it_is_cut_a_stream_ends_with_nothing_held(
            lengths in prop::collection::vec(0_usize..40, 0..6),
            cut in 1_usize..20,
        ) {
            let budget = Arc::new(Budget::new(1_000));
            let mut call = Received::new(Arc::clone(&budget));
            for piece in framed(&lengths).chunks(cut) {
                call.add(piece).unwrap();
                prop_assert!(call.held < 45);
                prop_assert_eq!(budget.held.load(Ordering::Relaxed), call.held);
            }
            prop_assert_eq!(call.held, 0);
        }
    }
}
