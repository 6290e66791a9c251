//! The parts of a layer that go value by value or sum up rows, on whatever vectors the machine has.

use rten_simd::functional::simd_map;
use rten_simd::ops::{BitOps, FloatOps, IntOps, NumOps};
use rten_simd::{Isa, Simd, SimdOp};

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

/// The numerators of the softmax of rows, in place, and `sums`, the denominator of each: a row
/// every `stride` values, of which the first `columns` count, becomes `exp(value - largest)`,
/// and what is after these 0. `stride` is a multiple of two vectors.
pub(super) fn exponentials(values: &mut [f32], columns: usize, stride: usize, sums: &mut [f32]) {
    Exponentials { values, columns, stride, sums }.dispatch();
}

struct Exponentials<'a> {
    values: &'a mut [f32],
    columns: usize,
    stride: usize,
    sums: &'a mut [f32],
}

impl SimdOp for Exponentials<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let (ops, lanes) = (isa.f32(), isa.f32().len());
        for (row, sum) in self.values.chunks_exact_mut(self.stride).zip(self.sums) {
            row.iter_mut().skip(self.columns).for_each(|value| *value = f32::NEG_INFINITY);
            let mut most = [ops.splat(f32::NEG_INFINITY); 2];
            for values in row.chunks_exact(2 * lanes) {
                let [a, b] = ops.load_many::<2>(values);
                most = [ops.max(most[0], a), ops.max(most[1], b)];
            }
            let most = fold(isa, ops.max(most[0], most[1]), |a, b| if a > b { a } else { b });
            let most = ops.splat(most);
            let mut sums = [ops.zero(); 2];
            for values in row.chunks_exact_mut(2 * lanes) {
                let [a, b] = ops.load_many::<2>(values);
                let (a, b) = (exp(isa, ops.sub(a, most)), exp(isa, ops.sub(b, most)));
                let (first, second) = values.split_at_mut(lanes);
                ops.store(a, first);
                ops.store(b, second);
                sums = [ops.add(sums[0], a), ops.add(sums[1], b)];
            }
            *sum = ops.sum(ops.add(sums[0], sums[1]));
        }
    }
}

/// All lanes to one by halves, which compilers make vectors of: lane by lane each would wait
/// for the one before.
#[inline(always)]
#[allow(clippy::indexing_slicing, reason = "lanes are below the number of lanes")]
pub(super) fn fold<I: Isa>(isa: I, values: I::F32, with: impl Fn(f32, f32) -> f32) -> f32 {
    let (mut values, mut count) = (values.to_array(), isa.f32().len());
    while count > 1 {
        count /= 2;
        for lane in 0..count {
            values[lane] = with(values[lane], values[lane + count]);
        }
    }
    values[0]
}

/// The sum of what `of` makes of each value.
#[inline(always)]
pub(super) fn sum<I: Isa>(isa: I, values: &[f32], of: impl Fn(I::F32) -> I::F32) -> f32 {
    let ops = isa.f32();
    // Several side by side, since each waits for its last.
    let mut sums = [ops.zero(); 4];
    let groups = values.chunks_exact(4 * ops.len());
    let vectors = groups.remainder().chunks(ops.len());
    for values in groups {
        let added = sums.iter_mut().zip(ops.load_many::<4>(values));
        added.for_each(|(sum, values)| *sum = ops.add(*sum, of(values)));
    }
    for (sum, values) in sums.iter_mut().zip(vectors) {
        let (values, mask) = ops.load_pad(values);
        *sum = ops.add(*sum, ops.select(of(values), ops.zero(), mask));
    }
    let [a, b, c, d] = sums;
    ops.sum(ops.add(ops.add(a, b), ops.add(c, d)))
}

/// `exp(x)` of what is not above 0, to 2 units in the last place; below -87 it is 0. By Juffa,
/// <https://forums.developer.nvidia.com/t/a-more-accurate-performance-competitive-implementation-of-expf/47528>.
#[inline(always)]
fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let (ops, integers) = (isa.f32(), isa.i32());
    // x is `exponent * ln(2) + rest`, of which ln(2) is in two parts.
    let round = ops.splat(12_582_912.0);
    let exponent = ops.sub(ops.mul_add(x, ops.splat(std::f32::consts::LOG2_E), round), round);
    let rest = ops.mul_add(exponent, ops.splat(-6.931_457_5e-1), x);
    let rest = ops.mul_add(exponent, ops.splat(-1.428_606_8e-6), rest);
    let power = integers.add(ops.to_int_trunc(exponent), integers.splat(127));
    let power: I::F32 = integers.shift_left::<23>(power).reinterpret_cast();
    let coefficients =
        [1.378_059_4e-3, 8.373_124_5e-3, 4.166_953_6e-2, 1.666_647_2e-1, 4.999_998_5e-1, 1.0, 1.0];
    let value = coefficients
        .into_iter()
        .fold(ops.zero(), |sum, coefficient| ops.mul_add(sum, rest, ops.splat(coefficient)));
    let tiny = ops.lt(x, ops.splat(-87.0));
    ops.select(ops.zero(), ops.mul(value, power), tiny)
}
