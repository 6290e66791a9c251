//! Exit codes, and what a failure tells its reader to do next.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use crate::archive::ArchiveError;
use crate::pipeline::{LoadError, ModelsError, WarmUpError};
use crate::server::ServeError;

/// Shown under `tasnif --help`; the README has the same table.
pub(super) const HELP: &str = "\
Exit codes:
  0  done
  1  a document was refused, or something failed while running
  2  the command line is wrong
  3  a model cannot be loaded
  4  the server cannot be reached, or the address cannot be listened on
  5  an archive cannot be read: a file is missing, unreadable or damaged
  6  results cannot be written: the disk is full, or may not be written to
  7  score --strict met a row that cannot be scored
  8  score --resume met other input, another model or other options
  9  verify found a precision that does not answer as the reference does
  130  interrupted";

const SETTINGS: &str = "see `tasnif serve --help` and tasnif.example.toml";
const MORE_TIME: &str = "give it more time with --timeout";
const DAMAGED: &str = "the model's weights or its tokenizer may be damaged";

/// A failure whose kind the exit code tells.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The command line is wrong beyond what clap sees.
    #[error("{0}")]
    Usage(String),
    /// A server does not answer.
    #[error("cannot reach {url}: {message}")]
    Unreachable {
        /// Its address.
        url: String,
        /// Why not.
        message: String,
    },
    /// A model is not usable.
    #[error("model {path}: {source}")]
    Model {
        /// Its directory.
        path: String,
        /// Why not.
        source: Box<LoadError>,
    },
    /// A server does not answer the call.
    #[error("the server answers {code:?}: {message}")]
    Refused {
        /// The status code.
        code: tonic::Code,
        /// What it says.
        message: String,
    },
    /// A server has not answered in the time that it was given.
    #[error("the server has not answered in time")]
    TimedOut,
    /// Documents to verify with cannot be read.
    #[error(transparent)]
    Documents(#[from] ArchiveError),
    /// Results cannot be written.
    #[error("cannot write {target}: {source}")]
    Write {
        /// A file, or standard output.
        target: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// A precision does not answer as the reference does.
    #[error("not as the reference:\n  {0}")]
    Disagreement(String),
    /// There is no shipped model where it is looked for.
    #[error("the shipped model is not at {0}")]
    NoModel(String),
}

impl Failure {
    /// The file at `path` cannot be written.
    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { target: path.display().to_string(), source }
    }

    /// Standard output cannot be written.
    pub(super) fn print(source: io::Error) -> Self {
        Self::Write { target: "standard output".to_owned(), source }
    }
}

/// Prints `error` with all its causes to standard error and returns the code.
#[allow(clippy::print_stderr)] // The error is for the caller, whatever the log filter.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    // Whoever read the output, `head` for one, has had enough.
    let io_error = error.root_cause().downcast_ref::<io::Error>();
    if io_error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let (code, hint) = classify(error);
    eprintln!("tasnif: {}", with_causes(error));
    if let Some(hint) = hint {
        eprintln!("  {hint}");
    }
    ExitCode::from(code)
}

/// What `error` says, and its causes where it does not say them itself.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().skip(1).map(ToString::to_string).fold(error.to_string(), |said, cause| {
        if said.ends_with(&cause) { said } else { format!("{said}: {cause}") }
    })
}

fn classify(error: &anyhow::Error) -> (u8, Option<&'static str>) {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return match failure {
            Failure::Usage(_) => (2, Some("see `tasnif --help`, or `tasnif COMMAND --help`")),
            Failure::Unreachable { .. } => {
                (4, Some("start one with `tasnif serve`, or check the address"))
            }
            Failure::Refused { code, .. } => match code {
                tonic::Code::ResourceExhausted | tonic::Code::Unavailable => {
                    (1, Some("try again in a moment"))
                }
                tonic::Code::DeadlineExceeded => (1, Some(MORE_TIME)),
                _ => (1, None),
            },
            Failure::TimedOut => (1, Some(MORE_TIME)),
            Failure::Documents(error) => (of_archive(error).0, None),
            Failure::Write { .. } => (6, None),
            Failure::Model { source, .. } if matches!(**source, LoadError::Queue { .. }) => {
                (2, Some(SETTINGS))
            }
            Failure::Model { .. } => (
                3,
                Some(
                    "a model is a directory with config.json, tokenizer.json and model.safetensors; see docs/bundle.md",
                ),
            ),
            Failure::Disagreement(_) => (9, None),
            Failure::NoModel(_) => {
                (3, Some("run from the repository's root, or name a model with --model PATH"))
            }
        };
    }
    if error.is::<ModelsError>() {
        return (2, None);
    }
    if error.is::<WarmUpError>() {
        return (3, Some(DAMAGED));
    }
    if let Some(error) = error.downcast_ref::<ArchiveError>() {
        return of_archive(error);
    }
    match error.downcast_ref::<ServeError>() {
        Some(ServeError::Bind { .. }) => {
            (4, Some("choose another address with --listen or --metrics-listen"))
        }
        Some(ServeError::Config(_) | ServeError::File(_)) => (2, Some(SETTINGS)),
        Some(ServeError::WarmUp(_)) => (3, Some(DAMAGED)),
        _ => (1, None),
    }
}

/// Of `tasnif score`: what it tells its reader to do is of that command.
fn of_archive(error: &ArchiveError) -> (u8, Option<&'static str>) {
    match error {
        ArchiveError::Setting(_) => (2, Some("see `tasnif COMMAND --help`")),
        ArchiveError::Read { .. } => (5, Some("what is done stays; --resume goes on with it")),
        ArchiveError::Damaged { .. } => {
            (5, Some("--skip-damaged leaves out the rest of damaged files"))
        }
        ArchiveError::Write { .. } => (6, Some("what is done stays; --resume goes on with it")),
        ArchiveError::Strict { .. } => (7, Some("without --strict, such rows are set aside")),
        ArchiveError::Resume { .. } => (8, Some("--overwrite starts anew")),
        ArchiveError::Stopped => (130, Some("--resume goes on with what is done")),
        _ => (1, None),
    }
}
