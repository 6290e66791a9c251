//! The command line: one file a subcommand. Arguments are parsed here, checked
//! once where they are used, and every failure ends with an exit code and a
//! line that says what to do next.

mod bench;
mod classify;
mod client;
mod exit;
mod local;
mod models;
mod prepare;
mod progress;
mod reload;
mod render;
mod score;
mod serve;
mod settings;
mod signals;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::server::telemetry::LogError;
use crate::server::{LogConfig, LogFormat};

/// Topic and sentiment of Arabic news
#[derive(Debug, Parser)]
#[command(name = "tasnif", version, about, after_help = exit::HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as
    /// `tasnif=debug,h2=warn`. info by default
    #[arg(long, global = true, value_name = "FILTER", env = "TASNIF_LOG")]
    log: Option<String>,

    /// The form of a log line: text or json. text by default
    #[arg(long, global = true, value_name = "FORMAT", env = "TASNIF_LOG_FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Classify(classify::ClassifyArgs),
    Score(Box<score::ScoreArgs>),
    Bench(bench::BenchArgs),
    Models(models::ModelsArgs),
    Prepare(prepare::PrepareArgs),
    Verify(verify::VerifyArgs),
}

/// Parses the arguments of the process and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // The message of a panic may quote a document; where it happened does not.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panic");
    }));
    match run(&cli) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    // What flags say of the log goes over what a configuration file does.
    let start_log = |log: LogConfig| {
        let filter = cli.log.clone().unwrap_or(log.filter);
        start_logging(&LogConfig { filter, format: cli.log_format.unwrap_or(log.format), ..log })
    };
    if !matches!(cli.command, Command::Serve(_)) {
        start_log(LogConfig::default())?;
    }
    match &cli.command {
        // It starts its log as its settings say.
        Command::Serve(args) => serve::run(args, start_log),
        Command::Classify(args) => classify::run(args),
        Command::Score(args) => score::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Models(args) => models::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Prepare(args) => {
            prepare::run(args, std::io::stdin().lock(), std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn start_logging(config: &LogConfig) -> anyhow::Result<()> {
    config.start().map_err(|error| match error {
        LogError::Filter { filter, source } => {
            exit::Failure::Usage(format!("--log {filter:?}: {source}")).into()
        }
        other => other.into(),
    })
}
