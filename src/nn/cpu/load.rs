//! From the tensors of a bundle to an encoder whose weights are packed for a kernel.

use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;
use rayon::prelude::*;

use super::attention::Shape;
use super::encoder::{Embeddings, FusedEncoder};
use super::first::{FirstRowLayer, Head};
use super::kernels::{F32, Kernel, Packed, Unscaled, row_stride};
use super::layer::{AfterAttention, Layer};
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
        // Where no more than first rows is read of the last layer, it computes no more.
        let last = self.config.layers.checked_sub(1);
        let last = last.filter(|_| Pooling::read_first_alone(self.poolings));
        let layers = (0..last.unwrap_or(self.config.layers)).into_par_iter();
        let (layers, last) = rayon::join(
            || layers.map(|index| self.layer(kernel, index)).collect::<Result<_, _>>(),
            || last.map(|index| self.first_row_layer(kernel, index)).transpose(),
        );
        let (hidden, heads) = (self.config.hidden_size, self.config.heads);
        let stride =
            row_stride::<A::Activation>((3 * hidden).next_multiple_of(kernel.panel_width()));
        Ok(FusedEncoder {
            embeddings: self.embeddings()?,
            layers: layers?,
            last: last?,
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
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&types).for_each(|(value, kind)| *value += kind);
        }
        let words = table("word_embeddings", config.vocab_size)?;
        let (first_position, norm) = (config.first_position, self.norm("embeddings.LayerNorm")?);
        Ok(Embeddings { words, positions, first_position, norm })
    }

    fn layer<K: Kernel>(&self, kernel: K, index: usize) -> Result<Layer<K>, BundleError> {
        let hidden = self.config.hidden_size;
        let (mut weights, mut bias) = self.query(index)?;
        for part in ["key", "value"] {
            let (more_weights, more_bias) = self.attention_input(index, part)?;
            weights.extend(more_weights);
            bias.extend(more_bias);
        }
        let qkv = Packed::new(kernel, &weights, &bias, hidden);
        Ok(Layer { qkv, after: self.after_attention(kernel, index)? })
    }

    fn first_row_layer<K: Kernel>(
        &self,
        kernel: K,
        index: usize,
    ) -> Result<FirstRowLayer<K>, BundleError> {
        let (hidden, exact) = (self.config.hidden_size, F32::new());
        let size = hidden / self.config.heads;
        let (queries, query_bias) = self.query(index)?;
        let (keys, _) = self.attention_input(index, "key")?;
        let (values, value_bias) = self.attention_input(index, "value")?;
        let of_heads = keys.chunks_exact(size * hidden).zip(values.chunks_exact(size * hidden));
        let head = |((keys, values), bias): ((&[f32], &[f32]), &[f32])| {
            let column = |input| keys.iter().skip(input).step_by(hidden).copied();
            let transposed: Vec<f32> = (0..hidden).flat_map(column).collect();
            Head {
                key: Packed::new(exact, &transposed, &vec![0.0; hidden], size),
                value: Packed::new(exact, values, bias, hidden),
            }
        };
        Ok(FirstRowLayer {
            query: Packed::new(exact, &queries, &query_bias, hidden),
            heads: of_heads.zip(value_bias.chunks_exact(size)).map(head).collect(),
            after: self.after_attention(kernel, index)?,
        })
    }

    fn after_attention<K: Kernel>(
        &self,
        kernel: K,
        index: usize,
    ) -> Result<AfterAttention<K>, BundleError> {
        let (hidden, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        let linear = |part: &str, inputs, outputs| {
            let (weights, bias) = self.linear(&name(part), inputs, outputs)?;
            Ok(Packed::new(kernel, &weights, &bias, inputs))
        };
        Ok(AfterAttention {
            attention_output: linear("attention.output.dense", hidden, hidden)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"))?,
            intermediate: linear("intermediate.dense", hidden, inner)?,
            output: linear("output.dense", inner, hidden)?,
            output_norm: self.norm(&name("output.LayerNorm"))?,
        })
    }

    /// Weights and bias of a layer's query, divided by the square root of the head size.
    fn query(&self, index: usize) -> Result<(Vec<f32>, Vec<f32>), BundleError> {
        let (mut weights, mut bias) = self.attention_input(index, "query")?;
        let scale = 1.0 / ((self.config.hidden_size / self.config.heads) as f32).sqrt();
        weights.iter_mut().chain(&mut bias).for_each(|value| *value *= scale);
        Ok((weights, bias))
    }

    /// Weights, `[hidden, hidden]`, and bias of a layer's `query`, `key` or `value`.
    fn attention_input(
        &self,
        index: usize,
        part: &str,
    ) -> Result<(Vec<f32>, Vec<f32>), BundleError> {
        let hidden = self.config.hidden_size;
        self.linear(&format!("encoder.layer.{index}.attention.self.{part}"), hidden, hidden)
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
