//! What is sent, summed up, so that two measurements can be seen to be of the same work.

use std::sync::atomic::{AtomicUsize, Ordering};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ids::Sequences;
use super::lines::Numbered;
use crate::pipeline::Document;

/// The documents of a measurement.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Work {
    /// `ids`, `texts` or `generator`.
    pub(super) source: String,
    /// How many there are; they are sent again and again, in an order of chance.
    pub(super) documents: usize,
    /// SHA-256, in hexadecimal, of their token ids, or of their texts where the ids are not known.
    pub(super) digest: String,
    /// Their tokens, where they are known.
    pub(super) tokens: Option<Tokens>,
}

/// Tokens of documents, special ones and overlaps included.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Tokens {
    /// Of all documents.
    pub(super) total: usize,
    /// Of one document.
    pub(super) min: usize,
    pub(super) p50: usize,
    pub(super) p90: usize,
    pub(super) max: usize,
}

/// Random numbers that are the same on every machine and in every version.
pub(super) fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

impl Work {
    /// That of `documents`, which has at least one.
    pub(super) fn of_ids(source: &str, documents: &[Sequences]) -> Self {
        let mut hash = Sha256::new();
        for sequences in documents {
            number(&mut hash, sequences.len());
            for ids in sequences {
                number(&mut hash, ids.len());
                ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            }
        }
        let count = |sequences: &Sequences| sequences.iter().map(Vec::len).sum();
        let mut tokens: Vec<usize> = documents.iter().map(count).collect();
        tokens.sort_unstable();
        let at = |share: f64| {
            let last = tokens.len().saturating_sub(1);
            tokens.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
        };
        let (min, p50, p90, max) = (at(0.0), at(0.5), at(0.9), at(1.0));
        let tokens = Tokens { total: tokens.iter().sum(), min, p50, p90, max };
        Self {
            source: source.to_owned(),
            documents: documents.len(),
            digest: hex(hash),
            tokens: Some(tokens),
        }
    }

    /// That of `documents`, of which only the server knows the tokens.
    pub(super) fn of_texts(source: &str, documents: &[Numbered<Document>]) -> Self {
        let mut hash = Sha256::new();
        for (_, document) in documents {
            for part in [&document.title, &document.text] {
                number(&mut hash, part.len());
                hash.update(part);
            }
        }
        Self {
            source: source.to_owned(),
            documents: documents.len(),
            digest: hex(hash),
            tokens: None,
        }
    }
}

fn number(hash: &mut Sha256, number: usize) {
    hash.update((number as u64).to_le_bytes());
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The order in which documents are sent, over and over: one of chance, so that a file that is
/// sorted by length does not make a part of it look like the whole.
pub(super) struct Order {
    indices: Vec<usize>,
    next: AtomicUsize,
}

impl Order {
    /// An order of `documents` documents.
    pub(super) fn new(documents: usize, seed: u64) -> Self {
        let mut indices: Vec<usize> = (0..documents).collect();
        indices.shuffle(&mut random(seed));
        Self { indices, next: AtomicUsize::new(0) }
    }

    /// The document to send now.
    pub(super) fn next(&self) -> usize {
        let sent = self.next.fetch_add(1, Ordering::Relaxed);
        self.indices.get(sent % self.indices.len().max(1)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_is_sent_once_before_any_is_sent_again() {
        let order = Order::new(50, 3);
        let first: Vec<usize> = (0..50).map(|_| order.next()).collect();
        let second: Vec<usize> = (0..50).map(|_| order.next()).collect();
        assert_eq!(first, second);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_ne!(first, sorted);
    }

    #[test]
    fn the_digest_tells_where_one_sequence_ends() {
        let digest = |documents: &[Sequences]| Work::of_ids("ids", documents).digest;
        let one = digest(&[vec![vec![1, 2], vec![3]]]);
        assert_ne!(one, digest(&[vec![vec![1], vec![2, 3]]]));
        assert_ne!(one, digest(&[vec![vec![1, 2]], vec![vec![3]]]));
    }
}
