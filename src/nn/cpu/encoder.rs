//! The encoder: embeddings, layers, pooling.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rayon::prelude::*;

use super::attention::Shape;
use super::first::FirstRowLayer;
use super::kernels::{Aligned, Kernel, Unscaled};
use super::layer::{Layer, Piece, Qkv, Workspace};
use super::norm::Norm;
use crate::bundle::{Pooling, positions};
use crate::nn::{Compute, EncodeError, Encoder, PackedTokens, Rows};

/// Rows for each thread from which on a batch is divided among all threads.
const MIN_ROWS_A_THREAD: usize = 4;

/// Rows, counted in every layer anew, after which a batch that is divided pauses at the latest,
/// unless a layer has more.
const MAX_ROWS_A_PAUSE: usize = 512;

/// A BERT, RoBERTa or ELECTRA encoder for the CPU, with weights packed for the kernel `K`, and
/// attention by `A`. Its rows are the pooled rows of each pooling asked for, one after the other.
pub(super) struct FusedEncoder<K: Kernel, A: Unscaled> {
    pub(super) embeddings: Embeddings,
    pub(super) layers: Vec<Layer<K>>,
    /// The last layer, if no more than first rows is read of it; then it is not among `layers`.
    pub(super) last: Option<FirstRowLayer<K>>,
    pub(super) attention: A,
    pub(super) poolings: Vec<Pooling>,
    pub(super) shape: Shape,
    pub(super) compute: Compute,
    /// Batches that are being encoded.
    pub(super) running: AtomicUsize,
    /// Memory of batches that have run on one thread, for the next ones.
    pub(super) spare: Mutex<Vec<Memory<K, A>>>,
    /// Of those that were divided among threads, which have more of it.
    pub(super) spare_divided: Mutex<Vec<Memory<K, A>>>,
}

/// Token, position and type embeddings, normalised.
pub(super) struct Embeddings {
    /// `[vocabulary, hidden]`.
    pub(super) words: Vec<f32>,
    /// `[positions, hidden]`, with the embedding of token type 0 added, since every token has
    /// that type.
    pub(super) positions: Vec<f32>,
    /// The row of a sequence's first token in these.
    pub(super) first_position: usize,
    pub(super) norm: Norm,
}

/// Memory that a batch is computed in.
pub(super) struct Memory<K: Kernel, A: Unscaled> {
    /// `[tokens, hidden]`.
    hidden: Aligned<f32>,
    /// Queries, keys and values, `[rows, stride]`: of a few sequences, or of all tokens if
    /// several threads compute the batch.
    qkv: Aligned<A::Activation>,
    /// Those of the next layer, if several threads compute the batch.
    next_qkv: Aligned<A::Activation>,
    /// One a thread.
    workspaces: Vec<Workspace<K, A>>,
}

impl<K: Kernel, A: Unscaled> FusedEncoder<K, A> {
    fn max_sequence_tokens(&self) -> usize {
        let Embeddings { positions, first_position, .. } = &self.embeddings;
        (positions.len() / self.shape.hidden).saturating_sub(*first_position)
    }

    fn vocab_size(&self) -> usize {
        self.embeddings.words.len() / self.shape.hidden
    }

    /// The pooled rows of `batch`, `[sequences, width]`; `closely` as the trait's method of that name.
    fn rows(
        &self,
        batch: &PackedTokens,
        closely: bool,
        pause: &mut dyn FnMut(),
    ) -> Result<Rows, EncodeError> {
        batch.check(self.max_sequence_tokens(), self.vocab_size())?;
        let _running = Running::new(&self.running);
        let threads = rayon::current_num_threads();
        // Where others run, each is left to a thread of its own: nobody waits then.
        let alone = self.running.load(Ordering::Relaxed) == 1;
        let parts = if alone { threads.min(batch.tokens() / MIN_ROWS_A_THREAD).max(1) } else { 1 };
        let spare = if parts > 1 { &self.spare_divided } else { &self.spare };
        let mut memory = spare.lock().pop().unwrap_or_else(|| Memory {
            hidden: Aligned::new(0),
            qkv: Aligned::new(0),
            next_qkv: Aligned::new(0),
            workspaces: Vec::new(),
        });
        let pooled = self.forward(batch, &mut memory, parts, closely, pause);
        let mut spare = spare.lock();
        // Of those that are divided one is paused and one runs, but for chance.
        if parts == 1 || spare.len() < 2 {
            spare.push(memory);
        }
        drop(spare);
        Rows::new(pooled, self.width())
            .ok_or_else(|| EncodeError::Backend("the encoder was loaded without a pooling".into()))
    }

