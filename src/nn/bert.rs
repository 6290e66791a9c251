//! BERT, RoBERTa and ELECTRA encoders in candle, over packed batches.
//!
//! The tokens of all sequences lie end to end in one `[tokens, hidden]` array, so
//! that every linear layer is a single matrix product; only attention looks at
//! one sequence at a time. There is no padding, hence no mask, and one sequence
//! cannot change another. Names mirror the checkpoint's, as in
//! <https://github.com/huggingface/transformers/blob/main/src/transformers/models/bert/modeling_bert.py>;
//! RoBERTa's and XLM-RoBERTa's encoder differs in where positions start and in nothing else, and ELECTRA's not at all.

use candle_core::{Device, Result, Tensor};
use candle_nn::{LayerNorm, Linear, Module, VarBuilder, layer_norm, linear, ops::softmax_last_dim};

use super::encoder::{EncodeError, Encoder, PackedTokens, Rows};
use crate::bundle::{EncoderConfig, Pooling, positions};

/// Such an encoder with f32 weights on the CPU. Its rows are the pooled
/// rows of each pooling asked for, one after the other.
#[derive(Debug)]
pub struct BertEncoder {
    embeddings: BertEmbeddings,
    layers: Vec<BertLayer>,
    poolings: Vec<Pooling>,
    vocab_size: usize,
    hidden_size: usize,
    max_sequence_tokens: usize,
}

impl BertEncoder {
    /// Loads `embeddings` and `encoder` under `vb`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn load(vb: VarBuilder<'_>, config: &EncoderConfig, poolings: &[Pooling]) -> Result<Self> {
        let layer = |index: usize| BertLayer::load(vb.pp(format!("encoder.layer.{index}")), config);
        Ok(Self {
            embeddings: BertEmbeddings::load(vb.pp("embeddings"), config)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            poolings: poolings.to_vec(),
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            max_sequence_tokens: config.max_sequence_tokens(),
        })
    }

    /// `[sequences, poolings * hidden]`.
    fn forward(&self, batch: &PackedTokens, pause: &mut dyn FnMut()) -> Result<Tensor> {
        let mut hidden = self.embeddings.forward(batch)?;
        for (index, layer) in self.layers.iter().enumerate() {
            if index > 0 {
                pause();
            }
            // Inside of the pool, so that its threads need not be woken for each product.
            hidden = rayon::scope(|_| layer.forward(&hidden, batch))?;
        }
        let mut rows = Vec::with_capacity(batch.sequences() * self.poolings.len());
        for (start, length) in spans(batch) {
            let sequence = hidden.narrow(0, start, length)?;
            for pooling in &self.poolings {
                rows.push(match pooling {
                    Pooling::Mean => sequence.mean_keepdim(0)?,
                    Pooling::Cls => sequence.narrow(0, 0, 1)?,
                });
            }
        }
        Tensor::cat(&rows, 0)?.reshape((batch.sequences(), self.width()))
    }
}

impl Encoder for BertEncoder {
    fn width(&self) -> usize {
        self.poolings.len() * self.hidden_size
    }

    fn max_sequence_tokens(&self) -> usize {
        self.max_sequence_tokens
    }

    fn encode(
        &self,
        batch: &PackedTokens,
        pause: &mut dyn FnMut(),
    ) -> std::result::Result<Rows, EncodeError> {
        batch.check(self.max_sequence_tokens, self.vocab_size)?;
        if batch.sequences() == 0 {
            return Rows::new(vec![], self.width()).ok_or_else(no_rows);
        }
        let rows = self.forward(batch, pause).and_then(|rows| rows.flatten_all()?.to_vec1());
        Rows::new(rows.map_err(|error| EncodeError::Backend(error.into()))?, self.width())
            .ok_or_else(no_rows)
    }
}

/// Token, position and type embeddings, normalised.
#[derive(Debug)]
struct BertEmbeddings {
    word_embeddings: Tensor,
    /// With the embedding of token type 0 added, since every token has that type.
    position_embeddings: Tensor,
    /// The row of a sequence's first token in these.
    first_position: usize,
    layer_norm: LayerNorm,
}

impl BertEmbeddings {
    fn load(vb: VarBuilder<'_>, config: &EncoderConfig) -> Result<Self> {
        let table =
            |name: &str, rows| vb.get((rows, config.hidden_size), &format!("{name}.weight"));
        let types = table("token_type_embeddings", config.type_vocab_size)?.narrow(0, 0, 1)?;
        let positions = table("position_embeddings", config.position_rows)?;
        Ok(Self {
            word_embeddings: table("word_embeddings", config.vocab_size)?,
            position_embeddings: positions.broadcast_add(&types)?,
            first_position: config.first_position,
            layer_norm: layer_norm(config.hidden_size, config.layer_norm_eps, vb.pp("LayerNorm"))?,
        })
    }

