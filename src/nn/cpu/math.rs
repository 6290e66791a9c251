//! The parts of a layer that go value by value or sum up rows, on whatever vectors the machine
//! has. What is rounded to 8 bits or to bf16 next need not be exact to the last bit of f32, and
//! is faster so.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};
use std::ops::Range;

use rten_simd::functional::simd_map;
use rten_simd::ops::{BitOps, FloatOps, IntOps, NumOps};
use rten_simd::{Isa, Simd, SimdOp};

/// GELU, `x * (1 + erf(x / sqrt(2))) / 2`, in place, of the first `columns` values of each of
/// `rows` rows, one every `stride`: with erf to 5e-7 if `exact`, else itself to 2e-4.
pub(super) fn gelu(values: &mut [f32], rows: usize, columns: usize, stride: usize, exact: bool) {
    if exact {
        Gelu::<true> { values, rows, columns, stride }.dispatch();
    } else {
        Gelu::<false> { values, rows, columns, stride }.dispatch();
    }
}

struct Gelu<'a, const EXACT: bool> {
    values: &'a mut [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<const EXACT: bool> SimdOp for Gelu<'_, EXACT> {
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
                    let half = isa.f32().mul(x, isa.f32().splat(0.5));
                    let erf = if EXACT { erf(isa, x) } else { short_erf(isa, x) };
                    isa.f32().mul_add(half, erf, half)
                },
            );
        }
    }
}

/// The error function of `x / sqrt(2)`, to 5e-7: the rational approximation of Eigen and XLA,
/// <https://gitlab.com/libeigen/eigen/-/blob/3.4/unsupported/Eigen/src/SpecialFunctions/SpecialFunctionsImpl.h>.
#[inline(always)]
fn erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let ops = isa.f32();
    let x = ops.mul(x, ops.splat(FRAC_1_SQRT_2));
    // From here on erf is 1 in f32, and the approximation within a bit of it.
    let x = ops.min(ops.max(x, ops.splat(-4.0)), ops.splat(4.0));
    let square = ops.mul(x, x);
    let numerator = [
        -2.726_142_4e-10,
        2.770_681_5e-8,
        -2.101_024e-6,
        -5.692_506_2e-5,
        -7.349_906_4e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    let denominator =
        [-1.456_607_15e-5, -2.133_740_5e-4, -1.682_827e-3, -7.373_329_3e-3, -1.426_473_9e-2];
    let numerator = ops.mul(x, polynomial(isa, square, &numerator));
    ops.div(numerator, polynomial(isa, square, &denominator))
}

/// The error function of `x / sqrt(2)` without a division: of the odd polynomials that are 1 at 4,
/// beyond which it stays so, the one with which the largest error of GELU is least.
#[inline(always)]
fn short_erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let ops = isa.f32();
    let x = ops.min(ops.max(x, ops.splat(-4.0)), ops.splat(4.0));
    let coefficients = [
        4.517_641e-8,
        -3.177_654e-6,
        9.552_777e-5,
        -1.624_375e-3,
        1.752_738_3e-2,
        -1.291_088_3e-1,
        7.957_405_4e-1,
    ];
    ops.mul(x, polynomial(isa, ops.mul(x, x), &coefficients))
}

/// By Horner's rule; the coefficient of the highest power is the first.
#[inline(always)]
fn polynomial<I: Isa>(isa: I, x: I::F32, coefficients: &[f32]) -> I::F32 {
    let ops = isa.f32();
    let (first, rest) = coefficients.split_first().unwrap_or((&0.0, &[]));
    rest.iter()
        .fold(ops.splat(*first), |sum, coefficient| ops.mul_add(sum, x, ops.splat(*coefficient)))
}

/// The numerators of the softmax of rows, in place, and `sums`, the denominator of each: a row
/// every `stride` values, of which the first `columns` count, becomes `exp(value - largest)`,
/// and what is after these 0. They are to 2 units in the last place if `exact`, else to 1e-4 of
/// themselves. `stride` is a multiple of two vectors.
pub(super) fn exponentials(
    values: &mut [f32],
    columns: usize,
    stride: usize,
    sums: &mut [f32],
    exact: bool,
) {
    if exact {
        Exponentials::<true> { values, columns, stride, sums }.dispatch();
    } else {
        Exponentials::<false> { values, columns, stride, sums }.dispatch();
    }
}

struct Exponentials<'a, const EXACT: bool> {
    values: &'a mut [f32],
    columns: usize,
    stride: usize,
    sums: &'a mut [f32],
}