    fn forward(
        &self,
        batch: &PackedTokens,
        memory: &mut Memory<K, A>,
        parts: usize,
        closely: bool,
        pause: &mut dyn FnMut(),
    ) -> Vec<f32> {
        let shape @ Shape { hidden: width, stride, .. } = self.shape;
        let tokens = batch.tokens();
        let rows = tokens.div_ceil(parts).max(1);
        let pieces = pieces(batch, rows);
        memory.hidden.at_least(tokens * width);
        if memory.workspaces.len() < pieces.len() {
            let workspace = || Workspace::new(self.attention);
            memory.workspaces.resize_with(pieces.len(), workspace);
        }
        memory.workspaces.iter_mut().for_each(|workspace| workspace.set_closely(closely));
        let Memory { hidden, qkv, next_qkv, workspaces } = memory;
        let Some(hidden) = hidden.get_mut(..tokens * width) else { return Vec::new() };

        let mut pause = || {
            let _paused = Paused::new(&self.running);
            pause();
        };

        self.embeddings.look_up(batch, hidden);
        if let ([pieces], [workspace, ..]) = (&*pieces, &mut **workspaces) {
            for layer in &self.layers {
                layer.forward(hidden, pieces, qkv, shape, workspace, &mut pause);
            }
            if let Some(last) = &self.last {
                return last.forward(hidden, pieces, shape, workspace, &mut pause);
            }
        } else {
            next_qkv.at_least(tokens * stride);
            qkv.at_least(tokens * stride);
            let (mut qkv, mut next_qkv) = (&mut **qkv, &mut **next_qkv);
            // What a layer begins with is of a part's own rows, so it follows the layer before at
            // once: threads wait for each other only before attention.
            let mut step = |index: usize| {
                let before = index.checked_sub(1).and_then(|index| self.layers.get(index));
                let next = self.layers.get(index);
                let parts =
                    hidden.par_chunks_mut(rows * width).zip(next_qkv.par_chunks_mut(rows * stride));
                let parts = parts.zip(&pieces).zip(&mut *workspaces);
                parts.for_each(|(((hidden, next_qkv), pieces), workspace)| {
                    if let Some(layer) = before {
                        let qkv = Qkv { first: 0, rows: qkv };
                        layer.finish(hidden, pieces, qkv, shape, workspace, &mut || ());
                    }
                    if let Some(layer) = next {
                        layer.project(hidden, next_qkv, shape, workspace, &mut || ());
                    }
                });
                std::mem::swap(&mut qkv, &mut next_qkv);
            };
            let steps = (MAX_ROWS_A_PAUSE / tokens.max(1)).max(1);
            for first in (0..=self.layers.len()).step_by(steps) {
                pause();
                // Within the pool, which this thread is not of: to enter it takes longest.
                rayon::scope(|_| (first..=self.layers.len()).take(steps).for_each(&mut step));
            }
            if let Some(last) = &self.last {
                pause();
                let sequences = sequences(batch);
                if let ([_], [workspace, ..]) = (&*sequences, &mut **workspaces) {
                    return last.forward(hidden, &sequences, shape, workspace, &mut || ());
                }
                let count = sequences.len().div_ceil(pieces.len().max(1)).max(1);
                let parts = sequences.par_chunks(count).zip(&mut *workspaces);
                let parts = parts.map(|(sequences, workspace)| {
                    last.forward(hidden, sequences, shape, workspace, &mut || ())
                });
                return parts.collect::<Vec<_>>().concat();
            }
        }
        self.pool(batch, hidden)
    }

