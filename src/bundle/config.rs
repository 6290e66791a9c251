//! `config.json`: the shape of the encoder, as Hugging Face writes it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;

use super::files::read_json;
use super::{BundleError, Pooling};

/// File name of the configuration.
pub(super) const CONFIG_FILE: &str = "config.json";

/// Families of encoders that can be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// BERT: positions start at 0.
    Bert,
    /// RoBERTa: positions start after the padding id.
    Roberta,
    /// XLM-RoBERTa: RoBERTa's encoder with another vocabulary.
    XlmRoberta,
    /// The discriminator of ELECTRA: BERT's encoder, taught otherwise.
    Electra,
}

impl Architecture {
    fn of(model_type: &str) -> Option<Self> {
        match model_type {
            "bert" => Some(Self::Bert),
            "roberta" => Some(Self::Roberta),
            "xlm-roberta" => Some(Self::XlmRoberta),
            "electra" => Some(Self::Electra),
            _ => None,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
            Self::XlmRoberta => "xlm-roberta",
            Self::Electra => "electra",
        })
    }
}

/// The shape of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// The family.
    pub architecture: Architecture,
    /// Rows of the token embeddings.
    pub vocab_size: usize,
    /// Values in a row of the encoder.
    pub hidden_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads in each.
    pub heads: usize,
    /// Values in a row of the feed-forward part.
    pub intermediate_size: usize,
    /// Rows of the position embeddings.
    pub position_rows: usize,
    /// Row of the position embeddings that the first token takes.
    pub first_position: usize,
    /// Rows of the token type embeddings, of which only the first is used.
    pub type_vocab_size: usize,
    /// The constant that keeps LayerNorm from dividing by zero.
    pub layer_norm_eps: f64,
}

impl EncoderConfig {
    /// Longest sequence that has a position for each token, special ones included.
    pub fn max_sequence_tokens(&self) -> usize {
        self.position_rows.saturating_sub(self.first_position)
    }

    /// Operations that one document takes in an encoder of this shape, its sequences being
    /// of these lengths in tokens, and its last states pooled in these ways. A multiply-add is two;
    /// embeddings, norms, softmax, GELU and heads, together a few percent, are left out, so that the
    /// count is of matrix products alone.
    pub fn operations(
        &self,
        poolings: &[Pooling],
        lengths: impl IntoIterator<Item = usize>,
    ) -> f64 {
        let hidden = self.hidden_size as f64;
        let weights = 4.0 * hidden * hidden + 2.0 * hidden * self.intermediate_size as f64;
        // Each token meets each weight; each pair of a query and a key in the scores and in the sum.
        let whole = |tokens: f64| 2.0 * tokens * weights + 4.0 * tokens * tokens * hidden;
        // Each token meets a vector of each head in the scores, and one in the sum.
        let first = |tokens: f64| 2.0 * weights + 4.0 * tokens * hidden * self.heads as f64;
        let sequence = |tokens: usize| {
            let tokens = tokens as f64;
            let alone = Pooling::read_first_alone(poolings);
            let last = if alone { first(tokens) } else { whole(tokens) };
            (self.layers as f64 - 1.0) * whole(tokens) + last
        };
        lengths.into_iter().map(sequence).sum()
    }
}

/// The row of the position embeddings of each token of a sequence, of an encoder whose first token takes `first`. Where that is
/// not 0, as RoBERTa's, the row before is that of the padding, and of every token with its id: Hugging Face counts those
/// alone that have another.
pub fn positions(first: usize, ids: &[u32]) -> impl Iterator<Item = usize> + '_ {
    let padding = first.checked_sub(1);
    let mut next = first;
    ids.iter().map(move |id| {
        let of_padding = padding.filter(|padding| usize::try_from(*id) == Ok(*padding));
        of_padding.unwrap_or_else(|| {
            next += 1;
            next - 1
        })
    })
}

/// What a `config.json` says, of that which matters here.
#[derive(Debug, Deserialize)]
pub(super) struct ConfigFile {
    model_type: String,
    vocab_size: usize,
    /// Values in a row of ELECTRA's embeddings; the others have no such key.
    #[serde(default = "default_embedding_size")]
    embedding_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "default_type_vocab_size")]
    type_vocab_size: usize,
    #[serde(default = "default_layer_norm_eps")]
    layer_norm_eps: f64,
    #[serde(default = "default_hidden_act")]
    hidden_act: String,
    position_embedding_type: Option<String>,
    /// Negative where there is none.
    pad_token_id: Option<i64>,
    #[serde(default)]
    is_decoder: bool,
    #[serde(default)]
    pub(super) architectures: Vec<String>,
    pub(super) finetuning_task: Option<String>,
    pub(super) problem_type: Option<String>,
    pub(super) id2label: Option<BTreeMap<String, String>>,
    pub(super) num_labels: Option<usize>,
    #[serde(rename = "_name_or_path")]
    pub(super) name_or_path: Option<String>,
}

impl ConfigFile {
    /// Reads `config.json` in `directory`.
    ///
    /// # Errors
    /// If it cannot be read, or lacks a key.
    pub(super) fn read(directory: &Path) -> Result<Self, BundleError> {
        read_json(&directory.join(CONFIG_FILE))
    }

