//! int8 on AVX2, which multiplies bytes only two products to an i16 (`vpmaddubsw`). Weights of
//! 7 bits fit: twice 255 * 63 is less than 2^15. Larger ones are widened to i16 with the
//! activations, and take twice the loads. Both are exact.
#![allow(unsafe_code, reason = "instructions of AVX2, and tiles read without bounds checks")]

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_add_epi32, _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps,
    _mm256_fmadd_ps, _mm256_hadd_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_mullo_epi32, _mm256_permute4x64_epi64,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_storeu_ps,
    _mm256_storeu_si256, _mm256_unpacklo_epi8,
};
use std::hint::black_box;

use super::super::tiles::{tiles, with_height};
use super::super::{Column, Kernel, PEAK_SUMS, Panel, Row};
use super::{GROUP, SMALL_WEIGHT, quantize, quantize_weights};

/// Sums in a vector.
const LANES: usize = 8;
/// Outputs in a panel: two vectors of sums.
const WIDTH: usize = 2 * LANES;
/// Quarters 0, 2, 1, 3: puts what `hadd` makes of two vectors in order.
const IN_ORDER: i32 = 0b1101_1000;

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
    type Expanded = i16;

    const GROUP: usize = GROUP;
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

    fn multiply(self, mut panel: Panel<'_, Self>) {
        panel.check(WIDTH);
        if panel.largest <= SMALL_WEIGHT {
            // SAFETY: a value of `Self` exists, so the machine has AVX2 and FMA; the panel is checked.
            unsafe { multiply_small(&mut panel) }
        } else {
            panel.expanded.resize(panel.depth * WIDTH, 0);
            // SAFETY: as above, and `expanded` has room for the weights.
            unsafe { multiply_wide(&mut panel) }
        }
    }

    fn peak(self, steps: usize) -> usize {
        // SAFETY: a value of `Self` exists, so the machine has AVX2.
        unsafe { dots(steps) };
        2 * GROUP * steps * PEAK_SUMS * LANES
    }
}

/// See [`Kernel::peak`]. Sums are activations too, or one product would do for all.
#[target_feature(enable = "avx2")]
fn dots(steps: usize) {
    let weights = _mm256_set1_epi32(black_box(0x0102_0304));
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_set1_epi32(black_box(0x0506_0708)); PEAK_SUMS];
    for _ in 0..steps {
        for sum in &mut sums {
            let pairs = _mm256_maddubs_epi16(*sum, weights);
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
        }
    }
    black_box(sums);
}

/// # Safety
/// `panel` is checked.
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_small(panel: &mut Panel<'_, Int8Avx2>) {
    for (row, height) in tiles(panel.rows.len(), 6) {
        // SAFETY: the tiles are of the rows that the panel has.
        with_height!(6, height, HEIGHT => unsafe { tile_small::<HEIGHT>(panel, row) });
    }
}

/// # Safety
/// `panel` is checked, and `expanded` has `depth * WIDTH` values.
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_wide(panel: &mut Panel<'_, Int8Avx2>) {
    for (narrow, wide) in panel.weights.chunks_exact(16).zip(panel.expanded.chunks_exact_mut(16)) {
        // SAFETY: 16 values of each, which are 16 and 32 bytes.
        unsafe {
            let values = _mm256_cvtepi8_epi16(_mm_loadu_si128(narrow.as_ptr().cast()));
            _mm256_storeu_si256(wide.as_mut_ptr().cast(), values);
        }
    }
    for (row, height) in tiles(panel.rows.len(), 6) {
        with_height!(6, height, HEIGHT => for half in 0..2 {
            // SAFETY: as in `multiply_small`; the weights have been widened above.
            unsafe { tile_wide::<HEIGHT>(panel, row, half) };
        });
    }
}

/// `HEIGHT` rows from `row` on, with weights of 7 bits.
///
/// # Safety
/// `panel` is checked and has the rows.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_small<const HEIGHT: usize>(panel: &mut Panel<'_, Int8Avx2>, row: usize) {
    let mut sums = [[_mm256_setzero_si256(); 2]; HEIGHT];
    let ones = _mm256_set1_epi16(1);
    // SAFETY: `Panel::check` has seen that `activations` has `depth` values, a multiple of 4,
    // from `r * stride` on for every row `r`, and `weights` `depth * WIDTH`; `row + HEIGHT` is at
    // most the number of rows.
    unsafe {
        let activations = panel.activations.as_ptr().add(row * panel.stride);
        let mut weights = panel.weights.as_ptr().cast::<__m256i>();
        for step in (0..panel.depth).step_by(GROUP) {
            let columns = [_mm256_loadu_si256(weights), _mm256_loadu_si256(weights.add(1))];
            for (height, sums) in sums.iter_mut().enumerate() {
                let four = activations.add(height * panel.stride + step).cast::<i32>();
                let four = _mm256_set1_epi32(four.read_unaligned());
                for (sum, column) in sums.iter_mut().zip(columns) {
                    let pairs = _mm256_maddubs_epi16(four, column);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
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

/// `HEIGHT` rows from `row` on and one `half` of the panel, by its widened weights. A vector
/// has four outputs: of each four steps, the first two in one lane and the others in the next.
///
/// # Safety
/// `panel` is checked and has the rows, `expanded` has `depth * WIDTH` values, and `half` is 0 or 1.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_wide<const HEIGHT: usize>(panel: &mut Panel<'_, Int8Avx2>, row: usize, half: usize) {
    let zeros = _mm256_setzero_si256();
    let mut sums = [[zeros; 2]; HEIGHT];
    // SAFETY: as in `tile_small`; `expanded` has `depth * WIDTH` values, and `half` is 0 or 1.
    unsafe {
        let activations = panel.activations.as_ptr().add(row * panel.stride);
        let weights = panel.expanded.as_ptr().cast::<__m256i>().add(2 * half);
        for step in (0..panel.depth).step_by(GROUP) {
            let columns = [0, 1].map(|vector| _mm256_loadu_si256(weights.add(step + vector)));
            for (height, sums) in sums.iter_mut().enumerate() {
                let four = activations.add(height * panel.stride + step).cast::<i32>();
                let four = _mm256_set1_epi32(four.read_unaligned());
                let four = _mm256_unpacklo_epi8(four, zeros);
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(four, column));
                }
            }
        }
    }
    for (height, [low, high]) in sums.into_iter().enumerate() {
        let sum = _mm256_permute4x64_epi64::<IN_ORDER>(_mm256_hadd_epi32(low, high));
        // SAFETY: `row + height` is a row, and `half` is 0 or 1.
        unsafe { write(panel, row + height, half, sum) };
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
