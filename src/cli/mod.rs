//! The command line: one file a subcommand. Arguments are parsed here, checked
//! once where they are used, and every failure ends with an exit code and a
//! line that says what to do next.

mod classify;
mod client;
mod exit;
mod local;
mod models;
mod prepare;
mod render;
mod score;
mod serve;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Topic and sentiment of Arabic news
#[derive(Debug, Parser)]
#[command(name = "tasnif", version, about, after_help = exit::HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as
    /// `tasnif=debug,h2=warn`
    #[arg(long, global = true, value_name = "FILTER", env = "TASNIF_LOG", default_value = "info")]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Classify(classify::ClassifyArgs),
    Score(Box<score::ScoreArgs>),
    Models(models::ModelsArgs),
    Prepare(prepare::PrepareArgs),
}

/// Parses the arguments of the process and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // The message of a panic may quote a document; where it happened does not.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panic");
    }));
    match start_logging(&cli.log).and_then(|()| run(&cli.command)) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}

fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Classify(args) => classify::run(args),
        Command::Score(args) => score::run(args),
        Command::Models(args) => models::run(args),
        Command::Prepare(args) => {
            prepare::run(args, std::io::stdin().lock(), std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn start_logging(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| exit::Failure::Usage(format!("--log {filter:?}: {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
