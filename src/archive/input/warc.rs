//! WARC files, as crawlers write them (ISO 28500): a document is a record with a page
//! or a text in it. Other records are passed over, but counted, and what a crawler cut
//! is set aside, since half an article may say something else than the whole.
//!
//! `httparse` reads the fields of a record, which are written as those of HTTP are.

use std::io::{BufRead, BufReader, Read, Take};

use encoding_rs::{Encoding, UTF_8};

use super::html::article;
use super::http::{self, Fields, Kind};
use super::{RowReader, malformed, too_large};
use crate::archive::error::FileError;
use crate::archive::row::{Cell, RawRow, Reject, RejectReason};

const BUFFER_BYTES: usize = 64 << 10;
/// Bytes that the fields of a record, or of a response in it, may have.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Bytes from the start of a page among which its encoding is looked for.
const MAX_DECLARATION_BYTES: usize = 4 << 10;
const COLUMNS: [&str; 5] = ["id", "url", "date", "title", "text"];

type Reader = BufReader<Box<dyn Read + Send>>;

/// The documents of a WARC file.
pub(super) struct Warc {
    reader: Reader,
    limits: http::Limits,
    /// That of a page or text that does not say its own.
    encoding: &'static Encoding,
    wanted: Vec<String>,
    records: u64,
}

/// What is in a record.
struct Document {
    title: String,
    text: String,
}

impl Warc {
    pub(super) fn new(
        reader: Box<dyn Read + Send>,
        limits: http::Limits,
        encoding: &'static Encoding,
    ) -> Self {
        let reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        Self { reader, limits, encoding, wanted: Vec::new(), records: 0 }
    }

    fn damaged(&self, message: &str) -> FileError {
        FileError::Damaged(format!("{message} (record {})", self.records))
    }

    /// The fields of the next record; `None` at the end.
    fn head(&mut self) -> Result<Option<Fields>, FileError> {
        loop {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            if buffer.is_empty() {
                return Ok(None);
            }
            // Two of these end the record before.
            let blank = buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let found = blank < buffer.len();
            self.reader.consume(blank);
            if found {
                break;
            }
        }
        self.records += 1;
        let mut head = Vec::new();
        let mut fields_at = None;
        loop {
            let room = (MAX_HEAD_BYTES - head.len().min(MAX_HEAD_BYTES)) as u64;
            let start = head.len();
            (&mut self.reader).take(room).read_until(b'\n', &mut head)?;
            let line = head.get(start..).unwrap_or_default();
            if fields_at.is_none() && !line.starts_with(b"WARC/") {
                return Err(self.damaged("no record begins where one should"));
            }
            fields_at.get_or_insert(head.len());
            if line.last() != Some(&b'\n') {
                return Err(match head.len() < MAX_HEAD_BYTES {
                    true => self.damaged("it ends inside a record"),
                    false => self.damaged(&format!(
                        "the fields of a record have more than {MAX_HEAD_BYTES} bytes"
                    )),
                });
            }
            if matches!(line, b"\n" | b"\r\n") {
                break;
            }
        }
        let fields = head.get(fields_at.unwrap_or_default()..).unwrap_or_default();
        let fields = Fields::parse(fields).map(|(fields, _)| fields);
        fields.map(Some).map_err(|why| self.damaged(&format!("the fields of a record {why}")))
    }
}

impl RowReader for Warc {
    fn columns(&mut self) -> Result<Vec<String>, FileError> {
        Ok(COLUMNS.map(str::to_owned).to_vec())
    }

