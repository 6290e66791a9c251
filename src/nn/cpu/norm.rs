//! The residual and the normalisation at the end of each half of a layer.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, Simd, SimdOp};

/// Weight and bias of a LayerNorm, `[hidden]` each.
pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) epsilon: f32,
}

impl Norm {
    /// Adds `updates`, a row every `stride`, to `rows`, `[rows, hidden]`, and normalises the sums.
    pub(super) fn add(&self, rows: &mut [f32], updates: &[f32], stride: usize) {
        let width = self.weight.len();
        let rows = rows.chunks_exact_mut(width);
        for (row, update) in rows.zip(updates.chunks_exact(stride)) {
            // Without its padding, or the last values of the row would have no partners.
            let update = update.get(..width).unwrap_or_default();
            AddNorm { norm: self, row, update }.dispatch();
        }
    }
}

struct AddNorm<'a> {
    norm: &'a Norm,
    row: &'a mut [f32],
    update: &'a [f32],
}

impl SimdOp for AddNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { norm, row, update } = self;
        let (ops, lanes, count) = (isa.f32(), isa.f32().len(), row.len().max(1) as f32);

        let mut sums = ops.zero();
        let (mut rows, mut updates) = (row.chunks_exact_mut(lanes), update.chunks_exact(lanes));
        for (row, update) in rows.by_ref().zip(updates.by_ref()) {
            let value = ops.add(ops.load(row), ops.load(update));
            ops.store(value, row);
            sums = ops.add(sums, value);
        }
        let mut sum: f32 = sums.to_array().into_iter().sum();
        for (value, update) in rows.into_remainder().iter_mut().zip(updates.remainder()) {
            *value += update;
            sum += *value;
        }
        let mean = sum / count;

        let mut squares = ops.zero();
        let rows = row.chunks_exact(lanes);
        let rest: f32 = rows.remainder().iter().map(|value| (value - mean).powi(2)).sum();
        for row in rows {
            let difference = ops.sub(ops.load(row), ops.splat(mean));
            squares = ops.mul_add(difference, difference, squares);
        }
        let variance = (squares.to_array().into_iter().sum::<f32>() + rest) / count;
        let inverse = (variance + norm.epsilon).sqrt().recip();

        let (mut weights, mut biases) =
            (norm.weight.chunks_exact(lanes), norm.bias.chunks_exact(lanes));
        let mut rows = row.chunks_exact_mut(lanes);
        for ((row, weight), bias) in rows.by_ref().zip(weights.by_ref()).zip(biases.by_ref()) {
            let centred = ops.mul(ops.sub(ops.load(row), ops.splat(mean)), ops.splat(inverse));
            ops.store(ops.mul_add(centred, ops.load(weight), ops.load(bias)), row);
        }
        let rest = weights.remainder().iter().zip(biases.remainder());
        for (value, (weight, bias)) in rows.into_remainder().iter_mut().zip(rest) {
            *value = ((*value - mean) * inverse).mul_add(*weight, *bias);
        }
    }
}
