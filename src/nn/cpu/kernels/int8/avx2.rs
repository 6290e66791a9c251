//! int8 on AVX2, which multiplies bytes only two products to an i16 (`vpmaddubsw`). An i16
//! holds 128 times the largest activation: the weights of one sign that go into it may come to
//! that. Four nearly always do if they have 7 bits, so two groups are added up as i16 before
//! they are widened, which takes a multiplication too. What is over is taken from the weights
//! at load and multiplied by itself. All of it is exact.
#![allow(unsafe_code, reason = "instructions of AVX2, and tiles read without bounds checks")]

use std::arch::x86_64::{
    __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps,
    _mm256_mullo_epi32, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256,
    _mm256_storeu_ps,
};
use std::hint::black_box;
use std::iter;

use super::super::tiles::{tiles, with_height};
use super::super::{Column, Extras, Kernel, PEAK_SUMS, Panel, Row};
use super::{GROUP, MAX, quantize, quantize_weights};

/// Sums in a vector.
const LANES: usize = 8;
/// Outputs in a panel: two vectors of sums.
const WIDTH: usize = 2 * LANES;
/// Weights in a group of the panel.
const GROUP_WEIGHTS: usize = WIDTH * GROUP;
/// What the weights of one sign may come to that go into an i16.
const FITS: i32 = i16::MAX as i32 / MAX;

/// int8 with AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(in super::super::super) struct Int8Avx2(());

impl Int8Avx2 {
    /// If this machine has the instructions.
    pub(in super::super::super) fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

impl Kernel for Int8Avx2 {
    type Activation = u8;
    type Weight = i8;
    type Scope = ();

    const GROUP: usize = GROUP;
    const EXACT: bool = false;
    const TO_INTEGER: Option<fn(u8) -> i32> = Some(i32::from);
    const FASTER: bool = true;

    fn name(self) -> &'static str {
        "avx2"
    }

    fn panel_width(self) -> usize {
        WIDTH
    }

    fn convert(self, row: &[f32], out: &mut [u8]) -> Row {
        quantize::to_u8(row, out)
    }

    fn convert_weights(self, row: &[f32], out: &mut [i8]) -> Column {
        quantize_weights(row, out)
    }

    fn fit(self, weights: &mut [i8]) -> Extras<i8> {
        let mut extras = Extras::default();
        for (pair, weights) in weights.chunks_mut(2 * GROUP_WEIGHTS).enumerate() {
            let (first, second) = weights.split_at_mut(GROUP_WEIGHTS.min(weights.len()));
            // A group without another goes to the extras.
            let limit = if second.is_empty() { 0 } else { FITS };
            // Each round moves something, so that there is a last one.
            loop {
                let of_first = take_excess(first, second, limit, 2 * pair, &mut extras);
                let of_second = take_excess(second, first, limit, 2 * pair + 1, &mut extras);
                if !of_first && !of_second {
                    break;
                }
            }
        }
        extras
    }

    fn scope(self) {}

    fn multiply(self, (): &mut (), mut panel: Panel<'_, Self>) {
        panel.check(WIDTH);
        // SAFETY: a value of `Self` exists, so the machine has AVX2 and FMA; the panel is checked.
        unsafe { multiply(&mut panel) }
    }

    fn peak(self, steps: usize) -> usize {
        // SAFETY: a value of `Self` exists, so the machine has AVX2.
        unsafe { dots(steps) };
        2 * 2 * GROUP * steps * PEAK_SUMS * LANES
    }
}

/// For each i16 and sign: moves what the weights of `group` and of the group `beside` it come to
/// above `limit`, or as much of it as one more i16 holds, from `group` to `extras`, as weights of
/// the group `index` of the depth. Returns whether anything was moved.
fn take_excess(
    group: &mut [i8],
    beside: &[i8],
    limit: i32,
    index: usize,
    extras: &mut Extras<i8>,
) -> bool {
    let mut extra = [0; GROUP_WEIGHTS];
    let beside = beside.chunks(2).chain(iter::repeat(&[][..]));
    for ((weights, beside), extra) in group.chunks_mut(2).zip(beside).zip(extra.chunks_mut(2)) {
        for sign in [1, -1] {
            let size = |weight: &i8| (sign * i32::from(*weight)).max(0);
            let sum: i32 = weights.iter().chain(beside).map(size).sum();
            let mut excess = (sum - limit).clamp(0, FITS);
            for (weight, extra) in weights.iter_mut().zip(&mut *extra) {
                let part = size(weight).min(excess);
                excess -= part;
                *weight -= (sign * part) as i8;
                *extra += (sign * part) as i8;
            }
        }
    }
    let any = extra.iter().any(|weight| *weight != 0);
    if any {
        extras.groups.push(index);
        extras.weights.extend(extra);
    }
    any
}

