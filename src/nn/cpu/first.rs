//! The last layer of an encoder of which only the first row of each sequence is read: of the other
//! rows it computes keys and values, and nothing after these.

use super::attention::Shape;
use super::kernels::{Aligned, Kernel, Unscaled};
use super::layer::{Layer, Piece, Qkv, Workspace, attend, groups, rows};

impl<K: Kernel> Layer<K> {
    /// The layer for the first row of each sequence, `[sequences, hidden]`. `hidden` are the rows of
    /// whole sequences; they go as in [`forward`](Self::forward), a few sequences at a time.
    pub(super) fn forward_first<A: Unscaled>(
        &self,
        hidden: &[f32],
        sequences: &[Piece],
        qkv: &mut Aligned<A::Activation>,
        shape: Shape,
        workspace: &mut Workspace<K, A>,
        pause: &mut dyn FnMut(),
    ) -> Vec<f32> {
        let mut firsts = first_rows(hidden, sequences, shape.hidden);
        let queries = self.queries(&firsts, shape, workspace, pause);
        workspace.context.at_least(firsts.len());
        let (mut rest, mut first, mut done) = (hidden, 0, 0);
        for group in groups(sequences) {
            let rows = rows(group);
            let (hidden, others) = rest.split_at(rows * shape.hidden);
            qkv.at_least(rows * shape.stride);
            self.project(shape.keys_and_values(), hidden, qkv, shape, workspace, pause);
            let Workspace { attention, context, .. } = workspace;
            let context = context.get_mut(done * shape.hidden..).unwrap_or_default();
            let qkv = Qkv { first, rows: qkv, queries: queries.get(done * shape.stride..) };
            attend(&of_first_rows(group), &qkv, shape, attention, context, pause);
            (rest, first, done) = (others, first + rows, done + group.len());
        }
        self.feed(&mut firsts, shape, workspace, pause);
        firsts
    }

    /// The rest of the layer for the first rows of `sequences`, `[sequences, hidden]`, in place; `qkv`
    /// has the keys and values of the whole batch.
    pub(super) fn finish_first<A: Unscaled>(
        &self,
        firsts: &mut [f32],
        sequences: &[Piece],
        qkv: &[A::Activation],
        shape: Shape,
        workspace: &mut Workspace<K, A>,
    ) {
        let queries = self.queries(firsts, shape, workspace, &mut || ());
        let qkv = Qkv { first: 0, rows: qkv, queries: Some(&queries) };
        self.finish(firsts, &of_first_rows(sequences), qkv, shape, workspace, &mut || ());
    }

    /// The queries of rows: `[rows, hidden]` to `[rows, stride]`.
    fn queries<A: Unscaled>(
        &self,
        rows: &[f32],
        shape: Shape,
        workspace: &mut Workspace<K, A>,
        pause: &mut dyn FnMut(),
    ) -> Aligned<A::Activation> {
        let mut queries = Aligned::new(rows.len() / shape.hidden * shape.stride);
        self.project(shape.queries(), rows, &mut queries, shape, workspace, pause);
        queries
    }
}

/// The first rows of whole sequences, of `[rows, hidden]`.
pub(super) fn first_rows(rows: &[f32], sequences: &[Piece], hidden: usize) -> Vec<f32> {
    let start = |piece: &Piece| piece.sequence.start * hidden;
    let row = |start| rows.get(start..start + hidden).unwrap_or_default();
    sequences.iter().map(start).flat_map(row).copied().collect()
}

fn of_first_rows(sequences: &[Piece]) -> Vec<Piece> {
    let first = |piece: &Piece| Piece { sequence: piece.sequence.clone(), queries: 0..1 };
    sequences.iter().map(first).collect()
}
