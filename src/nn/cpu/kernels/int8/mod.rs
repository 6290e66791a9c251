//! int8: activations symmetric per row, in -127..=127; weights symmetric per output, in
//! -63..=63; sums in i32, which are exact. So every instruction set gives the same bits, and a
//! row's result does not depend on the rows beside it.
//!
//! Activations are stored with 128 added, since the instructions of x86 take an unsigned and a
//! signed byte; 128 times the sum of an output's weights is what its sums begin below zero.
//!
//! Weights have 7 bits because AVX2 adds two products in an i16, which must hold
//! `2 * 255 * 63`. The eighth bit would gain little: the error of the activations, one row of
//! which has values of very different size, is several times that of the weights.
//!
//! A sum over `n` steps is at most `n * 255 * 63`, which i32 holds up to 133,000 steps; the
//! widest layer of any BERT has 4,096.

mod portable;
mod quantize;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::Column;

pub(in super::super) use self::portable::Int8;
#[cfg(target_arch = "x86_64")]
pub(in super::super) use self::x86::{Int8Avx2, Int8Avx512Vnni, Int8AvxVnni};

/// Steps of the depth in a group: the products that one lane of an instruction adds up.
const GROUP: usize = 4;
/// What is added to activations.
const OFFSET: i32 = 128;
/// The largest weight.
const MAX_WEIGHT: f32 = 63.0;

/// Quantises the weights of one output.
fn quantize_weights(row: &[f32], out: &mut [i8]) -> Column {
    out.fill(0);
    let scale = quantize::largest(row) / MAX_WEIGHT;
    let mut sum = 0;
    for (out, value) in out.iter_mut().zip(row) {
        // A float to integer cast saturates, and gives 0 for NaN.
        *out = (value * quantize::inverse(scale)).round_ties_even() as i8;
        sum += i32::from(*out);
    }
    Column { scale, sum }
}
