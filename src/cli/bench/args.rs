//! The arguments that both subjects share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::lines::Numbered;
use super::load::{Load, Timing};
use super::{generate, texts};
use crate::cli::exit::Failure;
use crate::cli::local::ModelArg;
use crate::cli::output;
use crate::nn::PrecisionChoice;
use crate::pipeline::Document;

/// Documents held in memory, at most.
const MAX_DOCUMENTS: usize = 200_000;
/// Documents made up, unless --documents says otherwise.
const GENERATED: usize = 512;
/// Values of a list such as that of --rate, at most.
const MAX_VALUES: usize = 32;
/// What closed loops have open, unless --concurrency or --rate says otherwise.
const CONCURRENCY: [u16; 4] = [1, 4, 16, 64];

/// Which model, and how it runs.
#[derive(Debug, Args)]
pub(super) struct EngineArgs {
    /// A model directory instead of the shipped one
    #[arg(long, value_name = "PATH", help_heading = "Model")]
    pub(super) model: Option<ModelArg>,
    /// Threads that compute. As many cores as the process may use by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Model")]
    pub(super) threads: Option<u16>,
    /// In what to compute: auto, f32, bf16, int8, or reference, which is f32 in candle; auto by
    /// default
    #[arg(long, value_name = "PRECISION", help_heading = "Model")]
    pub(super) precision: Option<PrecisionChoice>,
    /// Tokens in a batch, at most; each of a list is measured. 512 by default
    #[arg(long, value_name = "TOKENS,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1 << 20), help_heading = "Model")]
    pub(super) batch_tokens: Vec<u32>,
}

/// Which texts are sent.
#[derive(Debug, Args)]
pub(super) struct TextArgs {
    /// Texts: JSON Lines with `text` and perhaps `title`, or a text a line. Made-up Arabic
    /// documents by default
    #[arg(long, value_name = "FILE", help_heading = "Documents")]
    pub(super) texts: Option<PathBuf>,
    /// Documents that are made up, 512 by default, or read of a file, all by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_DOCUMENTS as i64), help_heading = "Documents")]
    documents: Option<u32>,
    /// Words of a made-up text, in the median
    #[arg(long, value_name = "WORDS", default_value = "120", value_parser = number::<5, 1_000>, conflicts_with = "texts", help_heading = "Documents")]
    median_words: f64,
    /// How far the lengths of made-up texts spread: the standard deviation of their logarithm.
    /// 0 makes all of one length
    #[arg(long, value_name = "SIGMA", default_value = "0.9", value_parser = number::<0, 3>, conflicts_with = "texts", help_heading = "Documents")]
    sigma: f64,
    /// What chance starts from: made-up texts, their order, and when they arrive
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Documents")]
    pub(super) seed: u64,
}

/// How load is made, and where the numbers go.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// Documents that a closed loop has open: it sends one when one is answered. 1,4,16,64 by
    /// default, unless there is --rate
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=4_096), help_heading = "Load")]
    concurrency: Vec<u16>,
    /// Documents a second that arrive in an open loop, whether or not earlier ones are answered
    #[arg(long, value_name = "RATE,…", value_delimiter = ',', value_parser = rate, help_heading = "Load")]
    rate: Vec<f64>,
    /// Seconds that each point is measured
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds, help_heading = "Load")]
    pub(super) seconds: f64,
    /// Seconds of the same load before each, which are not measured
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = number::<0, 600>, help_heading = "Load")]
    pub(super) warmup: f64,
    /// Times that each point is measured, by turns with the others, so that the spread is known
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100), help_heading = "Load")]
    pub(super) repeat: u32,
    /// Write everything that was measured as JSON; - prints it instead of the table
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) json: Option<PathBuf>,
    /// Draw latency over throughput, and throughput over the tokens of a batch, as SVG
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) plot: Option<PathBuf>,
}

