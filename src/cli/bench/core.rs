//! `tasnif bench core`: the engine in process. Texts are tokenised before the clock starts, so
//! that what is measured is batching and inference and nothing else.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;

use super::args::{EngineArgs, LoadArgs, TextArgs, check_count};
use super::ids::{self, Sequences};
use super::load::Target;
use super::logits;
use super::model::{Loaded, batch_tokens, engine_config};
use super::sweep::{self, Subject};
use super::tally::{Done, Outcome};
use super::work::Work;
use crate::cli::output;
use crate::engine::{Admission, Engine, EngineError, Job};
use crate::nn::cpu::measure;

/// Measure the engine in this process
///
/// Texts are tokenised before the clock starts.
#[derive(Debug, Args)]
pub(super) struct CoreArgs {
    /// Token ids instead of texts, as JSON Lines: [ids], {"ids": [ids]}, or what `tasnif
    /// prepare` writes. Special tokens included; nothing is added
    #[arg(long, value_name = "FILE", conflicts_with_all = ["texts", "median_words", "sigma"], help_heading = "Documents")]
    ids: Option<PathBuf>,
    /// Also write the logits of every document, as JSON Lines, to compare with another engine's
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    logits: Option<PathBuf>,
    #[command(flatten)]
    texts: TextArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// An engine and what is sent to it.
#[derive(Clone)]
struct Core {
    engine: Arc<Engine>,
    documents: Arc<[Document]>,
}

struct Document {
    sequences: Sequences,
    tokens: u64,
    operations: f64,
}

pub(super) fn run(args: &CoreArgs) -> anyhow::Result<()> {
    args.load.loads()?;
    let batches = batch_tokens(&args.engine)?;
    args.load.check_outputs()?;
    args.logits.as_ref().map_or(Ok(()), |path| output::check(path))?;
    // Before the model, which takes longer to load than a mistake to find.
    let texts = if args.ids.is_some() { Vec::new() } else { args.texts.read()? };
    let loaded = Loaded::load(&args.engine)?;
    let (source, sequences) = match &args.ids {
        Some(path) => {
            let limit = args.texts.limit();
            let vocab_size = loaded.bundle.config.vocab_size;
            let max_tokens = loaded.encoder.max_sequence_tokens();
            let sequences = ids::read(path, limit, vocab_size, max_tokens)?;
            check_count(path, sequences.len())?;
            ("ids", sequences)
        }
        None => (args.texts.source(), loaded.windows(&args.texts.name(), &texts)?),
    };
    if let Some(path) = &args.logits {
        logits::write(path, &*loaded.encoder, &loaded.bundle.tasks, &sequences)?;
    }
    let work = Work::of_ids(source, &sequences);
    let documents: Arc<[Document]> = loaded
        .operations(&sequences)
        .into_iter()
        .zip(sequences)
        .map(|(operations, sequences)| {
            let tokens = sequences.iter().map(Vec::len).sum::<usize>() as u64;
            Document { sequences, tokens, operations }
        })
        .collect();
    let subject = Subject {
        name: "core",
        server: None,
        connections: None,
        model: loaded.describe(),
        precision: loaded.compute.precision.to_string(),
        threads: Some(loaded.threads),
        peak_operations_per_s: Some(measure::peak(loaded.compute.precision, loaded.threads)),
        work,
        known_operations: true,
    };
    let runtime = tokio::runtime::Runtime::new().context("the runtime does not start")?;
    let start = |&tokens: &usize| -> anyhow::Result<_> {
        let _clock = runtime.enter();
        let engine =
            Engine::start(Arc::clone(&loaded.encoder), engine_config(tokens, loaded.workers))?;
        let core = Core { engine: Arc::new(engine), documents: Arc::clone(&documents) };
        Ok((Some(tokens), core))
    };
    let settings = batches.iter().map(start).collect::<anyhow::Result<Vec<_>>>()?;
    runtime.block_on(sweep::run(subject, &settings, &args.load, args.texts.seed))
}

impl Target for Core {
    async fn call(&self, index: usize) -> Outcome {
        let Some(document) = self.documents.get(index) else { return Ok(Done::default()) };
        let sequences = document.sequences.clone();
        // As a server's: over the limit of the queue there is an error, not a longer queue.
        let job = Job { sequences, admission: Admission::Reject, ..Job::default() };
        let answer = self.engine.submit(job).await;
        answer.map_err(|error| code(&error).to_owned())?;
        let Document { tokens, operations, .. } = *document;
        Ok(Done { tokens, operations, cached: false })
    }
}

/// What the report calls an error of the engine.
fn code(error: &EngineError) -> &'static str {
    match error {
        EngineError::Overloaded { .. } => "overloaded",
        EngineError::ClientOverloaded { .. } => "client_overloaded",
        EngineError::WouldExpire { .. } => "would_expire",
        EngineError::TooLarge { .. } => "too_large",
        EngineError::Draining { .. } => "draining",
        EngineError::DeadlineExceeded => "deadline_exceeded",
        EngineError::WorkerPanicked => "worker_panicked",
        EngineError::Encode { .. } => "encode",
        EngineError::InvalidJob { .. } => "invalid_job",
    }
}
