//! `tasnif bench`: what this machine does with a model, and how two measurements differ.
//!
//! | file | what it does |
//! |---|---|
//! | `args` | the arguments that both subjects share, and the points that they ask for |
//! | `core`, `serve` | the subjects: the engine in process, and the server over gRPC |
//! | `model` | the model that is measured |
//! | `work`, `ids`, `texts`, `generate`, `lines` | the documents that are sent, and what they are together |
//! | `logits` | what the model says of them, for another engine's to be compared with |
//! | `load`, `tally` | closed and open loops, and what is counted of them |
//! | `sweep`, `report`, `machine` | all points with repeats, and the JSON of them |
//! | `table`, `plot` | the same for people |
//! | `compare` | two reports side by side |

mod args;
mod compare;
mod core;
mod generate;
mod ids;
mod lines;
mod load;
mod logits;
mod machine;
mod model;
mod plot;
mod report;
mod serve;
mod sweep;
mod table;
mod tally;
mod texts;
mod work;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Measure throughput and latency
///
/// See docs/benchmarking.md for what each number means.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tasnif bench core
  tasnif bench core --ids ids.jsonl --concurrency 64 --threads 2 --json core.json
  tasnif bench core --batch-tokens 256,1024,4096 --plot core.svg
  tasnif bench serve --rate 5,10,20 --seconds 30
  tasnif bench compare before.json after.json")]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    Core(Box<core::CoreArgs>),
    Serve(Box<serve::ServeArgs>),
    Compare(compare::CompareArgs),
}

pub(super) fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    match &args.subject {
        Subject::Core(args) => core::run(args)?,
        Subject::Serve(args) => serve::run(args)?,
        Subject::Compare(args) => compare::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}
