//! The logits of the measured documents, so that another engine's can be compared with them.

use std::io::{BufWriter, Write};
use std::path::Path;

use super::ids::Sequences;
use crate::bundle::Task;
use crate::cli::exit::Failure;
use crate::nn::Encoder;
use crate::pipeline::document_logits;

/// Writes the logits of each document to `path`, an array a line: those of all tasks side by
/// side, in the bundle's order, before temperature. Those of several windows are their mean,
/// weighted by tokens.
pub(super) fn write(
    path: &Path,
    encoder: &dyn Encoder,
    tasks: &[Task],
    documents: &[Sequences],
) -> anyhow::Result<()> {
    let failed = |error| Failure::write(path, error);
    let file = std::fs::File::create(path).map_err(failed)?;
    let mut out = BufWriter::new(file);
    for document in documents {
        let logits = document_logits(encoder, std::slice::from_ref(document), tasks)?;
        let logits: Vec<f32> = logits.into_iter().flatten().flatten().collect();
        serde_json::to_writer(&mut out, &logits).map_err(|error| failed(error.into()))?;
        writeln!(out).map_err(failed)?;
    }
    Ok(out.flush().map_err(failed)?)
}
