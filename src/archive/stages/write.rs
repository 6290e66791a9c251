//! The last stage: rows written, parts committed.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::{Group, Item, Sent, Work, no_answer};
use crate::archive::dates;
use crate::archive::error::ArchiveError;
use crate::archive::gold;
use crate::archive::input::InputFile;
use crate::archive::memory::Outcomes;
use crate::archive::output::{Output, Record, Schema};
use crate::archive::progress::Progress;
use crate::archive::row::Cell;
use crate::archive::stats::Counted;

/// Writes groups and commits parts.
pub(in crate::archive) struct Writer<'a> {
    pub(in crate::archive) output: &'a mut Output,
    pub(in crate::archive) files: &'a [InputFile],
    pub(in crate::archive) schema: &'a Schema,
    /// Whether the archive has dates.
    pub(in crate::archive) dated: bool,
    /// For each task the place of its true labels in the fields.
    pub(in crate::archive) gold: &'a [Option<usize>],
    pub(in crate::archive) outcomes: Outcomes,
    pub(in crate::archive) strict: bool,
    pub(in crate::archive) progress: &'a Progress,
}

impl Writer<'_> {
    /// # Errors
    /// If a stage before, or the disk, fails, or a row is refused that must not be.
    pub(in crate::archive) fn run(
        mut self,
        from: &Receiver<Sent<Group>>,
    ) -> Result<(), ArchiveError> {
        loop {
            // Without the end, rows that nobody has seen would be taken for done.
            let Ok(group) = from.recv() else { return Err(ArchiveError::Broken("scoring")) };
            let Some(group) = group? else { break };
            for item in group.items {
                self.write(item)?;
            }
            if group.ends_part {
                self.commit()?;
            }
        }
        if self.output.parts() == 0 {
            self.commit()?; // of no rows, so that there is an output
        }
        self.output.finish()
    }

    fn commit(&mut self) -> Result<(), ArchiveError> {
        self.output.commit()?;
        tracing::debug!(parts = self.output.parts(), "part written");
        self.progress.committed(self.output.parts());
        Ok(())
    }

    fn write(&mut self, item: Item) -> Result<(), ArchiveError> {
        let Item { file, row, position, fields, work } = item;
        let (outcome, duplicate) = match work {
            Work::Refused(reject) => (Err(reject), false),
            Work::Done(key, outcome) => {
                if let Some(key) = key {
                    self.output.remember(&key, &outcome)?;
                    self.outcomes.push(outcome.clone());
                }
                (outcome, false)
            }
            Work::Again(number) => {
                let known = self.outcomes.get(number).cloned();
                (known.unwrap_or_else(|| Err(no_answer("its text is forgotten"))), true)
            }
            Work::Text(..) => (Err(no_answer("it was not classified")), false),
        };
        let file = self.files.get(file).map_or("", |file| file.path.as_str());
        match outcome {
            Err(reject) => {
                if self.strict {
                    return Err(ArchiveError::Strict { path: file.to_owned(), row, reject });
                }
                let id = (fields.id != Cell::Null).then(|| fields.id.as_str());
                self.output.reject(file, row, id, &reject)?;
                self.progress.rejected(position);
            }
            Ok(answer) => {
                let gold = |(place, task): (&Option<usize>, _)| {
                    let value = fields.gold.get((*place)?)?;
                    Some(gold::label(task, value.as_deref()))
                };
                let counted = Counted {
                    file,
                    row,
                    id: fields.id.as_str(),
                    title: &fields.title,
                    month: self.dated.then(|| fields.date.as_deref().and_then(dates::month)),
                    answer: &answer,
                    duplicate,
                    gold: self.gold.iter().zip(&self.schema.tasks).map(gold).collect(),
                };
                let record = Record {
                    file: file.to_owned(),
                    row,
                    id: fields.id.clone(),
                    keep: fields.keep.clone(),
                    answer: Arc::clone(&answer),
                };
                self.output.write(&record, &counted)?;
                self.progress.scored(position, answer.tokens as u64, duplicate);
            }
        }
        Ok(())
    }
}
