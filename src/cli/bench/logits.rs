//! The logits of the measured documents, so that another engine's can be compared with them.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;

use super::ids::Sequences;
use crate::bundle::Task;
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
    let context = || format!("{} cannot be written", path.display());
    let file = std::fs::File::create(path).with_context(context)?;
    let mut out = BufWriter::new(file);
    for document in documents {
        let logits = document_logits(encoder, std::slice::from_ref(document), tasks)?;
        let logits: Vec<f32> = logits.into_iter().flatten().flatten().collect();
        serde_json::to_writer(&mut out, &logits).with_context(context)?;
        writeln!(out).with_context(context)?;
    }
    out.flush().with_context(context)
}
