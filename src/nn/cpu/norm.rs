//! The residual and the normalisation at the end of each half of a layer.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::math::sum;

/// Weight and bias of a LayerNorm, `[hidden]` each.
pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) epsilon: f32,
}

impl Norm {
    /// Adds `updates`, a row every `stride`, to `rows`, `[rows, hidden]`, and normalises the sums.
    pub(super) fn add(&self, rows: &mut [f32], updates: &[f32], stride: usize) {
        AddNorm { norm: self, rows, updates, stride }.dispatch();
    }
}

struct AddNorm<'a> {
    norm: &'a Norm,
    rows: &'a mut [f32],
    updates: &'a [f32],
    stride: usize,
}

impl SimdOp for AddNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let rows = self.rows.chunks_exact_mut(self.norm.weight.len());
        for (row, update) in rows.zip(self.updates.chunks_exact(self.stride)) {
            // Without the padding, so that both end in the same place of a vector.
            if let Some(update) = update.get(..row.len()) {
                self.norm.add_row(isa, row, update);
            }
        }
    }
}

impl Norm {
    #[inline(always)]
    fn add_row<I: Isa>(&self, isa: I, row: &mut [f32], update: &[f32]) {
        let (ops, lanes, count) = (isa.f32(), isa.f32().len(), row.len().max(1) as f32);

        let mean = add(isa, row, update) / count;
        let means = ops.splat(mean);
        let variance = sum(isa, row, |value| {
            let difference = ops.sub(value, means);
            ops.mul(difference, difference)
        }) / count;
        let inverse = (variance + self.epsilon).sqrt().recip();

        let (mut weights, mut biases) =
            (self.weight.chunks_exact(lanes), self.bias.chunks_exact(lanes));
        let mut rows = row.chunks_exact_mut(lanes);
        for ((row, weight), bias) in rows.by_ref().zip(weights.by_ref()).zip(biases.by_ref()) {
            let centred = ops.mul(ops.sub(ops.load(row), means), ops.splat(inverse));
            ops.store(ops.mul_add(centred, ops.load(weight), ops.load(bias)), row);
        }
        let rest = weights.remainder().iter().zip(biases.remainder());
        for (value, (weight, bias)) in rows.into_remainder().iter_mut().zip(rest) {
            *value = ((*value - mean) * inverse).mul_add(*weight, *bias);
        }
    }
}

/// Adds `updates` to `row`, which is as long, and returns the sum of the results.
#[inline(always)]
fn add<I: Isa>(isa: I, row: &mut [f32], updates: &[f32]) -> f32 {
    let (ops, lanes) = (isa.f32(), isa.f32().len());
    // Several side by side, since each waits for its last.
    let mut sums = [ops.zero(); 4];
    let (mut rows, mut updates) =
        (row.chunks_exact_mut(4 * lanes), updates.chunks_exact(4 * lanes));
    for (row, update) in rows.by_ref().zip(updates.by_ref()) {
        let added = ops.load_many::<4>(row).into_iter().zip(ops.load_many::<4>(update));
        for ((sum, (value, update)), place) in
            sums.iter_mut().zip(added).zip(row.chunks_exact_mut(lanes))
        {
            let value = ops.add(value, update);
            ops.store(value, place);
            *sum = ops.add(*sum, value);
        }
    }
    let mut rows = rows.into_remainder().chunks_exact_mut(lanes);
    let mut updates = updates.remainder().chunks_exact(lanes);
    for ((sum, row), update) in sums.iter_mut().zip(rows.by_ref()).zip(updates.by_ref()) {
        let value = ops.add(ops.load(row), ops.load(update));
        ops.store(value, row);
        *sum = ops.add(*sum, value);
    }
    let [a, b, c, d] = sums;
    let whole = ops.sum(ops.add(ops.add(a, b), ops.add(c, d)));
    rows.into_remainder().iter_mut().zip(updates.remainder()).fold(whole, |sum, (value, update)| {
        *value += update;
        sum + *value
    })
}
