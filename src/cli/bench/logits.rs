//! The logits of the measured documents, so that another engine's can be compared with them.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;

use super::ids::Sequences;
use crate::nn::{Encoder, PackedTokens};

/// Writes the logits of each document to `path`, an array a line: those of all tasks side by
/// side, in the bundle's order, before temperature. Those of several windows are their mean,
/// weighted by tokens.
pub(super) fn write(
    path: &Path,
    encoder: &dyn Encoder,
    documents: &[Sequences],
) -> anyhow::Result<()> {
    let context = || format!("{} cannot be written", path.display());
    let file = std::fs::File::create(path).with_context(context)?;
    let mut out = BufWriter::new(file);
    for document in documents {
        let mut windows = PackedTokens::new();
        document.iter().for_each(|window| windows.push(window));
        let rows = encoder.encode(&windows, &mut || ())?;
        let mut logits = vec![0.0; rows.width()];
        for (row, tokens) in rows.iter().zip(windows.lengths()) {
            let weight = tokens as f32 / windows.tokens() as f32;
            logits.iter_mut().zip(row).for_each(|(sum, logit)| *sum += weight * logit);
        }
        serde_json::to_writer(&mut out, &logits).with_context(context)?;
        writeln!(out).with_context(context)?;
    }
    out.flush().with_context(context)
}