impl<const EXACT: bool> SimdOp for Exponentials<'_, EXACT> {
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
                let (a, b) = if EXACT {
                    (exp(isa, a, most), exp(isa, b, most))
                } else {
                    (short_exp(isa, a, most), short_exp(isa, b, most))
                };
                let (first, second) = values.split_at_mut(lanes);
                ops.store(a, first);
                ops.store(b, second);
                sums = [ops.add(sums[0], a), ops.add(sums[1], b)];
            }
            *sum = ops.sum(ops.add(sums[0], sums[1]));
        }
    }
}

/// Divides rows of `values`, one every `stride`, by `divisors`, one a row, into `columns` of the
/// rows of `out`, which has one every `out_stride`.
pub(super) fn divide(
    values: &[f32],
    stride: usize,
    divisors: &[f32],
    out: &mut [f32],
    out_stride: usize,
    columns: Range<usize>,
) {
    Divide { values, stride, divisors, out, out_stride, columns }.dispatch();
}

struct Divide<'a> {
    values: &'a [f32],
    stride: usize,
    divisors: &'a [f32],
    out: &'a mut [f32],
    out_stride: usize,
    columns: Range<usize>,
}

impl SimdOp for Divide<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let (ops, lanes) = (isa.f32(), isa.f32().len());
        let rows = self.values.chunks_exact(self.stride).zip(self.divisors);
        for (out, (values, divisor)) in self.out.chunks_exact_mut(self.out_stride).zip(rows) {
            let Some(out) = out.get_mut(self.columns.clone()) else { continue };
            let inverse = divisor.recip();
            let vector = ops.splat(inverse);
            let mut outs = out.chunks_exact_mut(lanes);
            for (out, values) in outs.by_ref().zip(values.chunks_exact(lanes)) {
                ops.store(ops.mul(ops.load(values), vector), out);
            }
            let rest = outs.into_remainder();
            let values = values.iter().skip(self.columns.len() - rest.len());
            rest.iter_mut().zip(values).for_each(|(out, value)| *out = value * inverse);
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

/// `exp(x - most)` of what is not above `most`, to 2 units in the last place; below exp(-87) it
/// is 0. By Juffa,
/// <https://forums.developer.nvidia.com/t/a-more-accurate-performance-competitive-implementation-of-expf/47528>.
#[inline(always)]
fn exp<I: Isa>(isa: I, x: I::F32, most: I::F32) -> I::F32 {
    let (ops, integers) = (isa.f32(), isa.i32());
    let x = ops.sub(x, most);
    // x is `exponent * ln(2) + rest`, of which ln(2) is in two parts.
    let round = ops.splat(ROUND);
    let exponent = ops.sub(ops.mul_add(x, ops.splat(LOG2_E), round), round);
    let rest = ops.mul_add(exponent, ops.splat(-6.931_457_5e-1), x);
    let rest = ops.mul_add(exponent, ops.splat(-1.428_606_8e-6), rest);
    let power = integers.add(ops.to_int_trunc(exponent), integers.splat(127));
    let power: I::F32 = integers.shift_left::<23>(power).reinterpret_cast();
    let coefficients =
        [1.378_059_4e-3, 8.373_124_5e-3, 4.166_953_6e-2, 1.666_647_2e-1, 4.999_998_5e-1, 1.0, 1.0];
    let value = polynomial(isa, rest, &coefficients);
    let tiny = ops.lt(x, ops.splat(-87.0));
    ops.select(ops.zero(), ops.mul(value, power), tiny)
}

/// `exp(x - most)` of what is not above `most`, to 1e-4 of itself; below exp(-86) it is 0. It is
/// `2^exponent * 2^rest`, of which the latter is the cubic with the least relative error, and the
/// former is added to its exponent, which leaves what is not a number as long as its lowest bits
/// are 0: as operations on numbers make it, and bf16 has it.
#[inline(always)]
fn short_exp<I: Isa>(isa: I, x: I::F32, most: I::F32) -> I::F32 {
    let (ops, integers) = (isa.f32(), isa.i32());
    let (base, round) = (ops.splat(LOG2_E), ops.splat(ROUND));
    let x = ops.sub(x, most);
    let rounded = ops.mul_add(x, base, round);
    let rest = ops.mul_add(x, base, ops.sub(round, rounded));
    let coefficients = [5.517_167e-2, 2.426_111_3e-1, 6.932_61e-1, 9.999_281e-1];
    let value: I::I32 = polynomial(isa, rest, &coefficients).reinterpret_cast();
    // The last bits of `rounded` are the exponent, and what is above these is shifted out.
    let power = integers.shift_left::<23>(rounded.reinterpret_cast());
    let tiny = ops.lt(x, ops.splat(-86.0));
    ops.select(ops.zero(), integers.add(value, power).reinterpret_cast(), tiny)
}

/// Rounds to an integer what is added to it, if that is below 2^22: 1.5 * 2^23.
pub(super) const ROUND: f32 = 12_582_912.0;
