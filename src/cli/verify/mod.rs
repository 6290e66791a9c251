//! `tasnif verify`: whether a model answers in a precision as the reference does.

mod table;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::exit::Failure;
use super::local::{self, ModelArg};
use super::output::{self, Printed};
use super::progress::Shown;
use super::render;
use crate::archive::{Compared, Documents, Engines, GoldColumn, Labels, Progress};
use crate::bundle::{Bundle, BundleError, Precision};
use crate::nn;
use crate::pipeline::LoadError;

/// Compare precisions with the reference: logits, labels and, with true labels, F1
///
/// The reference is f32 in candle, which is slow. A precision passes if f32 differs by 1e-4 in no
/// logit, and bf16 and int8 give at least 99.3 % of the documents (or all but one) the same label
/// and macro-F1 within 0.3 points, for each task and file. See docs/precisions.md.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tasnif verify
  tasnif verify --precision int8 --data test.jsonl.gz --record
  tasnif verify --data sections.csv --evaluate section:topic --alias sports=sport --limit 1000")]
pub(super) struct VerifyArgs {
    /// A model directory instead of the shipped one
    #[arg(long, value_name = "PATH")]
    model: Option<ModelArg>,
    /// A precision to verify: f32, bf16 or int8; may be repeated. All of them by default
    #[arg(long = "precision", value_name = "PRECISION", value_parser = precision)]
    precisions: Vec<Precision>,
    /// A file of documents, in any format that score reads; may be repeated. A few built-in
    /// documents by default
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Documents to take of each file, spread evenly over it
    #[arg(long, value_name = "N", requires = "data", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Threads that compute. As many cores as the process may use by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// The column of the articles; guessed from its name by default
    #[arg(long, value_name = "COLUMN", requires = "data", help_heading = "Reading")]
    text: Option<String>,
    /// The column of the headlines; guessed by default
    #[arg(long, value_name = "COLUMN", requires = "data", help_heading = "Reading")]
    title: Option<String>,
    /// A column of true labels; may be repeated. Those named like a task by default
    #[arg(long, value_name = "COLUMN[:TASK]", requires = "data", help_heading = "Reading")]
    evaluate: Vec<GoldColumn>,
    /// What the model calls labels that have another name in the files
    #[arg(long = "alias", value_name = "NAME=LABEL,…", value_delimiter = ',', value_parser = alias, requires = "data", help_heading = "Reading")]
    aliases: Vec<(String, String)>,

    /// Write into the model's tasnif.json which precisions passed: on files of 143 documents or more
    #[arg(long, help_heading = "Writing")]
    record: bool,
    /// Write the results as JSON too; - prints them instead of the tables
    #[arg(long, value_name = "FILE", help_heading = "Writing")]
    json: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short, help_heading = "Writing")]
    quiet: bool,
}

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let directory = local::directory(args.model.as_ref())?;
    let model = |source: LoadError| Failure::Model {
        path: directory.display().to_string(),
        source: Box::new(source),
    };
    let bundle = Bundle::load(&directory).map_err(|error| model(error.into()))?;
    if args.record && !bundle.has_manifest() {
        let message = "--record: the model has no tasnif.json to write into";
        return Err(Failure::Usage(message.to_owned()).into());
    }
    // Before the encoders, which take longer to load than a mistake to find.
    let documents = args.documents(&bundle)?;
    let (json, printed) = match &args.json {
        Some(path) if path.as_os_str() == "-" => (None, true),
        path => (path.as_ref(), false),
    };
    json.map_or(Ok(()), |path| output::check(path))?;
    let threads = args.threads.map_or_else(nn::default_threads, usize::from);
    nn::configure_threads(threads).context("threads cannot be set up")?;
    let precisions = args.precisions();
    let engines = Engines::load(bundle, &precisions).map_err(|error| model(error.into()))?;

    let mut out = Printed::new(!printed);
    table::heading(&mut out, engines.bundle()).map_err(Failure::print)?;
    let mut sets = Vec::new();
    for documents in documents {
        let compared = shown(&engines, documents, args.quiet)?;
        table::compared(&mut out, &compared).map_err(Failure::print)?;
        sets.push(compared);
    }
    let failures = failures(&sets);
    if printed || json.is_some() {
        let results = table::Results::new(engines.bundle(), threads, &sets, &failures);
        let mut text = Vec::new();
        render::json(&mut text, &results)?;
        match json {
            None => Printed::new(true).write_all(&text).map_err(Failure::print),
            Some(path) => output::write(path, &text),
        }?;
    }
    if args.record {
        let passing = recorded(engines.bundle(), &sets, &failures);
        Bundle::record_precisions(&directory, &passing).map_err(|error| match error {
            BundleError::Write { file, source } => Failure::write(&file, source),
            other => model(other.into()),
        })?;
        let mut little = precisions;
        little.retain(|one| {
            *one != Precision::F32 && !fails(&failures, *one) && !passing.contains(one)
        });
        table::recorded(&mut out, &passing, &little).map_err(Failure::print)?;
    }
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let lines = failures.iter().map(ToString::to_string).collect::<Vec<_>>();
    Err(Failure::Disagreement(lines.join("\n  ")).into())
}