/// See [`Kernel::peak`]. Sums are activations too, or one product would do for all.
#[target_feature(enable = "avx2")]
fn dots(steps: usize) {
    let first = _mm256_set1_epi32(black_box(0x0102_0304));
    let second = _mm256_set1_epi32(black_box(0x0403_0201));
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_set1_epi32(black_box(0x0506_0708)); PEAK_SUMS];
    for _ in 0..steps {
        for sum in &mut sums {
            let products = _mm256_maddubs_epi16(*sum, first);
            let products = _mm256_add_epi16(products, _mm256_maddubs_epi16(*sum, second));
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(products, ones));
        }
    }
    black_box(sums);
}

/// # Safety
/// `panel` is checked.
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply(panel: &mut Panel<'_, Int8Avx2>) {
    // The sums of 3 rows, as i16 and as i32, fill the registers.
    for (row, height) in tiles(panel.rows.len(), 3) {
        // SAFETY: the tiles are of the rows that the panel has.
        with_height!(3, height, HEIGHT => unsafe { tile::<HEIGHT>(panel, row) });
    }
}

/// `HEIGHT` rows from `row` on.
///
/// # Safety
/// `panel` is checked and has the rows.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const HEIGHT: usize>(panel: &mut Panel<'_, Int8Avx2>, row: usize) {
    let zeros = _mm256_setzero_si256();
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[zeros; 2]; HEIGHT];
    // SAFETY: `Panel::check` has seen that `activations` has `depth` values, a multiple of 4,
    // from `r * stride` on for every row `r`, `weights` `depth * WIDTH`, and `extras` a group of
    // weights for each of its groups, which the depth has; `row + HEIGHT` is at most the number
    // of rows.
    unsafe {
        let activations = panel.activations.as_ptr().add(row * panel.stride);
        let weights = panel.weights.as_ptr().cast::<__m256i>();
        for pair in 0..panel.depth / (2 * GROUP) {
            let mut products = [[zeros; 2]; HEIGHT];
            for group in [2 * pair, 2 * pair + 1] {
                let weights = weights.add(2 * group);
                let columns = [_mm256_loadu_si256(weights), _mm256_loadu_si256(weights.add(1))];
                for (height, products) in products.iter_mut().enumerate() {
                    let four = activations.add(height * panel.stride + GROUP * group);
                    let four = _mm256_set1_epi32(four.cast::<i32>().read_unaligned());
                    for (product, column) in products.iter_mut().zip(columns) {
                        *product = _mm256_add_epi16(*product, _mm256_maddubs_epi16(four, column));
                    }
                }
            }
            for (sums, products) in sums.iter_mut().zip(products) {
                for (sum, product) in sums.iter_mut().zip(products) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(product, ones));
                }
            }
        }
        let mut weights = panel.extras.weights.as_ptr().cast::<__m256i>();
        for group in &panel.extras.groups {
            let columns = [_mm256_loadu_si256(weights), _mm256_loadu_si256(weights.add(1))];
            for (height, sums) in sums.iter_mut().enumerate() {
                let four = activations.add(height * panel.stride + GROUP * group);
                let four = _mm256_set1_epi32(four.cast::<i32>().read_unaligned());
                for (sum, column) in sums.iter_mut().zip(columns) {
                    let product = _mm256_maddubs_epi16(four, column);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(product, ones));
                }
            }
            weights = weights.add(2);
        }
    }
    for (height, sums) in sums.into_iter().enumerate() {
        for (half, sum) in sums.into_iter().enumerate() {
            // SAFETY: `row + height` is a row, and 0 and 1 are the halves of the panel.
            unsafe { write(panel, row + height, half, sum) };
        }
    }
}

/// Scales the sums of one `half` of the panel, and writes them as results of `row`.
///
/// # Safety
/// `panel` is checked and has the row, and `half` is 0 or 1.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn write(panel: &mut Panel<'_, Int8Avx2>, row: usize, half: usize, sum: __m256i) {
    // SAFETY: `rows` has one a row; `out` has `WIDTH` values from `row * out_stride` on, as have
    // `sums`, `scales` and `bias`: two halves.
    unsafe {
        let first = half * LANES;
        let Row { scale, zero } = *panel.rows.as_ptr().add(row);
        let of_weights = _mm256_loadu_si256(panel.sums.as_ptr().add(first).cast());
        let shift = _mm256_mullo_epi32(of_weights, _mm256_set1_epi32(-zero));
        let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, shift));
        let scales = _mm256_loadu_ps(panel.scales.as_ptr().add(first));
        let scale = _mm256_mul_ps(_mm256_set1_ps(scale), scales);
        let bias = _mm256_loadu_ps(panel.bias.as_ptr().add(first));
        let out = panel.out.as_mut_ptr().add(row * panel.out_stride + first);
        _mm256_storeu_ps(out, _mm256_fmadd_ps(sum, scale, bias));
    }
}