    fn select(&mut self, wanted: &[String]) -> Result<(), FileError> {
        self.wanted = wanted.to_vec();
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<RawRow>, FileError> {
        let Some(fields) = self.head()? else { return Ok(None) };
        let length = fields.get("content-length").and_then(|length| length.parse().ok());
        let length: u64 = length.ok_or_else(|| self.damaged("a record does not say its length"))?;
        let mut body = (&mut self.reader).take(length);
        let document = document(&fields, &mut body, self.limits, self.encoding)?;
        std::io::copy(&mut body, &mut std::io::sink())?;
        if body.limit() > 0 {
            return Err(self.damaged("it ends inside a record"));
        }
        let cells = document
            .map(|document| document.map(|document| cells(&self.wanted, &fields, &document)));
        Ok(Some(RawRow { number: self.records, cells }))
    }
}

fn cells(wanted: &[String], fields: &Fields, document: &Document) -> Vec<Cell> {
    let field = |name| fields.get(name).map_or(Cell::Null, |value| Cell::Text(bare(value)));
    let cell = |name: &String| match name.as_str() {
        "id" => field("warc-record-id"),
        "url" => field("warc-target-uri"),
        "date" => field("warc-date"),
        "title" => Cell::Text(document.title.clone()),
        "text" => Cell::Text(document.text.clone()),
        _ => Cell::Null,
    };
    wanted.iter().map(cell).collect()
}

/// An id or address without what is written around it.
fn bare(value: &str) -> String {
    let inner = value.strip_prefix('<').and_then(|value| value.strip_suffix('>'));
    let inner = inner.unwrap_or(value);
    inner.strip_prefix("urn:uuid:").unwrap_or(inner).to_owned()
}

/// The document in a record, or why it cannot be read; `None` if it holds none.
fn document(
    fields: &Fields,
    body: &mut Take<&mut Reader>,
    limits: http::Limits,
    encoding: &'static Encoding,
) -> std::io::Result<Option<Result<Document, Reject>>> {
    let length = body.limit();
    let (response, content_type, mut bytes) = match fields.get("warc-type").unwrap_or_default() {
        "response" if fields.media_type("content-type") == "application/http" => {
            let mut start = Vec::new();
            body.by_ref().take(MAX_HEAD_BYTES as u64).read_to_end(&mut start)?;
            let (response, head_bytes) = match http::Response::parse(&start) {
                Ok(parsed) => parsed,
                Err(why) => return Ok(Some(Err(malformed(format!("its HTTP response {why}"))))),
            };
            if response.status != 200 {
                return Ok(None);
            }
            start.drain(..head_bytes);
            let content_type = response.fields.get("content-type").unwrap_or_default().to_owned();
            (Some(response), content_type, start)
        }
        "resource" | "conversion" => {
            let content_type = fields.get("content-type").unwrap_or_default().to_owned();
            (None, content_type, Vec::new())
        }
        _ => return Ok(None),
    };
    let kind = match Kind::of(&content_type) {
        Some(Kind::Text) if response.is_some() => return Ok(None),
        Some(kind) => kind,
        None => return Ok(None),
    };
    if let Some(why) = fields.get("warc-truncated") {
        return Ok(Some(Err(malformed(format!("the crawler cut it (WARC-Truncated: {why})")))));
    }
    if let Some(segment) = fields.get("warc-segment-number") {
        let message = format!(
            "it is in several records (WARC-Segment-Number: {segment}), which are not put together"
        );
        return Ok(Some(Err(malformed(message))));
    }
    if length > limits.max_bytes as u64 {
        return Ok(Some(Err(too_large(length, limits.max_bytes))));
    }
    body.read_to_end(&mut bytes)?;
    let payload = match &response {
        Some(response) => response.payload(bytes, limits),
        None => Ok(bytes),
    };
    Ok(Some(payload.and_then(|payload| read(kind, &content_type, &payload, encoding))))
}

/// The document that `bytes` are.
fn read(
    kind: Kind,
    content_type: &str,
    bytes: &[u8],
    encoding: &'static Encoding,
) -> Result<Document, Reject> {
    let (encoding, mark) = Encoding::for_bom(bytes)
        .or_else(|| Some((http::charset(content_type.as_bytes())?, 0)))
        .or_else(|| Some((declared(kind, bytes)?, 0)))
        .unwrap_or((encoding, 0));
    let (text, broken) =
        encoding.decode_without_bom_handling(bytes.get(mark..).unwrap_or_default());
    let document = match kind {
        Kind::Html => {
            let (title, text) = article(&text)?;
            Document { title, text }
        }
        Kind::Text => Document { title: String::new(), text: text.into_owned() },
    };
    // Only what is scored has to be whole.
    let lost = |text: &str| text.contains(char::REPLACEMENT_CHARACTER);
    if broken && (lost(&document.title) || lost(&document.text)) {
        let message = format!(
            "it is no text in {}; --encoding says that of those which do not say it",
            encoding.name()
        );
        return Err(Reject::new(RejectReason::InvalidEncoding, message));
    }
    Ok(document)
}

/// The encoding that a page says in its text.
fn declared(kind: Kind, bytes: &[u8]) -> Option<&'static Encoding> {
    let start = bytes.get(..MAX_DECLARATION_BYTES).unwrap_or(bytes);
    let encoding = if kind == Kind::Html { http::meta_charset(start)? } else { return None };
    // Whoever could read that is not in UTF-16.
    Some(if encoding.is_ascii_compatible() { encoding } else { UTF_8 })
}
