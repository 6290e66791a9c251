//! What is between the two products of the feed-forward part.

use super::kernels::{Aligned, Kernel, Operand, row_stride};
use super::layer::room;
use super::math::gelu;

/// Rows `[rows, intermediate]` as the second product reads them, where its kernel converts
/// [by value](Kernel::BY_VALUE), else in f32.
pub(super) struct Inner<K: Kernel> {
    activations: Aligned<K::Activation>,
    values: Aligned<f32>,
    rows: usize,
    /// Values from one row to the next.
    stride: usize,
}

impl<K: Kernel> Inner<K> {
    /// Empty.
    pub(super) fn new() -> Self {
        Self { activations: Aligned::new(0), values: Aligned::new(0), rows: 0, stride: 0 }
    }

    /// Makes room for `rows` rows of `width` values; what these are is not said.
    pub(super) fn begin(&mut self, rows: usize, width: usize) {
        self.rows = rows;
        if K::BY_VALUE {
            self.stride = row_stride::<K::Activation>(width);
            self.activations.at_least(rows * self.stride);
        } else {
            self.stride = row_stride::<f32>(width);
            self.values.at_least(rows * self.stride);
        }
    }

    /// GELU of what `multiply` makes with a panel whose first output is `first`; `results` is memory for it.
    pub(super) fn fill(
        &mut self,
        kernel: K,
        first: usize,
        results: &mut Aligned<f32>,
        exact: bool,
        multiply: &mut dyn FnMut(&mut [f32], usize),
    ) {
        let (width, stride) = (kernel.panel_width(), self.stride);
        if K::BY_VALUE {
            let results = room(results, self.rows * width);
            multiply(results, width);
            gelu(results, 1, results.len(), results.len(), exact);
            let out = self.activations.get_mut(first..).unwrap_or_default();
            kernel.convert_part(results, width, out, stride);
        } else {
            let out = self.values.get_mut(first..).unwrap_or_default();
            multiply(out, stride);
            gelu(out, self.rows, width, stride, exact);
        }
    }

    /// All of them, for the second product.
    pub(super) fn rows(&self) -> Operand<'_, K> {
        let values = self.rows * self.stride;
        if K::BY_VALUE {
            Operand::Converted(self.activations.get(..values).unwrap_or_default(), self.stride)
        } else {
            Operand::Values(self.values.get(..values).unwrap_or_default(), self.stride)
        }
    }
}
