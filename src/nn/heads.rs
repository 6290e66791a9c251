//! The heads: from the pooled rows of an encoder to the logits of every task.

use std::ops::Range;

use super::NnError;
use super::cpu::Dense;
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
    /// Loads the heads of `bundle`, for an encoder whose rows are the pooled rows of
    /// `poolings`, one after the other.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape, or the encoder's rows have not
    /// the width that the heads read.
    pub fn load(
        bundle: &Bundle,
        encoder: Box<dyn Encoder>,
        poolings: &[Pooling],
    ) -> Result<Self, NnError> {
        let hidden = bundle.config.hidden_size;
        let (found, expected) = (encoder.width(), hidden * poolings.len());
        if found != expected {
            return Err(NnError::Width { found, expected });
        }
        let load = |task| Head::load(bundle, task, poolings);
        let heads = bundle.tasks.iter().map(load).collect::<Result<_, _>>()?;
        let width = bundle.tasks.iter().map(|task| task.labels.len()).sum();
        Ok(Self { encoder, heads, width })
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

    fn encode(&self, batch: &PackedTokens, pause: &mut dyn FnMut()) -> Result<Rows, EncodeError> {
        let pooled = self.encoder.encode(batch, pause)?;
        let mut logits = Vec::with_capacity(pooled.len() * self.width);
        for row in pooled.iter() {
            self.heads.iter().for_each(|head| logits.extend(head.forward(row)));
        }
        let rows = Rows::new(logits, self.width)
            .ok_or_else(|| EncodeError::Backend("the model has no labels".into()))?;
        let broken = rows.iter().position(|row| row.iter().any(|logit| !logit.is_finite()));
        match broken {
            Some(sequence) => Err(EncodeError::NotFinite { sequence }),
            None => Ok(rows),
        }
    }
}

/// The head of one task. It takes a row at a time: there are few, and so a row's logits do not
/// depend on the rows beside it.
struct Head {
    /// Values that it reads of a pooled row.
    input: Range<usize>,
    /// The layer before tanh: BERT's pooler or the first of RoBERTa's head.
    dense: Option<Dense>,
    output: Dense,
}

impl Head {
    fn load(bundle: &Bundle, task: &Task, poolings: &[Pooling]) -> Result<Self, NnError> {
        let hidden = bundle.config.hidden_size;
        // The encoder pools what the tasks ask for.
        let slot = poolings.iter().position(|pooling| *pooling == task.pooling).unwrap_or_default();
        let dense = match task.head {
            HeadKind::Linear => None,
            HeadKind::BertPooler => {
                Some(format!("{}pooler.dense", bundle.weights.encoder_prefix()?))
            }
            HeadKind::Roberta => Some("classifier.dense".to_owned()),
        };
        let output = task.head.output_layer(&task.name);
        let load = |name: &str, outputs| Dense::load(&bundle.weights, name, hidden, outputs);
        Ok(Self {
            input: slot * hidden..(slot + 1) * hidden,
            dense: dense.map(|name| load(&name, hidden)).transpose()?,
            output: load(&output, task.labels.len())?,
        })
    }

    fn forward(&self, pooled: &[f32]) -> Vec<f32> {
        let input = pooled.get(self.input.clone()).unwrap_or_default();
        match &self.dense {
            None => self.output.forward(input),
            Some(dense) => {
                let mut inner = dense.forward(input);
                inner.iter_mut().for_each(|value| *value = value.tanh());
                self.output.forward(&inner)
            }
        }
    }
}
