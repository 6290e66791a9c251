//! The heads: from the pooled rows of an encoder to the logits of every task.

use candle_core::{Device, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear};

use super::encoder::{Compute, EncodeError, Encoder, PackedTokens, Rows};
use crate::bundle::{Bundle, HeadKind, Pooling, Task};

/// An encoder with the heads of every task: one pass answers all of them. Its rows
/// are the logits of all tasks, one after the other in the bundle's order.
pub struct MultiHead {
    encoder: Box<dyn Encoder>,
    heads: Vec<Head>,
    width: usize,
}

impl MultiHead {
    /// Loads the heads of `bundle` from its tensors, the whole of which is `vb`, for
    /// an encoder whose rows are the pooled rows of `poolings`, one after the other.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape, or the encoder's rows have not
    /// the width that the heads read.
    pub fn load(
        vb: VarBuilder<'_>,
        bundle: &Bundle,
        encoder: Box<dyn Encoder>,
        poolings: &[Pooling],
    ) -> Result<Self> {
        let hidden = bundle.config.hidden_size;
        if encoder.width() != hidden * poolings.len() {
            candle_core::bail!(
                "the encoder gives rows of {}; {} poolings of {hidden} are {}",
                encoder.width(),
                poolings.len(),
                hidden * poolings.len()
            );
        }
        let prefix = bundle.weights.encoder_prefix().map_err(super::weights::wrap)?;
        let heads = bundle
            .tasks
            .iter()
            .map(|task| Head::load(&vb, prefix, task, hidden, poolings))
            .collect::<Result<_>>()?;
        let width = bundle.tasks.iter().map(|task| task.labels.len()).sum();
        Ok(Self { encoder, heads, width })
    }

    /// `[sequences, labels of all tasks]`.
    fn logits(&self, pooled: &Rows) -> Result<Tensor> {
        let shape = (pooled.len(), pooled.width());
        let pooled = Tensor::from_slice(pooled.as_slice(), shape, &Device::Cpu)?;
        let logits: Vec<Tensor> =
            self.heads.iter().map(|head| head.forward(&pooled)).collect::<Result<_>>()?;
        Tensor::cat(&logits, 1)
    }
}

impl Encoder for MultiHead {
    fn width(&self) -> usize {
        self.width
    }

    fn max_sequence_tokens(&self) -> usize {
        self.encoder.max_sequence_tokens()
    }

    fn computes_with(&self) -> Compute {
        self.encoder.computes_with()
    }

    fn encode(
        &self,
        batch: &PackedTokens,
        between_layers: &mut dyn FnMut(),
    ) -> std::result::Result<Rows, EncodeError> {
        let pooled = self.encoder.encode(batch, between_layers)?;
        let logits = if pooled.is_empty() {
            vec![]
        } else {
            self.logits(&pooled)
                .and_then(|logits| logits.flatten_all()?.to_vec1())
                .map_err(|error| EncodeError::Backend(error.into()))?
        };
        let rows = Rows::new(logits, self.width)
            .ok_or_else(|| EncodeError::Backend("the model has no labels".into()))?;
        let broken = rows.iter().position(|row| row.iter().any(|logit| !logit.is_finite()));
        match broken {
            Some(sequence) => Err(EncodeError::NotFinite { sequence }),
            None => Ok(rows),
        }
    }
}

/// The head of one task.
#[derive(Debug)]
struct Head {
    /// First value that it reads of a pooled row, and how many.
    input: (usize, usize),
    /// The layer before tanh: BERT's pooler or the first of RoBERTa's head.
    dense: Option<Linear>,
    output: Linear,
}

impl Head {
    fn load(
        vb: &VarBuilder<'_>,
        prefix: &str,
        task: &Task,
        hidden: usize,
        poolings: &[Pooling],
    ) -> Result<Self> {
        let Some(slot) = poolings.iter().position(|pooling| *pooling == task.pooling) else {
            candle_core::bail!(
                "task {:?}: the encoder does not pool {:?}",
                task.name,
                task.pooling
            );
        };
        let dense = match task.head {
            HeadKind::Linear => None,
            HeadKind::BertPooler => Some(vb.pp(format!("{prefix}pooler.dense"))),
            HeadKind::Roberta => Some(vb.pp("classifier.dense")),
        };
        let output = vb.pp(task.head.output_layer(&task.name));
        Ok(Self {
            input: (slot * hidden, hidden),
            dense: dense.map(|vb| linear(hidden, hidden, vb)).transpose()?,
            output: linear(hidden, task.labels.len(), output)?,
        })
    }

    fn forward(&self, pooled: &Tensor) -> Result<Tensor> {
        let mut input = pooled.narrow(1, self.input.0, self.input.1)?;
        if let Some(dense) = &self.dense {
            input = dense.forward(&input)?.tanh()?;
        }
        self.output.forward(&input)
    }
}
