//! The arithmetic that a model takes, as a share of what the machine can do.

use crate::bundle::EncoderConfig;

/// Operations that one document takes in an encoder of this shape, its sequences being
/// of these lengths in tokens. A multiply-add is two; embeddings, norms, softmax, GELU and
/// heads, together a few percent, are left out, so that the count is of matrix products alone.
pub(super) fn operations(config: &EncoderConfig, lengths: impl IntoIterator<Item = usize>) -> f64 {
    let hidden = config.hidden_size as f64;
    let weights = 4.0 * hidden * hidden + 2.0 * hidden * config.intermediate_size as f64;
    let sequence = |tokens: usize| {
        let tokens = tokens as f64;
        // Each token meets each weight; each pair of tokens meets in the scores and in the sum.
        2.0 * tokens * weights + 4.0 * tokens * tokens * hidden
    };
    config.layers as f64 * lengths.into_iter().map(sequence).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Architecture;

    #[test]
    fn products_are_counted_by_hand() {
        let config = EncoderConfig {
            architecture: Architecture::Bert,
            vocab_size: 10,
            hidden_size: 2,
            layers: 3,
            heads: 1,
            intermediate_size: 5,
            position_rows: 16,
            first_position: 0,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
        };
        // Q, K, V and the output have 4 weights each, the feed-forward part 10 twice.
        let of =
            |length: usize| 3.0 * (2.0 * length as f64 * 36.0 + 4.0 * (length * length * 2) as f64);
        assert_eq!(operations(&config, [7]), of(7));
        assert_eq!(operations(&config, [7, 1]), of(7) + of(1));
    }
}
