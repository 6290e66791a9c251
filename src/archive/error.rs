//! Why an archive could not be scored.

use std::error::Error;
use std::io;
use std::path::Path;

use super::row::Reject;
use crate::nn::EncodeError;
use crate::pipeline::ClassifyError;

/// Why an archive could not be scored to its end. What was committed before stays
/// valid, and all but [`Setting`](Self::Setting) and [`Resume`](Self::Resume) leave it
/// to be resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A setting is wrong, or does not fit the archive.
    #[error("{0}")]
    Setting(String),
    /// A file or directory cannot be opened or read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// A file can be read, but what is in it is broken.
    #[error("{path} is damaged after row {rows}: {message}")]
    Damaged {
        /// The file.
        path: String,
        /// Number of the last row before the damage; 0 if there is none.
        rows: u64,
        /// What is wrong.
        message: String,
    },
    /// The output cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// A row was refused, and every row has to be scored.
    #[error("{path}, row {row}: {reject}")]
    Strict {
        /// The file.
        path: String,
        /// The row.
        row: u64,
        /// Why it was refused.
        reject: Reject,
    },
    /// What was begun cannot be resumed by this run.
    #[error("{path} cannot be resumed: {reason}")]
    Resume {
        /// The manifest.
        path: String,
        /// What is not as it was.
        reason: String,
    },
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ClassifyError),
    /// An encoder failed that is run by itself.
    #[error("{encoder}: {source}")]
    Encode {
        /// Its precision, or that it is the reference.
        encoder: String,
        /// Why.
        source: EncodeError,
    },
    /// The caller asked to stop.
    #[error("stopped before the end")]
    Stopped,
    /// A thread ended before its work did, which is a fault of this program.
    #[error("the {0} thread ended before its work")]
    Broken(&'static str),
}

impl ArchiveError {
    /// `source` says why `path` cannot be read.
    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.display().to_string(), source }
    }

    /// `source` says why `path` cannot be written.
    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.display().to_string(), source }
    }
}

/// Gives an I/O result the path that it is about.
pub(super) trait About<T> {
    /// The error says that `path` cannot be read.
    fn reading(self, path: &Path) -> Result<T, ArchiveError>;
    /// The error says that `path` cannot be written.
    fn writing(self, path: &Path) -> Result<T, ArchiveError>;
}

impl<T> About<T> for io::Result<T> {
    fn reading(self, path: &Path) -> Result<T, ArchiveError> {
        self.map_err(|source| ArchiveError::read(path, source))
    }

    fn writing(self, path: &Path) -> Result<T, ArchiveError> {
        self.map_err(|source| ArchiveError::write(path, source))
    }
}

/// What a reader of one file may meet.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// The system, or a decoder, failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The content is broken.
    #[error("{0}")]
    Damaged(String),
    /// The settings do not fit the file.
    #[error("{0}")]
    Setting(String),
}

impl FileError {
    /// The same, of the file at `path`, after row `rows`.
    pub(super) fn at(self, path: &str, rows: u64) -> ArchiveError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => match os_error(&source) {
                Some(code) => {
                    ArchiveError::Read { path, source: io::Error::from_raw_os_error(code) }
                }
                None => ArchiveError::Damaged { path, rows, message: source.to_string() },
            },
            Self::Damaged(message) => ArchiveError::Damaged { path, rows, message },
            Self::Setting(message) => ArchiveError::Setting(format!("{path}: {message}")),
        }
    }
}

/// The system's number of what went wrong, if it is the system that `error` comes from. Decoders speak through `io::Error`
/// too, of what is damaged, and wrap what the system says; only the system has numbers.
pub(super) fn os_error(error: &io::Error) -> Option<i32> {
    if let Some(code) = error.raw_os_error() {
        return Some(code);
    }
    let mut cause = error.get_ref().map(|error| error as &(dyn Error + 'static));
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return os_error(error);
        }
        cause = error.source();
    }
    None
}
