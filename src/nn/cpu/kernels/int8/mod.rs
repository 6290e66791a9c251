//! int8: activations in 0..=255, with a scale and a zero point a row; weights symmetric per
//! output, in -127..=127; sums in i32, which are exact. So every instruction set gives the same
//! bits, and a row's result does not depend on the rows beside it.
//!
//! A row's values lie where they may, after GELU nearly all above zero: a zero point instead of
//! a symmetric range halves the error of activations. See Jacob et al., "Quantization and
//! Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018.
//!
//! From the sums of a row its zero point times the sum of the output's weights is taken.
//!
//! Weights that lie on 63 steps either way, as the recipe leaves them, are stored in these,
//! and others in 127. VNNI multiplies both alike; AVX2 is faster with the former.
//!
//! A sum over `n` steps is at most `n * 255 * 127`, which i32 holds up to 66,000 steps; no layer
//! has more.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;
mod quantize;
#[cfg(target_arch = "x86_64")]
mod vnni;

use super::Column;

#[cfg(target_arch = "x86_64")]
pub(in super::super) use self::avx2::Int8Avx2;
pub(in super::super) use self::portable::Int8;
#[cfg(target_arch = "x86_64")]
pub(in super::super) use self::vnni::{Int8Avx512Vnni, Int8AvxVnni};

/// Steps of the depth in a group: the products that one lane of an instruction adds up.
const GROUP: usize = 4;
/// The largest activation.
const MAX: i32 = 255;
/// The largest weight; -128 is not used, so that the range is symmetric.
const MAX_WEIGHT: i32 = 127;
/// The largest weight of 7 bits.
const SMALL_WEIGHT: i32 = 63;
/// How far from a step a weight may lie that is on it, in steps: f16 rounds by less than half
/// of this, unless it is subnormal.
const OFF_STEP: f32 = 1.0 / 16.0;

/// Quantises the weights of one output.
fn quantize_weights(row: &[f32], out: &mut [i8]) -> Column {
    out.fill(0);
    let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let step = |largest_step: i32| largest / largest_step as f32;
    let inverse = quantize::inverse(step(SMALL_WEIGHT));
    let off_step = |value: &f32| {
        let steps = value * inverse;
        (steps - quantize::nearest(steps)).abs()
    };
    let most_off = row.iter().map(off_step).fold(0.0, f32::max);
    let largest_step = if most_off < OFF_STEP { SMALL_WEIGHT } else { MAX_WEIGHT };
    let scale = step(largest_step);
    let (inverse, mut sum) = (quantize::inverse(scale), 0);
    for (out, value) in out.iter_mut().zip(row) {
        // A float to integer cast saturates, and gives 0 for NaN.
        *out = quantize::nearest(value * inverse) as i8;
        sum += i32::from(*out);
    }
    Column { scale, sum }
}
