//! int8: activations in 0..=255, with a scale and a zero point a row; weights symmetric per
//! output, in -127..=127; sums in i32, which are exact. So every instruction set gives the same
//! bits, and a row's result does not depend on the rows beside it.
//!
//! A row's values lie where they may, after GELU nearly all above zero: a zero point instead of
//! a symmetric range halves the error of activations. See Jacob et al., "Quantization and
//! Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018.
//!
//! VNNI takes an unsigned and a signed byte. The sums of a row begin at less its zero point
//! times the sum of the output's weights. The instruction of AVX2 that takes bytes adds two
//! products in an i16, which they overflow; there activations, less their zero point, and
//! weights are widened to i16. Weights of 7 bits would fit, and be a third faster, but their
//! error is larger than that of all the rest.
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
const MAX_WEIGHT: f32 = 127.0;

/// Quantises the weights of one output.
fn quantize_weights(row: &[f32], out: &mut [i8]) -> Column {
    out.fill(0);
    let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / MAX_WEIGHT;
    let mut sum = 0;
    for (out, value) in out.iter_mut().zip(row) {
        // A float to integer cast saturates, and gives 0 for NaN.
        *out = (value * quantize::inverse(scale)).round_ties_even() as i8;
        sum += i32::from(*out);
    }
    Column { scale, sum }
}
