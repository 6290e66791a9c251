//! Rows of f32 to integers, with a scale and a zero point a row.

use rten_simd::ops::{BitOps, FloatOps, NarrowSaturate, NumOps};
use rten_simd::{Isa, Simd, SimdOp};

use super::super::Row;
use super::MAX;

/// By what to multiply values to count them in steps of `scale`; 0 where these are too small
/// to tell apart.
pub(super) fn inverse(scale: f32) -> f32 {
    if scale > f32::MIN_POSITIVE { scale.recip() } else { 0.0 }
}

/// Quantises a row to 0..=[`MAX`]. What `out` has beyond the row is left.
pub(super) fn to_u8(row: &[f32], out: &mut [u8]) -> Row {
    let steps = Steps::of(row);
    let (out, _) = out.split_at_mut(row.len());
    ToU8 { row, out, steps }.dispatch();
    steps.row
}

/// How a row is quantised.
#[derive(Clone, Copy)]
struct Steps {
    /// Its scale is NaN if a value is not finite, so that whatever is computed with the row
    /// shows it.
    row: Row,
    inverse: f32,
}

impl Steps {
    /// 0 is always one of the steps.
    fn of(row: &[f32]) -> Self {
        let (least, most) = Range(row).dispatch();
        let scale = most / MAX as f32 - least / MAX as f32;
        let inverse = inverse(scale);
        Self { row: Row { scale, zero: (-least * inverse).round_ties_even() as i32 }, inverse }
    }

    /// A value in steps from 0, within what a byte holds with the zero point added.
    fn count(self, value: f32) -> i32 {
        let zero = self.row.zero;
        ((value * self.inverse).round_ties_even() as i32).clamp(-zero, MAX - zero)
    }
}

/// The least value and the most, or 0; both NaN if a value is not finite.
struct Range<'a>(&'a [f32]);

impl SimdOp for Range<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> (f32, f32) {
        let ops = isa.f32();
        let (mut least, mut most, mut invalid) = (ops.zero(), ops.zero(), ops.zero());
        let vectors = self.0.chunks_exact(ops.len());
        let rest = vectors.remainder();
        for values in vectors {
            let values = ops.load(values);
            least = ops.min(least, values);
            most = ops.max(most, values);
            // NaN once a value is not finite, else 0.
            invalid = ops.mul_add(values, ops.zero(), invalid);
        }
        let fold = |vector: I::F32, rest: &[f32], with: fn(f32, f32) -> f32| {
            vector.to_array().into_iter().chain(rest.iter().copied()).fold(0.0, with)
        };
        let invalid: f32 = invalid.to_array().into_iter().chain(rest.iter().map(|v| v * 0.0)).sum();
        (fold(least, rest, f32::min) + invalid, fold(most, rest, f32::max) + invalid)
    }
}

struct ToU8<'a> {
    row: &'a [f32],
    /// As long as the row.
    out: &'a mut [u8],
    steps: Steps,
}

impl SimdOp for ToU8<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let (ops, integers, halves, bytes) = (isa.f32(), isa.i32(), isa.i16(), isa.u8());
        let zero = self.steps.row.zero;
        let (inverse, zeros) = (ops.splat(self.steps.inverse), integers.splat(zero));
        let lanes = ops.len();
        let mut rows = self.row.chunks_exact(4 * lanes);
        let mut outs = self.out.chunks_exact_mut(4 * lanes);
        for (values, out) in rows.by_ref().zip(outs.by_ref()) {
            // One by one: the compiler does not always inline an array's `map`, and then calls
            // a function for each instruction in it.
            let [a, b, c, d] = ops.load_many::<4>(values);
            let (a, b) = (in_bytes(isa, a, inverse, zeros), in_bytes(isa, b, inverse, zeros));
            let (c, d) = (in_bytes(isa, c, inverse, zeros), in_bytes(isa, d, inverse, zeros));
            let (low, high) = (integers.narrow_saturate(a, b), integers.narrow_saturate(c, d));
            bytes.store(halves.narrow_saturate(low, high), out);
        }
        for (value, out) in rows.remainder().iter().zip(outs.into_remainder()) {
            *out = (self.steps.count(*value) + zero) as u8;
        }
    }
}

/// Values in steps, with the zero point added.
#[inline(always)]
fn in_bytes<I: Isa>(isa: I, values: I::F32, inverse: I::F32, zeros: I::I32) -> I::I32 {
    let ops = isa.f32();
    isa.i32().add(ops.to_int_round(ops.mul(values, inverse)), zeros)
}
