//! One layer of a post-norm transformer: attention and feed-forward, each added to its input
//! and normalised after. BERT, RoBERTa, XLM-R and ELECTRA have this one.

use std::iter;
use std::ops::Range;

use super::attention::{Attention, Shape};
use super::first::FirstRowMemory;
use super::inner::Inner;
use super::kernels::{Aligned, Input, Kernel, Operand, Packed, Unscaled, row_stride};
use super::norm::Norm;

/// Rows whose queries, keys and values are computed before attention reads them, unless one
/// sequence has more. They stay in the last cache; the second would hold half as many. It is a
/// multiple of every kernel's block.
const GROUP_ROWS: usize = 192;

/// The weights of a layer.
pub(super) struct Layer<K: Kernel> {
    /// Query, key and value in one product. The query's weights are divided by the square
    /// root of the head size, which scores would have to be.
    pub(super) qkv: Packed<K>,
    pub(super) after: AfterAttention<K>,
}

/// The weights of what comes after attention in a layer.
pub(super) struct AfterAttention<K: Kernel> {
    pub(super) attention_output: Packed<K>,
    pub(super) attention_norm: Norm,
    pub(super) intermediate: Packed<K>,
    pub(super) output: Packed<K>,
    pub(super) output_norm: Norm,
}

/// Memory that rows are computed in. It grows to what the largest batch needs.
pub(super) struct Workspace<K: Kernel, A: Unscaled> {
    input: Input<K>,
    attention: Attention<A>,
    /// Of a layer that computes first rows alone.
    pub(super) first: FirstRowMemory,
    /// `[rows, hidden]`.
    pub(super) context: Aligned<f32>,
    inner: Inner<K>,
    /// Of a panel, `[block, panel width]`, before they are converted: rows that lie far apart would be
    /// in no nearer cache than the second.
    results: Aligned<f32>,
    /// `[block, hidden]`, a row every [`row_stride`].
    update: Aligned<f32>,
}

impl<K: Kernel, A: Unscaled> Workspace<K, A> {
    /// Empty.
    pub(super) fn new(attention: A) -> Self {
        let empty = || Aligned::new(0);
        Self {
            input: Input::default(),
            attention: Attention::new(attention),
            first: FirstRowMemory::new(),
            context: empty(),
            inner: Inner::new(),
            results: empty(),
            update: empty(),
        }
    }

    /// Sets whether the next batch is computed closely, see [`Input::closely`].
    pub(super) fn set_closely(&mut self, closely: bool) {
        self.input.closely = closely;
    }
}

/// Queries that a part of a batch has in one sequence.
pub(super) struct Piece {
    /// Rows of the sequence in the batch.
    pub(super) sequence: Range<usize>,
    /// Rows of it that are to be computed, counted from its first.
    pub(super) queries: Range<usize>,
}

/// Queries, keys and values of the rows of a batch from `first` on, `[rows, stride]`.
pub(super) struct Qkv<'a, A: Unscaled> {
    pub(super) first: usize,
    pub(super) rows: &'a [A::Activation],
}

impl<K: Kernel> Layer<K> {
    /// The layer in place, for `hidden`, the rows of whole sequences, a few of these at a time:
    /// attention reads queries, keys and values while they are near. `qkv` grows to what the
    /// largest group needs. Before every sequence and every block of rows it calls `pause`.
    pub(super) fn forward<A: Unscaled>(
        &self,
        hidden: &mut [f32],
        sequences: &[Piece],
        qkv: &mut Aligned<A::Activation>,
        shape: Shape,
        workspace: &mut Workspace<K, A>,
        pause: &mut dyn FnMut(),
    ) {
        let (mut rest, mut first) = (hidden, 0);
        for group in groups(sequences) {
            let rows = rows(group);
            let (hidden, others) = rest.split_at_mut(rows * shape.hidden);
            qkv.at_least(rows * shape.stride);
            self.project(hidden, qkv, shape, workspace, pause);
            let qkv = Qkv { first, rows: qkv };
            self.finish(hidden, group, qkv, shape, workspace, pause);
            (rest, first) = (others, first + rows);
        }
    }

    /// Queries, keys and values of rows: `[rows, hidden]` to `[rows, stride]`. Before every block
    /// of rows it calls `pause`.
    pub(super) fn project<A: Unscaled>(
        &self,
        hidden: &[f32],
        qkv: &mut [A::Activation],
        shape: Shape,
        workspace: &mut Workspace<K, A>,
        pause: &mut dyn FnMut(),
    ) {
        let block = block::<K>(hidden.len() / shape.hidden);
        let blocks = hidden.chunks(block * shape.hidden).zip(qkv.chunks_mut(block * shape.stride));
        for (hidden, qkv) in blocks {
            pause();
            let Workspace { input, attention, results, .. } = &mut *workspace;
            let source = Operand::Values(hidden, shape.hidden);
            let width = self.qkv.kernel().panel_width();
            let results = room(results, hidden.len() / shape.hidden * width);
            self.qkv.by_panel(source, input, |first, multiply| {
                let qkv = qkv.get_mut(first..).unwrap_or_default();
                match A::as_f32_mut(qkv) {
                    Some(qkv) => multiply(qkv, shape.stride),
                    None => {
                        multiply(results, width);
                        attention.convert_part(results, width, qkv, shape.stride);
                    }
                }
            });
        }
    }

