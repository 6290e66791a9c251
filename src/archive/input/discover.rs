//! Which files an archive consists of, and what identifies them.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use walkdir::{DirEntry, WalkDir};

use super::formats::InputFormat;
use crate::archive::error::{About, ArchiveError};
use crate::archive::paths::real;

/// The name of standard input.
pub(super) const STDIN: &str = "-";
const HASH_BUFFER_BYTES: usize = 1 << 20;

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Its path, as the output names it; `-` for standard input.
    pub path: String,
    /// Its size; 0 for standard input.
    pub bytes: u64,
    /// SHA-256 of its content, in hexadecimal; empty for standard input.
    pub sha256: String,
}

impl InputFile {
    /// Whether it can be read only once.
    pub fn is_stdin(&self) -> bool {
        self.path == STDIN
    }
}

/// The files that `inputs` name, in order: files, patterns with `*`, `?` or `[…]`,
/// and directories, of which those files are taken whose names say a format, or all
/// if the caller says the format. In directories, names with a dot or underscore before
/// them are not taken. What `is_output` says to be of the output never is.
///
/// # Errors
/// If an input is not there or cannot be read, or there is no file at all.
pub(in crate::archive) fn discover(
    inputs: &[PathBuf],
    format: Option<InputFormat>,
    is_output: &dyn Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>, ArchiveError> {
    let mut found =
        Found { format, is_output, files: Vec::new(), known: HashSet::new(), of_output: 0 };
    for input in inputs {
        if input.as_os_str() == STDIN {
            if inputs.len() > 1 {
                let message = "standard input cannot be one of several inputs";
                return Err(ArchiveError::Setting(message.to_owned()));
            }
            return Ok(vec![input.clone()]);
        }
        let pattern = input.to_str().filter(|text| text.contains(['*', '?', '[']));
        match pattern {
            Some(pattern) if !input.exists() => found.matches(pattern)?,
            _ => found.path(input)?,
        }
    }
    let Found { files, of_output, .. } = found;
    if files.is_empty() {
        let message = match of_output {
            0 => "the inputs hold no file of a known format; say it with --format",
            _ => "all inputs are files of the output; choose another --output",
        };
        return Err(ArchiveError::Setting(message.to_owned()));
    }
    if of_output > 0 {
        tracing::info!(files = of_output, "files of the output are left out of the inputs");
    }
    Ok(files)
}

struct Found<'a> {
    format: Option<InputFormat>,
    is_output: &'a dyn Fn(&Path) -> bool,
    files: Vec<PathBuf>,
    /// Where they really are, however they are named.
    known: HashSet<PathBuf>,
    /// Files left out since they are of the output.
    of_output: usize,
}

impl Found<'_> {
    fn matches(&mut self, pattern: &str) -> Result<(), ArchiveError> {
        let setting =
            |message: String| ArchiveError::Setting(format!("input {pattern:?}: {message}"));
        let mut matched = false;
        for path in glob::glob(pattern).map_err(|error| setting(error.to_string()))? {
            let path = path.map_err(|error| {
                let path = error.path().to_owned();
                ArchiveError::read(&path, error.into())
            })?;
            self.path(&path)?;
            matched = true;
        }
        if !matched {
            return Err(setting("nothing matches".to_owned()));
        }
        Ok(())
    }

    fn path(&mut self, path: &Path) -> Result<(), ArchiveError> {
        if !path.metadata().reading(path)?.is_dir() {
            self.take(path);
            return Ok(());
        }
        let hidden = |entry: &DirEntry| {
            let name = entry.file_name().as_encoded_bytes();
            entry.depth() > 0 && (name.starts_with(b".") || name.starts_with(b"_"))
        };
        let walk = WalkDir::new(path).follow_links(true).sort_by_file_name();
        for entry in walk.into_iter().filter_entry(|entry| !hidden(entry)) {
            let entry = entry.map_err(|error| {
                let at = error.path().unwrap_or(path).to_owned();
                let message = error.to_string();
                let source = error.into_io_error();
                let source = source.unwrap_or_else(|| std::io::Error::other(message));
                ArchiveError::read(&at, source)
            })?;
            let known = self.format.is_some() || InputFormat::of_name(entry.path()).is_some();
            if entry.file_type().is_file() && known {
                self.take(entry.path());
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &Path) {
        if !self.known.insert(real(path)) {
            return;
        }
        if (self.is_output)(path) {
            self.of_output += 1;
        } else {
            self.files.push(path.to_owned());
        }
    }
}

/// Reads `paths` through to identify them.
///
/// # Errors
/// If one cannot be read, or `stop` has been set.
pub(in crate::archive) fn fingerprint(
    paths: &[PathBuf],
    stop: &AtomicBool,
) -> Result<Vec<InputFile>, ArchiveError> {
    let one = |path: &PathBuf| {
        let name = path.display().to_string();
        if name == STDIN {
            return Ok(InputFile { path: name, bytes: 0, sha256: String::new() });
        }
        let setting =
            |message: &str| Err(ArchiveError::Setting(format!("input {name}: {message}")));
        if path.to_str().is_none() {
            return setting("its name is not UTF-8; rename it");
        }
        // It is read once for its digest and once for its documents.
        if !path.metadata().reading(path)?.is_file() {
            return setting(
                "it is no file; to read from a pipe, say - and give it as standard input",
            );
        }
        let (bytes, sha256) = digest(path, stop)?;
        Ok(InputFile { path: name, bytes, sha256 })
    };
    paths.iter().map(one).collect()
}

/// Size and SHA-256, in hexadecimal, of the file at `path`.
pub(in crate::archive) fn digest(
    path: &Path,
    stop: &AtomicBool,
) -> Result<(u64, String), ArchiveError> {
    let mut file = File::open(path).reading(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(ArchiveError::Stopped);
        }
        let count = file.read(&mut buffer).reading(path)?;
        if count == 0 {
            return Ok((bytes, hex(&hash.finalize())));
        }
        hash.update(buffer.get(..count).unwrap_or_default());
        bytes += count as u64;
    }
}

/// `bytes` in hexadecimal.
pub(in crate::archive) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
