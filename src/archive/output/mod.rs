//! Results on their way to disk: nothing lost, nothing twice.
//!
//! Rows are written to a part under a temporary name. To commit it, the part gets
//! its name, the rejected rows are appended to their file, and last the manifest gets
//! a line; each is on disk before the next begins. Whatever is on disk beyond the
//! manifest's last line belongs to no part, and a resumed run writes it again.

mod assemble;
mod formats;
mod layout;
mod manifest;
mod record;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

pub use self::formats::OutputFormat;
pub use self::manifest::ModelIdentity;

pub(super) use self::layout::Layout;
pub(super) use self::manifest::Header;
pub(super) use self::record::{Answer, Record, Schema, TaskAnswer};

use self::formats::RecordWriter;
use self::layout::{remove, rename, sync_parent};
use self::manifest::{Done, Manifest, PartEntry};
use super::error::{About, ArchiveError};
use super::input::{digest, hex};
use super::memory::{Outcome, TextKey};
use super::paths::shown;
use super::row::{Reject, RejectReason};
use super::stats::{Counted, Stats};

/// Characters of a rejected row's id: the rows of a part are kept until it is committed, and what
/// is wrong with one may be that all of it is taken for its id.
const MAX_ID_CHARS: usize = 1_000;

/// The results of a run.
pub(super) struct Output {
    layout: Layout,
    schema: Schema,
    manifest: Manifest,
    rejects: File,
    rejects_bytes: u64,
    /// Texts that duplicates are looked for among.
    memory: usize,
    part: Option<Part>,
    done: Vec<PartEntry>,
    total: Stats,
    labels: Vec<usize>,
}

/// What a run that is resumed has to know of the one before.
#[derive(Debug, Default)]
pub(super) struct Resumed {
    /// Rows of the archive that are done.
    pub(super) rows: u64,
    /// Number of the first of `texts`.
    pub(super) first_text: u64,
    /// The last texts and what became of them.
    pub(super) texts: Vec<(TextKey, Outcome)>,
    /// Whether there is nothing left to do.
    pub(super) complete: bool,
}

/// A part that is being written.
struct Part {
    temporary: PathBuf,
    writer: RecordWriter,
    rows: u64,
    texts: u64,
    rejects: Vec<u8>,
    answers: Vec<u8>,
    stats: Stats,
}

/// A line of the file of rejected rows.
#[derive(Serialize)]
struct RejectLine<'a> {
    file: &'a str,
    row: u64,
    id: Option<String>,
    reason: RejectReason,
    message: &'a str,
}

/// A line of a file of answers.
#[derive(Serialize, Deserialize)]
struct TextLine {
    key: String,
    outcome: Result<Answer, Reject>,
}

impl Output {
    /// Begins the output, or goes on with that of an earlier run if `resume`.
    ///
    /// # Errors
    /// If files cannot be written, or the earlier run was another one.
    pub(super) fn open(
        layout: Layout,
        schema: Schema,
        header: &Header,
        memory: usize,
        resume: bool,
    ) -> Result<(Self, Resumed), ArchiveError> {
        let manifest = layout.manifest();
        let labels: Vec<usize> = schema.tasks.iter().map(|task| task.labels.len()).collect();
        let mut total = Stats::new(&labels);
        let resumed = match resume {
            true => Manifest::resume(&manifest, header, &mut total)?,
            false => None,
        };
        let (manifest, done) = match resumed {
            Some((manifest, done)) => (manifest, done),
            None => {
                layout.create()?;
                (Manifest::create(&manifest, header)?, Done::default())
            }
        };
        let path = layout.rejects();
        let mut options = OpenOptions::new();
        let rejects = options.create(true).append(true).open(&path).writing(&path)?;
        let rejects_bytes = done.parts.last().map_or(0, |part| part.rejects_bytes);
        if rejects.metadata().reading(&path)?.len() < rejects_bytes {
            let reason = format!("{} is shorter than it says", shown(&path));
            return Err(ArchiveError::Resume { path: shown(&layout.manifest()), reason });
        }
        rejects.set_len(rejects_bytes).writing(&path)?;
        let Done { parts: done, complete, sha256 } = done;
        let output = Self {
            layout,
            schema,
            manifest,
            rejects,
            rejects_bytes,
            memory,
            part: None,
            done,
            total,
            labels,
        };
        let mut resumed = Resumed {
            rows: output.done.iter().map(|part| part.rows).sum(),
            complete,
            ..Resumed::default()
        };
        if complete {
            output.check_finished(sha256.as_deref())?;
        } else {
            output.layout.create()?;
            output.check_parts()?;
            output.recall(&mut resumed)?;
        }
        Ok((output, resumed))
    }