    /// The rest of the layer, in place: `hidden` are the rows of `pieces`, and `qkv` has those
    /// of their sequences. Before every sequence and every block of rows it calls `pause`.
    pub(super) fn finish<A: Unscaled>(
        &self,
        hidden: &mut [f32],
        pieces: &[Piece],
        qkv: Qkv<'_, A>,
        shape: Shape,
        workspace: &mut Workspace<K, A>,
        pause: &mut dyn FnMut(),
    ) {
        let Workspace { attention, context, .. } = workspace;
        context.at_least(hidden.len());
        attend(pieces, &qkv, shape, attention, context, pause);
        self.after.forward(hidden, shape, workspace, pause);
    }
}

impl<K: Kernel> AfterAttention<K> {
    /// In place: `hidden` are rows, and the workspace has what attention made of them. Before
    /// every block of rows it calls `pause`.
    pub(super) fn forward<A: Unscaled>(
        &self,
        hidden: &mut [f32],
        shape: Shape,
        workspace: &mut Workspace<K, A>,
        pause: &mut dyn FnMut(),
    ) {
        let Workspace { input, context, inner, results, update, .. } = workspace;
        let exact = K::EXACT || input.closely;
        let block = block::<K>(hidden.len() / shape.hidden);
        let stride = row_stride::<f32>(self.output.width().max(self.attention_output.width()));
        update.at_least(block * stride);
        let blocks =
            hidden.chunks_mut(block * shape.hidden).zip(context.chunks(block * shape.hidden));
        for (hidden, context) in blocks {
            pause();
            let context = context.get(..hidden.len()).unwrap_or_default();
            let source = Operand::Values(context, shape.hidden);
            self.attention_output.forward(source, update, stride, input);
            self.attention_norm.add(hidden, update, stride);

            let source = Operand::Values(hidden, shape.hidden);
            let count = hidden.len() / shape.hidden;
            inner.begin(count, self.intermediate.width());
            let kernel = self.intermediate.kernel();
            self.intermediate.by_panel(source, input, |first, multiply| {
                inner.fill(kernel, first, results, exact, multiply);
            });
            self.output.forward(inner.rows(), update, stride, input);
            self.output_norm.add(hidden, update, stride);
        }
    }
}

/// The first `count` values of `memory`, which grows to have them.
pub(super) fn room(memory: &mut Aligned<f32>, count: usize) -> &mut [f32] {
    memory.at_least(count);
    memory.get_mut(..count).unwrap_or_default()
}

/// Attention of all heads for the rows of `pieces`, to `context`, `[rows, hidden]`. Before every
/// sequence it calls `pause`.
fn attend<A: Unscaled>(
    pieces: &[Piece],
    qkv: &Qkv<'_, A>,
    shape: Shape,
    attention: &mut Attention<A>,
    context: &mut [f32],
    pause: &mut dyn FnMut(),
) {
    let mut rest = context;
    for piece in pieces {
        pause();
        let Range { start, end } = piece.sequence;
        let rows = (start - qkv.first) * shape.stride..(end - qkv.first) * shape.stride;
        let sequence = qkv.rows.get(rows).unwrap_or_default();
        let queries = sequence.get(piece.queries.start * shape.stride..).unwrap_or_default();
        let (context, others) = rest.split_at_mut(piece.queries.len() * shape.hidden);
        for head in 0..shape.hidden / shape.head_size {
            attention.attend(sequence, queries, shape, head, context);
        }
        rest = others;
    }
}

/// Divides sequences into groups of up to [`GROUP_ROWS`] rows, or of one that is longer.
fn groups(mut sequences: &[Piece]) -> impl Iterator<Item = &[Piece]> {
    iter::from_fn(move || {
        let mut rows = 0;
        let fit = sequences.iter().take_while(|sequence| {
            rows += sequence.queries.len();
            rows <= GROUP_ROWS
        });
        let count = fit.count().max(1);
        let (group, others) = sequences.split_at_checked(count)?;
        sequences = others;
        Some(group)
    })
}

/// Rows that `pieces` have.
fn rows(pieces: &[Piece]) -> usize {
    pieces.iter().map(|piece| piece.queries.len()).sum()
}

/// Rows in a block: as few blocks as the kernel allows, as even as can be.
fn block<K: Kernel>(rows: usize) -> usize {
    rows.div_ceil(rows.div_ceil(K::BLOCK).max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_whole_sequences_up_to_a_number_of_rows() {
        let lengths_of_groups = |lengths: &[usize]| -> Vec<Vec<usize>> {
            let sequence = |length: &usize| Piece { sequence: 0..*length, queries: 0..*length };
            let sequences: Vec<Piece> = lengths.iter().map(sequence).collect();
            let lengths = |group: &[Piece]| group.iter().map(|piece| piece.queries.len()).collect();
            groups(&sequences).map(lengths).collect()
        };
        assert_eq!(lengths_of_groups(&[]), [[0; 0]; 0]);
        assert_eq!(lengths_of_groups(&[192]), [[192]]);
        assert_eq!(lengths_of_groups(&[96, 96, 1]), [vec![96, 96], vec![1]]);
        assert_eq!(lengths_of_groups(&[5, 193, 5, 6]), [vec![5], vec![193], vec![5, 6]]);
    }
}
