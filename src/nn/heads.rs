//! The heads: from the pooled rows of an encoder to the logits of every task.

use std::ops::Range;

use super::NnError;
use super::cpu::{Dense, measure};
use super::encoder::{Compute, EncodeError, Encoder, PackedTokens, Rows};
use crate::bundle::{Bundle, HeadKind, Pooling, Task};

/// How near two labels' logits may be before a sequence is encoded again, where the encoder has a
/// closer way: twice what the difference of two logits of tasnif-base is off by in int8, where they
/// are near each other (root mean square, 0.07 in tweets and 0.05 in news).
const UNDECIDED: f32 = 0.12;

/// An encoder with the heads of every task: one pass answers all of them. Its rows
/// are the logits of all tasks, one after the other in the bundle's order.
///
/// Sequences that the encoder's precision leaves undecided are encoded again, closely, so that a
/// label is seldom another than in f32. Which they are hangs on a sequence alone, so a batch still
/// equals its single runs.
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

    /// `[sequences, width]`, of pooled rows.
    fn logits(&self, pooled: &Rows) -> Vec<f32> {
        pooled.iter().flat_map(|row| self.heads.iter().flat_map(|head| head.forward(row))).collect()
    }

    /// Replaces the logits, `[sequences, width]`, of the sequences that are undecided in some task.
    fn decide(
        &self,
        batch: &PackedTokens,
        logits: &mut [f32],
        pause: &mut dyn FnMut(),
    ) -> Result<(), EncodeError> {
        if self.width == 0 {
            return Ok(());
        }
        let mut again = PackedTokens::new();
        let rows = logits.chunks_exact_mut(self.width).zip(batch.iter());
        let mut undecided: Vec<&mut [f32]> = rows
            .filter(|(row, _)| self.is_undecided(row))
            .map(|(row, sequence)| {
                again.push(sequence);
                row
            })
            .collect();
        if undecided.is_empty() {
            return Ok(());
        }
        if let Some(pooled) = self.encoder.encode_closely(&again, pause) {
            let closer = self.logits(&pooled?);
            for (row, closer) in undecided.iter_mut().zip(closer.chunks_exact(self.width)) {
                row.copy_from_slice(closer);
            }
        }
        Ok(())
    }

    /// Whether a sequence's logits, `[width]`, are undecided in some task.
    fn is_undecided(&self, mut logits: &[f32]) -> bool {
        self.heads.iter().any(|head| {
            let (own, others) = logits.split_at_checked(head.output.outputs()).unwrap_or_default();
            logits = others;
            head.is_undecided(own)
        })
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
        let mut logits = self.logits(&self.encoder.encode(batch, pause)?);
        self.decide(batch, &mut logits, pause)?;
        let rows = Rows::new(logits, self.width)
            .ok_or_else(|| EncodeError::Backend("the model has no labels".into()))?;
        let broken = rows.iter().position(|row| row.iter().any(|logit| !logit.is_finite()));
        match broken {
            Some(sequence) => Err(EncodeError::NotFinite { sequence }),
            None => Ok(rows),
        }
    }
}

/// What is applied to values, in place.
type Activation = fn(&mut [f32]);

/// The head of one task. It takes a row at a time: there are few, and so a row's logits do not
/// depend on the rows beside it.
struct Head {
    /// Values that it reads of a pooled row.
    input: Range<usize>,
    /// BERT's pooler or the first layer of RoBERTa's and ELECTRA's head, and what follows it.
    dense: Option<(Dense, Activation)>,
    output: Dense,
    multi_label: bool,
}

impl Head {
    fn load(bundle: &Bundle, task: &Task, poolings: &[Pooling]) -> Result<Self, NnError> {
        let hidden = bundle.config.hidden_size;
        // The encoder pools what the tasks ask for.
        let slot = poolings.iter().position(|pooling| *pooling == task.pooling).unwrap_or_default();
        let load = |name: &str, outputs| Dense::load(&bundle.weights, name, hidden, outputs);
        let dense: Option<(_, Activation)> = match task.head {
            HeadKind::Linear => None,
            HeadKind::BertPooler => {
                let name = format!("{}pooler.dense", bundle.weights.encoder_prefix()?);
                Some((load(&name, hidden)?, tanh))
            }
            HeadKind::Roberta => Some((load("classifier.dense", hidden)?, tanh)),
            HeadKind::Electra => Some((load("classifier.dense", hidden)?, gelu)),
        };
        Ok(Self {
            input: slot * hidden..(slot + 1) * hidden,
            dense,
            output: load(&task.head.output_layer(&task.name), task.labels.len())?,
            multi_label: task.multi_label,
        })
    }

    /// Whether [`UNDECIDED`] or less decides which label it is, or of one of several whether it is
    /// there; by the logits of the task, `[labels]`.
    fn is_undecided(&self, logits: &[f32]) -> bool {
        if self.multi_label {
            return logits.iter().any(|logit| logit.abs() <= UNDECIDED);
        }
        let (best, second) = logits.iter().fold((f32::MIN, f32::MIN), |(best, second), &logit| {
            (best.max(logit), second.max(logit.min(best)))
        });
        best - second <= UNDECIDED
    }

    fn forward(&self, pooled: &[f32]) -> Vec<f32> {
        let input = pooled.get(self.input.clone()).unwrap_or_default();
        match &self.dense {
            None => self.output.forward(input),
            Some((dense, activate)) => {
                let mut inner = dense.forward(input);
                activate(&mut inner);
                self.output.forward(&inner)
            }
        }
    }
}

fn tanh(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = value.tanh());
}

fn gelu(values: &mut [f32]) {
    measure::gelu(values, true);
}
