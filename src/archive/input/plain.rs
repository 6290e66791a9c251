//! Plain text: one document a file, or one a line.

use std::io::Read;

use super::lines::{Line, Lines};
use super::{RowReader, not_utf8, too_large};
use crate::archive::error::FileError;
use crate::archive::row::{Cell, RawRow};

/// The columns of a text file, and those of a line.
const FILE_COLUMNS: [&str; 2] = ["id", "text"];
const LINE_COLUMNS: [&str; 1] = ["text"];

/// A file that is one document; its id is its name.
pub(super) struct TextFile {
    name: String,
    reader: Option<Box<dyn Read + Send>>,
    max_bytes: usize,
    wanted: Vec<String>,
}

impl TextFile {
    pub(super) fn new(name: &str, reader: Box<dyn Read + Send>, max_bytes: usize) -> Self {
        Self { name: name.to_owned(), reader: Some(reader), max_bytes, wanted: Vec::new() }
    }
}

impl RowReader for TextFile {
    fn columns(&mut self) -> Result<Vec<String>, FileError> {
        Ok(FILE_COLUMNS.map(str::to_owned).to_vec())
    }

    fn select(&mut self, wanted: &[String]) -> Result<(), FileError> {
        self.wanted = wanted.to_vec();
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<RawRow>, FileError> {
        let Some(mut reader) = self.reader.take() else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.by_ref().take(self.max_bytes as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > self.max_bytes {
            let rest = std::io::copy(&mut reader, &mut std::io::sink())?;
            let cells = Err(too_large(bytes.len() as u64 + rest, self.max_bytes));
            return Ok(Some(RawRow::new(1, cells)));
        }
        let text = String::from_utf8(bytes);
        let cells = text.map_err(|error| not_utf8(&error.utf8_error())).map(|text| {
            let cell = |name: &String| match name.as_str() {
                "id" => Cell::Text(self.name.clone()),
                "text" => Cell::Text(text.clone()),
                _ => Cell::Null,
            };
            self.wanted.iter().map(cell).collect()
        });
        Ok(Some(RawRow::new(1, cells)))
    }
}

/// A file of which each line is a document; blank lines are none.
pub(super) struct TextLines {
    lines: Lines,
    wanted: Vec<String>,
}

impl TextLines {
    pub(super) fn new(lines: Lines) -> Self {
        Self { lines, wanted: Vec::new() }
    }
}

impl RowReader for TextLines {
    fn columns(&mut self) -> Result<Vec<String>, FileError> {
        Ok(LINE_COLUMNS.map(str::to_owned).to_vec())
    }

    fn select(&mut self, wanted: &[String]) -> Result<(), FileError> {
        self.wanted = wanted.to_vec();
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<RawRow>, FileError> {
        while let Some((number, line)) = self.lines.next()? {
            let line = match line {
                Line::Whole(line) if line.trim_ascii().is_empty() => continue,
                Line::Whole(line) => str::from_utf8(line).map_err(|error| not_utf8(&error)),
                Line::TooLong(bytes) => Err(too_large(bytes, self.lines.max_bytes)),
            };
            let cells = line.map(|line| {
                let cell = |name: &String| match name.as_str() {
                    "text" => Cell::Text(line.to_owned()),
                    _ => Cell::Null,
                };
                self.wanted.iter().map(cell).collect()
            });
            return Ok(Some(RawRow::new(number, cells)));
        }
        Ok(None)
    }
}