impl TextArgs {
    /// Documents that may be used, at most, if they come of a file.
    pub(super) fn limit(&self) -> usize {
        self.documents.map_or(MAX_DOCUMENTS + 1, |documents| documents as usize)
    }

    /// What the documents come from, as the report names it.
    pub(super) fn source(&self) -> &'static str {
        if self.texts.is_some() { "texts" } else { "generator" }
    }

    /// What to call that in an error.
    pub(super) fn name(&self) -> String {
        self.texts
            .as_ref()
            .map_or("made-up documents".to_owned(), |path| path.display().to_string())
    }

    /// The documents, each with its line.
    ///
    /// # Errors
    /// If a file of them cannot be read, or has more than can be held.
    pub(super) fn read(&self) -> anyhow::Result<Vec<Numbered<Document>>> {
        let Some(path) = &self.texts else {
            let count = self.documents.map_or(GENERATED, |documents| documents as usize);
            let documents = generate::generate(count, self.median_words, self.sigma, self.seed);
            return Ok((1..).zip(documents).collect());
        };
        let documents = texts::read(path, self.limit())?;
        check_count(path, documents.len())?;
        Ok(documents)
    }
}

/// Refuses what [`TextArgs::limit`] let through to be refused.
pub(super) fn check_count(path: &Path, documents: usize) -> Result<(), Failure> {
    if documents <= MAX_DOCUMENTS {
        return Ok(());
    }
    let problem = format!("{} has more than {MAX_DOCUMENTS} documents", path.display());
    Err(Failure::Usage(format!("{problem}; --documents N takes the first N")))
}

impl LoadArgs {
    /// The loads to measure, in the order asked for.
    ///
    /// # Errors
    /// If there are too many.
    pub(super) fn loads(&self) -> Result<Vec<Load>, Failure> {
        for (flag, count) in [("concurrency", self.concurrency.len()), ("rate", self.rate.len())] {
            check_values(flag, count)?;
        }
        let concurrency = if self.concurrency.is_empty() && self.rate.is_empty() {
            CONCURRENCY.as_slice()
        } else {
            self.concurrency.as_slice()
        };
        let closed = concurrency.iter().map(|&concurrency| Load::Closed { concurrency });
        Ok(closed.chain(self.rate.iter().map(|&rate| Load::Open { rate })).collect())
    }

    /// How long each is measured.
    pub(super) fn timing(&self) -> Timing {
        Timing {
            warmup: Duration::from_secs_f64(self.warmup),
            measured: Duration::from_secs_f64(self.seconds),
        }
    }

    /// Finds out before the measurement whether what comes of it can be written.
    ///
    /// # Errors
    /// If a file cannot be.
    pub(super) fn check_outputs(&self) -> Result<(), Failure> {
        let json = self.json.as_ref().filter(|_| !self.prints_json());
        json.into_iter().chain(&self.plot).try_for_each(|path| output::check(path))
    }

    /// Whether JSON is printed in place of the table.
    pub(super) fn prints_json(&self) -> bool {
        self.json.as_ref().is_some_and(|path| path.as_os_str() == "-")
    }
}

/// Refuses a list of flag `flag` that has too many values.
pub(super) fn check_values(flag: &str, count: usize) -> Result<(), Failure> {
    if count <= MAX_VALUES {
        return Ok(());
    }
    Err(Failure::Usage(format!("--{flag} has {count} values; it takes at most {MAX_VALUES}")))
}

fn number<const LEAST: u16, const MOST: u16>(text: &str) -> Result<f64, String> {
    between(text, f64::from(LEAST), f64::from(MOST))
}

fn seconds(text: &str) -> Result<f64, String> {
    between(text, 0.05, 3_600.0)
}

fn rate(text: &str) -> Result<f64, String> {
    between(text, 0.01, 100_000.0)
}

fn between(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value| (least..=most).contains(value));
    value.ok_or_else(|| format!("expected a number from {least} to {most}"))
}
