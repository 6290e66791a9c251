//! The arguments of `tasnif score`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::super::local::ModelArg;
use crate::archive::{ArchiveSettings, ColumnNames, GoldColumn, InputFormat, Keep, OutputFormat};
use crate::nn::PrecisionChoice;
use crate::pipeline::LongText;

/// Score archives: files of documents in, files of answers out
///
/// The output is written in parts. A run that was killed goes on with --resume and ends
/// with the bytes that an undisturbed one would have written. Rows that cannot be scored
/// are set aside in OUT.rejects.jsonl with the reason. See docs/archives.md.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tasnif score news.jsonl.gz --output scored.jsonl
  tasnif score archive/ --output scored/ --output-format parquet --report report.html
  tasnif score 'dump/2019-*.csv.zst' --text body --id url --keep section --output out.csv --resume
  tasnif score test.parquet --output test.jsonl --evaluate gold:topic
  zcat news.jsonl.gz | tasnif score - --format jsonl --output scored.jsonl")]
pub(in crate::cli) struct ScoreArgs {
    /// Files, patterns such as 'news/*.csv', directories, or - for standard input
    #[arg(value_name = "INPUT", required = true)]
    pub(super) inputs: Vec<PathBuf>,
    /// A directory for the parts, or one file if it ends in .jsonl, .csv or .parquet
    #[arg(long, short, value_name = "OUT")]
    pub(super) output: PathBuf,
    /// A model directory instead of the shipped one
    #[arg(long, value_name = "PATH")]
    pub(super) model: Option<ModelArg>,
    /// Threads that compute. As many cores as the process may use by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
    /// In what to compute: auto, f32, bf16, int8, or reference, which is f32 in candle
    #[arg(long, value_name = "PRECISION", default_value_t)]
    pub(super) precision: PrecisionChoice,
    /// Tokens in a batch, at most
    #[arg(long, value_name = "TOKENS", default_value_t = ArchiveSettings::default().batch_tokens as u32, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(super) batch_tokens: u32,

