//! Where an archive's results are on disk.
//!
//! `OUT` is a directory of parts, or, if its name ends like a format, one file that
//! is put together from parts in the end. Beside it are `OUT.manifest.jsonl`,
//! `OUT.rejects.jsonl` and, until everything is done, the directory `OUT.work`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::formats::OutputFormat;
use super::manifest::Manifest;
use crate::archive::error::{About, ArchiveError};
use crate::archive::paths::{beside, real, shown};

/// The paths of one output.
#[derive(Clone, Debug)]
pub(in crate::archive) struct Layout {
    /// What the caller asked for.
    pub(in crate::archive) output: PathBuf,
    pub(in crate::archive) format: OutputFormat,
    /// Whether the output is one file.
    pub(in crate::archive) single: bool,
}

impl Layout {
    /// `format` is by the name of `output` unless it is given.
    ///
    /// # Errors
    /// If the two differ.
    pub(in crate::archive) fn new(
        output: &Path,
        format: Option<OutputFormat>,
    ) -> Result<Self, ArchiveError> {
        let named = OutputFormat::of_name(output);
        if let (Some(named), Some(format)) = (named, format)
            && named != format
        {
            return Err(ArchiveError::Setting(format!(
                "--output {} is named like {} and --output-format says {}",
                shown(output),
                named.ending(),
                format.ending()
            )));
        }
        let single = named.is_some() && !output.is_dir();
        let format = format.or(named).unwrap_or(OutputFormat::Jsonl);
        // "out/" and "out" have the same neighbours.
        let output = output.components().collect();
        Ok(Self { output, format, single })
    }

    pub(in crate::archive) fn manifest(&self) -> PathBuf {
        beside(&self.output, ".manifest.jsonl")
    }

    pub(in crate::archive) fn rejects(&self) -> PathBuf {
        beside(&self.output, ".rejects.jsonl")
    }

    /// What only a run in progress needs.
    pub(in crate::archive) fn work(&self) -> PathBuf {
        beside(&self.output, ".work")
    }

    /// Where parts are.
    pub(in crate::archive) fn parts(&self) -> PathBuf {
        if self.single { self.work() } else { self.output.clone() }
    }

    pub(in crate::archive) fn part_name(&self, part: u64) -> String {
        format!("part-{part:05}.{}", self.format.ending())
    }

    /// The answers of a part, for its duplicates in later ones.
    pub(in crate::archive) fn answers(&self, part: u64) -> PathBuf {
        self.work().join(format!("answers-{part:05}.jsonl"))
    }

    /// Tells whether a path, however it is written, is one of the output: OUT, a part in it,
    /// or what is beside it. What else lies in OUT is not.
    pub(in crate::archive) fn own(&self) -> impl Fn(&Path) -> bool + use<> {
        let output = real(&self.output);
        let [manifest, rejects, work] =
            [self.manifest(), self.rejects(), self.work()].map(|path| real(&path));
        move |path| {
            let path = real(path);
            let is_part = path.parent() == Some(&output) && is_part(&path);
            is_part || [&output, &manifest, &rejects].contains(&&path) || path.starts_with(&work)
        }
    }

    /// Something in the place of the output of which nothing says that `score` wrote it.
    ///
    /// # Errors
    /// If the manifest cannot be read.
    pub(in crate::archive) fn foreign(&self) -> Result<Option<PathBuf>, ArchiveError> {
        let manifest = self.manifest();
        if manifest.exists() {
            return Ok((!Manifest::is_at(&manifest)?).then_some(manifest));
        }
        let first = |directory: &Path, wanted: fn(&Path) -> bool| {
            let entries = fs::read_dir(directory).ok()?;
            entries.filter_map(|entry| Some(entry.ok()?.path())).find(|path| wanted(path))
        };
        Ok([self.output.clone(), self.rejects()]
            .into_iter()
            .find(|path| path.exists() && !path.is_dir())
            .or_else(|| first(&self.work(), |_| true))
            .or_else(|| first(&self.output, is_part)))
    }

    /// Something of the output that is there, if any.
    pub(in crate::archive) fn occupied(&self) -> Option<PathBuf> {
        let is_empty = |path: &Path| fs::read_dir(path).is_ok_and(|mut it| it.next().is_none());
        [self.manifest(), self.rejects(), self.work(), self.output.clone()]
            .into_iter()
            .find(|path| path.exists() && !is_empty(path))
    }

    /// Removes what an earlier run left, and nothing else. The manifest goes last: as long
    /// as it is there, this can be done again, and nothing half-removed is resumed from,
    /// since parts or the output are not what it says.
    pub(in crate::archive) fn clear(&self) -> Result<(), ArchiveError> {
        let manifest = self.manifest();
        if manifest.exists() {
            Manifest::check_free(&manifest)?;
        }
        if self.output.is_dir() {
            for entry in fs::read_dir(&self.output).reading(&self.output)? {
                let path = entry.reading(&self.output)?.path();
                if is_part(&path) {
                    remove(&path)?;
                }
            }
        } else {
            remove(&self.output)?;
        }
        self.clear_work()?;
        remove(&self.rejects())?;
        remove(&manifest)
    }

    pub(in crate::archive) fn clear_work(&self) -> Result<(), ArchiveError> {
        let work = self.work();
        match fs::remove_dir_all(&work) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.writing(&work),
        }
    }

    pub(in crate::archive) fn create(&self) -> Result<(), ArchiveError> {
        for directory in [self.work(), self.parts()] {
            fs::create_dir_all(&directory).writing(&directory)?;
        }
        sync_parent(&self.output)
    }
}

/// Whether a file is named like a part, `part-00000.csv`, or like one that is being
/// written, `.part-00000.csv.tmp`.
fn is_part(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = match name.strip_prefix('.') {
        Some(hidden) => hidden.strip_suffix(".tmp").unwrap_or_default(),
        None => name,
    };
    let part = name.strip_prefix("part-").and_then(|rest| rest.split_once('.'));
    part.is_some_and(|(number, ending)| {
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        digits && OutputFormat::ALL.iter().any(|format| format.ending() == ending)
    })
}

/// Removes a file, if it is there.
pub(in crate::archive) fn remove(path: &Path) -> Result<(), ArchiveError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.writing(path),
    }
}

/// Gives the file at `from` the name `to`, for good.
pub(in crate::archive) fn rename(from: &Path, to: &Path) -> Result<(), ArchiveError> {
    fs::rename(from, to).writing(to)?;
    sync_parent(to)
}

/// Hands the names in the directory of `path` to the disk.
pub(in crate::archive) fn sync_parent(path: &Path) -> Result<(), ArchiveError> {
    #[cfg(unix)]
    {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        File::open(parent).and_then(|directory| directory.sync_all()).writing(parent)?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
