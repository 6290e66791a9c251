//! f32 on whatever vectors the machine has, by way of `rten_simd`: AVX-512, AVX2 with FMA,
//! NEON, or none.
#![allow(unsafe_code, reason = "tiles read without bounds checks")]

use std::hint::black_box;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::ahead::Ahead;
use super::tiles::{tiles, with_height};
use super::{Column, Kernel, PEAK_SUMS, Panel, Row, Unscaled, holds};

/// Vectors that a tile is wide.
const VECTORS: usize = 2;

/// The kernel of f32.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct F32 {
    lanes: usize,
}

impl F32 {
    /// For the vectors of this machine.
    pub(in super::super) fn new() -> Self {
        Self { lanes: Lanes.dispatch() }
    }
}

impl Kernel for F32 {
    type Activation = f32;
    type Weight = f32;
    type Scope = ();

    const GROUP: usize = 1;
    /// More than most, since weights of f32 are the largest: so they are fetched less often.
    const BLOCK: usize = 64;
    const EXACT: bool = true;
    const FASTER: bool = false;

    fn name(self) -> &'static str {
        match (self.lanes, cfg!(target_arch = "x86_64")) {
            (16, true) => "avx512",
            (8, true) => "avx2",
            (_, false) if cfg!(target_arch = "aarch64") => "neon",
            _ => "portable",
        }
    }

    fn panel_width(self) -> usize {
        self.lanes * VECTORS
    }

    fn convert(self, row: &[f32], out: &mut [f32]) -> Row {
        out.iter_mut().zip(row).for_each(|(out, value)| *out = *value);
        Row::PLAIN
    }

    fn as_activations(values: &[f32]) -> Option<&[f32]> {
        Some(values)
    }

    fn as_f32_mut(activations: &mut [f32]) -> Option<&mut [f32]> {
        Some(activations)
    }

    fn convert_weights(self, row: &[f32], out: &mut [f32]) -> Column {
        self.convert(row, out);
        Column::PLAIN
    }

    fn scope(self) {}

    fn multiply(self, (): &mut (), panel: Panel<'_, Self>) {
        let Panel { activations, stride, depth, weights, next, bias, out, out_stride, .. } = panel;
        let rows = panel.rows.len();
        self.product(Product {
            activations,
            stride,
            rows,
            depth,
            weights,
            next,
            bias,
            out,
            out_stride,
        });
    }

    fn peak(self, steps: usize) -> usize {
        Peak(steps).dispatch();
        2 * steps * PEAK_SUMS * self.lanes
    }
}

impl Unscaled for F32 {}

/// [`Panel`] without what f32 has no use for.
pub(super) struct Product<'a> {
    pub(super) activations: &'a [f32],
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) weights: &'a [f32],
    pub(super) next: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) out: &'a mut [f32],
    pub(super) out_stride: usize,
}

impl F32 {
    /// Multiplies rows with a panel.
    ///
    /// # Panics
    /// If a slice is shorter than the shape says.
    pub(super) fn product(self, product: Product<'_>) {
        product.dispatch();
    }
}

/// Finds how many f32 a vector of this machine has.
struct Lanes;

impl SimdOp for Lanes {
    type Output = usize;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> usize {
        isa.f32().len()
    }
}

impl SimdOp for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let width = isa.f32().len() * VECTORS;
        assert!(holds(self.activations, self.rows, self.stride, self.depth));
        assert!(holds(self.out, self.rows, self.out_stride, width));
        assert!(holds(self.weights, self.depth, width, width) && self.bias.len() >= width);
        // 12 rows of 2 vectors fill the 32 registers of AVX-512, 6 the 16 of AVX2.
        if isa.f32().len() >= 16 {
            for (row, height) in tiles(self.rows, 12) {
                with_height!(12, height, HEIGHT => tile::<I, HEIGHT>(isa, &mut self, row));
            }
        } else {
            for (row, height) in tiles(self.rows, 6) {
                with_height!(6, height, HEIGHT => tile::<I, HEIGHT>(isa, &mut self, row));
            }
        }
    }
}

/// `HEIGHT` rows from `row` on.
#[inline(always)]
fn tile<I: Isa, const HEIGHT: usize>(isa: I, product: &mut Product<'_>, row: usize) {
    let ops = isa.f32();
    let width = ops.len() * VECTORS;
    let mut sums = [[ops.zero(); VECTORS]; HEIGHT];
    let mut ahead = Ahead::new(product.next, row, HEIGHT, product.rows, product.depth);
    // SAFETY: `eval` has seen that `activations` has `depth` values from
    // `r * stride` on for every row `r`, `weights` `depth * width`, `bias` `width`, and `out`
    // `width` from `r * out_stride` on. `row + HEIGHT` is at most the number of rows.
    unsafe {
        let activations = product.activations.as_ptr().add(row * product.stride);
        let mut weights = product.weights.as_ptr();
        for step in 0..product.depth {
            ahead.step(2);
            let columns: [I::F32; VECTORS] =
                [ops.load_ptr(weights), ops.load_ptr(weights.add(ops.len()))];
            for (height, sums) in sums.iter_mut().enumerate() {
                let activation = ops.splat(*activations.add(height * product.stride + step));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = ops.mul_add(activation, column, *sum);
                }
            }
            weights = weights.add(width);
        }
        for (height, sums) in sums.into_iter().enumerate() {
            let out = product.out.as_mut_ptr().add((row + height) * product.out_stride);
            for (vector, sum) in sums.into_iter().enumerate() {
                let bias = ops.load_ptr(product.bias.as_ptr().add(vector * ops.len()));
                ops.store_ptr(ops.add(sum, bias), out.add(vector * ops.len()));
            }
        }
    }
}

/// See [`Kernel::peak`].
struct Peak(usize);

impl SimdOp for Peak {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let (half, quarter) = (ops.splat(black_box(0.5)), ops.splat(black_box(0.25)));
        let mut sums = [ops.zero(); PEAK_SUMS];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = ops.mul_add(half, *sum, quarter);
            }
        }
        black_box(sums);
    }
}
