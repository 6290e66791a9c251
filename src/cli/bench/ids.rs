//! Documents as token ids, so that another engine can be given the same work.

use std::path::Path;

use serde::Deserialize;

use super::lines::{self, Numbered};

/// The token ids of a document's sequences, special tokens included.
pub(super) type Sequences = Vec<Vec<u32>>;

/// A line: the ids of one sequence, or what `tasnif prepare` writes.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected [ids], {\"ids\": [ids]} or {\"windows\": [[ids], …]}")]
enum Row {
    Bare(Vec<u32>),
    Ids {
        ids: Vec<u32>,
    },
    Windows {
        windows: Sequences,
    },
    /// A document that `tasnif prepare` has refused.
    Refused {
        #[serde(rename = "error")]
        _error: String,
    },
}

/// Reads at most `limit` documents of `path` for a model that has `vocab_size` tokens and reads
/// `max_tokens` at a time. Those that `tasnif prepare` has refused are left out, with a warning
/// that says how many.
///
/// # Errors
/// If the file cannot be read or is empty, or a line is not a document that the model can read;
/// the line is named.
pub(super) fn read(
    path: &Path,
    limit: usize,
    vocab_size: usize,
    max_tokens: usize,
) -> anyhow::Result<Vec<Sequences>> {
    let mut refused = 0_usize;
    let parse = |line: &str| {
        let row = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let sequences = match row {
            Row::Bare(ids) | Row::Ids { ids } => vec![ids],
            Row::Windows { windows } => windows,
            Row::Refused { .. } => {
                refused += 1;
                return Ok(None);
            }
        };
        check(&sequences, vocab_size, max_tokens)?;
        Ok(Some(sequences))
    };
    let rows = lines::read(path, limit, parse);
    if refused > 0 {
        let name = path.display();
        tracing::warn!("{name}: documents that `tasnif prepare` refused are left out: {refused}");
    }
    Ok(rows?.into_iter().map(|(_, sequences): Numbered<_>| sequences).collect())
}

fn check(sequences: &Sequences, vocab_size: usize, max_tokens: usize) -> Result<(), String> {
    if sequences.is_empty() || sequences.iter().any(Vec::is_empty) {
        return Err("a sequence has no ids".to_owned());
    }
    if let Some(long) = sequences.iter().find(|ids| ids.len() > max_tokens) {
        let tokens = long.len();
        return Err(format!("a sequence of {tokens} ids; the model reads at most {max_tokens}"));
    }
    match sequences.iter().flatten().find(|&&id| id as usize >= vocab_size) {
        Some(id) => Err(format!("id {id} is not in the vocabulary of {vocab_size} entries")),
        None => Ok(()),
    }
}
