//! int8 on AVX2: `vpmaddwd` on values widened to i16, which is exact. The weights stay bytes, and
//! are widened a panel at a time, for all rows.
#![allow(unsafe_code, reason = "instructions of AVX2, and tiles read without bounds checks")]

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadu_si128, _mm256_add_epi32, _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mul_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_storeu_ps, _mm256_storeu_si256,
};
use std::hint::black_box;

use super::super::tiles::{tiles, with_height};
use super::super::{Column, Kernel, PEAK_SUMS, Panel, Row};
use super::{quantize, quantize_weights};

/// Sums in a vector.
const LANES: usize = 8;
/// Outputs in a panel: two vectors of sums.
const WIDTH: usize = 2 * LANES;
/// Products that one lane of an instruction adds up.
const PAIR: usize = 2;

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
    type Activation = i16;
    type Weight = i8;
    type Expanded = i16;

    const GROUP: usize = PAIR;
    const FASTER: bool = true;

    fn name(self) -> &'static str {
        "avx2"
    }

    fn panel_width(self) -> usize {
        WIDTH
    }

    fn convert(self, row: &[f32], out: &mut [i16]) -> Row {
        quantize::to_i16(row, out)
    }

    fn convert_weights(self, row: &[f32], out: &mut [i8]) -> Column {
        quantize_weights(row, out)
    }

    fn multiply(self, mut panel: Panel<'_, Self>) {
        panel.check(WIDTH);
        panel.expanded.resize(panel.depth * WIDTH, 0);
        // SAFETY: a value of `Self` exists, so the machine has AVX2 and FMA.
        unsafe { multiply(&mut panel) }
    }

    fn peak(self, steps: usize) -> usize {
        // SAFETY: a value of `Self` exists, so the machine has AVX2.
        unsafe { dots(steps) };
        2 * PAIR * steps * PEAK_SUMS * LANES
    }
}

/// See [`Kernel::peak`]. Sums are activations too, or one product would do for all.
#[target_feature(enable = "avx2")]
fn dots(steps: usize) {
    let weights = _mm256_set1_epi32(black_box(0x0001_0002));
    let mut sums = [_mm256_set1_epi32(black_box(0x0003_0004)); PEAK_SUMS];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(*sum, weights));
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx2,fma")]
fn multiply(panel: &mut Panel<'_, Int8Avx2>) {
    for (narrow, wide) in panel.weights.chunks_exact(16).zip(panel.expanded.chunks_exact_mut(16)) {
        // SAFETY: 16 values of each, which are 16 and 32 bytes.
        unsafe {
            let values = _mm256_cvtepi8_epi16(_mm_loadu_si128(narrow.as_ptr().cast()));
            _mm256_storeu_si256(wide.as_mut_ptr().cast(), values);
        }
    }
    for (row, height) in tiles(panel.rows.len(), 6) {
        with_height!(6, height, HEIGHT => tile::<HEIGHT>(panel, row));
    }
}

/// `HEIGHT` rows from `row` on.
#[target_feature(enable = "avx2,fma")]
fn tile<const HEIGHT: usize>(panel: &mut Panel<'_, Int8Avx2>, row: usize) {
    let mut sums = [[_mm256_setzero_si256(); 2]; HEIGHT];
    // SAFETY: `Panel::check` has seen that `activations` has `depth` values, an even number,
    // from `r * stride` on for every row `r`, and `out` `WIDTH` from `r * out_stride` on;
    // `row + HEIGHT` is at most the number of rows. `expanded` has `depth * WIDTH` values;
    // `rows` has one a row, and `scales` and `bias` have `WIDTH`.
    unsafe {
        let activations = panel.activations.as_ptr().add(row * panel.stride);
        let mut weights = panel.expanded.as_ptr().cast::<__m256i>();
        for step in (0..panel.depth).step_by(PAIR) {
            let columns = [_mm256_loadu_si256(weights), _mm256_loadu_si256(weights.add(1))];
            for (height, sums) in sums.iter_mut().enumerate() {
                let pair = activations.add(height * panel.stride + step).cast::<i32>();
                let pair = _mm256_set1_epi32(pair.read_unaligned());
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pair, column));
                }
            }
            weights = weights.add(2);
        }
        let load = |values: &[f32]| -> [__m256; 2] {
            [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(LANES))]
        };
        let columns = load(panel.scales).into_iter().zip(load(panel.bias)).enumerate();
        for (height, sums) in sums.into_iter().enumerate() {
            let row_scale = _mm256_set1_ps((*panel.rows.as_ptr().add(row + height)).scale);
            let out = panel.out.as_mut_ptr().add((row + height) * panel.out_stride);
            for ((vector, (scale, bias)), sum) in columns.clone().zip(sums) {
                let scale = _mm256_mul_ps(row_scale, scale);
                let value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, bias);
                _mm256_storeu_ps(out.add(LANES * vector), value);
            }
        }
    }
}
