//! Rows of f32 to integers: symmetric, one scale a row.

use rten_simd::ops::{BitOps, FloatOps, NarrowSaturate, NumOps};
use rten_simd::{Isa, Simd, SimdOp};

use super::{MAX, OFFSET};

/// The largest absolute value. NaN if a value is not finite, so that whatever is computed with
/// the row shows it.
pub(super) fn largest(row: &[f32]) -> f32 {
    Largest(row).dispatch()
}

/// By what to multiply values to count them in steps of `scale`; 0 where these are too small
/// to tell apart.
pub(super) fn inverse(scale: f32) -> f32 {
    if scale > f32::MIN_POSITIVE { scale.recip() } else { 0.0 }
}

/// Quantises a row to -127..=127, adds [`OFFSET`], and returns the value of one step. What
/// `out` has beyond the row is left.
pub(super) fn to_u8(row: &[f32], out: &mut [u8]) -> f32 {
    let scale = largest(row) / MAX;
    let (out, _) = out.split_at_mut(row.len());
    ToU8 { row, out, inverse: inverse(scale) }.dispatch();
    scale
}

/// The same without the offset.
#[cfg(target_arch = "x86_64")]
pub(super) fn to_i16(row: &[f32], out: &mut [i16]) -> f32 {
    let scale = largest(row) / MAX;
    let (out, _) = out.split_at_mut(row.len());
    ToI16 { row, out, inverse: inverse(scale) }.dispatch();
    scale
}

struct Largest<'a>(&'a [f32]);

impl SimdOp for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f32 {
        let ops = isa.f32();
        let (mut largest, mut invalid) = (ops.zero(), ops.zero());
        let vectors = self.0.chunks_exact(ops.len());
        let rest = vectors.remainder();
        for values in vectors {
            let values = ops.load(values);
            largest = ops.max(largest, ops.abs(values));
            // NaN once a value is not finite, else 0.
            invalid = ops.mul_add(values, ops.zero(), invalid);
        }
        let largest = largest.to_array().into_iter().fold(0.0, f32::max);
        let invalid: f32 = invalid.to_array().into_iter().sum();
        rest.iter().fold(largest + invalid, |largest, value| {
            largest.max(value.abs()) + largest * 0.0 + value * 0.0
        })
    }
}

struct ToU8<'a> {
    row: &'a [f32],
    /// As long as the row.
    out: &'a mut [u8],
    inverse: f32,
}

impl SimdOp for ToU8<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let (ops, integers, halves, bytes) = (isa.f32(), isa.i32(), isa.i16(), isa.u8());
        let (inverse, offset) = (ops.splat(self.inverse), integers.splat(OFFSET));
        let lanes = ops.len();
        let mut rows = self.row.chunks_exact(4 * lanes);
        let mut outs = self.out.chunks_exact_mut(4 * lanes);
        for (values, out) in rows.by_ref().zip(outs.by_ref()) {
            let values = ops.load_many::<4>(values);
            let [a, b, c, d] = values.map(
                #[inline(always)]
                |values| integers.add(ops.to_int_round(ops.mul(values, inverse)), offset),
            );
            let (low, high) = (integers.narrow_saturate(a, b), integers.narrow_saturate(c, d));
            bytes.store(halves.narrow_saturate(low, high), out);
        }
        for (value, out) in rows.remainder().iter().zip(outs.into_remainder()) {
            *out = ((value * self.inverse).round_ties_even() + OFFSET as f32) as u8;
        }
    }
}

#[cfg(target_arch = "x86_64")]
struct ToI16<'a> {
    row: &'a [f32],
    /// As long as the row.
    out: &'a mut [i16],
    inverse: f32,
}

#[cfg(target_arch = "x86_64")]
impl SimdOp for ToI16<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let (ops, integers, halves) = (isa.f32(), isa.i32(), isa.i16());
        let (inverse, lanes) = (ops.splat(self.inverse), ops.len());
        let mut rows = self.row.chunks_exact(2 * lanes);
        let mut outs = self.out.chunks_exact_mut(2 * lanes);
        for (values, out) in rows.by_ref().zip(outs.by_ref()) {
            let [low, high] = ops.load_many::<2>(values).map(
                #[inline(always)]
                |values| ops.to_int_round(ops.mul(values, inverse)),
            );
            halves.store(integers.narrow_saturate(low, high), out);
        }
        for (value, out) in rows.remainder().iter().zip(outs.into_remainder()) {
            *out = (value * self.inverse).round_ties_even() as i16;
        }
    }
}