    fn forward(&self, batch: &PackedTokens) -> Result<Tensor> {
        let ids = Tensor::new(batch.ids(), &Device::Cpu)?;
        let positions = batch.iter().flat_map(|ids| positions(self.first_position, ids));
        let positions: Vec<u32> = positions.map(|position| position as u32).collect();
        let positions = Tensor::new(positions, &Device::Cpu)?;
        let words = self.word_embeddings.index_select(&ids, 0)?;
        let positions = self.position_embeddings.index_select(&positions, 0)?;
        self.layer_norm.forward(&(words + positions)?)
    }
}

/// Attention and feed-forward, each added to its input and normalised after.
#[derive(Debug)]
struct BertLayer {
    attention: BertSelfAttention,
    attention_output: AddNorm,
    intermediate: Linear,
    output: AddNorm,
}

impl BertLayer {
    fn load(vb: VarBuilder<'_>, config: &EncoderConfig) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            attention: BertSelfAttention::load(vb.pp("attention.self"), config)?,
            attention_output: AddNorm::load(vb.pp("attention.output"), hidden, config)?,
            intermediate: linear(hidden, inner, vb.pp("intermediate.dense"))?,
            output: AddNorm::load(vb.pp("output"), inner, config)?,
        })
    }

    fn forward(&self, hidden: &Tensor, batch: &PackedTokens) -> Result<Tensor> {
        let context = self.attention.forward(hidden, batch)?;
        let hidden = self.attention_output.forward(&context, hidden)?;
        let inner = self.intermediate.forward(&hidden)?.gelu_erf()?;
        self.output.forward(&inner, &hidden)
    }
}

/// A linear layer back to the hidden size, the residual, and LayerNorm.
#[derive(Debug)]
struct AddNorm {
    dense: Linear,
    layer_norm: LayerNorm,
}

impl AddNorm {
    fn load(vb: VarBuilder<'_>, input: usize, config: &EncoderConfig) -> Result<Self> {
        Ok(Self {
            dense: linear(input, config.hidden_size, vb.pp("dense"))?,
            layer_norm: layer_norm(config.hidden_size, config.layer_norm_eps, vb.pp("LayerNorm"))?,
        })
    }

    fn forward(&self, input: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.layer_norm.forward(&(self.dense.forward(input)? + residual)?)
    }
}

/// Multi-head attention of the tokens of each sequence among themselves.
#[derive(Debug)]
struct BertSelfAttention {
    /// Query, key and value in one product, `[3 * hidden, hidden]`.
    qkv: Linear,
    heads: usize,
    head_size: usize,
}

impl BertSelfAttention {
    fn load(vb: VarBuilder<'_>, config: &EncoderConfig) -> Result<Self> {
        let hidden = config.hidden_size;
        let head_size = hidden / config.heads;
        let part = |name: &str| linear(hidden, hidden, vb.pp(name));
        let (query, key, value) = (part("query")?, part("key")?, part("value")?);
        // Scores are divided by this; it is cheaper to divide the query's weights once.
        let scale = 1.0 / (head_size as f64).sqrt();
        let stack = |query: &Tensor, key: &Tensor, value: &Tensor| {
            Tensor::cat(&[&(query * scale)?, key, value], 0)
        };
        let weight = stack(query.weight(), key.weight(), value.weight())?;
        let biases = query.bias().zip(key.bias()).zip(value.bias());
        let bias = biases.map(|((query, key), value)| stack(query, key, value)).transpose()?;
        Ok(Self { qkv: Linear::new(weight, bias), heads: config.heads, head_size })
    }

    fn forward(&self, hidden: &Tensor, batch: &PackedTokens) -> Result<Tensor> {
        let qkv = self.qkv.forward(hidden)?;
        let contexts = spans(batch)
            .map(|(start, length)| self.attend(&qkv.narrow(0, start, length)?))
            .collect::<Result<Vec<_>>>()?;
        Tensor::cat(&contexts, 0)
    }

    /// `[length, 3 * hidden]` to `[length, hidden]`, of one sequence. (candle's
    /// `flash_attn_varlen_cpu` takes the whole batch, but is slower from 128 tokens on.)
    fn attend(&self, qkv: &Tensor) -> Result<Tensor> {
        let (length, heads) = (qkv.dim(0)?, self.heads);
        let qkv = qkv.reshape((length, 3 * heads, self.head_size))?;
        // Strided views of `[heads, length, head size]`; nothing is copied.
        let part = |index: usize| qkv.narrow(1, index * heads, heads)?.transpose(0, 1);
        let (query, key, value) = (part(0)?, part(1)?, part(2)?);
        let probabilities = softmax_last_dim(&query.matmul(&key.t()?)?)?;
        probabilities.matmul(&value)?.transpose(0, 1)?.reshape((length, ()))
    }
}

/// First token and length of each sequence.
fn spans(batch: &PackedTokens) -> impl Iterator<Item = (usize, usize)> + '_ {
    batch.lengths().scan(0, |start, length| {
        let first = *start;
        *start += length;
        Some((first, length))
    })
}

fn no_rows() -> EncodeError {
    EncodeError::Backend("the encoder was loaded without a pooling".into())
}
