//! Answers on their way out.
//!
//! HTTP/2 lets go of an answer as its reader makes room for it, and what the reader does not take
//! waits here or in its queue. So what is handed to it carries along what has to be known of it:
//! the bytes count as their client's until all of them are sent or the call is gone, and the call
//! is one whose reader is waited for.

use std::sync::Arc;

use bytes::Bytes;

use super::connection::ConnectionCall;
use super::received::Hold;

/// What the first message of an answer is encoded into, however short it is.
pub(crate) const LEAST_BYTES: usize = 8 * 1024;
/// What one frame of HTTP/2 carries, unless its reader wants more (RFC 9113, 6.5.2). A reader is
/// waited for anew with each.
const PIECE_BYTES: usize = 16 * 1024;

/// A part of an answer, to be sent in pieces.
pub(crate) struct Pieces {
    rest: Bytes,
    part: Arc<Part>,
}

/// What there is of a part until the last of its pieces is sent: they share its memory.
struct Part {
    _held: Option<Hold>,
    call: Option<Arc<ConnectionCall>>,
}

/// A piece that is not sent yet.
struct Piece {
    bytes: Bytes,
    part: Arc<Part>,
}

impl Pieces {
    /// `bytes` of the answer to `call`, which hold `held`.
    pub(crate) fn new(bytes: Bytes, held: Option<Hold>, call: Option<Arc<ConnectionCall>>) -> Self {
        Self { rest: bytes, part: Arc::new(Part { _held: held, call }) }
    }

    /// The next piece, and what is left after it.
    pub(crate) fn next(mut self) -> (Bytes, Option<Self>) {
        let bytes = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        if let Some(call) = &self.part.call {
            call.ready();
        }
        let piece = Bytes::from_owner(Piece { bytes, part: Arc::clone(&self.part) });
        (piece, (!self.rest.is_empty()).then_some(self))
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(call) = &self.part.call {
            call.taken();
        }
    }
}
