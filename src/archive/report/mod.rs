//! A page about an archive: one file of HTML with everything in it, to be looked at,
//! sent and printed. It is a function of what was scored, so a resumed run gives the
//! page of an undisturbed one.

mod charts;
mod sections;

use std::path::Path;

use super::error::{About, ArchiveError};
use super::run::Summary;

const STYLE: &str = include_str!("style.css");

/// Writes the page about `summary` to `path`.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write(summary: &Summary, path: &Path) -> Result<(), ArchiveError> {
    std::fs::write(path, page(summary)).writing(path)
}

fn page(summary: &Summary) -> String {
    let sections = [
        sections::overview(summary),
        sections::labels(summary),
        sections::crossed(summary),
        sections::time(summary),
        sections::confidence(summary),
        sections::evaluations(summary),
        sections::lengths(summary),
        sections::rejects(summary),
        sections::provenance(summary),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Archive report</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Archive report</h1>\n{}</body>\n</html>\n",
        sections.concat()
    )
}
