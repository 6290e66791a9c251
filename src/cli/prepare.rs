//! `tasnif prepare`: documents in, the windows that the model would read out.
//!
//! The training recipe pipes its rows through this, so that training and serving
//! read the same tokens. It needs no weights of a bundle.

use std::io::{BufRead, Read, Write};

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::exit::Failure;
use super::local::{self, ModelArg};
use crate::bundle::{TextConfig, Tokenizer};
use crate::pipeline::{Document, DocumentLimits, LongText, token_windows};

/// Bytes of a line, at most.
pub(super) const MAX_LINE_BYTES: u64 = 16 << 20;

/// Turn documents into the token windows that a model reads
///
/// Reads JSON Lines with `title` (optional) and `text` from standard input, and
/// writes `{"id", "windows": [[token ids]]}`, or `{"id", "error"}`, a line each,
/// in the same order. The other fields are ignored.
#[derive(Debug, Args)]
pub(super) struct PrepareArgs {
    /// A model directory; the weights of a bundle need not be there
    #[arg(long, value_name = "[NAME=]PATH")]
    model: ModelArg,
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
    mut input: impl BufRead,
    output: impl Write,
) -> anyhow::Result<()> {
    let path = local::directory(Some(&args.model))?;
    let loaded = TextConfig::load(&path).map_err(|error| Failure::Model {
        path: path.display().to_string(),
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
    let mut line = Vec::new();
    while read_line(&mut input, &mut line).context("standard input cannot be read")? {
        let prepared = if line.len() as u64 > MAX_LINE_BYTES {
            Prepared::refused(format!("the line has more than {MAX_LINE_BYTES} bytes"))
        } else {
            prepare(&line, &config, &tokenizer, long_text)
        };
        serde_json::to_writer(&mut output, &prepared)
            .map_err(|error| Failure::print(error.into()))?;
        output.write_all(b"\n").map_err(Failure::print)?;
    }
    Ok(output.flush().map_err(Failure::print)?)
}

fn usage(message: String) -> anyhow::Error {
    Failure::Usage(message).into()
}

/// Reads a line without its end, and says whether there was one. Of one that is too long there is
/// just enough to show it. Not a `String`, since a line that is not UTF-8 would end them all.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let read = input.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > MAX_LINE_BYTES {
        input.skip_until(b'\n')?;
    }
    Ok(read > 0)
}

impl Prepared {
    /// What becomes of a line that holds no document.
    fn refused(error: String) -> Self {
        Self { id: serde_json::Value::Null, outcome: Outcome::Error(error) }
    }
}

fn prepare(line: &[u8], config: &TextConfig, tokenizer: &Tokenizer, long: LongText) -> Prepared {
    // A file that was written on Windows may begin with a byte order mark.
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
    let row: Row = match serde_json::from_slice(line) {
        Ok(row) => row,
        Err(error) => return Prepared::refused(error.to_string()),
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
