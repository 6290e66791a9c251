//! What to score, and how.

use std::path::PathBuf;

use encoding_rs::Encoding;
use serde_json::{Map, Value, json};

use super::columns::{ColumnNames, Columns};
use super::error::ArchiveError;
use super::gold::GoldColumn;
use super::input::{InputFormat, ReadSettings};
use super::output::OutputFormat;
use crate::engine::EngineConfig;
use crate::pipeline::LongText;

/// What to score, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchiveSettings {
    /// Files, patterns and directories; `-` is standard input.
    pub inputs: Vec<PathBuf>,
    /// Where the results go: a directory, or a file if its name ends like a format.
    pub output: PathBuf,
    /// The format of all inputs, where their content and names do not tell.
    pub input_format: Option<InputFormat>,
    /// The format of the output, where its name does not tell; JSON Lines by default.
    pub output_format: Option<OutputFormat>,
    /// Label of the text's encoding in the WHATWG standard, such as `windows-1256`.
    pub encoding: String,
    /// What stands between the values of CSV, if not what the header shows.
    pub delimiter: Option<u8>,
    /// The columns. Those of true labels are added from `evaluate`.
    pub columns: ColumnNames,
    /// Columns of true labels.
    pub evaluate: Vec<GoldColumn>,
    /// Tasks to report; empty: every task of the model.
    pub tasks: Vec<String>,
    /// Whether every label's score is written.
    pub scores: bool,
    /// What to do with a document of more than one window.
    pub long_text: LongText,
    /// Rows of a part: what a killed run loses, at most.
    pub part_rows: u64,
    /// Texts among which duplicates are found; 0: none.
    pub memory_texts: usize,
    /// Bytes of a row, at most.
    pub max_row_bytes: usize,
    /// Times its own size to which a compressed file may expand, once over 64 MiB.
    pub max_expansion: u64,
    /// Whether a row that cannot be scored ends everything.
    pub strict: bool,
    /// Whether the rest of a damaged file is left out instead of ending everything.
    pub skip_damaged: bool,
    /// Whether to go on with what an earlier run has left.
    pub resume: bool,
    /// Whether to remove what an earlier run has left.
    pub overwrite: bool,
    /// Tokens of a batch, at most.
    pub batch_tokens: usize,
}

impl Default for ArchiveSettings {
    fn default() -> Self {
        Self {
            inputs: Vec::new(),
            output: PathBuf::new(),
            input_format: None,
            output_format: None,
            encoding: "utf-8".to_owned(),
            delimiter: None,
            columns: ColumnNames::default(),
            evaluate: Vec::new(),
            tasks: Vec::new(),
            scores: false,
            long_text: LongText::Windows,
            part_rows: 2_000,
            memory_texts: 100_000,
            max_row_bytes: 16 << 20,
            max_expansion: 250,
            strict: false,
            skip_damaged: false,
            resume: false,
            overwrite: false,
            batch_tokens: EngineConfig::default().max_batch_tokens,
        }
    }
}

impl ArchiveSettings {
    /// # Errors
    /// If a setting is outside its range.
    pub(super) fn check(&self) -> Result<(), ArchiveError> {
        let counts = [
            ("part_rows", self.part_rows, 1..=1_000_000),
            ("memory_texts", self.memory_texts as u64, 0..=100_000_000),
            ("max_row_bytes", self.max_row_bytes as u64, 1..=1 << 30),
            ("max_expansion", self.max_expansion, 1..=1_000_000),
        ];
        for (name, value, range) in counts {
            if !range.contains(&value) {
                let (low, high) = range.into_inner();
                let message = format!("{name} is {value}; it must be from {low} to {high}");
                return Err(ArchiveError::Setting(message));
            }
        }
        if self.output.file_name().is_none() {
            let message = format!("the output {:?} has no name", self.output);
            return Err(ArchiveError::Setting(message));
        }
        if self.resume && self.overwrite {
            let message = "an output can be resumed or overwritten, not both";
            return Err(ArchiveError::Setting(message.to_owned()));
        }
        Ok(())
    }

    pub(super) fn reading(&self) -> Result<ReadSettings, ArchiveError> {
        let encoding = Encoding::for_label(self.encoding.as_bytes()).ok_or_else(|| {
            ArchiveError::Setting(format!("{:?} is no encoding that is known", self.encoding))
        })?;
        Ok(ReadSettings {
            format: self.input_format,
            encoding,
            delimiter: self.delimiter,
            max_row_bytes: self.max_row_bytes,
            max_expansion: self.max_expansion,
            skip_damaged: self.skip_damaged,
        })
    }

    /// The names of the columns, those of true labels included.
    pub(super) fn column_names(&self) -> ColumnNames {
        let gold = self.evaluate.iter().map(|gold| gold.column.clone()).collect();
        ColumnNames { gold, ..self.columns.clone() }
    }

    /// Every setting that the output depends on. Not `skip_damaged`: what was done before a damaged
    /// file was met is the same either way, and whoever meets one wants to go on.
    pub(super) fn fingerprint(
        &self,
        columns: &Columns,
        format: OutputFormat,
    ) -> Map<String, Value> {
        let long_text = match self.long_text {
            LongText::Windows => "windows",
            LongText::Head => "head",
            LongText::Reject => "reject",
        };
        let evaluate: Vec<String> = self
            .evaluate
            .iter()
            .map(|gold| format!("{}:{}", gold.column, gold.task.as_deref().unwrap_or_default()))
            .collect();
        let options = json!({
            "format": self.input_format,
            "output-format": format,
            "encoding": self.encoding,
            "delimiter": self.delimiter,
            "columns": columns,
            "evaluate": evaluate,
            "task": self.tasks,
            "scores": self.scores,
            "long-text": long_text,
            "part-rows": self.part_rows,
            "memory-texts": self.memory_texts,
            "max-row-bytes": self.max_row_bytes,
            "max-expansion": self.max_expansion,
            "batch-tokens": self.batch_tokens,
        });
        match options {
            Value::Object(options) => options,
            _ => Map::new(),
        }
    }
}