    /// The encoder's shape, checked.
    ///
    /// # Errors
    /// [`BundleError::Invalid`] for what is not supported, inconsistent or absurd.
    pub(super) fn encoder(&self, directory: &Path) -> Result<EncoderConfig, BundleError> {
        let invalid = |key: &str, expected: String, found: String| {
            Err(BundleError::Invalid {
                file: directory.join(CONFIG_FILE),
                key: key.to_owned(),
                expected,
                found,
            })
        };
        let Some(architecture) = Architecture::of(&self.model_type) else {
            let expected = "\"bert\", \"roberta\", \"xlm-roberta\" or \"electra\"".to_owned();
            return invalid("model_type", expected, format!("{:?}", self.model_type));
        };
        if self.hidden_act != "gelu" {
            let expected = "\"gelu\" (the exact one, by erf)".to_owned();
            return invalid("hidden_act", expected, format!("{:?}", self.hidden_act));
        }
        if let Some(kind) = &self.position_embedding_type
            && kind != "absolute"
        {
            return invalid("position_embedding_type", "\"absolute\"".into(), format!("{kind:?}"));
        }
        if self.is_decoder {
            return invalid("is_decoder", "false".into(), "true".into());
        }
        // Far above every encoder of these families, and low enough that a wrong
        // number is named here instead of in a failed allocation.
        let sizes = [
            ("vocab_size", self.vocab_size, 10_000_000),
            ("hidden_size", self.hidden_size, 16_384),
            ("num_hidden_layers", self.num_hidden_layers, 256),
            ("num_attention_heads", self.num_attention_heads, 256),
            ("intermediate_size", self.intermediate_size, 65_536),
            ("max_position_embeddings", self.max_position_embeddings, 65_536),
            ("type_vocab_size", self.type_vocab_size, 1_024),
        ];
        for (key, value, limit) in sizes {
            if value == 0 || value > limit {
                return invalid(key, format!("a number from 1 to {limit}"), value.to_string());
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of hidden_size, {}", self.hidden_size);
            return invalid("num_attention_heads", expected, self.num_attention_heads.to_string());
        }
        if architecture == Architecture::Electra && self.embedding_size != self.hidden_size {
            let expected = format!("hidden_size, {} (as base and large have)", self.hidden_size);
            return invalid("embedding_size", expected, self.embedding_size.to_string());
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            let expected = "a number between 0 and 1".to_owned();
            return invalid("layer_norm_eps", expected, self.layer_norm_eps.to_string());
        }
        let first_position = match architecture {
            Architecture::Bert | Architecture::Electra => 0,
            // RoBERTa counts positions from the row after that of the padding.
            Architecture::Roberta | Architecture::XlmRoberta => {
                let pad = self.pad_token_id.unwrap_or(1);
                let last = self.max_position_embeddings.saturating_sub(2);
                match usize::try_from(pad).ok().filter(|&pad| pad <= last) {
                    Some(pad) => pad + 1,
                    None => {
                        let expected = format!("0 to max_position_embeddings - 2, {last}");
                        return invalid("pad_token_id", expected, pad.to_string());
                    }
                }
            }
        };
        Ok(EncoderConfig {
            architecture,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            position_rows: self.max_position_embeddings,
            first_position,
            type_vocab_size: self.type_vocab_size,
            layer_norm_eps: self.layer_norm_eps,
        })
    }
}

fn default_type_vocab_size() -> usize {
    2
}

fn default_embedding_size() -> usize {
    128
}

fn default_layer_norm_eps() -> f64 {
    1e-12
}

fn default_hidden_act() -> String {
    "gelu".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_hugging_face() {
        let of = |first, ids: &[u32]| positions(first, ids).collect::<Vec<_>>();
        assert_eq!(of(0, &[2, 0, 10, 3]), [0, 1, 2, 3]);
        assert_eq!(of(2, &[2, 1, 10, 3]), [2, 1, 3, 4]);
        assert_eq!(of(1, &[0, 0, 7]), [0, 0, 1]);
    }

    #[test]
    fn products_are_counted_by_hand() {
        let config = EncoderConfig {
            architecture: Architecture::Bert,
            vocab_size: 10,
            hidden_size: 2,
            layers: 3,
            heads: 2,
            intermediate_size: 5,
            position_rows: 16,
            first_position: 0,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
        };
        // Q, K, V and the output have 4 weights each, the feed-forward part 10 twice.
        let of =
            |length: usize| 3.0 * (2.0 * length as f64 * 36.0 + 4.0 * (length * length * 2) as f64);
        let mean = [Pooling::Mean];
        assert_eq!(config.operations(&mean, [7]), of(7));
        assert_eq!(config.operations(&mean, [7, 1]), of(7) + of(1));
        assert_eq!(config.operations(&[Pooling::Cls, Pooling::Mean], [7]), of(7));
        // In the last layer one token meets the weights, and each of seven two vectors of two heads.
        let first = of(7) / 3.0 * 2.0 + 2.0 * 36.0 + 4.0 * (7 * 2 * 2) as f64;
        assert_eq!(config.operations(&[Pooling::Cls], [7]), first);
    }
}
