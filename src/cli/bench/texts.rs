//! Documents as texts, from a file.

use std::path::Path;

use serde::Deserialize;

use super::lines::{self, Numbered};
use crate::pipeline::Document;

#[derive(Deserialize)]
struct Row {
    title: Option<String>,
    text: String,
}

/// Reads at most `limit` documents of `path`: JSON Lines with `text` and perhaps `title` if the
/// first line is an object, and otherwise a text a line.
///
/// # Errors
/// If the file cannot be read or is empty, or a line is not a document; the line is named.
pub(super) fn read(path: &Path, limit: usize) -> anyhow::Result<Vec<Numbered<Document>>> {
    let mut json = None;
    lines::read(path, limit, |line| {
        if !*json.get_or_insert_with(|| line.starts_with('{')) {
            return Ok(Some(Document { text: line.to_owned(), ..Document::default() }));
        }
        let Row { title, text } = serde_json::from_str(line).map_err(|error| error.to_string())?;
        Ok(Some(Document { id: String::new(), title: title.unwrap_or_default(), text }))
    })
}
