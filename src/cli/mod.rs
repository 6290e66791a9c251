//! The command line: one file a subcommand. Arguments are parsed here, checked
//! once where they are used, and every failure ends with an exit code and a
//! line that says what to do next.

mod bench;
mod classify;
mod client;
mod exit;
mod local;
mod models;
mod output;
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

use self::settings::Flag;
use crate::server::telemetry::LogError;
use crate::server::{LogConfig, LogFormat};

/// Topic and sentiment of Arabic news
#[derive(Debug, Parser)]
#[command(name = "tasnif", version, about, after_help = exit::HELP, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    // The variables are no business of clap: for `serve` a file and `--set` say what to log, too.
    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as
    /// `tasnif=debug,h2=warn`. What TASNIF_LOG says by default, or else info
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,

    /// The form of a log line: text or json. What TASNIF_LOG_FORMAT says by default, or else text
    #[arg(long, global = true, value_name = "FORMAT")]
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

impl Cli {
    /// What the flags that all commands have set.
    fn log_flags(&self) -> Vec<Flag> {
        let filter = self.log.clone().map(serde_json::Value::from);
        let format = self.log_format.and_then(|format| serde_json::to_value(format).ok());
        [("--log", "log.filter", filter), ("--log-format", "log.format", format)]
            .into_iter()
            .filter_map(|(name, key, value)| Some(Flag { name, key, value: value? }))
            .collect()
    }
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
    if !matches!(cli.command, Command::Serve(_)) {
        start_logging(&settings::log(cli.log_flags())?)?;
    }
    match &cli.command {
        // It starts its log as its settings say.
        Command::Serve(args) => serve::run(args, cli.log_flags()),
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

/// Logs as `config` says from now on.
fn start_logging(config: &LogConfig) -> anyhow::Result<()> {
    config.start().map_err(|error| match error {
        LogError::Filter { filter, source } => {
            let names = "--log, TASNIF_LOG, log.filter";
            let problem = format!("the log filter ({names}) is {filter:?}: {source}");
            exit::Failure::Usage(problem).into()
        }
        other => other.into(),
    })
}
