//! Which columns of an archive mean what.

use serde::{Deserialize, Serialize};

use super::row::{Cell, Reject, RejectReason};

/// The names by which a column is guessed, the first found being taken; compared
/// without case.
const TEXT_NAMES: [&str; 14] = [
    "text",
    "content",
    "body",
    "article",
    "maintext",
    "main_text",
    "article_text",
    "full_text",
    "fulltext",
    "article_body",
    "النص",
    "نص",
    "المحتوى",
    "الخبر",
];
const TITLE_NAMES: [&str; 5] = ["title", "headline", "heading", "العنوان", "عنوان"];
const ID_NAMES: [&str; 10] =
    ["id", "_id", "doc_id", "article_id", "document_id", "guid", "uuid", "url", "link", "الرابط"];
const DATE_NAMES: [&str; 12] = [
    "date",
    "published",
    "published_at",
    "publish_date",
    "date_publish",
    "pub_date",
    "pubdate",
    "publication_date",
    "created_at",
    "datetime",
    "timestamp",
    "التاريخ",
];

/// The columns that the caller names; the rest is guessed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnNames {
    /// Each document's id.
    pub id: Option<String>,
    /// Headlines.
    pub title: Option<String>,
    /// Articles.
    pub text: Option<String>,
    /// When they were published.
    pub date: Option<String>,
    /// Columns that the output has too, each with its name there.
    pub keep: Vec<Keep>,
    /// Columns of true labels.
    pub gold: Vec<String>,
    /// The same, but only if they are there.
    pub gold_if_there: Vec<String>,
}

/// A column that the output has too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// Its name in the archive.
    pub column: String,
    /// Its name in the output.
    pub name: String,
}

/// The columns that are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    /// Each document's id.
    pub id: Option<String>,
    /// Headlines.
    pub title: Option<String>,
    /// Articles.
    pub text: String,
    /// When they were published.
    pub date: Option<String>,
    /// Columns that the output has too.
    pub keep: Vec<Keep>,
    /// Columns of true labels.
    pub gold: Vec<String>,
}

/// What is needed of a row that can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) id: Cell,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) date: Option<String>,
    /// A cell for each column that is kept.
    pub(super) keep: Vec<Cell>,
    /// The true label of each column of them.
    pub(super) gold: Vec<Option<String>>,
}

impl Fields {
    /// Bytes that they hold.
    pub(super) fn len(&self) -> usize {
        let kept: usize = self.keep.iter().map(Cell::len).sum();
        let labels: usize = self.gold.iter().flatten().map(String::len).sum();
        let date = self.date.as_ref().map_or(0, String::len);
        self.id.len() + self.title.len() + self.text.len() + date + kept + labels
    }
}

impl Columns {
    /// The named columns, and for the others what the names of `found` say. `found`
    /// is empty if the archive has no rows, or its first is broken.
    ///
    /// # Errors
    /// In words, if no column looks like the text.
    pub(super) fn resolve(names: &ColumnNames, found: &[String]) -> Result<Self, String> {
        let guess = |candidates: &[&str]| {
            candidates
                .iter()
                .find_map(|name| found.iter().find(|column| column.to_lowercase() == *name))
                .cloned()
        };
        let text = names.text.clone().or_else(|| guess(&TEXT_NAMES));
        let text = match text {
            Some(text) => text,
            // Without a row there is nothing to read either.
            None if found.is_empty() => "text".to_owned(),
            None => {
                return Err(format!(
                    "no column looks like the text; name it with --text. There is {}",
                    listed(found)
                ));
            }
        };
        let there = names.gold_if_there.iter().filter(|name| found.contains(name));
        let columns = Self {
            id: names.id.clone().or_else(|| guess(&ID_NAMES)),
            title: names.title.clone().or_else(|| guess(&TITLE_NAMES)),
            text,
            date: names.date.clone().or_else(|| guess(&DATE_NAMES)),
            keep: names.keep.clone(),
            gold: names.gold.iter().chain(there).cloned().collect(),
        };
        Ok(columns)
    }

    /// The columns that a file with a fixed set, `found`, should have and does not.
    pub(super) fn missing(&self, found: &[String]) -> Vec<&str> {
        self.wanted().filter(|name| !found.iter().any(|column| column == name)).collect()
    }

    /// The names of all of them, some perhaps twice.
    fn wanted(&self) -> impl Iterator<Item = &str> + '_ {
        let optional = [&self.id, &self.title, &self.date].into_iter().flatten();
        std::iter::once(&self.text)
            .chain(optional)
            .chain(self.keep.iter().map(|keep| &keep.column))
            .chain(&self.gold)
            .map(String::as_str)
    }

    /// The names of all of them, each once, in the order in which
    /// [`fields`](Self::fields) takes their cells.
    pub(super) fn selection(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.wanted() {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names
    }

    /// The fields in `cells`, which are those of [`selection`](Self::selection), and, if
    /// there is no text among them, why the row is refused.
    pub(super) fn fields(&self, selection: &[String], cells: &[Cell]) -> (Fields, Option<Reject>) {
        let cell = |name: &str| {
            selection.iter().position(|known| known == name).and_then(|place| cells.get(place))
        };
        let text_of = |name: &Option<String>| {
            let cell = name.as_deref().and_then(cell);
            cell.map(Cell::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let name = &self.text;
        let (text, refused) = match cell(name) {
            Some(Cell::Text(text)) => (text.clone(), None),
            None | Some(Cell::Null) => {
                let message = format!("it has no column {name:?}, or null in it");
                (String::new(), Some(Reject::new(RejectReason::MissingText, message)))
            }
            Some(Cell::Json(_)) => {
                let message = format!("column {name:?} holds no text");
                (String::new(), Some(Reject::new(RejectReason::NotText, message)))
            }
        };
        let fields = Fields {
            id: self.id.as_deref().and_then(cell).cloned().unwrap_or_default(),
            title: text_of(&self.title).unwrap_or_default(),
            text,
            date: text_of(&self.date),
            keep: self
                .keep
                .iter()
                .map(|keep| cell(&keep.column).cloned().unwrap_or_default())
                .collect(),
            gold: self.gold.iter().map(|name| text_of(&Some(name.clone()))).collect(),
        };
        (fields, refused)
    }
}

/// Names for a message.
pub(super) fn listed(names: &[String]) -> String {
    const SHOWN: usize = 40;
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("{name:?}")).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_kept_of_a_row_counts() {
        let fields = Fields {
            id: Cell::Text("1".to_owned()),
            title: "22".to_owned(),
            text: "333".to_owned(),
            date: Some("4444".to_owned()),
            keep: vec![Cell::Text("55555".to_owned()), Cell::Null],
            gold: vec![None, Some("666666".to_owned())],
        };
        assert_eq!(fields.len(), 21);
    }
}
