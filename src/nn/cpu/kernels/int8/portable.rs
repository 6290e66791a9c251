//! int8 in plain Rust, for machines without one of the instruction sets beside it.

use std::hint::black_box;

use super::super::{Column, Kernel, PEAK_SUMS, Panel, Row};
use super::{GROUP, quantize, quantize_weights};

/// Outputs in a panel, enough for the compiler to make vectors of.
const WIDTH: usize = 16;

/// int8 on any machine.
#[derive(Clone, Copy, Debug)]
pub(in super::super::super) struct Int8;

impl Kernel for Int8 {
    type Activation = u8;
    type Weight = i8;
    type Scope = ();

    const GROUP: usize = GROUP;
    const EXACT: bool = false;
    const TO_INTEGER: Option<fn(u8) -> i32> = Some(i32::from);
    const FASTER: bool = false;

    fn name(self) -> &'static str {
        "portable"
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

    fn scope(self) {}

    fn multiply(self, (): &mut (), panel: Panel<'_, Self>) {
        panel.check(WIDTH);
        let rows = panel.activations.chunks(panel.stride.max(1)).zip(panel.rows);
        for ((row, Row { scale: row_scale, zero }), out) in
            rows.zip(panel.out.chunks_mut(panel.out_stride.max(1)))
        {
            let mut sums = [0_i32; WIDTH];
            for (sum, weights) in sums.iter_mut().zip(panel.sums) {
                *sum = -zero * weights;
            }
            let groups = row.chunks_exact(GROUP).zip(panel.weights.chunks_exact(WIDTH * GROUP));
            for (activations, weights) in groups.take(panel.depth / GROUP) {
                for (sum, weights) in sums.iter_mut().zip(weights.chunks_exact(GROUP)) {
                    for (&activation, &weight) in activations.iter().zip(weights) {
                        *sum += i32::from(activation) * i32::from(weight);
                    }
                }
            }
            let columns = sums.into_iter().zip(panel.scales).zip(panel.bias);
            for (((sum, scale), bias), out) in columns.zip(out) {
                *out = (sum as f32).mul_add(row_scale * scale, *bias);
            }
        }
    }

    fn peak(self, steps: usize) -> usize {
        let weights = black_box([1_i16; WIDTH]);
        let mut sums = [[1_i32; WIDTH]; PEAK_SUMS];
        for _ in 0..steps {
            for (sum, weight) in sums.iter_mut().flat_map(|sums| sums.iter_mut().zip(weights)) {
                *sum = sum.wrapping_add(i32::from(*sum as i16) * i32::from(weight));
            }
        }
        black_box(sums);
        2 * steps * PEAK_SUMS * WIDTH
    }
}
