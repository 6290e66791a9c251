//! Attention of one head over one sequence, in f32.
//!
//! Queries go in blocks of a few rows. The scores of a block against all keys stay in the
//! cache: the softmax of a row needs its whole row, and then they are the weights of the
//! values. No `[length, length]` matrix is ever there.

use std::ops::Range;

use rten_simd::SimdOp;
use rten_vecmath::Softmax;

use super::kernels::{Aligned, F32, Kernel, Product};

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

/// Memory that attention works in; grows to what the longest sequence needs.
pub(super) struct Attention {
    kernel: F32,
    /// `[key panels, head size, width]`.
    keys: Aligned<f32>,
    /// `[value panels, length, width]`.
    values: Aligned<f32>,
    /// `[QUERIES, length, padded]`.
    scores: Aligned<f32>,
    /// `[QUERIES, head size, padded]`.
    mixed: Aligned<f32>,
    zeros: Vec<f32>,
}

impl Attention {
    pub(super) fn new() -> Self {
        let kernel = F32::new();
        let empty = || Aligned::new(0);
        let zeros = vec![0.0; kernel.panel_width()];
        Self { kernel, keys: empty(), values: empty(), scores: empty(), mixed: empty(), zeros }
    }

    /// Attention of head `head` for `queries`, a range of the rows of a sequence. `qkv` are the
    /// sequence's queries, keys and values, each `hidden` wide, a row every `stride`. It fills
    /// the head's columns of `context`, `[queries, hidden]`.
    pub(super) fn attend(
        &mut self,
        qkv: &[f32],
        queries: Range<usize>,
        shape: Shape,
        head: usize,
        context: &mut [f32],
    ) {
        let Shape { hidden, head_size, stride } = shape;
        let length = qkv.len() / stride;
        let part = |index: usize| qkv.get(index * hidden + head * head_size..).unwrap_or_default();
        self.pack_keys(part(1), shape, length);
        self.pack_values(part(2), shape, length);
        let queries = part(0).get(queries.start * stride..).unwrap_or_default();
        let blocks = queries.chunks(QUERIES * stride).zip(context.chunks_mut(QUERIES * hidden));
        for (queries, context) in blocks {
            self.score(queries, shape, length, context.len() / hidden);
            self.mix(shape, length, head, context);
        }
    }

    /// Keys, a row every `stride`, to panels.
    fn pack_keys(&mut self, keys: &[f32], shape: Shape, length: usize) {
        let width = self.kernel.panel_width();
        self.keys.at_least(length.next_multiple_of(width) * shape.head_size);
        let panels = self.keys.chunks_exact_mut(width * shape.head_size);
        for (panel, keys) in panels.zip(keys.chunks(width * shape.stride)) {
            for (lane, key) in keys.chunks(shape.stride).enumerate() {
                for (places, value) in panel.chunks_exact_mut(width).zip(key) {
                    if let Some(place) = places.get_mut(lane) {
                        *place = *value;
                    }
                }
            }
        }
    }

    /// Values, a row every `stride`, to panels.
    fn pack_values(&mut self, values: &[f32], shape: Shape, length: usize) {
        let width = self.kernel.panel_width();
        self.values.at_least(shape.head_size.next_multiple_of(width) * length);
        let panels = self.values.chunks_exact_mut(width * length);
        for (panel, first) in panels.zip((0..shape.head_size).step_by(width)) {
            let lanes = width.min(shape.head_size.saturating_sub(first));
            let rows = values.chunks(shape.stride).filter_map(|row| row.get(first..first + lanes));
            for (place, row) in panel.chunks_exact_mut(width).zip(rows) {
                if let Some(place) = place.get_mut(..lanes) {
                    place.copy_from_slice(row);
                }
            }
        }
    }

    /// Queries, a row every `stride`, and all keys to probabilities.
    fn score(&mut self, queries: &[f32], shape: Shape, length: usize, rows: usize) {
        let width = self.kernel.panel_width();
        let out_stride = length.next_multiple_of(width);
        self.scores.at_least(out_stride * QUERIES);
        let panels = self.keys.chunks_exact(width * shape.head_size);
        for (weights, first) in panels.zip((0..length).step_by(width)) {
            self.kernel.product(Product {
                activations: queries,
                stride: shape.stride,
                rows,
                depth: shape.head_size,
                weights,
                bias: &self.zeros,
                out: self.scores.get_mut(first..).unwrap_or_default(),
                out_stride,
            });
        }
        for scores in self.scores.chunks_exact_mut(out_stride).take(rows) {
            if let Some(scores) = scores.get_mut(..length) {
                Softmax::new_mut(scores).dispatch();
            }
        }
    }

    /// Probabilities and all values to the head's columns of `context`.
    fn mix(&mut self, shape: Shape, length: usize, head: usize, context: &mut [f32]) {
        let Shape { hidden, head_size, .. } = shape;
        let width = self.kernel.panel_width();
        let out_stride = head_size.next_multiple_of(width);
        self.mixed.at_least(out_stride * QUERIES);
        let panels = self.values.chunks_exact(width * length);
        for (weights, first) in panels.zip((0..head_size).step_by(width)) {
            self.kernel.product(Product {
                activations: &self.scores,
                stride: length.next_multiple_of(width),
                rows: context.len() / hidden,
                depth: length,
                weights,
                bias: &self.zeros,
                out: self.mixed.get_mut(first..).unwrap_or_default(),
                out_stride,
            });
        }
        let rows = context.chunks_exact_mut(hidden).zip(self.mixed.chunks_exact(out_stride));
        for (context, mixed) in rows {
            let context =
                context.get_mut(head * head_size..).and_then(|row| row.get_mut(..head_size));
            if let (Some(context), Some(mixed)) = (context, mixed.get(..head_size)) {
                context.copy_from_slice(mixed);
            }
        }
    }
}