impl VerifyArgs {
    fn precisions(&self) -> Vec<Precision> {
        let wanted = |precision: &Precision| {
            self.precisions.is_empty() || self.precisions.contains(precision)
        };
        Precision::ALL.into_iter().filter(wanted).collect()
    }

    fn documents(&self, bundle: &Bundle) -> anyhow::Result<Vec<Documents>> {
        if self.data.is_empty() {
            return Ok(vec![Documents::built_in()?]);
        }
        let labels = Labels {
            text: self.text.clone(),
            title: self.title.clone(),
            evaluate: self.evaluate.clone(),
            aliases: self.aliases.iter().cloned().collect(),
            limit: self.limit.unwrap_or_default(),
        };
        let open = |path: &PathBuf| Documents::open(path, &labels, &bundle.tasks);
        let opened = self.data.iter().map(open).collect::<Result<_, _>>();
        Ok(opened.map_err(Failure::from)?)
    }
}

/// A gate that was not passed.
#[derive(Debug, serde::Serialize)]
struct GateFailure {
    precision: Precision,
    /// The documents.
    data: String,
    /// What is not as it should be.
    message: String,
}

impl std::fmt::Display for GateFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}: {}", self.precision, self.data, self.message)
    }
}

fn failures(sets: &[Compared]) -> Vec<GateFailure> {
    let mut failures = Vec::new();
    for set in sets {
        for agreement in &set.precisions {
            failures.extend(agreement.failures().into_iter().map(|message| GateFailure {
                precision: agreement.precision,
                data: set.name.clone(),
                message,
            }));
        }
    }
    failures
}

fn fails(failures: &[GateFailure], precision: Precision) -> bool {
    failures.iter().any(|failure| failure.precision == precision)
}

/// The precisions to write down, the fastest first: none that failed, and those that passed on
/// enough documents. The others stay as they are.
fn recorded(bundle: &Bundle, sets: &[Compared], failures: &[GateFailure]) -> Vec<Precision> {
    let passes = |precision: &Precision| {
        let mut verified = sets.iter().flat_map(|set| &set.precisions);
        let shown =
            verified.any(|agreement| agreement.precision == *precision && agreement.is_evidence());
        !fails(failures, *precision) && (shown || bundle.precisions.contains(precision))
    };
    let fastest = Precision::ALL.into_iter().rev().filter(|&one| one != Precision::F32);
    fastest.filter(passes).collect()
}

/// Compares on `documents`, and shows how far it is.
fn shown(engines: &Engines, documents: Documents, quiet: bool) -> anyhow::Result<Compared> {
    let progress = Progress::default();
    let shown = Shown::new(quiet);
    let compared = shown.during(&progress, || engines.compare(documents, &progress));
    Ok(compared.map_err(Failure::from)?)
}

fn precision(text: &str) -> Result<Precision, String> {
    let named = Precision::ALL.into_iter().find(|precision| precision.name() == text);
    named.ok_or_else(|| "expected f32, bf16 or int8".to_owned())
}

fn alias(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, label)) if !name.is_empty() && !label.is_empty() => {
            Ok((name.to_owned(), label.to_owned()))
        }
        _ => Err("expected NAME=LABEL".to_owned()),
    }
}
