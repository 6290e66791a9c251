//! The one view of a model that the engine has: packed tokens in, one row a
//! sequence out. Nothing here knows which library computes it.

use thiserror::Error;

use super::Precision;

/// Token ids of several sequences laid end to end, without padding.
///
/// `ends[i]` is where sequence `i` ends in `ids`, and the next one begins. No sequence is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedTokens {
    ids: Vec<u32>,
    ends: Vec<usize>,
}

impl PackedTokens {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a sequence. An empty one is ignored, since it has no row to give.
    pub fn push(&mut self, ids: &[u32]) {
        if !ids.is_empty() {
            self.ids.extend_from_slice(ids);
            self.ends.push(self.ids.len());
        }
    }

    /// All token ids, `[tokens]`.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Number of tokens over all sequences.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.ends.len()
    }

    /// Length of every sequence, in order.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| end - start)
    }

    /// Checks that a model of `max_length` positions and `vocab_size` tokens can take it.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] or [`EncodeError::UnknownToken`].
    pub(super) fn check(&self, max_length: usize, vocab_size: usize) -> Result<(), EncodeError> {
        if let Some(length) = self.lengths().find(|&length| length > max_length) {
            return Err(EncodeError::TooLong { length, max_length });
        }
        match self.ids.iter().find(|&&id| id as usize >= vocab_size) {
            Some(&id) => Err(EncodeError::UnknownToken { id, vocab_size }),
            None => Ok(()),
        }
    }

    /// The sequences, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> + '_ {
        let mut rest = self.ids.as_slice();
        self.lengths().map(move |length| {
            let (head, tail) = rest.split_at(length);
            rest = tail;
            head
        })
    }
}

/// One row of `width` values a sequence, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    data: Vec<f32>,
    width: usize,
}

impl Rows {
    /// Wraps row-major `data`; `None` if it does not divide into rows of `width`.
    pub fn new(data: Vec<f32>, width: usize) -> Option<Self> {
        (width > 0 && data.len().is_multiple_of(width)).then_some(Self { data, width })
    }

    /// Values in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.data.len() / self.width
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> + '_ {
        self.data.chunks_exact(self.width)
    }

    /// Row `index`, or `None` past the end.
    pub fn row(&self, index: usize) -> Option<&[f32]> {
        self.iter().nth(index)
    }

    /// All values, `[rows * width]`.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }
}

/// What an encoder computes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compute {
    /// In what its matrix products are computed.
    pub precision: Precision,
    /// By what: the instruction set, or `candle`. The last bits of results may differ where it is another,
    /// so that of attention follows a plus if it is not the same.
    pub kernels: String,
}

impl Default for Compute {
    fn default() -> Self {
        Self { precision: Precision::F32, kernels: "candle".to_owned() }
    }
}

/// Why a forward pass failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A token id outside the vocabulary.
    #[error("token id {id} is not in the vocabulary of {vocab_size} entries")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Entries in the vocabulary.
        vocab_size: usize,
    },
    /// A sequence longer than the position table.
    #[error("a sequence of {length} tokens is longer than the model's {max_length} positions")]
    TooLong {
        /// Tokens in the sequence.
        length: usize,
        /// Longest sequence that the model takes.
        max_length: usize,
    },
    /// The model answered NaN or infinity: its weights or kernels are broken.
    #[error("the model gave a value that is not finite for sequence {sequence} of the batch")]
    NotFinite {
        /// Index of the first such sequence.
        sequence: usize,
    },
    /// The tensor library failed.
    #[error("the tensor library failed: {0}")]
    Backend(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A model, or a part of one, that maps sequences of tokens to rows.
///
/// An encoder gives pooled rows; [`MultiHead`](super::MultiHead) wraps one and
/// gives the logits of every head. Both are this trait, so the engine, the
/// benchmarks and the tests drive either, or a fake.
///
/// Implementations must not let one sequence of a batch change the row of
/// another: a batch equals its single runs.
pub trait Encoder: Send + Sync {
    /// Values in each row that [`encode`](Self::encode) gives.
    fn width(&self) -> usize;

    /// Longest sequence it takes, in tokens, special tokens included.
    fn max_sequence_tokens(&self) -> usize;

    /// What it computes with, for people to read.
    fn computes_with(&self) -> Compute {
        Compute::default()
    }

    /// One row a sequence, in order: `[sequences, width]`.
    ///
    /// Often, at least after a few hundred rows of a layer, it calls `pause`, on the caller's
    /// thread: the caller may encode another batch in there, which so need not wait for this
    /// one. An encoder that cannot pause never calls it.
    ///
    /// # Errors
    /// If a sequence or token is out of range, or the computation fails.
    fn encode(&self, batch: &PackedTokens, pause: &mut dyn FnMut()) -> Result<Rows, EncodeError>;

    /// The same, closer to f32 and slower, for the few sequences whose label hangs on it; `None`
    /// from an encoder that has no such way.
    fn encode_closely(
        &self,
        _batch: &PackedTokens,
        _pause: &mut dyn FnMut(),
    ) -> Option<Result<Rows, EncodeError>> {
        None
    }
}