    /// `[tokens, hidden]` to `[sequences, poolings * hidden]`.
    fn pool(&self, batch: &PackedTokens, hidden: &[f32]) -> Vec<f32> {
        let width = self.shape.hidden;
        let mut pooled = Vec::with_capacity(batch.sequences() * self.width());
        let mut rest = hidden;
        for length in batch.lengths() {
            let (rows, others) = rest.split_at(length * width);
            rest = others;
            for pooling in &self.poolings {
                let start = pooled.len();
                pooled.extend(rows.iter().take(width));
                if matches!(pooling, Pooling::Mean) {
                    let pooled = pooled.get_mut(start..).unwrap_or_default();
                    for row in rows.chunks_exact(width).skip(1) {
                        pooled.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                    }
                    pooled.iter_mut().for_each(|sum| *sum /= length as f32);
                }
            }
        }
        pooled
    }
}

impl<K: Kernel, A: Unscaled> Encoder for FusedEncoder<K, A> {
    fn width(&self) -> usize {
        self.poolings.len() * self.shape.hidden
    }

    fn max_sequence_tokens(&self) -> usize {
        self.max_sequence_tokens()
    }

    fn computes_with(&self) -> Compute {
        self.compute.clone()
    }

    fn encode(&self, batch: &PackedTokens, pause: &mut dyn FnMut()) -> Result<Rows, EncodeError> {
        self.rows(batch, false, pause)
    }

    fn encode_closely(
        &self,
        batch: &PackedTokens,
        pause: &mut dyn FnMut(),
    ) -> Option<Result<Rows, EncodeError>> {
        K::TO_INTEGER.map(|_| self.rows(batch, true, pause))
    }
}

impl Embeddings {
    /// The embeddings of every token of `batch` to `hidden`, `[tokens, hidden]`.
    fn look_up(&self, batch: &PackedTokens, hidden: &mut [f32]) {
        let width = self.norm.weight.len();
        let mut rows = hidden.chunks_exact_mut(width);
        for sequence in batch.iter() {
            let positions = positions(self.first_position, sequence);
            for ((id, position), row) in sequence.iter().zip(positions).zip(rows.by_ref()) {
                let word = self.words.get(*id as usize * width..).unwrap_or_default();
                let position = position * width..(position + 1) * width;
                let position = self.positions.get(position).unwrap_or_default();
                row.iter_mut().zip(word).for_each(|(value, word)| *value = *word);
                self.norm.add(row, position, width);
            }
        }
    }
}

/// The sequences of `batch`.
fn sequences(batch: &PackedTokens) -> Vec<Piece> {
    pieces(batch, batch.tokens().max(1)).into_iter().flatten().collect()
}

/// What each `rows` rows of `batch` have of its sequences.
fn pieces(batch: &PackedTokens, rows: usize) -> Vec<Vec<Piece>> {
    let mut parts: Vec<Vec<Piece>> = Vec::new();
    let mut room = 0;
    let mut start = 0;
    for length in batch.lengths() {
        let sequence = start..start + length;
        let mut done = 0;
        while done < length {
            if room == 0 {
                parts.push(Vec::new());
                room = rows;
            }
            let count = room.min(length - done);
            if let Some(part) = parts.last_mut() {
                part.push(Piece { sequence: sequence.clone(), queries: done..done + count });
            }
            done += count;
            room -= count;
        }
        start += length;
    }
    parts
}

/// Leaves a batch out of the count while it pauses for another.
struct Paused<'a>(&'a AtomicUsize);

impl<'a> Paused<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_sub(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts a batch while it is encoded, also if that panics.
struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
