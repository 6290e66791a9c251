//! Attention of one head over one sequence.
//!
//! Queries go in blocks of a few rows. The scores of a block against all keys stay in the
//! cache: the softmax of a row needs its whole row, and then they are the weights of the
//! values. No `[length, length]` matrix is ever there. What a softmax divides by is taken from
//! the results, which are shorter than its rows.

use std::ops::Range;

use super::kernels::{Aligned, Products, Rows, Unscaled};
use super::math::{divide, exponentials};

/// Queries in a block.
const QUERIES: usize = 48;

/// Shape of the queries, keys and values of a batch.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) hidden: usize,
    pub(super) head_size: usize,
    /// From one token's query to the next one's.
    pub(super) stride: usize,
}

/// Where results go.
pub(super) struct Context<'a> {
    /// A row of each query, one every `stride` values.
    pub(super) values: &'a mut [f32],
    pub(super) stride: usize,
    /// Those of a row that are filled.
    pub(super) columns: Range<usize>,
}

/// Memory that attention works in; grows to what the longest sequence needs.
pub(super) struct Attention<A: Unscaled> {
    products: Products<A>,
    keys: Aligned<A::Weight>,
    values: Aligned<A::Weight>,
    /// `[QUERIES, padded length]`.
    scores: Aligned<f32>,
    /// The same for the kernel, unless that is f32.
    weights: Aligned<A::Activation>,
    /// Of each row of scores.
    sums: [f32; QUERIES],
    /// `[QUERIES, padded head size]`.
    mixed: Aligned<f32>,
}

impl<A: Unscaled> Attention<A> {
    pub(super) fn new(kernel: A) -> Self {
        Self {
            products: Products::new(kernel),
            keys: Aligned::new(0),
            values: Aligned::new(0),
            scores: Aligned::new(0),
            weights: Aligned::new(0),
            sums: [0.0; QUERIES],
            mixed: Aligned::new(0),
        }
    }

    /// Of queries, keys and values, rows of `width` as [`attend`](Self::attend) reads them, to the first
    /// values of rows of `out`, one every `stride`.
    pub(super) fn convert_part(
        &self,
        values: &[f32],
        width: usize,
        out: &mut [A::Activation],
        stride: usize,
    ) {
        self.products.convert_part(values, width, out, stride);
    }

    /// Attention of head `head` for `queries`, `hidden` wide, a row every `stride`. `qkv` are the
    /// queries, keys and values of the whole sequence, each `hidden` wide, a row every `stride`; its
    /// queries are not read. It fills the head's columns of `context`, `[queries, hidden]`.
    pub(super) fn attend(
        &mut self,
        qkv: &[A::Activation],
        queries: &[A::Activation],
        shape: Shape,
        head: usize,
        context: &mut [f32],
    ) {
        let Shape { hidden, head_size, stride } = shape;
        let columns = head * head_size..(head + 1) * head_size;
        let part = |index: usize| qkv.get(index * hidden + columns.start..).unwrap_or_default();
        let rows = |values, count| Rows { values, stride, count };
        let (keys, values) = (rows(part(1), qkv.len() / stride), rows(part(2), qkv.len() / stride));
        let queries = queries.get(columns.start..).unwrap_or_default();
        let queries = rows(queries, context.len() / hidden);
        self.attend_rows(
            &keys,
            &values,
            &queries,
            Context { values: context, stride: hidden, columns },
        );
    }

    /// Attention of queries, as many as `context` has rows, over as many keys as values. Of each row the
    /// first values count, as many as there are columns of `context`, which it fills.
    pub(super) fn attend_rows(
        &mut self,
        keys: &Rows<'_, A::Activation>,
        values: &Rows<'_, A::Activation>,
        queries: &Rows<'_, A::Activation>,
        context: Context<'_>,
    ) {
        let Context { values: context, stride, columns } = context;
        let (size, width) = (columns.len(), self.products.width(columns.len()));
        self.products.pack_rows(keys, size, &mut self.keys);
        self.products.pack_columns(values, size, &mut self.values);
        let mut scope = self.products.scope();
        let blocks = queries.values.chunks(QUERIES * queries.stride);
        for (values, context) in blocks.zip(context.chunks_mut(QUERIES * stride)) {
            let queries = Rows { values, stride: queries.stride, count: context.len() / stride };
            self.score(&mut scope, &queries, size, keys.count);
            self.mix(&mut scope, queries.count, size, keys.count);
            divide(&self.mixed, width, &self.sums, context, stride, columns.clone());
        }
    }

    /// The exponentials of queries and `keys` keys, and their sums.
    fn score(
        &mut self,
        scope: &mut A::Scope,
        queries: &Rows<'_, A::Activation>,
        head_size: usize,
        keys: usize,
    ) {
        let (width, depth) = (self.products.width(keys), Products::<A>::depth_of_rows(head_size));
        self.scores.at_least(QUERIES * width);
        self.products.multiply(scope, queries, depth, &self.keys, &mut self.scores, width);
        let sums = self.sums.get_mut(..queries.count).unwrap_or_default();
        exponentials(&mut self.scores, keys, width, sums, A::EXACT);
    }

    /// The sums of `values` values, weighed by the exponentials.
    fn mix(&mut self, scope: &mut A::Scope, queries: usize, head_size: usize, values: usize) {
        let (stride, depth) =
            (self.products.width(values), Products::<A>::depth_of_columns(values));
        let weights = match A::as_activations(&self.scores) {
            Some(weights) => weights,
            None => {
                self.weights.at_least(QUERIES * stride);
                let scores = self.scores.get(..queries * stride).unwrap_or_default();
                self.products.convert(scores, &mut self.weights);
                &self.weights
            }
        };
        let rows = Rows { values: weights, stride, count: queries };
        let width = self.products.width(head_size);
        self.mixed.at_least(QUERIES * width);
        self.products.multiply(scope, &rows, depth, &self.values, &mut self.mixed, width);
    }
}
