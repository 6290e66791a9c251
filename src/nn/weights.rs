//! The weights of a bundle as the source of a candle `VarBuilder`.

use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use crate::bundle::{BundleError, Weights};

/// A builder of f32 tensors on the CPU. Each is copied once, from the mapped file
/// into the tensor, and converted on the way.
pub(super) fn var_builder(weights: &Weights) -> VarBuilder<'_> {
    VarBuilder::from_backend(Box::new(Source(weights)), DType::F32, Device::Cpu)
}

/// Carries an error of the bundle through candle, unchanged.
pub(super) fn wrap(error: BundleError) -> Error {
    // Not `Error::wrap`, which prints a backtrace into the message.
    Error::Wrapped(Box::new(error))
}

struct Source<'a>(&'a Weights);

impl SimpleBackend for Source<'_> {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let values = self.0.to_f32(name, shape.dims()).map_err(wrap)?;
        Tensor::from_vec(values, shape, device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = self.0.shape(name).unwrap_or_default();
        self.get(Shape::from(shape), name, Init::Const(0.0), dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}
