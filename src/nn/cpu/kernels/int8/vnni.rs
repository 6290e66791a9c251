//! int8 with VNNI. `vpdpbusd` adds four products of an unsigned and a signed byte to an i32: 16
//! sums at a time with AVX512-VNNI, 8 with AVX-VNNI.
#![allow(unsafe_code, reason = "instructions of x86, and tiles read without bounds checks")]

use std::arch::x86_64::{
    _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_mul_ps, _mm256_mullo_epi32, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_storeu_ps, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mul_ps, _mm512_mullo_epi32, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_storeu_ps,
};
use std::hint::black_box;

use super::super::ahead::Ahead;
use super::super::tiles::{tiles, with_height};
use super::super::{Column, Kernel, PEAK_SUMS, Panel, Row};
use super::{GROUP, quantize, quantize_weights};

/// A kernel and its tile: `$height` rows of two vectors of `$lanes` sums.
macro_rules! int8 {
    (
        $(#[$doc:meta])* $kernel:ident, $name:literal, $lanes:literal, $height:tt,
        features: $target:literal = $($feature:tt),+;
        $load:ident, $load_f32:ident, $store:ident, $set:ident, $set_f32:ident, $multiply:ident,
        $dot:ident, $to_f32:ident, $multiply_f32:ident, $multiply_add:ident
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(in super::super::super) struct $kernel(());

        impl $kernel {
            /// If this machine has the instructions.
            pub(in super::super::super) fn new() -> Option<Self> {
                ($(is_x86_feature_detected!($feature))&&+).then_some(Self(()))
            }

            /// # Safety
            /// `panel` is checked.
            #[target_feature(enable = $target)]
            unsafe fn rows(panel: &mut Panel<'_, Self>) {
                for (row, height) in tiles(panel.rows.len(), $height) {
                    // SAFETY: the tiles are of the rows that the panel has.
                    with_height!($height, height, HEIGHT => unsafe { Self::tile::<HEIGHT>(panel, row) });
                }
            }

            /// See [`Kernel::peak`]. Sums are activations too, or one product would do for all.
            #[target_feature(enable = $target)]
            fn dots(steps: usize) {
                let weights = $set(black_box(0x0102_0304));
                let mut sums = [$set(black_box(0x0506_0708)); PEAK_SUMS];
                for _ in 0..steps {
                    for sum in &mut sums {
                        *sum = $dot(*sum, *sum, weights);
                    }
                }
                black_box(sums);
            }

            /// `HEIGHT` rows from `row` on.
            ///
            /// # Safety
            /// `panel` is checked and has the rows.
            #[target_feature(enable = $target)]
            unsafe fn tile<const HEIGHT: usize>(panel: &mut Panel<'_, Self>, row: usize) {
                // SAFETY: `Panel::check` has seen that `activations` has `depth` values, a
                // multiple of 4, from `r * stride` on for every row `r`, `weights`
                // `depth * 2 * LANES`, `out` two vectors from `r * out_stride` on, and
                // `sums`, `scales` and `bias` two vectors; `rows` has one a row, and
                // `row + HEIGHT` is at most the number of rows.
                unsafe {
                    let rows = panel.rows.as_ptr().add(row);
                    let of_weights = [
                        $load(panel.sums.as_ptr().cast()),
                        $load(panel.sums.as_ptr().add($lanes).cast()),
                    ];
                    let mut sums = [of_weights; HEIGHT];
                    for (height, sums) in sums.iter_mut().enumerate() {
                        let zero = $set(-(*rows.add(height)).zero);
                        sums.iter_mut().for_each(|sum| *sum = $multiply(*sum, zero));
                    }
                    let activations = panel.activations.as_ptr().add(row * panel.stride);
                    let mut weights = panel.weights.as_ptr();
                    let steps = panel.depth / GROUP;
                    let mut ahead =
                        Ahead::new(panel.next, row, HEIGHT, panel.rows.len(), steps);
                    for step in (0..panel.depth).step_by(GROUP) {
                        ahead.step(2);
                        let columns =
                            [$load(weights.cast()), $load(weights.add(4 * $lanes).cast())];
                        for (height, sums) in sums.iter_mut().enumerate() {
                            let four = activations.add(height * panel.stride + step).cast::<i32>();
                            let four = $set(four.read_unaligned());
                            for (sum, column) in sums.iter_mut().zip(columns) {
                                *sum = $dot(*sum, four, column);
                            }
                        }
                        weights = weights.add(8 * $lanes);
                    }
                    // Read once: for all the compiler knows, `out` may lie over them.
                    let column = |vector: usize| {
                        let place = $lanes * vector;
                        ($load_f32(panel.scales.as_ptr().add(place)), $load_f32(panel.bias.as_ptr().add(place)))
                    };
                    let columns = [column(0), column(1)];
                    for (height, sums) in sums.into_iter().enumerate() {
                        let row_scale = $set_f32((*rows.add(height)).scale);
                        let out = panel.out.as_mut_ptr().add((row + height) * panel.out_stride);
                        for (vector, (sum, (scale, bias))) in sums.into_iter().zip(columns).enumerate() {
                            let scale = $multiply_f32(row_scale, scale);
                            let value = $multiply_add($to_f32(sum), scale, bias);
                            $store(out.add($lanes * vector), value);
                        }
                    }
                }
            }
        }

        impl Kernel for $kernel {
            type Activation = u8;
            type Weight = i8;
            type Scope = ();

            const GROUP: usize = GROUP;
            const EXACT: bool = false;
            const TO_INTEGER: Option<fn(u8) -> i32> = Some(i32::from);
            const FASTER: bool = true;

            fn name(self) -> &'static str {
                $name
            }

            fn panel_width(self) -> usize {
                2 * $lanes
            }

            fn convert(self, row: &[f32], out: &mut [u8]) -> Row {
                quantize::to_u8(row, out)
            }

            fn convert_weights(self, row: &[f32], out: &mut [i8]) -> Column {
                quantize_weights(row, out)
            }

            fn scope(self) {}

            fn multiply(self, (): &mut (), mut panel: Panel<'_, Self>) {
                panel.check(self.panel_width());
                // SAFETY: a value of `Self` exists, so the machine has the instructions; the panel
                // is checked.
                unsafe { Self::rows(&mut panel) }
            }

            fn peak(self, steps: usize) -> usize {
                // SAFETY: a value of `Self` exists, so the machine has the instructions.
                unsafe { Self::dots(steps) };
                2 * GROUP * steps * PEAK_SUMS * $lanes
            }
        }
    };
}

int8! {
    /// int8 with AVX512-VNNI.
    Int8Avx512Vnni, "avx512-vnni", 16, 12,
    features: "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni" =
        "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni";
    _mm512_loadu_si512, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_mullo_epi32, _mm512_dpbusd_epi32, _mm512_cvtepi32_ps, _mm512_mul_ps, _mm512_fmadd_ps
}

int8! {
    /// int8 with AVX-VNNI.
    Int8AvxVnni, "avx-vnni", 8, 6,
    features: "avx2,fma,avxvnni" = "avx2", "fma", "avxvnni";
    _mm256_loadu_si256, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_mullo_epi32, _mm256_dpbusd_avx_epi32, _mm256_cvtepi32_ps, _mm256_mul_ps,
    _mm256_fmadd_ps
}
