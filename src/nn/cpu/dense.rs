//! A linear layer by itself, in f32.

use super::kernels::{F32, Input, Operand, Packed};
use crate::bundle::{BundleError, Weights};

/// A linear layer for one row at a time.
pub(in crate::nn) struct Dense {
    layer: Packed<F32>,
    outputs: usize,
}

impl Dense {
    /// Loads `name.weight`, `[outputs, inputs]`, and `name.bias`, `[outputs]`.
    pub(in crate::nn) fn load(
        weights: &Weights,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self, BundleError> {
        let matrix = weights.to_f32(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = weights.to_f32(&format!("{name}.bias"), &[outputs])?;
        Ok(Self { layer: Packed::new(F32::new(), &matrix, &bias, inputs), outputs })
    }

    /// Values that it gives for a row.
    pub(in crate::nn) fn outputs(&self) -> usize {
        self.outputs
    }

    /// `[inputs]` to `[outputs]`.
    pub(in crate::nn) fn forward(&self, row: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; self.layer.width()];
        let source = Operand::Values(row, row.len());
        self.layer.forward(source, &mut out, self.layer.width(), &mut Input::default());
        out.truncate(self.outputs);
        out
    }
}
