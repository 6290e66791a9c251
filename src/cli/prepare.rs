//! `tasnif prepare`: documents in, the windows that the model would read out.
//!
//! The training recipe pipes its rows through this, so that training and serving
//! read the same tokens. It needs no weights.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::exit::Failure;
use crate::bundle::{TextConfig, Tokenizer};
use crate::pipeline::{Document, DocumentLimits, LongText, token_windows};

/// Turn documents into the token windows that a model reads
///
/// Reads JSON Lines with `title` (optional) and `text` from standard input, and
/// writes `{"id", "windows": [[token ids]]}`, or `{"id", "error"}`, a line each,
/// in the same order. The other fields are ignored.
#[derive(Debug, Args)]
pub(super) struct PrepareArgs {
    /// A model directory; its weights need not be there
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// Read only the first window, of at most this many tokens
    #[arg(long, value_name = "TOKENS", conflicts_with_all = ["window", "stride"])]
    head: Option<usize>,
    /// Tokens of a window, instead of the model's
    #[arg(long, value_name = "TOKENS")]
    window: Option<usize>,
    /// Tokens by which each window starts after the one before, instead of the model's
    #[arg(long, value_name = "TOKENS")]
    stride: Option<usize>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    id: serde_json::Value,
    #[serde(default)]
    title: Option<String>,
    text: String,
}

#[derive(Serialize)]
struct Prepared {
    id: serde_json::Value,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Windows(Vec<Vec<u32>>),
    Error(String),
}

/// Runs the filter from `input` to `output`.
///
/// # Errors
/// If the model cannot be loaded, or a stream fails.
pub(super) fn run(
    args: &PrepareArgs,
    input: impl BufRead,
    output: impl Write,
) -> anyhow::Result<()> {
    let loaded = TextConfig::load(&args.model).map_err(|error| Failure::Model {
        path: args.model.display().to_string(),
        source: Box::new(error.into()),
    });
    let (mut config, tokenizer) = loaded?;
    let long_text = if args.head.is_some() { LongText::Head } else { LongText::Windows };
    let window = args.head.or(args.window).unwrap_or(config.window);
    if window > config.window {
        let limit = config.window;
        return Err(usage(format!("a window of {window} tokens is over the model's {limit}")));
    }
    config.window = window;
    let capacity = config.smallest_capacity(&tokenizer);
    if capacity == 0 {
        let title = config.max_title_tokens;
        return Err(usage(format!(
            "a window of {window} tokens has no room for text beside a title of {title} tokens"
        )));
    }
    config.stride = args.stride.unwrap_or(config.stride.min(capacity));
    if !(1..=capacity).contains(&config.stride) {
        let stride = config.stride;
        return Err(usage(format!("a stride of {stride} tokens is not between 1 and {capacity}")));
    }
    let mut output = std::io::BufWriter::new(output);
    // Not `lines`, since one that is not UTF-8 would end them all.
    for line in input.split(b'\n') {
        let line = line.context("standard input cannot be read")?;
        let prepared = prepare(&line, &config, &tokenizer, long_text);
        serde_json::to_writer(&mut output, &prepared).context("cannot write the result")?;
        output.write_all(b"\n").context("cannot write the result")?;
    }
    output.flush().context("cannot write the result")
}

fn usage(message: String) -> anyhow::Error {
    Failure::Usage(message).into()
}

fn prepare(line: &[u8], config: &TextConfig, tokenizer: &Tokenizer, long: LongText) -> Prepared {
    let row: Row = match serde_json::from_slice(line) {
        Ok(row) => row,
        Err(error) => {
            return Prepared {
                id: serde_json::Value::Null,
                outcome: Outcome::Error(error.to_string()),
            };
        }
    };
    let document =
        Document { id: String::new(), title: row.title.unwrap_or_default(), text: row.text };
    let limits = DocumentLimits::default();
    let outcome = match token_windows(&document, config, tokenizer, long, &limits) {
        Ok(windows) => Outcome::Windows(windows),
        Err(error) => Outcome::Error(error.to_string()),
    };
    Prepared { id: row.id, outcome }
}