    /// The counts over all committed parts.
    pub(super) fn stats(&self) -> &Stats {
        &self.total
    }

    /// Parts that are committed.
    pub(super) fn parts(&self) -> u64 {
        self.done.len() as u64
    }

    /// Writes a scored row.
    pub(super) fn write(
        &mut self,
        record: &Record,
        counted: &Counted<'_>,
    ) -> Result<(), ArchiveError> {
        let path = self.current_path();
        let part = self.current()?;
        part.1.writer.write(part.0, record).writing(&path)?;
        part.1.stats.count(counted);
        part.1.rows += 1;
        Ok(())
    }

    /// Writes a row without an answer.
    pub(super) fn reject(
        &mut self,
        file: &str,
        row: u64,
        id: Option<&str>,
        reject: &Reject,
    ) -> Result<(), ArchiveError> {
        let id = id.map(|id| id.chars().take(MAX_ID_CHARS).collect());
        let line = RejectLine { file, row, id, reason: reject.reason, message: &reject.message };
        let path = self.layout.rejects();
        let (_, part) = self.current()?;
        append_line(&mut part.rejects, &line).writing(&path)?;
        part.stats.count_reject(file, row, reject);
        part.rows += 1;
        Ok(())
    }

    /// Keeps what became of a text, for duplicates after a resumption.
    pub(super) fn remember(
        &mut self,
        key: &TextKey,
        outcome: &Outcome,
    ) -> Result<(), ArchiveError> {
        let outcome = outcome.as_ref().map(|answer| Answer::clone(answer)).map_err(Reject::clone);
        let line = TextLine { key: hex(key), outcome };
        let path = self.layout.work();
        let (_, part) = self.current()?;
        append_line(&mut part.answers, &line).writing(&path)?;
        part.texts += 1;
        Ok(())
    }

    /// Ends the current part, for good.
    pub(super) fn commit(&mut self) -> Result<(), ArchiveError> {
        self.current()?;
        let Some(mut part) = self.part.take() else { return Ok(()) };
        let number = self.parts();
        let name = self.layout.part_name(number);
        part.writer.finish().writing(&part.temporary)?;
        let (bytes, sha256) = digest(&part.temporary, &AtomicBool::new(false))?;
        rename(&part.temporary, &self.layout.parts().join(&name))?;
        if self.memory > 0 {
            let answers = self.layout.answers(number);
            let mut file = File::create(&answers).writing(&answers)?;
            file.write_all(&part.answers).and_then(|()| file.sync_all()).writing(&answers)?;
            sync_parent(&answers)?;
        }
        let rejects = self.layout.rejects();
        self.rejects.write_all(&part.rejects).writing(&rejects)?;
        self.rejects.sync_all().writing(&rejects)?;
        self.rejects_bytes += part.rejects.len() as u64;
        part.stats.settle();
        let entry = PartEntry {
            part: number,
            name,
            rows: part.rows,
            bytes,
            sha256,
            texts: part.texts,
            rejects_bytes: self.rejects_bytes,
        };
        self.manifest.part(&entry, &part.stats)?;
        self.total.add(part.stats);
        self.done.push(entry);
        self.forget()
    }

    /// Ends the output: puts its one file together, if it is to be one, and removes
    /// what only the run needed.
    pub(super) fn finish(&mut self) -> Result<(), ArchiveError> {
        let sha256 = if self.layout.single {
            let whole = self.layout.work().join("whole");
            let parts: Vec<PathBuf> =
                self.done.iter().map(|part| self.layout.parts().join(&part.name)).collect();
            assemble::assemble(self.layout.format, &parts, &whole)?;
            rename(&whole, &self.layout.output)?;
            Some(digest(&self.layout.output, &AtomicBool::new(false))?.1)
        } else {
            None
        };
        self.manifest.complete(self.done.iter().map(|part| part.rows).sum(), sha256)?;
        self.layout.clear_work()
    }

