//! Rows of f32 to integers, with a scale and a zero point a row.

use rten_simd::ops::{BitOps, FloatOps, NarrowSaturate, NumOps};
use rten_simd::{Isa, SimdOp};

use super::super::Row;
use super::MAX;
use crate::nn::cpu::math::{ROUND, fold};

/// By what to multiply values to count them in steps of `scale`; 0 where these are too small
/// to tell apart.
pub(super) fn inverse(scale: f32) -> f32 {
    if scale > f32::MIN_POSITIVE { scale.recip() } else { 0.0 }
}

/// The nearest integer of a value below 2^22, of two the even one. Where there is no instruction
/// for it, as in plain x86-64, `round_ties_even` is a call for each value.
pub(super) fn nearest(value: f32) -> f32 {
    (value + ROUND) - ROUND
}

/// Quantises a row to 0..=[`MAX`]. What `out` has beyond the row is left.
pub(super) fn to_u8(row: &[f32], out: &mut [u8]) -> Row {
    let (out, _) = out.split_at_mut(row.len());
    ToU8 { row, out }.dispatch()
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
    /// Of a row between two values; 0 is always one of the steps.
    #[inline(always)]
    fn between(least: f32, most: f32) -> Self {
        let scale = most / MAX as f32 - least / MAX as f32;
        let inverse = inverse(scale);
        Self { row: Row { scale, zero: nearest(-least * inverse) as i32 }, inverse }
    }

    /// A value in steps from 0, within what a byte holds with the zero point added.
    fn count(self, value: f32) -> i32 {
        let zero = self.row.zero;
        (nearest(value * self.inverse) as i32).clamp(-zero, MAX - zero)
    }
}

/// The least value and the most, or 0; both NaN if a value is not finite.
#[inline(always)]
fn range<I: Isa>(isa: I, row: &[f32]) -> (f32, f32) {
    let ops = isa.f32();
    let widen = |(least, most, invalid): &mut (I::F32, I::F32, I::F32), values| {
        *least = ops.min(*least, values);
        *most = ops.max(*most, values);
        // NaN once a value is not finite, else 0.
        *invalid = ops.mul_add(values, ops.zero(), *invalid);
    };
    // Several side by side, since each waits for its last.
    let mut ranges = [(ops.zero(), ops.zero(), ops.zero()); 4];
    let groups = row.chunks_exact(4 * ops.len());
    let vectors = groups.remainder().chunks_exact(ops.len());
    let rest = vectors.remainder().iter().copied();
    for values in groups {
        ranges.iter_mut().zip(ops.load_many::<4>(values)).for_each(|(range, v)| widen(range, v));
    }
    ranges.iter_mut().zip(vectors).for_each(|(range, values)| widen(range, ops.load(values)));
    let [a, b, c, d] = ranges;
    let least = ops.min(ops.min(a.0, b.0), ops.min(c.0, d.0));
    let most = ops.max(ops.max(a.1, b.1), ops.max(c.1, d.1));
    let invalid = ops.sum(ops.add(ops.add(a.2, b.2), ops.add(c.2, d.2)));
    let least = fold(isa, least, |a, b| if a < b { a } else { b });
    let most = fold(isa, most, |a, b| if a > b { a } else { b });
    let (least, most, invalid) = rest
        .fold((least, most, invalid), |(least, most, invalid), value| {
            (least.min(value), most.max(value), invalid + value * 0.0)
        });
    (least + invalid, most + invalid)
}

struct ToU8<'a> {
    row: &'a [f32],
    /// As long as the row.
    out: &'a mut [u8],
}

impl SimdOp for ToU8<'_> {
    type Output = Row;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> Row {
        let (ops, integers, halves, bytes) = (isa.f32(), isa.i32(), isa.i16(), isa.u8());
        let (least, most) = range(isa, self.row);
        let steps = Steps::between(least, most);
        let (inverse, zeros) = (ops.splat(steps.inverse), integers.splat(steps.row.zero));
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
            *out = (steps.count(*value) + steps.row.zero) as u8;
        }
        steps.row
    }
}

/// Values in steps, with the zero point added.
#[inline(always)]
fn in_bytes<I: Isa>(isa: I, values: I::F32, inverse: I::F32, zeros: I::I32) -> I::I32 {
    let ops = isa.f32();
    isa.i32().add(ops.to_int_round(ops.mul(values, inverse)), zeros)
}
