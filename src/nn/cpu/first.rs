//! The last layer of an encoder of which only the first row of each sequence is read.
//!
//! With one query a sequence it costs less to take that through the weights than all keys and
//! values. For a row `x` and a query `q` of a head, the score is `q · (K x + k) = (Kᵀ q) · x + q · k`, whose second
//! part all rows share, so that softmax does not see it; and what is mixed is `Σ p (V x + v) = V (Σ p x) + v`,
//! since the weights `p` add up to 1. So a row meets two vectors a head, in place of the matrices `K` and `V`.

use super::attention::{Attention, Context, Shape};
use super::kernels::{Aligned, F32, Input, Kernel, Operand, Packed, Rows, Unscaled};
use super::layer::{AfterAttention, Piece, Workspace};

/// Sequences that go through a head at once: their `Kᵀ q` of all heads should stay in the second cache.
const SEQUENCES: usize = 16;

/// The weights of such a layer.
pub(super) struct FirstRowLayer<K: Kernel> {
    /// Of all heads, divided as in [`Layer`](super::layer::Layer). These and those of heads are f32 in every
    /// precision: they meet so few rows that it costs little.
    pub(super) query: Packed<F32>,
    pub(super) heads: Vec<Head>,
    pub(super) after: AfterAttention<K>,
}

/// The weights of a head.
pub(super) struct Head {
    /// `Kᵀ`, from a query to what its score with a row is the product of.
    pub(super) key: Packed<F32>,
    /// `V`, from a mean of rows to that of values.
    pub(super) value: Packed<F32>,
}

/// Memory that attention of such a layer works in.
pub(super) struct FirstRowMemory {
    attention: Attention<F32>,
    input: Input<F32>,
    /// `[sequences + 1, width]`; the last row is never read, nor is that of `means`.
    queries: Aligned<f32>,
    /// `Kᵀ q`, `[heads, sequences, width]`.
    directions: Aligned<f32>,
    /// Means of rows, `[sequences + 1, heads, hidden]`.
    means: Aligned<f32>,
    /// Those of a head's values, `[sequences, width]`.
    values: Aligned<f32>,
}

impl FirstRowMemory {
    /// Empty.
    pub(super) fn new() -> Self {
        let empty = || Aligned::new(0);
        Self {
            attention: Attention::new(F32::new()),
            input: Input::default(),
            queries: empty(),
            directions: empty(),
            means: empty(),
            values: empty(),
        }
    }
}

impl<K: Kernel> FirstRowLayer<K> {
    /// The layer for the first rows of `sequences`: `[rows, hidden]` to `[sequences, hidden]`. Before every
    /// sequence and every block of first rows it calls `pause`.
    pub(super) fn forward<A: Unscaled>(
        &self,
        hidden: &[f32],
        sequences: &[Piece],
        shape: Shape,
        workspace: &mut Workspace<K, A>,
        pause: &mut dyn FnMut(),
    ) -> Vec<f32> {
        workspace.context.at_least(sequences.len() * shape.hidden);
        let Workspace { context, first: memory, .. } = workspace;
        let mut firsts = first_rows(hidden, sequences, shape.hidden);
        let block = SEQUENCES * shape.hidden;
        let blocks = sequences.chunks(SEQUENCES).zip(firsts.chunks(block));
        for ((sequences, firsts), context) in blocks.zip(context.chunks_mut(block)) {
            self.attend(hidden, sequences, firsts, memory, context, pause);
        }
        self.after.forward(&mut firsts, shape, workspace, pause);
        firsts
    }

    /// Attention of all heads in `hidden`, `[rows, hidden]`, for `firsts`, the first rows of `sequences`, to `context`;
    /// both `[sequences, hidden]`.
    fn attend(
        &self,
        hidden: &[f32],
        sequences: &[Piece],
        firsts: &[f32],
        memory: &mut FirstRowMemory,
        context: &mut [f32],
        pause: &mut dyn FnMut(),
    ) {
        let (count, heads) = (sequences.len(), self.heads.len());
        let size = firsts.len() / count.max(1);
        let head_size = size / heads.max(1);
        let FirstRowMemory { attention, input, queries, directions, means, values } = memory;

        let width = self.query.width();
        queries.at_least((count + 1) * width);
        self.query.forward(Operand::Values(firsts, size), queries, width, input);

        let padded = self.heads.first().map_or(0, |head| head.key.width());
        directions.at_least(heads * count * padded);
        let outs = directions.chunks_mut((count * padded).max(1));
        for (index, (head, out)) in self.heads.iter().zip(outs).enumerate() {
            let start = index * head_size;
            let queries = queries.get(start..start + count * width).unwrap_or_default();
            head.key.forward(Operand::Values(queries, width), out, padded, input);
        }

        means.at_least((count + 1) * heads * size);
        let outs = means.chunks_mut((heads * size).max(1));
        for (index, (piece, out)) in sequences.iter().zip(outs).enumerate() {
            pause();
            let rows = piece.sequence.start * size..piece.sequence.end * size;
            let rows = hidden.get(rows).unwrap_or_default();
            let rows = Rows { values: rows, stride: size, count: piece.sequence.len() };
            let values = directions.get(index * padded..).unwrap_or_default();
            let queries = Rows { values, stride: count * padded, count: heads };
            let values = out.get_mut(..heads * size).unwrap_or_default();
            let context = Context { values, stride: size, columns: 0..size };
            attention.attend_rows(&rows, &rows, &queries, context);
        }

        for (index, head) in self.heads.iter().enumerate() {
            let (start, stride) = (index * size, heads * size);
            let means = means.get(start..start + count * stride).unwrap_or_default();
            let width = head.value.width();
            values.at_least(count * width);
            head.value.forward(Operand::Values(means, stride), values, width, input);
            let columns = index * head_size..(index + 1) * head_size;
            let rows = values.chunks_exact(width).take(count);
            for (row, context) in rows.zip(context.chunks_exact_mut(size)) {
                let columns = context.get_mut(columns.clone()).unwrap_or_default();
                columns.iter_mut().zip(row).for_each(|(place, value)| *place = *value);
            }
        }
    }
}

/// The first rows of whole sequences, of `[rows, hidden]`.
fn first_rows(rows: &[f32], sequences: &[Piece], hidden: usize) -> Vec<f32> {
    let start = |piece: &Piece| piece.sequence.start * hidden;
    let row = |start| rows.get(start..start + hidden).unwrap_or_default();
    sequences.iter().map(start).flat_map(row).copied().collect()
}