    fn current_path(&self) -> PathBuf {
        self.layout.parts().join(format!(".{}.tmp", self.layout.part_name(self.parts())))
    }

    fn current(&mut self) -> Result<(&Schema, &mut Part), ArchiveError> {
        let part = match self.part.take() {
            Some(part) => part,
            None => {
                let temporary = self.current_path();
                let file = File::create(&temporary).writing(&temporary)?;
                let writer = RecordWriter::new(self.layout.format, file, &self.schema);
                Part {
                    writer: writer.writing(&temporary)?,
                    temporary,
                    rows: 0,
                    texts: 0,
                    rejects: Vec::new(),
                    answers: Vec::new(),
                    stats: Stats::new(&self.labels),
                }
            }
        };
        Ok((&self.schema, self.part.insert(part)))
    }

    /// Removes answers that no duplicate will ask for.
    fn forget(&mut self) -> Result<(), ArchiveError> {
        let kept = self.parts_remembered();
        let last_forgotten = self.done.len().checked_sub(kept + 1);
        match last_forgotten.and_then(|index| self.done.get(index)) {
            Some(part) => remove(&self.layout.answers(part.part)),
            None => Ok(()),
        }
    }

    /// How many of the last parts hold all texts that are remembered.
    fn parts_remembered(&self) -> usize {
        let mut texts = 0;
        let newest_first = self.done.iter().rev();
        let enough = newest_first.take_while(|part| {
            let more = texts < self.memory as u64;
            texts += part.texts;
            more
        });
        enough.count()
    }

    /// Reads the texts that are remembered.
    fn recall(&self, resumed: &mut Resumed) -> Result<(), ArchiveError> {
        let kept = self.parts_remembered();
        let first = self.done.len() - kept;
        let (forgotten, kept) = self.done.split_at_checked(first).unwrap_or_default();
        resumed.first_text = forgotten.iter().map(|part| part.texts).sum();
        for part in kept {
            let path = self.layout.answers(part.part);
            let reader = BufReader::new(File::open(&path).reading(&path)?);
            for line in reader.lines() {
                let line = line.reading(&path)?;
                let text: Option<TextLine> = serde_json::from_str(&line).ok();
                let parsed = text.and_then(|text| Some((unhex(&text.key)?, text.outcome)));
                let Some((key, outcome)) = parsed else {
                    return Err(self.refused(format!("{} is damaged", shown(&path))));
                };
                resumed.texts.push((key, outcome.map(Arc::new)));
            }
        }
        Ok(())
    }

    /// # Errors
    /// If a part is not what the manifest says.
    fn check_parts(&self) -> Result<(), ArchiveError> {
        for part in &self.done {
            let path = self.layout.parts().join(&part.name);
            let found = self.written(&path)?;
            if found != (part.bytes, part.sha256.clone()) {
                return Err(self.refused(format!("{} is not as it was written", shown(&path))));
            }
        }
        Ok(())
    }

    /// # Errors
    /// If a finished output is not there, or not as it was.
    fn check_finished(&self, sha256: Option<&str>) -> Result<(), ArchiveError> {
        if !self.layout.single {
            self.check_parts()?;
            return self.layout.clear_work();
        }
        let output = &self.layout.output;
        let (_, found) = self.written(output)?;
        match sha256 {
            Some(sha256) if sha256 != found => {
                Err(self.refused(format!("{} is not as it was written", shown(output))))
            }
            _ => self.layout.clear_work(),
        }
    }

    /// Size and SHA-256 of what the manifest says is at `path`.
    fn written(&self, path: &Path) -> Result<(u64, String), ArchiveError> {
        if !path.exists() {
            return Err(self.refused(format!("{} is gone", shown(path))));
        }
        digest(path, &AtomicBool::new(false))
    }

    fn refused(&self, reason: String) -> ArchiveError {
        ArchiveError::Resume { path: shown(&self.layout.manifest()), reason }
    }
}

fn append_line(bytes: &mut Vec<u8>, line: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *bytes, line)?;
    bytes.push(b'\n');
    Ok(())
}

fn unhex(text: &str) -> Option<TextKey> {
    let mut key = TextKey::default();
    for (place, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(key)
}
