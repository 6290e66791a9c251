//! From the tensors of a bundle to an encoder whose weights are packed for a kernel.

use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;
use rayon::prelude::*;

use super::attention::Shape;
use super::encoder::{Embeddings, FusedEncoder};
use super::kernels::{Kernel, Packed, Unscaled};
use super::layer::Layer;
use super::norm::Norm;
use crate::bundle::{BundleError, EncoderConfig, Pooling, Weights};
use crate::nn::{Compute, Precision};

/// Where the tensors of an encoder are.
pub(in crate::nn) struct Source<'a> {
    pub(in crate::nn) weights: &'a Weights,
    /// What the names of its tensors begin with.
    pub(in crate::nn) prefix: &'a str,
    pub(in crate::nn) config: &'a EncoderConfig,
    pub(in crate::nn) poolings: &'a [Pooling],
}

impl Source<'_> {
    /// Loads the encoder and packs its weights for `kernel`, layers side by side.
    pub(super) fn load<K: Kernel, A: Unscaled>(
        &self,
        kernel: K,
        attention: A,
        precision: Precision,
    ) -> Result<FusedEncoder<K, A>, BundleError> {
        let layers = (0..self.config.layers).into_par_iter();
        let layers: Vec<Layer<K>> =
            layers.map(|index| self.layer(kernel, index)).collect::<Result<_, _>>()?;
        let (hidden, heads) = (self.config.hidden_size, self.config.heads);
        let stride = layers.first().map_or(0, |layer| layer.qkv.width());
        Ok(FusedEncoder {
            embeddings: self.embeddings()?,
            layers,
            attention,
            poolings: self.poolings.to_vec(),
            shape: Shape { hidden, head_size: hidden / heads, stride },
            compute: Compute { precision, kernels: names(kernel.name(), attention.name()) },
            running: AtomicUsize::new(0),
            spare: Mutex::default(),
            spare_divided: Mutex::default(),
        })
    }

    fn embeddings(&self) -> Result<Embeddings, BundleError> {
        let (config, hidden) = (self.config, self.config.hidden_size);
        let table =
            |name: &str, rows| self.tensor(&format!("embeddings.{name}.weight"), &[rows, hidden]);
        let types = table("token_type_embeddings", config.type_vocab_size)?;
        let mut positions = table("position_embeddings", config.position_rows)?;
        positions.drain(..config.first_position * hidden);
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&types).for_each(|(value, kind)| *value += kind);
        }
        let words = table("word_embeddings", config.vocab_size)?;
        Ok(Embeddings { words, positions, norm: self.norm("embeddings.LayerNorm")? })
    }

    fn layer<K: Kernel>(&self, kernel: K, index: usize) -> Result<Layer<K>, BundleError> {
        let (hidden, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        let linear = |part: &str, inputs, outputs| {
            let (weights, bias) = self.linear(&name(part), inputs, outputs)?;
            Ok(Packed::new(kernel, &weights, &bias, inputs))
        };
        Ok(Layer {
            qkv: self.qkv(kernel, &name("attention.self"))?,
            attention_output: linear("attention.output.dense", hidden, hidden)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"))?,
            intermediate: linear("intermediate.dense", hidden, inner)?,
            output: linear("output.dense", inner, hidden)?,
            output_norm: self.norm(&name("output.LayerNorm"))?,
        })
    }

    fn qkv<K: Kernel>(&self, kernel: K, name: &str) -> Result<Packed<K>, BundleError> {
        let (hidden, heads) = (self.config.hidden_size, self.config.heads);
        let (mut weights, mut bias) = self.linear(&format!("{name}.query"), hidden, hidden)?;
        let scale = 1.0 / ((hidden / heads) as f32).sqrt();
        weights.iter_mut().chain(&mut bias).for_each(|value| *value *= scale);
        for part in ["key", "value"] {
            let (more_weights, more_bias) =
                self.linear(&format!("{name}.{part}"), hidden, hidden)?;
            weights.extend(more_weights);
            bias.extend(more_bias);
        }
        Ok(Packed::new(kernel, &weights, &bias, hidden))
    }

    /// Weights, `[outputs, inputs]`, and bias, `[outputs]`.
    fn linear(
        &self,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<(Vec<f32>, Vec<f32>), BundleError> {
        let weights = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok((weights, self.tensor(&format!("{name}.bias"), &[outputs])?))
    }

    fn norm(&self, name: &str) -> Result<Norm, BundleError> {
        let vector =
            |part: &str| self.tensor(&format!("{name}.{part}"), &[self.config.hidden_size]);
        let (weight, bias) = (vector("weight")?, vector("bias")?);
        Ok(Norm { weight, bias, epsilon: self.config.layer_norm_eps as f32 })
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, BundleError> {
        self.weights.to_f32(&format!("{}{name}", self.prefix), shape)
    }
}

/// The instruction set of the products with weights, and that of attention's own if it is another.
fn names(products: &str, attention: &str) -> String {
    if products == attention { products.to_owned() } else { format!("{products}+{attention}") }
}