    /// What the inputs are, where content and name do not tell
    #[arg(long, value_enum, help_heading = "Reading")]
    pub(super) format: Option<FormatArg>,
    /// The column of the articles; guessed from its name by default
    #[arg(long, value_name = "COLUMN", help_heading = "Reading")]
    pub(super) text: Option<String>,
    /// The column of the headlines; guessed by default
    #[arg(long, value_name = "COLUMN", help_heading = "Reading")]
    pub(super) title: Option<String>,
    /// The column of the ids; guessed by default
    #[arg(long, value_name = "COLUMN", help_heading = "Reading")]
    pub(super) id: Option<String>,
    /// The column of the dates, for the report; guessed by default
    #[arg(long, value_name = "COLUMN", help_heading = "Reading")]
    pub(super) date: Option<String>,
    /// Columns that the output has too, under another name if wished
    #[arg(long, value_name = "COLUMN[=NAME],…", value_delimiter = ',', value_parser = keep, help_heading = "Reading")]
    pub(super) keep: Vec<Keep>,
    /// The encoding of text without a byte order mark, such as windows-1256
    #[arg(long, value_name = "NAME", default_value = "utf-8", help_heading = "Reading")]
    pub(super) encoding: String,
    /// What stands between the values of CSV; by default what the header shows
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter, help_heading = "Reading")]
    pub(super) delimiter: Option<u8>,
    /// Bytes of a row, at most; longer ones are set aside
    #[arg(long, value_name = "BYTES", default_value_t = ArchiveSettings::default().max_row_bytes, help_heading = "Reading")]
    pub(super) max_row_bytes: usize,
    /// Times its size to which a compressed file may expand
    #[arg(long, value_name = "TIMES", default_value_t = ArchiveSettings::default().max_expansion, help_heading = "Reading")]
    pub(super) max_expansion: u64,
    /// Leave out the rest of a damaged file instead of stopping
    #[arg(long, help_heading = "Reading")]
    pub(super) skip_damaged: bool,
    /// Stop at the first row that cannot be scored
    #[arg(long, help_heading = "Reading")]
    pub(super) strict: bool,
    /// Texts remembered so that equal ones are scored once; 0 for none
    #[arg(long, value_name = "TEXTS", default_value_t = ArchiveSettings::default().memory_texts, help_heading = "Reading")]
    pub(super) dedup: usize,

    /// A task to report; may be repeated. All of them by default
    #[arg(long = "task", value_name = "TASK", help_heading = "Answers")]
    pub(super) tasks: Vec<String>,
    /// Write every label's score
    #[arg(long, help_heading = "Answers")]
    pub(super) scores: bool,
    /// What to do with a document longer than one window
    #[arg(long, value_enum, default_value_t = LongTextArg::Windows, help_heading = "Answers")]
    pub(super) long_text: LongTextArg,
    /// A column of true labels: prints accuracy, F1 and the confusion matrix; may be repeated
    #[arg(long, value_name = "COLUMN[:TASK]", help_heading = "Answers")]
    pub(super) evaluate: Vec<GoldColumn>,

    /// What the output is, where its name does not tell: jsonl by default
    #[arg(long, value_enum, help_heading = "Writing")]
    pub(super) output_format: Option<OutputFormatArg>,
    /// Rows of a part: a killed run loses less than one
    #[arg(long, value_name = "ROWS", default_value_t = ArchiveSettings::default().part_rows, help_heading = "Writing")]
    pub(super) part_rows: u64,
    /// Go on with what an earlier run has left, if there is anything
    #[arg(long, conflicts_with = "overwrite", help_heading = "Writing")]
    pub(super) resume: bool,
    /// Remove what an earlier run has left
    #[arg(long, help_heading = "Writing")]
    pub(super) overwrite: bool,
    /// A page about the archive, in one file: topics, sentiment, over time, lengths, rejects
    #[arg(long, value_name = "FILE", help_heading = "Writing")]
    pub(super) report: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long, help_heading = "Writing")]
    pub(super) json: bool,
    /// Show no progress
    #[arg(long, short, help_heading = "Writing")]
    pub(super) quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FormatArg {
    /// One JSON object a line
    Jsonl,
    /// Comma-separated values with a header
    Csv,
    /// Tab-separated values with a header
    Tsv,
    /// Apache Parquet
    Parquet,
    /// Plain text, one document a file
    Text,
    /// Plain text, one document a line
    Lines,
    /// Crawled pages of HTML, or their texts (WARC, WET)
    Warc,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum OutputFormatArg {
    /// One JSON object a line
    Jsonl,
    /// Comma-separated values with a header
    Csv,
    /// Apache Parquet
    Parquet,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LongTextArg {
    /// Read all of it in overlapping windows
    Windows,
    /// Read the first window only
    Head,
    /// Set it aside
    Reject,
}

impl ScoreArgs {
    pub(super) fn settings(&self) -> ArchiveSettings {
        let input_format = self.format.map(|format| match format {
            FormatArg::Jsonl => InputFormat::Jsonl,
            FormatArg::Csv => InputFormat::Csv,
            FormatArg::Tsv => InputFormat::Tsv,
            FormatArg::Parquet => InputFormat::Parquet,
            FormatArg::Text => InputFormat::Text,
            FormatArg::Lines => InputFormat::Lines,
            FormatArg::Warc => InputFormat::Warc,
        });
        let output_format = self.output_format.map(|format| match format {
            OutputFormatArg::Jsonl => OutputFormat::Jsonl,
            OutputFormatArg::Csv => OutputFormat::Csv,
            OutputFormatArg::Parquet => OutputFormat::Parquet,
        });
        let long_text = match self.long_text {
            LongTextArg::Windows => LongText::Windows,
            LongTextArg::Head => LongText::Head,
            LongTextArg::Reject => LongText::Reject,
        };
        ArchiveSettings {
            inputs: self.inputs.clone(),
            output: self.output.clone(),
            input_format,
            output_format,
            encoding: self.encoding.clone(),
            delimiter: self.delimiter,
            columns: ColumnNames {
                id: self.id.clone(),
                title: self.title.clone(),
                text: self.text.clone(),
                date: self.date.clone(),
                keep: self.keep.clone(),
                ..ColumnNames::default()
            },
            evaluate: self.evaluate.clone(),
            tasks: self.tasks.clone(),
            scores: self.scores,
            long_text,
            part_rows: self.part_rows,
            memory_texts: self.dedup,
            max_row_bytes: self.max_row_bytes,
            max_expansion: self.max_expansion,
            strict: self.strict,
            skip_damaged: self.skip_damaged,
            resume: self.resume,
            overwrite: self.overwrite,
            batch_tokens: self.batch_tokens as usize,
        }
    }
}

fn keep(text: &str) -> Result<Keep, String> {
    let (column, name) = text.split_once('=').unwrap_or((text, text));
    if column.is_empty() || name.is_empty() {
        return Err("expected COLUMN or COLUMN=NAME".to_owned());
    }
    Ok(Keep { column: column.to_owned(), name: name.to_owned() })
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        _ => Err("expected one ASCII character, or \\t".to_owned()),
    }
}
