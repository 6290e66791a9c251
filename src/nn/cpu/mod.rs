//! The encoder for the CPU: packed batches, fused layers, weights packed for the instruction
//! set of the machine, which is found at run time.
//!
//! - `kernels` multiplies; it and nothing else has `unsafe` code.
//! - `attention`, `norm` and `math` are the rest of a `layer`.
//! - `encoder` runs the layers over a batch, the last one by `first` where no more than the first
//!   token is read of it; `load` makes it of a bundle.
//!
//! **Threads.** Workers of the engine run their batches side by side over the same weights, and
//! none waits for another. A batch that is alone is divided among all threads by rows, which
//! wait for each other once a layer. Which of the two it is changes no bit of a result.

mod attention;
mod dense;
mod encoder;
mod first;
mod inner;
mod kernels;
mod layer;
mod load;
mod math;
pub mod measure;
mod norm;
#[cfg(test)]
mod tests;

pub(super) use self::dense::Dense;
use self::kernels::{Bf16, F32, Int8, Kernel, Unscaled};
#[cfg(target_arch = "x86_64")]
use self::kernels::{Bf16Amx, Bf16Avx512, Int8Amx, Int8Avx2, Int8Avx512Vnni, Int8AvxVnni};
pub(super) use self::load::Source;
use super::{Encoder, Precision};
use crate::bundle::BundleError;

/// Loads the encoder of a bundle, for `precision` and the best instruction set there is for it.
pub(super) fn load(
    source: &Source<'_>,
    precision: Precision,
) -> Result<Box<dyn Encoder>, BundleError> {
    with_kernel(precision, Load { source, precision })
}

struct Load<'a> {
    source: &'a Source<'a>,
    precision: Precision,
}

impl Visitor for Load<'_> {
    type Output = Result<Box<dyn Encoder>, BundleError>;

    fn visit<K: Kernel, A: Unscaled>(self, kernel: K, attention: A) -> Self::Output {
        Ok(Box::new(self.source.load(kernel, attention, self.precision)?))
    }
}

/// Whether this machine has instructions that make `precision` faster than f32.
pub(super) fn speeds_up(precision: Precision) -> bool {
    with_kernel(precision, IsFaster)
}

struct IsFaster;

impl Visitor for IsFaster {
    type Output = bool;

    fn visit<K: Kernel, A: Unscaled>(self, _: K, _: A) -> bool {
        K::FASTER
    }
}

/// What can be done with any kernel, and the one that attention multiplies with beside it.
trait Visitor {
    /// What comes of it.
    type Output;

    fn visit<K: Kernel, A: Unscaled>(self, kernel: K, attention: A) -> Self::Output;
}

/// Calls `visitor` with the kernel of `precision` that is the fastest on this machine. Attention
/// is in f32, but in bf16 where that is faster and `precision` is less exact than f32 anyway.
fn with_kernel<V: Visitor>(precision: Precision, visitor: V) -> V::Output {
    match precision {
        Precision::F32 => visitor.visit(F32::new(), F32::new()),
        Precision::Bf16 => {
            #[cfg(target_arch = "x86_64")]
            if let Some(kernel) = Bf16Amx::new() {
                return visitor.visit(kernel, kernel);
            } else if let Some(kernel) = Bf16Avx512::new() {
                return visitor.visit(kernel, kernel);
            }
            visitor.visit(Bf16::new(), F32::new())
        }
        Precision::Int8 => {
            #[cfg(target_arch = "x86_64")]
            if let (Some(kernel), Some(attention)) = (Int8Amx::new(), Bf16Amx::new()) {
                return visitor.visit(kernel, attention);
            } else if let Some(kernel) = Int8Avx512Vnni::new() {
                return match Bf16Avx512::new() {
                    Some(attention) => visitor.visit(kernel, attention),
                    None => visitor.visit(kernel, F32::new()),
                };
            } else if let Some(kernel) = Int8AvxVnni::new() {
                return visitor.visit(kernel, F32::new());
            } else if let Some(kernel) = Int8Avx2::new() {
                return visitor.visit(kernel, F32::new());
            }
            visitor.visit(Int8, F32::new())
        }
    }
}
