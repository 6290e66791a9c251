//! Where a command writes its results.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, StdoutLock, Write};
use std::path::Path;

use super::exit::Failure;
use crate::bundle::replace;

/// Finds out before long work whether its result can be written to `path`. What is there stays.
///
/// # Errors
/// If it cannot be.
pub(super) fn check(path: &Path) -> Result<(), Failure> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        // The reader of a pipe would take this for all that comes.
        return Ok(());
    }
    let new = OpenOptions::new().append(true).create_new(true).open(path);
    let tried = match new {
        // An empty one would be taken for a result if there never is one.
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            match OpenOptions::new().append(true).open(path) {
                // A link, and what it leads to is not there yet.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let made = OpenOptions::new().append(true).create(true).open(path);
                    made.and_then(|_| fs::canonicalize(path)).and_then(fs::remove_file)
                }
                found => found.map(drop),
            }
        }
        Err(error) => Err(error),
    };
    tried.map_err(|error| Failure::write(path, error))
}

/// Writes `content` to `path`. A plain file that is there stays until the new one is whole, where
/// its directory allows that. A reader of a pipe may have had enough.
///
/// # Errors
/// If it cannot be.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let replaceable = fs::symlink_metadata(path).map_or(true, |found| found.is_file());
    let written = if replaceable { replace(path, content) } else { fs::write(path, content) };
    let written = written.or_else(|error| match error.kind() {
        // There may be no other file beside it, or it is mounted by itself.
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::ResourceBusy
        | ErrorKind::CrossesDevices
        | ErrorKind::InvalidFilename
        | ErrorKind::AlreadyExists => fs::write(path, content),
        _ => Err(error),
    });
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::write(path, error)),
        _ => Ok(()),
    }
}

/// Standard output for what a command prints besides its work, which goes on when the reader,
/// `head` for one, has had enough.
pub(super) struct Printed(Option<StdoutLock<'static>>);

impl Printed {
    /// Prints, or nothing at all.
    pub(super) fn new(wanted: bool) -> Self {
        Self(wanted.then(|| io::stdout().lock()))
    }

    fn or_closed<T>(
        &mut self,
        otherwise: T,
        write: impl FnOnce(&mut StdoutLock<'static>) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.0.as_mut().map(write) {
            Some(Err(error)) if error.kind() == ErrorKind::BrokenPipe => self.0 = None,
            Some(written) => return written,
            None => {}
        }
        Ok(otherwise)
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.or_closed(bytes.len(), |out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.or_closed((), Write::flush)
    }
}
