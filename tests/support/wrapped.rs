//! An encoder with something around each of its batches.

use tasnif::nn::{Compute, EncodeError, Encoder, PackedTokens, Rows};

/// An encoder whose batches go through `around`.
pub struct Wrapped<E, F> {
    encoder: E,
    around: F,
}

/// `encoder` with `around` in its place for each batch, which is given the encoder, the batch and
/// what to call where it may pause.
pub fn wrapped<E, F>(encoder: E, around: F) -> Wrapped<E, F>
where
    E: Encoder,
    F: Fn(&E, &PackedTokens, &mut dyn FnMut()) -> Result<Rows, EncodeError> + Send + Sync,
{
    Wrapped { encoder, around }
}

impl<E, F> Encoder for Wrapped<E, F>
where
    E: Encoder,
    F: Fn(&E, &PackedTokens, &mut dyn FnMut()) -> Result<Rows, EncodeError> + Send + Sync,
{
    fn width(&self) -> usize {
        self.encoder.width()
    }

    fn max_sequence_tokens(&self) -> usize {
        self.encoder.max_sequence_tokens()
    }

    fn computes_with(&self) -> Compute {
        self.encoder.computes_with()
    }

    fn encode(&self, batch: &PackedTokens, pause: &mut dyn FnMut()) -> Result<Rows, EncodeError> {
        (self.around)(&self.encoder, batch, pause)
    }
}
