//! JSON Lines.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::lines::{Line, Lines};
use super::{RowReader, not_utf8, too_large};
use crate::archive::error::FileError;
use crate::archive::row::{Cell, RawRow, Reject, RejectReason};

/// Lines, and about bytes, that are looked at to know the columns.
const MAX_LOOKED_AT: usize = 100;
const MAX_LOOKED_AT_BYTES: usize = 1 << 20;

/// A line with its number, or why it cannot be read.
type NumberedLine = (u64, Result<Vec<u8>, Reject>);

pub(super) struct JsonLines {
    lines: Lines,
    /// Lines that have been read to know the columns.
    looked_at: VecDeque<NumberedLine>,
    /// What ended that, to be told in its place.
    broken: Option<FileError>,
    wanted: Vec<String>,
}

impl JsonLines {
    pub(super) fn new(lines: Lines) -> Self {
        Self { lines, looked_at: VecDeque::new(), broken: None, wanted: Vec::new() }
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> Result<Option<NumberedLine>, FileError> {
        while let Some((number, line)) = self.lines.next()? {
            match line {
                Line::TooLong(bytes) => {
                    return Ok(Some((number, Err(too_large(bytes, self.lines.max_bytes)))));
                }
                Line::Whole(line) if line.trim_ascii().is_empty() => {}
                Line::Whole(line) => return Ok(Some((number, Ok(line.to_vec())))),
            }
        }
        Ok(None)
    }
}

impl RowReader for JsonLines {
    /// The keys of the first objects, since not each need have all of them.
    fn columns(&mut self) -> Result<Vec<String>, FileError> {
        let mut keys = BTreeSet::new();
        let mut bytes = 0;
        while self.looked_at.len() < MAX_LOOKED_AT && bytes < MAX_LOOKED_AT_BYTES {
            let (number, line) = match self.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) if self.looked_at.is_empty() => return Err(error),
                Err(error) => {
                    self.broken = Some(error);
                    break;
                }
            };
            if let Ok(line) = &line {
                bytes += line.len();
                if self.looked_at.is_empty() && line.trim_ascii_start().starts_with(b"[") {
                    return Err(FileError::Setting(
                        "it holds one JSON list; JSON Lines has one object a line, which \
                         `jq -c '.[]'` makes of it"
                            .to_owned(),
                    ));
                }
                let object: Result<BTreeMap<String, IgnoredAny>, _> = serde_json::from_slice(line);
                keys.extend(object.unwrap_or_default().into_keys());
            }
            self.looked_at.push_back((number, line));
        }
        Ok(keys.into_iter().collect())
    }

    fn select(&mut self, wanted: &[String]) -> Result<(), FileError> {
        self.wanted = wanted.to_vec();
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<RawRow>, FileError> {
        let line = match self.looked_at.pop_front() {
            Some(line) => Some(line),
            None => match self.broken.take() {
                Some(error) => return Err(error),
                None => self.next_line()?,
            },
        };
        Ok(line.map(|(number, line)| {
            let cells = line.and_then(|line| parse(&line, &self.wanted));
            RawRow::new(number, cells)
        }))
    }
}

fn parse(line: &[u8], wanted: &[String]) -> Result<Vec<Cell>, Reject> {
    let text = str::from_utf8(line).map_err(|error| not_utf8(&error))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let cells = Columns(wanted).deserialize(&mut json);
    let cells = cells.and_then(|cells| json.end().map(|()| cells));
    cells.map_err(|error| Reject::new(RejectReason::Malformed, format!("broken JSON: {error}")))
}

/// Takes the wanted members of an object and goes over the others.
struct Columns<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for Columns<'_> {
    type Value = Vec<Cell>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Columns<'_> {
    type Value = Vec<Cell>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut cells = vec![Cell::Null; self.0.len()];
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let place = self.0.iter().position(|name| *name == key);
            match place.and_then(|place| cells.get_mut(place)) {
                Some(cell) => *cell = cell_of(map.next_value()?)?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(cells)
    }
}

fn cell_of<E: serde::de::Error>(raw: &RawValue) -> Result<Cell, E> {
    Ok(match raw.get() {
        "null" => Cell::Null,
        text if text.starts_with('"') => Cell::Text(serde_json::from_str(text).map_err(E::custom)?),
        // Outside of strings, where it is escaped, it is white space, and a line for some readers.
        other => Cell::Json(other.replace('\r', " ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(line: &str) -> Result<Vec<Cell>, Reject> {
        parse(line.as_bytes(), &["id".to_owned(), "text".to_owned()])
    }

    #[test]
    fn numbers_keep_their_digits_and_escapes_are_read() {
        let line = r#" {"text":"\u062e\"","x":{"id":[1]},"id":12345678901234567890123.50} "#;
        let expected = [Cell::Json("12345678901234567890123.50".into()), Cell::Text("خ\"".into())];
        assert_eq!(cells(line).unwrap(), expected);
        let broken = "{\"id\":[1,\r2],\"text\":\"\\r\"}";
        let expected = [Cell::Json("[1, 2]".into()), Cell::Text("\r".into())];
        assert_eq!(cells(broken).unwrap(), expected);
        assert_eq!(cells(r#"{"text":null}"#).unwrap(), [Cell::Null, Cell::Null]);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for line in ["", "[]", "{", r#"{"text":"a"} {"#, r#"{"text":"\ud800"}"#, "\"text\""] {
            let reject = cells(line).unwrap_err();
            assert_eq!(reject.reason, RejectReason::Malformed, "{line}: {reject}");
        }
        let reject = parse(b"{\"text\":\"\xff\"}", &[]).unwrap_err();
        assert_eq!(reject.reason, RejectReason::InvalidEncoding);
    }
}
