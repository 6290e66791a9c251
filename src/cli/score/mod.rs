//! `tasnif score`: files of documents in, files of answers out.

mod args;
mod summary;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

pub(super) use self::args::ScoreArgs;

use super::exit::Failure;
use super::local;
use super::output;
use super::progress;
use super::settings::Settings;
use super::signals::Signals;
use crate::archive::{Archive, Columns, Progress};
use crate::engine::EngineConfig;
use crate::nn;

pub(super) fn run(args: &ScoreArgs) -> anyhow::Result<ExitCode> {
    let settings = args.settings();
    let runtime = tokio::runtime::Runtime::new().context("the runtime does not start")?;
    let stop = Arc::new(AtomicBool::new(false));
    let signals = runtime.block_on(async { Signals::listen() })?;
    runtime.spawn(stop_on_signal(signals, Arc::clone(&stop)));

    // Before the model, which takes longer to load than a mistake to find.
    let archive = Archive::open(settings, &stop)?;
    say_columns(archive.columns(), args);
    let batch_tokens = args.batch_tokens as usize;
    let threads = args.threads.map_or_else(nn::default_threads, usize::from);
    let engine = EngineConfig {
        max_batch_tokens: batch_tokens,
        // Room for one group, which is all that there ever is.
        max_queued_tokens: EngineConfig::default()
            .max_queued_tokens
            .max(16 * batch_tokens * threads),
        workers: 0,
        ..EngineConfig::default()
    };
    let models = args.model.iter().cloned().collect();
    let settings = Settings {
        models,
        threads: args.threads,
        precision: args.precision,
        engine,
        ..Settings::default()
    };
    if let Some(path) = &args.report {
        output::check(path)?;
    }
    let models = local::load_reloadable(&settings)?.models;
    let classifier = models.get("").context("no model is loaded")?;
    // One that answers nothing would refuse every row.
    runtime.block_on(models.warm_up())?;

    let counters = Progress::default();
    let shown = progress::Shown::new(args.quiet);
    let summary = shown
        .during(&counters, || archive.score(&classifier, runtime.handle(), &counters, &stop))?;
    if let Some(path) = &args.report {
        summary.write_report(path)?;
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        summary::json(&mut out, &summary)
    } else {
        summary::print(&mut out, &summary, &counters.snapshot(), shown.elapsed())
    }
    .map_err(Failure::print)?;
    Ok(ExitCode::SUCCESS)
}

/// The first Ctrl-C or SIGTERM asks to stop, the second ends the process.
async fn stop_on_signal(mut signals: Signals, stop: Arc<AtomicBool>) {
    signals.heard().await;
    stop.store(true, Ordering::Relaxed);
    tracing::warn!("stopping after the documents in hand; again to stop at once");
    signals.heard().await;
    std::process::exit(130);
}

fn say_columns(columns: &Columns, args: &ScoreArgs) {
    let say = |named: bool, column: Option<&str>| match column {
        None => "none".to_owned(),
        Some(column) if named => column.to_owned(),
        Some(column) => format!("{column} (guessed)"),
    };
    tracing::info!(
        text = say(args.text.is_some(), Some(&columns.text)),
        title = say(args.title.is_some(), columns.title.as_deref()),
        id = say(args.id.is_some(), columns.id.as_deref()),
        date = say(args.date.is_some(), columns.date.as_deref()),
        "columns"
    );
}
