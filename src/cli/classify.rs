//! `tasnif classify`: one document, here or on a server.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::client::{self, ServerArgs};
use super::exit::Failure;
use super::local::{self, ModelArg};
use super::render;
use crate::engine::Admission;
use crate::nn::PrecisionChoice;
use crate::pipeline::{Document, LongText, Models, Options, Submission};
use crate::server::{self, proto};

/// Bytes read of a document, at most: more than the server takes.
const MAX_INPUT_BYTES: u64 = 16 * 1024 * 1024;
/// Labels of a task in the table, unless --top-k says otherwise.
const TABLE_LABELS: usize = 3;

/// Classify one document
///
/// Prints a table on a terminal and JSON elsewhere.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tasnif classify article.txt --title 'قمة عربية في الرياض'
  tasnif classify --text 'ارتفعت أسعار النفط' --json
  cat article.txt | tasnif classify - --server http://127.0.0.1:50051")]
pub(super) struct ClassifyArgs {
    /// A UTF-8 text file, or - for standard input
    #[arg(value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// The text itself
    #[arg(long)]
    text: Option<String>,
    /// The headline
    #[arg(long, default_value = "")]
    title: String,
    /// A model directory instead of the shipped one
    #[arg(long, value_name = "PATH", conflicts_with = "server")]
    model: Option<ModelArg>,
    /// In what to compute: auto, f32, bf16, int8, or reference, which is f32 in candle
    #[arg(long, value_name = "PRECISION", default_value_t, conflicts_with = "server")]
    precision: PrecisionChoice,
    #[command(flatten)]
    server: ServerArgs,
    /// A task to report; may be repeated. All of them by default
    #[arg(long = "task", value_name = "TASK")]
    tasks: Vec<String>,
    /// Labels listed a task, 0 for all. Three in a table and all in JSON by default
    #[arg(long, value_name = "N")]
    top_k: Option<u32>,
    /// Sentences that moved the best label most, at most this many a task
    #[arg(long, value_name = "N", default_value_t = 0)]
    evidence: u32,
    /// What to do with a document longer than one window
    #[arg(long, value_enum, default_value_t = LongTextArg::Windows)]
    long_text: LongTextArg,
    /// Report logits too
    #[arg(long)]
    logits: bool,
    /// Print JSON also on a terminal
    #[arg(long, conflicts_with = "table")]
    json: bool,
    /// Print the table also where there is no terminal
    #[arg(long)]
    table: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LongTextArg {
    /// Read all of it in overlapping windows
    Windows,
    /// Read the first window only
    Head,
    /// Refuse it
    Reject,
}

pub(super) fn run(args: &ClassifyArgs) -> anyhow::Result<ExitCode> {
    let document = args.document()?;
    let as_table = args.table || (!args.json && std::io::stdout().is_terminal());
    let top_k = args.top_k.unwrap_or(if as_table { TABLE_LABELS as u32 } else { 0 });
    let runtime = tokio::runtime::Runtime::new().context("the runtime does not start")?;
    let text = document.text.clone();
    let response = match &args.server.server {
        Some(url) => {
            let request = args.request(document, top_k);
            runtime.block_on(ask(&args.server, url, request))?
        }
        None => {
            let models: Vec<ModelArg> = args.model.iter().cloned().collect();
            let models = local::load(&models, args.precision)?;
            runtime.block_on(classify(&models, &document, &args.options(top_k)))?
        }
    };
    let mut out = std::io::stdout().lock();
    if as_table {
        render::classification(&mut out, &response, &text)
    } else {
        render::json(&mut out, &response)
    }
    .map_err(Failure::print)?;
    Ok(ExitCode::SUCCESS)
}

async fn classify(
    models: &Models,
    document: &Document,
    options: &Options,
) -> anyhow::Result<proto::ClassifyResponse> {
    let classifier = models.get("").context("no model is loaded")?;
    let submission = Submission { admission: Admission::Wait, ..Submission::default() };
    let answer = classifier.classify(document, options, &submission).await?;
    Ok(proto::ClassifyResponse {
        timing: Some(server::timing(&answer.timing)),
        classification: Some(server::classification(answer)),
    })
}

async fn ask(
    server: &ServerArgs,
    url: &str,
    request: proto::ClassifyRequest,
) -> anyhow::Result<proto::ClassifyResponse> {
    let request = server.request(request)?;
    let reply = server.connect(url).await?.classify(request).await;
    Ok(reply.map_err(|status| client::refusal(&status))?.into_inner())
}

impl ClassifyArgs {
    fn document(&self) -> anyhow::Result<Document> {
        let (id, text) = match (&self.text, &self.file) {
            (Some(text), _) => (String::new(), text.clone()),
            (None, Some(file)) if file.as_os_str() == "-" => {
                (String::new(), read_text(std::io::stdin().lock(), "standard input")?)
            }
            (None, Some(file)) => {
                let name = file.display().to_string();
                let opened = std::fs::File::open(file)
                    .map_err(|error| Failure::Usage(format!("cannot open {name}: {error}")))?;
                (name.clone(), read_text(opened, &name)?)
            }
            (None, None) => {
                let message = "give a FILE, - for standard input, or --text TEXT";
                return Err(Failure::Usage(message.to_owned()).into());
            }
        };
        Ok(Document { id, title: self.title.clone(), text })
    }

    fn options(&self, top_k: u32) -> Options {
        Options {
            tasks: self.tasks.clone(),
            top_k: top_k as usize,
            long_text: match self.long_text {
                LongTextArg::Windows => LongText::Windows,
                LongTextArg::Head => LongText::Head,
                LongTextArg::Reject => LongText::Reject,
            },
            with_logits: self.logits,
            evidence: self.evidence as usize,
            ..Options::default()
        }
    }

    fn request(&self, document: Document, top_k: u32) -> proto::ClassifyRequest {
        let Document { id, title, text } = document;
        let long_text = match self.long_text {
            LongTextArg::Windows => proto::LongText::Windows,
            LongTextArg::Head => proto::LongText::Head,
            LongTextArg::Reject => proto::LongText::Reject,
        };
        proto::ClassifyRequest {
            document: Some(proto::Document { id, title, text }),
            options: Some(proto::Options {
                tasks: self.tasks.clone(),
                top_k,
                long_text: long_text.into(),
                with_logits: self.logits,
                evidence: self.evidence,
                ..proto::Options::default()
            }),
        }
    }
}

fn read_text(input: impl Read, name: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    input
        .take(MAX_INPUT_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {name}"))?;
    anyhow::ensure!(
        bytes.len() as u64 <= MAX_INPUT_BYTES,
        "{name} has more than {MAX_INPUT_BYTES} bytes; a document is one article"
    );
    let text = String::from_utf8(bytes);
    text.map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{name} is not UTF-8: byte {at} is the first that does not fit")
    })
}
