//! The second stage: duplicates found, texts tokenised, rows put into groups.

use std::sync::mpsc::{Receiver, SyncSender};

use rayon::prelude::*;

use super::{Group, Item, Sent, Work};
use crate::archive::columns::Fields;
use crate::archive::input::Row;
use crate::archive::memory::{Keys, text_key};
use crate::archive::row::{Reject, RejectReason};
use crate::pipeline::{Classifier, ClassifyError, Document, LongText, Prepared};

/// Rows, and about bytes, of a group, however few tokens are to be read for them.
const GROUP_ROWS: usize = 1_024;
const GROUP_BYTES: usize = 8 << 20;

/// Finds duplicates, tokenises the others and puts them into groups.
pub(in crate::archive) struct Preparer<'a> {
    pub(in crate::archive) classifier: &'a Classifier,
    pub(in crate::archive) pool: &'a rayon::ThreadPool,
    pub(in crate::archive) long_text: LongText,
    pub(in crate::archive) keys: Option<Keys>,
    /// Rows of a part.
    pub(in crate::archive) part_rows: u64,
    /// Tokens of a group, at most, unless one document has more.
    pub(in crate::archive) group_tokens: usize,
}

impl Preparer<'_> {
    pub(in crate::archive) fn run(
        mut self,
        from: &Receiver<Sent<Vec<Row>>>,
        to: &SyncSender<Sent<Group>>,
    ) {
        let mut group = Group::default();
        let mut rows = 0;
        for chunk in from {
            let chunk = match chunk {
                Ok(Some(chunk)) => chunk,
                end => {
                    group.ends_part = rows > 0 && end.is_ok();
                    // What comes before an error is still done.
                    if to.send(Ok(Some(group))).is_ok() {
                        drop(to.send(end.map(|_| None)));
                    }
                    return;
                }
            };
            for item in self.prepare(chunk) {
                if group.is_full(&item, self.group_tokens)
                    && to.send(Ok(Some(std::mem::take(&mut group)))).is_err()
                {
                    return;
                }
                group.push(item);
                rows += 1;
                if rows == self.part_rows {
                    rows = 0;
                    group.ends_part = true;
                    if to.send(Ok(Some(std::mem::take(&mut group)))).is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn prepare(&mut self, rows: Vec<Row>) -> Vec<Item> {
        let mut items: Vec<Item> = rows.into_iter().map(|row| self.item(row)).collect();
        let (classifier, long_text) = (self.classifier, self.long_text);
        self.pool.install(|| {
            items.par_iter_mut().for_each(|item| {
                if let Work::Text(_, prepared) = &mut item.work {
                    *prepared = prepare(classifier, long_text, &mut item.fields);
                }
            });
        });
        items
    }

    fn item(&mut self, row: Row) -> Item {
        let Row { file, number, position, mut fields, refused } = row;
        let work = match refused {
            Some(reject) => Work::Refused(reject),
            None => self.work(&mut fields),
        };
        Item { file, row: number, position, fields, work }
    }

    fn work(&mut self, fields: &mut Fields) -> Work {
        let Some(keys) = &mut self.keys else {
            return Work::Text(None, Ok(Prepared::default()));
        };
        let key = text_key(&fields.title, &fields.text);
        match keys.see(key) {
            Some(number) => {
                fields.text = String::new();
                Work::Again(number)
            }
            None => Work::Text(Some(key), Ok(Prepared::default())),
        }
    }
}

impl Group {
    /// Whether `item` belongs into the next one.
    fn is_full(&self, item: &Item, max_tokens: usize) -> bool {
        let over = self.tokens + item.tokens() > max_tokens
            || self.bytes + item.fields.len() > GROUP_BYTES
            || self.items.len() >= GROUP_ROWS;
        over && !self.items.is_empty()
    }

    fn push(&mut self, item: Item) {
        self.tokens += item.tokens();
        self.bytes += item.fields.len();
        self.items.push(item);
    }
}

impl Item {
    fn tokens(&self) -> usize {
        match &self.work {
            Work::Text(_, Ok(prepared)) => prepared.usage().tokens,
            _ => 0,
        }
    }
}

fn prepare(
    classifier: &Classifier,
    long_text: LongText,
    fields: &mut Fields,
) -> Result<Prepared, Reject> {
    // The id is the archive's affair, so it has no part in this.
    let document = Document {
        id: String::new(),
        title: fields.title.clone(),
        text: std::mem::take(&mut fields.text),
    };
    classifier.prepare(&document, long_text).map_err(|error| {
        let reason = match &error {
            ClassifyError::Empty => RejectReason::Empty,
            ClassifyError::FieldTooLong { .. }
            | ClassifyError::TooLong { .. }
            | ClassifyError::TooManyWindows { .. } => RejectReason::TooLong,
            _ => RejectReason::NoAnswer,
        };
        Reject::new(reason, error.to_string())
    })
}
