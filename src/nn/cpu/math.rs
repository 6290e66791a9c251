//! The element-wise parts of a layer, on whatever vectors the machine has.

use rten_simd::functional::simd_map;
use rten_simd::ops::{BitOps, FloatOps, NumOps};
use rten_simd::{Isa, SimdOp};

/// GELU, `x * (1 + erf(x / sqrt(2))) / 2`, in place, of the first `columns` values of each of
/// `rows` rows, one every `stride`.
pub(super) fn gelu(values: &mut [f32], rows: usize, columns: usize, stride: usize) {
    Gelu { values, rows, columns, stride }.dispatch();
}

struct Gelu<'a> {
    values: &'a mut [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl SimdOp for Gelu<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        for row in self.values.chunks_mut(self.stride).take(self.rows) {
            let Some(row) = row.get_mut(..self.columns) else { continue };
            simd_map(
                isa.f32(),
                row,
                #[inline(always)]
                |x| {
                    let ops = isa.f32();
                    let half = ops.mul(x, ops.splat(0.5));
                    let erf = erf(isa, ops.mul(x, ops.splat(std::f32::consts::FRAC_1_SQRT_2)));
                    ops.mul_add(half, erf, half)
                },
            );
        }
    }
}

/// The error function, to 5e-7: the rational approximation of Eigen and XLA,
/// <https://gitlab.com/libeigen/eigen/-/blob/3.4/unsupported/Eigen/src/SpecialFunctions/SpecialFunctionsImpl.h>.
#[inline(always)]
fn erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let ops = isa.f32();
    // From here on erf is 1 in f32, and the approximation within a bit of it.
    let x = ops.min(ops.max(x, ops.splat(-4.0)), ops.splat(4.0));
    let square = ops.mul(x, x);
    let polynomial = |coefficients: &[f32]| {
        let (first, rest) = coefficients.split_first().unwrap_or((&0.0, &[]));
        rest.iter().fold(ops.splat(*first), |sum, coefficient| {
            ops.mul_add(sum, square, ops.splat(*coefficient))
        })
    };
    let numerator = polynomial(&[
        -2.726_142_4e-10,
        2.770_681_5e-8,
        -2.101_024e-6,
        -5.692_506_2e-5,
        -7.349_906_4e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ]);
    let denominator = polynomial(&[
        -1.456_607_15e-5,
        -2.133_740_5e-4,
        -1.682_827e-3,
        -7.373_329_3e-3,
        -1.426_473_9e-2,
    ]);
    ops.div(ops.mul(x, numerator), denominator)
}
