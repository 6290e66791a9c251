//! The manifest: a journal of what has been written, a JSON object a line.
//!
//! The first line says what is being done, each further one that a part is on disk,
//! the last that everything is. A line counts once it is whole, so a process that is
//! killed while it writes one has not written it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::layout::sync_parent;
use crate::archive::error::{About, ArchiveError};
use crate::archive::input::InputFile;
use crate::archive::paths::shown;
use crate::archive::stats::Stats;

/// What a run does: whoever resumes it has to do the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::archive) struct Header {
    /// Version of this program.
    pub(in crate::archive) tasnif: String,
    pub(in crate::archive) model: ModelIdentity,
    /// Every setting that the output depends on.
    pub(in crate::archive) options: Map<String, Value>,
    pub(in crate::archive) inputs: Vec<InputFile>,
}

/// Which model answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Its name.
    pub name: String,
    /// Its revision.
    pub revision: String,
    /// SHA-256 of its weights.
    pub digest: String,
    /// SHA-256 of all that decides its answers: see [`ModelInfo::fingerprint`](crate::pipeline::ModelInfo::fingerprint).
    pub config_digest: String,
    /// The precision in which it runs.
    pub precision: String,
    /// The device that it runs on.
    pub device: String,
    /// What computes there, which decides the last bits of a float.
    pub kernels: String,
}

/// A part on disk. Of each one is kept in memory, so it is small.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::archive) struct PartEntry {
    /// Its number, from 0.
    pub(in crate::archive) part: u64,
    /// Name of its file.
    pub(in crate::archive) name: String,
    /// Rows of the archive that it covers, rejected ones included.
    pub(in crate::archive) rows: u64,
    pub(in crate::archive) bytes: u64,
    pub(in crate::archive) sha256: String,
    /// Different texts among its rows.
    pub(in crate::archive) texts: u64,
    /// Size of the file of rejected rows after it.
    pub(in crate::archive) rejects_bytes: u64,
}

/// A line with a part.
#[derive(Serialize, Deserialize)]
struct PartLine<E, S> {
    #[serde(flatten)]
    entry: E,
    stats: S,
}

/// The end of a manifest.
#[derive(Debug, Serialize, Deserialize)]
struct Complete {
    /// Rows of the archive.
    complete: u64,
    /// That of the output, if it is one file.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// What an earlier run has left.
#[derive(Debug, Default)]
pub(in crate::archive) struct Done {
    pub(in crate::archive) parts: Vec<PartEntry>,
    pub(in crate::archive) complete: bool,
    /// The SHA-256 of the output, if it is complete and one file.
    pub(in crate::archive) sha256: Option<String>,
}

/// An open manifest. No other process can open it meanwhile.
pub(in crate::archive) struct Manifest {
    path: PathBuf,
    file: File,
}

impl Manifest {
    /// Begins a manifest.
    pub(in crate::archive) fn create(path: &Path, header: &Header) -> Result<Self, ArchiveError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let mut manifest = Self::locked(path, file.writing(path)?)?;
        manifest.file.set_len(0).writing(path)?;
        manifest.append(header)?;
        sync_parent(path)?;
        Ok(manifest)
    }

    /// Opens the manifest of an earlier run; `None` if there is none, or it was killed
    /// before it had begun. What it knows of the rows is added to `total`.
    ///
    /// # Errors
    /// If it is not that of `header`, cannot be read, or another process writes to it.
    pub(in crate::archive) fn resume(
        path: &Path,
        header: &Header,
        total: &mut Stats,
    ) -> Result<Option<(Self, Done)>, ArchiveError> {
        if !path.exists() {
            return Ok(None);
        }
        let file = OpenOptions::new().read(true).write(true).open(path).writing(path)?;
        let mut manifest = Self::locked(path, file)?;
        let refused = |reason: String| ArchiveError::Resume { path: shown(path), reason };
        let mut reader = BufReader::new(&manifest.file);
        let mut line = Vec::new();
        let mut whole = 0;
        let mut begun = false;
        let mut done = Done::default();
        loop {
            line.clear();
            let bytes = reader.read_until(b'\n', &mut line).reading(path)? as u64;
            if line.last() != Some(&b'\n') {
                break; // the end, or a line that was not finished
            }
            let broken = |error: serde_json::Error| {
                refused(format!("it is damaged after byte {whole}: {error}"))
            };
            if !begun {
                let was: Header = serde_json::from_slice(&line).map_err(broken)?;
                was.check(header).map_err(refused)?;
                begun = true;
            } else if let Ok(end) = serde_json::from_slice::<Complete>(&line) {
                (done.complete, done.sha256) = (true, end.sha256);
            } else {
                let part: PartLine<PartEntry, Stats> =
                    serde_json::from_slice(&line).map_err(broken)?;
                done.parts.push(part.entry);
                total.add(part.stats);
            }
            whole += bytes;
        }
        if !begun {
            return Ok(None);
        }
        manifest.file.set_len(whole).writing(path)?;
        manifest.file.seek(SeekFrom::Start(whole)).writing(path)?;
        Ok(Some((manifest, done)))
    }

