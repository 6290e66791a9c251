//! The documents that encoders are compared on, with their true labels where they have any.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Deserialize;

use crate::archive::columns::{ColumnNames, Fields};
use crate::archive::error::ArchiveError;
use crate::archive::gold::{self, GoldColumn};
use crate::archive::input::{InputFile, Row, Source, fingerprint};
use crate::archive::settings::ArchiveSettings;
use crate::archive::stats::GoldLabel;
use crate::bundle::Task;
use crate::pipeline::Document;

/// News of our own making, on all topics and in every mood, for who has none at hand.
const BUILT_IN: &str = include_str!("documents.jsonl");

/// Which columns of a file hold what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The column of the texts; guessed by default.
    pub text: Option<String>,
    /// The column of the titles; guessed by default.
    pub title: Option<String>,
    /// Columns of true labels; by default those that are named like a task.
    pub evaluate: Vec<GoldColumn>,
    /// Names of true labels with what the model calls them.
    pub aliases: BTreeMap<String, String>,
    /// Rows to read, spread evenly over the file; 0: all.
    pub limit: u64,
}

/// Documents to be read once, one after the other.
pub struct Documents {
    /// What they are called: the path of their file.
    pub(super) name: String,
    /// Their file.
    pub(super) file: Option<InputFile>,
    rows: Box<dyn Iterator<Item = Result<Row, ArchiveError>>>,
    /// For each task the index of its column among those of true labels.
    places: Vec<Option<usize>>,
    aliases: BTreeMap<String, String>,
}

/// A row that can be read.
pub(super) struct Labelled {
    pub(super) document: Document,
    /// The true label of each task, where the row has one that the model has too.
    pub(super) gold: Vec<Option<usize>>,
}

impl Documents {
    /// Those that come with this program, which have no true labels.
    ///
    /// # Errors
    /// None, unless the program was built of a broken file.
    pub fn built_in() -> Result<Self, ArchiveError> {
        #[derive(Deserialize)]
        struct News {
            title: String,
            text: String,
        }
        let read = |line: &str| serde_json::from_str(line);
        let news: Vec<News> = BUILT_IN.lines().map(read).collect::<Result<_, _>>().map_err(
            |error: serde_json::Error| {
                ArchiveError::Setting(format!("built-in documents: {error}"))
            },
        )?;
        let rows = news.into_iter().zip(1..).map(|(News { title, text }, number)| {
            let fields = Fields { title, text, ..Fields::default() };
            Ok(Row { file: 0, number, position: 0, fields, refused: None })
        });
        Ok(Self {
            name: "built-in documents".to_owned(),
            file: None,
            rows: Box::new(rows),
            places: Vec::new(),
            aliases: BTreeMap::new(),
        })
    }

    /// Those of the file at `path`, in any format and compression of an archive, with true labels
    /// of `tasks`.
    ///
    /// # Errors
    /// If the file cannot be read, its columns are not clear, or an alias is for no label.
    pub fn open(path: &Path, labels: &Labels, tasks: &[Task]) -> Result<Self, ArchiveError> {
        for alias in labels.aliases.values() {
            let known = |task: &Task| gold_label(task, alias).is_some();
            if !tasks.iter().any(known) {
                let message = format!("--alias: no task of the model has a label {alias:?}");
                return Err(ArchiveError::Setting(message));
            }
        }
        let files: Arc<[InputFile]> =
            fingerprint(&[path.to_owned()], &AtomicBool::new(false))?.into();
        let Some(file) = files.first().filter(|file| !file.is_stdin()).cloned() else {
            let message = "standard input can be read only once; give a file";
            return Err(ArchiveError::Setting(message.to_owned()));
        };
        let guess = labels.evaluate.is_empty();
        let names = ColumnNames {
            text: labels.text.clone(),
            title: labels.title.clone(),
            gold: labels.evaluate.iter().map(|gold| gold.column.clone()).collect(),
            gold_if_there: tasks.iter().filter(|_| guess).map(|task| task.name.clone()).collect(),
            ..ColumnNames::default()
        };
        let reading = ArchiveSettings::default().reading()?;
        let open = || Source::open(Arc::clone(&files), reading.clone(), &names);
        let source = open()?;
        let guessed = source
            .columns()
            .gold
            .iter()
            .map(|column| GoldColumn { column: column.clone(), task: None });
        let columns = if guess { guessed.collect() } else { labels.evaluate.clone() };
        let places = gold::assign(&columns, tasks).map_err(ArchiveError::Setting)?;
        let rows = rows(source);
        let rows: Box<dyn Iterator<Item = _>> = if labels.limit > 0 {
            let total = rows.map(|row| row.map(drop)).collect::<Result<Vec<_>, _>>()?.len() as u64;
            Box::new(spread(self::rows(open()?), labels.limit, total))
        } else {
            Box::new(rows)
        };
        let name = path.display().to_string();
        Ok(Self { name, file: Some(file), rows, places, aliases: labels.aliases.clone() })
    }

    /// The next row with the bytes of the file read so far. `None` stands for a row that has no
    /// text, which is left out.
    pub(super) fn next(
        &mut self,
        tasks: &[Task],
    ) -> Result<Option<(Option<Labelled>, u64)>, ArchiveError> {
        let Some(row) = self.rows.next().transpose()? else { return Ok(None) };
        let Row { fields, refused, position, .. } = row;
        let labelled = refused.is_none().then(|| {
            let value = |place: &Option<usize>| {
                let value = fields.gold.get((*place)?)?.as_deref()?.trim();
                Some(self.aliases.get(value).map_or(value, String::as_str))
            };
            let gold = tasks.iter().zip(&self.places);
            let gold = gold.map(|(task, place)| gold_label(task, value(place)?)).collect();
            let (title, text) = (fields.title, fields.text);
            Labelled { document: Document { id: String::new(), title, text }, gold }
        });
        Ok(Some((labelled, position)))
    }
}

fn gold_label(task: &Task, value: &str) -> Option<usize> {
    match gold::label(task, Some(value)) {
        GoldLabel::Known(label) => Some(label),
        GoldLabel::Unknown(_) | GoldLabel::Missing => None,
    }
}

fn rows(mut source: Source) -> impl Iterator<Item = Result<Row, ArchiveError>> {
    std::iter::from_fn(move || source.next_row(&AtomicBool::new(false)).transpose())
}

/// `limit` of `total` rows, evenly spread, since files are often in order of their labels.
fn spread<T>(rows: impl Iterator<Item = T>, limit: u64, total: u64) -> impl Iterator<Item = T> {
    let share = move |rows: u64| u128::from(rows) * u128::from(limit.min(total));
    let total = u128::from(total.max(1));
    let chosen = move |row: u64| share(row + 1) / total > share(row) / total;
    (0..).zip(rows).filter_map(move |(number, row)| chosen(number).then_some(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_takes_rows_from_the_whole_file() {
        let chosen = |limit, total| spread(1..=total, limit, total).collect::<Vec<u64>>();
        assert_eq!(chosen(3, 10), [4, 7, 10]);
        assert_eq!(chosen(10, 3), [1, 2, 3]);
        assert_eq!(chosen(700, 5_958).len(), 700);
        assert_eq!(chosen(5, 0), [] as [u64; 0]);
    }

    #[test]
    fn the_built_in_documents_can_be_read() {
        let mut documents = Documents::built_in().unwrap();
        let mut count = 0;
        while let Some((row, _)) = documents.next(&[]).unwrap() {
            let document = row.unwrap().document;
            assert!(!document.text.is_empty());
            count += 1;
        }
        assert!(count >= 40, "{count}");
    }
}
