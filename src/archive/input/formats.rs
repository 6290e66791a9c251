//! Which format a file has, by its first bytes, its name, or the caller's word.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// What a file of an archive may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum InputFormat {
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
    /// Tab-separated values with a header.
    Tsv,
    /// Apache Parquet.
    Parquet,
    /// One document a file.
    Text,
    /// One document a line.
    Lines,
    /// Pages that a crawler has fetched, or their texts (WARC, WET).
    Warc,
}

/// Endings that say nothing about the format inside.
const COMPRESSED: [&str; 6] = ["gz", "zst", "zstd", "bz2", "xz", "gzip"];

impl InputFormat {
    /// By the ending of the file's name, once that of its compression is off.
    pub(super) fn of_name(path: &Path) -> Option<Self> {
        let ending = |path: &Path| Some(path.extension()?.to_str()?.to_ascii_lowercase());
        let mut last = ending(path)?;
        if COMPRESSED.contains(&last.as_str()) {
            last = ending(Path::new(path.file_stem()?))?;
        }
        match last.as_str() {
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "parquet" | "pq" => Some(Self::Parquet),
            "txt" | "text" => Some(Self::Text),
            "warc" | "wet" => Some(Self::Warc),
            _ => None,
        }
    }

    /// By the first bytes of the content, decompressed.
    pub(super) fn of_content(head: &[u8]) -> Option<Self> {
        let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
        if head.starts_with(b"PAR1") {
            return Some(Self::Parquet);
        }
        if head.starts_with(b"WARC/") {
            return Some(Self::Warc);
        }
        head.trim_ascii_start().starts_with(b"{").then_some(Self::Jsonl)
    }
}