    /// Whether the file at `path` is a manifest, perhaps one that was killed before it had
    /// begun.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn is_at(path: &Path) -> Result<bool, ArchiveError> {
        let mut line = Vec::new();
        BufReader::new(File::open(path).reading(path)?)
            .read_until(b'\n', &mut line)
            .reading(path)?;
        let begun = line.last() == Some(&b'\n');
        Ok(!begun || serde_json::from_slice::<Header>(&line).is_ok())
    }

    /// # Errors
    /// If another process has the manifest at `path` open.
    pub(super) fn check_free(path: &Path) -> Result<(), ArchiveError> {
        Self::locked(path, File::open(path).reading(path)?).map(drop)
    }

    fn locked(path: &Path, file: File) -> Result<Self, ArchiveError> {
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), file }),
            Err(TryLockError::WouldBlock) => Err(ArchiveError::Resume {
                path: shown(path),
                reason: "another process is writing to it".to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(ArchiveError::write(path, source)),
        }
    }

    /// Notes that a part is on disk.
    pub(super) fn part(&mut self, entry: &PartEntry, stats: &Stats) -> Result<(), ArchiveError> {
        self.append(&PartLine { entry, stats })
    }

    /// Notes that everything is on disk, and the SHA-256 of the output if it is one file.
    pub(super) fn complete(
        &mut self,
        rows: u64,
        sha256: Option<String>,
    ) -> Result<(), ArchiveError> {
        self.append(&Complete { complete: rows, sha256 })
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), ArchiveError> {
        let mut write = || {
            let mut bytes = serde_json::to_vec(line)?;
            bytes.push(b'\n');
            self.file.write_all(&bytes)?;
            self.file.sync_all()
        };
        write().writing(&self.path)
    }
}

impl Header {
    /// # Errors
    /// What differs between this, which was, and `now`.
    fn check(&self, now: &Self) -> Result<(), String> {
        differs("the version of tasnif", &self.tasnif, &now.tasnif)?;
        let (was, is) = (&self.model, &now.model);
        differs("the model's weights", &was.digest, &is.digest)?;
        differs("the model's configuration", &was.config_digest, &is.config_digest)?;
        differs("the model's precision", &was.precision, &is.precision)?;
        differs("the model's device", &was.device, &is.device)?;
        differs("the machine's instruction set", &was.kernels, &is.kernels)?;
        for (name, was) in &self.options {
            let is = now.options.get(name).unwrap_or(&Value::Null);
            differs(&format!("option {name}"), &was.to_string(), &is.to_string())?;
        }
        for (was, is) in self.inputs.iter().zip(&now.inputs) {
            differs("an input file", &was.path, &is.path)?;
            if was != is {
                return Err(format!(
                    "input {} has changed: it had {} bytes with SHA-256 {:.12}… and has {} with \
                     {:.12}…",
                    was.path, was.bytes, was.sha256, is.bytes, is.sha256
                ));
            }
        }
        differs(
            "the number of input files",
            &self.inputs.len().to_string(),
            &now.inputs.len().to_string(),
        )
    }
}

fn differs(what: &str, was: &str, is: &str) -> Result<(), String> {
    if was == is { Ok(()) } else { Err(format!("{what} was {was} and is {is}")) }
}
