//! CSV and TSV with a header.
//!
//! `csv-core` parses; this bounds what one record may take, since an open quote
//! makes the rest of a file one field.

use std::io::{BufRead, BufReader, Read};

use csv_core::ReadRecordResult;

use super::{RowReader, not_utf8, too_large};
use crate::archive::error::FileError;
use crate::archive::row::{Cell, RawRow, Reject, RejectReason};

const BUFFER_BYTES: usize = 64 << 10;
/// Where the buffers of a record start to grow from.
const RECORD_BYTES: usize = 4 << 10;

pub(super) struct Delimited {
    records: Records,
    header: Vec<String>,
    /// Where each wanted column stands, if the file has it.
    places: Vec<Option<usize>>,
    rows: u64,
}

impl Delimited {
    pub(super) fn new(reader: Box<dyn Read + Send>, delimiter: u8, max_bytes: usize) -> Self {
        let records = Records::new(reader, delimiter, max_bytes);
        Self { records, header: Vec::new(), places: Vec::new(), rows: 0 }
    }

    fn cells(&self, record: &Record<'_>) -> Result<Vec<Cell>, Reject> {
        let (expected, found) = (self.header.len(), record.ends.len());
        if found != expected {
            let message = format!("it has {found} fields; the header has {expected}");
            return Err(Reject::new(RejectReason::Malformed, message));
        }
        let cell = |place: &Option<usize>| {
            let Some(place) = place else { return Ok(Cell::Null) };
            let text = str::from_utf8(record.field(*place)).map_err(|error| not_utf8(&error))?;
            Ok(Cell::Text(text.to_owned()))
        };
        self.places.iter().map(cell).collect()
    }
}

impl RowReader for Delimited {
    fn columns(&mut self) -> Result<Vec<String>, FileError> {
        self.header = match self.records.next()? {
            None => return Ok(vec![]),
            Some(Err(bytes)) => {
                return Err(FileError::Damaged(format!("the header has {bytes} bytes")));
            }
            Some(Ok(record)) => (0..record.ends.len())
                .map(|place| String::from_utf8_lossy(record.field(place)).trim().to_owned())
                .collect(),
        };
        Ok(self.header.clone())
    }

    fn select(&mut self, wanted: &[String]) -> Result<(), FileError> {
        let place = |name: &String| self.header.iter().position(|column| column == name);
        self.places = wanted.iter().map(place).collect();
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<RawRow>, FileError> {
        // The record borrows the buffers, which `cells` does not touch.
        let mut records = std::mem::take(&mut self.records);
        let max_bytes = records.max_bytes;
        let cells = match records.next()? {
            None => None,
            Some(Err(bytes)) => Some(Err(too_large(bytes, max_bytes))),
            Some(Ok(record)) => Some(self.cells(&record)),
        };
        self.records = records;
        self.rows += 1;
        Ok(cells.map(|cells| RawRow::new(self.rows, cells)))
    }
}

/// Splits a stream into records of bounded size.
struct Records {
    reader: BufReader<Box<dyn Read + Send>>,
    parser: csv_core::Reader,
    max_bytes: usize,
    /// The fields of the record, end to end.
    fields: Vec<u8>,
    /// Where each field ends in `fields`.
    ends: Vec<usize>,
}

struct Record<'a> {
    fields: &'a [u8],
    ends: &'a [usize],
}

impl Record<'_> {
    /// Field `place`, empty past the last.
    fn field(&self, place: usize) -> &[u8] {
        let start = place.checked_sub(1).and_then(|before| self.ends.get(before).copied());
        let end = self.ends.get(place).copied().unwrap_or_default();
        self.fields.get(start.unwrap_or_default()..end).unwrap_or_default()
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::new(Box::new(std::io::empty()), b',', 0)
    }
}

impl Records {
    fn new(reader: Box<dyn Read + Send>, delimiter: u8, max_bytes: usize) -> Self {
        Self {
            reader: BufReader::with_capacity(BUFFER_BYTES, reader),
            parser: csv_core::ReaderBuilder::new().delimiter(delimiter).build(),
            max_bytes,
            fields: vec![0; RECORD_BYTES.min(max_bytes + 1)],
            ends: vec![0; RECORD_BYTES / 16],
        }
    }

    /// The next record, or of one over the bound its length; `None` at the end.
    fn next(&mut self) -> std::io::Result<Option<Result<Record<'_>, u64>>> {
        let (mut written, mut fields, mut dropped) = (0, 0, 0u64);
        loop {
            let input = match self.reader.fill_buf() {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                input => input?,
            };
            let output = self.fields.get_mut(written..).unwrap_or_default();
            let ends = self.ends.get_mut(fields..).unwrap_or_default();
            let (result, read, wrote, ended) = self.parser.read_record(input, output, ends);
            self.reader.consume(read);
            written += wrote;
            fields += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.fields.len() > self.max_bytes => {
                    // Parsed on to its end, but into nothing.
                    dropped += written as u64;
                    (written, fields) = (0, 0);
                }
                ReadRecordResult::OutputFull => {
                    self.fields.resize((self.fields.len() * 2).min(self.max_bytes + 1), 0);
                }
                // A field takes a delimiter of the input, so there can be no more of
                // them than bytes allowed.
                ReadRecordResult::OutputEndsFull if self.ends.len() > self.max_bytes => {
                    dropped += fields as u64;
                    (written, fields) = (0, 0);
                }
                ReadRecordResult::OutputEndsFull => {
                    self.ends.resize((self.ends.len() * 2).min(self.max_bytes + 1), 0);
                }
                ReadRecordResult::Record if dropped > 0 => {
                    return Ok(Some(Err(dropped + written as u64)));
                }
                ReadRecordResult::Record => {
                    let fields_bytes = self.fields.get(..written).unwrap_or_default();
                    let ends = self.ends.get(..fields).unwrap_or_default();
                    return Ok(Some(Ok(Record { fields: fields_bytes, ends })));
                }
                ReadRecordResult::End => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_hold_quotes_and_line_ends_and_are_bounded() {
        let text = "id,text\r\n1,\"a, \"\"b\"\"\nc\"\n2,only\n3\n4,".to_owned() + &"x".repeat(50);
        let input = Box::new(std::io::Cursor::new(text.into_bytes()));
        let mut reader = Delimited::new(input, b',', 20);
        reader.records.fields = vec![0; 4];
        assert_eq!(reader.columns().unwrap(), ["id", "text"]);
        reader.select(&["text".to_owned(), "absent".to_owned()]).unwrap();
        let mut rows = Vec::new();
        while let Some(row) = reader.next_row().unwrap() {
            rows.push(row);
        }
        let cells = |row: usize| rows[row].cells.as_ref().unwrap();
        let text = |row: usize| cells(row).as_ref().unwrap()[0].as_str();
        assert_eq!((text(0), text(1), rows.len()), ("a, \"b\"\nc", "only", 4));
        let reason = |row: usize| cells(row).as_ref().unwrap_err().reason;
        assert_eq!(reason(2), RejectReason::Malformed);
        assert_eq!(reason(3), RejectReason::RowTooLarge);
        let message = cells(3).as_ref().unwrap_err().to_string();
        assert!(message.contains("more than 20;"), "{message}");
    }
}
