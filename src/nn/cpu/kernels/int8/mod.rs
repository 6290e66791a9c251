//! int8: activations symmetric per row, in -127..=127; weights symmetric per output, in
//! -127..=127; sums in i32, which are exact. So every instruction set gives the same bits, and a
//! row's result does not depend on the rows beside it.
//!
//! VNNI takes an unsigned and a signed byte, so for it activations have 128 added; 128 times the
//! sum of an output's weights is what its sums begin below zero. The instruction of AVX2 that
//! takes bytes adds two products in an i16, which they overflow; there activations and
//! weights are widened to i16. Weights of 7 bits would fit, and be a third faster, but their
//! error is as large as that of all the rest.
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
/// What is added to activations.
const OFFSET: i32 = 128;
/// The largest quantised value; -128 is not used, so that the range is symmetric.
const MAX: f32 = 127.0;

/// Quantises the weights of one output.
fn quantize_weights(row: &[f32], out: &mut [i8]) -> Column {
    out.fill(0);
    let scale = quantize::largest(row) / MAX;
    let mut sum = 0;
    for (out, value) in out.iter_mut().zip(row) {
        // A float to integer cast saturates, and gives 0 for NaN.
        *out = (value * quantize::inverse(scale)).round_ties_even() as i8;
        sum += i32::from(*out);
    }
    Column { scale, sum }
}
