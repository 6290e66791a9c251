//! An archive as a sequence of rows.
//!
//! | file | what it does |
//! |---|---|
//! | `discover` | inputs to files, and what identifies them |
//! | `decompress` | gzip, zstd, bzip2, xz, by content, and no bombs |
//! | `encoding` | other encodings as UTF-8 |
//! | `formats` | which format a file has |
//! | `lines`, `jsonl`, `delimited`, `parquet`, `plain`, `warc` | one reader a format |
//! | `http`, `html` | what is in a record of WARC: responses, and articles on pages |
//! | `attributes` | counts those of a tag before it is whole |

mod attributes;
mod decompress;
mod delimited;
mod discover;
mod encoding;
mod formats;
mod html;
mod http;
mod jsonl;
mod lines;
mod parquet;
mod parquet_pages;
mod plain;
mod warc;

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use encoding_rs::Encoding;

pub use self::discover::InputFile;
pub(super) use self::discover::{digest, discover, fingerprint, hex};
pub use self::formats::InputFormat;

use self::decompress::{Counted, decompress, peek};
use self::delimited::Delimited;
use self::jsonl::JsonLines;
use self::lines::Lines;
use self::parquet::ParquetRows;
use self::plain::{TextFile, TextLines};
use self::warc::Warc;
use super::columns::{ColumnNames, Columns, Fields, listed};
use super::error::{ArchiveError, FileError};
use super::row::{Cell, RawRow, Reject, RejectReason};

/// Bytes looked at to know a format and a delimiter.
const HEAD_BYTES: usize = 4 << 10;
/// Files looked at to know the columns.
const MAX_FILES_LOOKED_AT: usize = 100;

/// How files are read.
#[derive(Clone, Debug)]
pub(super) struct ReadSettings {
    pub(super) format: Option<InputFormat>,
    pub(super) encoding: &'static Encoding,
    pub(super) delimiter: Option<u8>,
    pub(super) max_row_bytes: usize,
    pub(super) max_expansion: u64,
    /// Whether the rest of a damaged file is left out instead of ending everything.
    pub(super) skip_damaged: bool,
}

/// A row of an archive.
#[derive(Debug)]
pub(super) struct Row {
    /// Index of its file.
    pub(super) file: usize,
    /// Its number in the file, from 1.
    pub(super) number: u64,
    /// Bytes of the archive read so far.
    pub(super) position: u64,
    /// What is in it, as far as it can be read.
    pub(super) fields: Fields,
    /// Why it is not scored.
    pub(super) refused: Option<Reject>,
}

/// The rows of one file.
trait RowReader: Send {
    /// The names of its columns, as far as they are known before reading; to be
    /// called once, first.
    fn columns(&mut self) -> Result<Vec<String>, FileError>;

    /// Says which columns each row shall have, second.
    fn select(&mut self, wanted: &[String]) -> Result<(), FileError>;

    /// The next row, or what is passed over on the way to it; `None` at the end.
    fn next_row(&mut self) -> Result<Option<RawRow>, FileError>;
}

/// A reader whose columns are known, and whether these are all that it has.
struct Opened {
    reader: Box<dyn RowReader>,
    columns: Vec<String>,
    complete: bool,
}

/// Reads all files of an archive, one after the other.
pub(super) struct Source {
    files: Arc<[InputFile]>,
    settings: ReadSettings,
    columns: Columns,
    selection: Vec<String>,
    /// The file that is being read.
    current: Option<Box<dyn RowReader>>,
    /// Index of the file to be opened next.
    next: usize,
    /// Number of the last row of the current file.
    row: u64,
    /// Bytes of the files before the current one.
    bytes_before: u64,
    /// Bytes read of the current file.
    bytes: Arc<AtomicU64>,
}

impl Source {
    /// Opens the archive of `files` and finds out its columns.
    ///
    /// # Errors
    /// If the first file cannot be read, or the columns are not clear.
    pub(super) fn open(
        files: Arc<[InputFile]>,
        settings: ReadSettings,
        names: &ColumnNames,
    ) -> Result<Self, ArchiveError> {
        let mut found = Vec::new();
        let mut complete = false;
        let mut first = None;
        let mut opened_any = false;
        let mut unfit = None;
        for (index, file) in files.iter().enumerate().take(MAX_FILES_LOOKED_AT) {
            let bytes = Arc::new(AtomicU64::new(0));
            let opened = match guarded(|| open(file, &settings, &bytes)) {
                Ok(opened) => opened,
                // Told when its turn comes.
                Err(error) if settings.skip_damaged => {
                    if unfit.is_none() && matches!(error, FileError::Setting(_)) {
                        unfit = Some(error.at(&file.path, 0));
                    }
                    continue;
                }
                Err(error) => return Err(error.at(&file.path, 0)),
            };
            opened_any = true;
            (found, complete) = (opened.columns, opened.complete);
            if index == 0 {
                first = Some((opened.reader, bytes));
            }
            if !found.is_empty() {
                break;
            }
        }
        if !opened_any && let Some(unfit) = unfit {
            return Err(unfit);
        }
        let columns = Columns::resolve(names, &found).map_err(ArchiveError::Setting)?;
        if let Some(missing) = columns.missing(&found).first() {
            if complete {
                return Err(ArchiveError::Setting(format!(
                    "there is no column {missing:?}; there is {}",
                    listed(&found)
                )));
            }
            // Later objects may have it.
            if !found.is_empty() {
                tracing::warn!(
                    column = missing,
                    "none of the first rows has this column; there is {}",
                    listed(&found)
                );
            }
        }
        let selection = columns.selection();
        let mut source = Self {
            files,
            settings,
            columns,
            selection,
            current: None,
            next: 0,
            row: 0,
            bytes_before: 0,
            bytes: Arc::default(),
        };
        // Standard input cannot be opened again.
        if let Some((mut reader, bytes)) = first {
            reader.select(&source.selection).map_err(|error| source.fault(0, error))?;
            (source.current, source.bytes, source.next) = (Some(reader), bytes, 1);
        }
        Ok(source)
    }

    /// The columns that are read.
    pub(super) fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The next row; `None` at the end of the last file.
    ///
    /// # Errors
    /// If a file cannot be read on, or `stop` has been set.
    pub(super) fn next_row(&mut self, stop: &AtomicBool) -> Result<Option<Row>, ArchiveError> {
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(ArchiveError::Stopped);
            }
            let (file, error) = match &mut self.current {
                Some(reader) => {
                    let file = self.next.saturating_sub(1);
                    match guarded(|| reader.next_row()) {
                        Ok(Some(RawRow { number, cells })) => {
                            self.row = number;
                            let Some(cells) = cells else { continue };
                            return Ok(Some(self.row_of(file, cells)));
                        }
                        Ok(None) => {
                            self.end_file(file);
                            continue;
                        }
                        Err(error) => (file, error),
                    }
                }
                None => {
                    let file = self.next;
                    let Some(input) = self.files.get(file) else { return Ok(None) };
                    (self.row, self.bytes) = (0, Arc::default());
                    self.next += 1;
                    let opened = guarded(|| open(input, &self.settings, &self.bytes));
                    let selected = opened.and_then(|mut opened| {
                        opened.reader.select(&self.selection)?;
                        Ok(opened.reader)
                    });
                    match selected {
                        Ok(reader) => {
                            self.current = Some(reader);
                            continue;
                        }
                        Err(error) => (file, error),
                    }
                }
            };
            // What comes before it is done, so it is this file that is at fault.
            let error = match error {
                FileError::Setting(message) => FileError::Damaged(message),
                error => error,
            };
            let damage = self.fault(file, error);
            if !matches!(damage, ArchiveError::Damaged { .. }) || !self.settings.skip_damaged {
                return Err(damage);
            }
            self.row += 1;
            let reject = Reject::new(RejectReason::DamagedFile, damage.to_string());
            let row = self.row_of(file, Err(reject));
            self.end_file(file);
            return Ok(Some(row));
        }
    }

    fn row_of(&self, file: usize, cells: Result<Vec<Cell>, Reject>) -> Row {
        let (fields, refused) = match cells {
            Ok(cells) => self.columns.fields(&self.selection, &cells),
            Err(reject) => (Fields::default(), Some(reject)),
        };
        Row { file, number: self.row, position: self.position(), fields, refused }
    }

    fn end_file(&mut self, file: usize) {
        self.current = None;
        self.bytes_before += self.files.get(file).map_or(0, |file| file.bytes);
        self.bytes = Arc::default();
    }

    fn position(&self) -> u64 {
        self.bytes_before + self.bytes.load(Ordering::Relaxed)
    }

    fn fault(&self, file: usize, error: FileError) -> ArchiveError {
        let path = self.files.get(file).map_or("", |file| &file.path);
        error.at(path, self.row)
    }
}

/// A panic of a decoder on hostile input is damage of the file. Nothing that it may
/// have left half-changed is used again.
fn guarded<T>(read: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(FileError::Damaged("its decoder panicked".to_owned())))
}

fn open(
    file: &InputFile,
    settings: &ReadSettings,
    bytes: &Arc<AtomicU64>,
) -> Result<Opened, FileError> {
    let raw: Box<dyn Read + Send> = if file.is_stdin() {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(&file.path)?)
    };
    let mut content = decompress(
        Counted::new(raw, Arc::clone(bytes)),
        Arc::clone(bytes),
        settings.max_expansion,
    )?;
    let head = peek(&mut content, HEAD_BYTES)?;
    let by_name = InputFormat::of_name(Path::new(&file.path));
    // Nobody names a Parquet file .csv on purpose.
    let by_content = InputFormat::of_content(&head);
    let format = match (settings.format, by_content) {
        (Some(format), _) => format,
        (None, Some(InputFormat::Parquet)) => InputFormat::Parquet,
        (None, by_content) => match by_name.or(by_content) {
            Some(format) => format,
            None if head.is_empty() => InputFormat::Lines,
            None => {
                let message = "its format is not clear from its name; say it with --format";
                return Err(FileError::Setting(message.to_owned()));
            }
        },
    };
    if format == InputFormat::Parquet {
        return open_parquet(file, &head, settings.max_row_bytes);
    }
    let content = Box::new(Cursor::new(head).chain(content));
    let max_bytes = settings.max_row_bytes;
    if format == InputFormat::Warc {
        let limits = http::Limits { max_bytes, max_expansion: settings.max_expansion };
        let mut reader = Warc::new(content, limits, settings.encoding);
        let columns = reader.columns()?;
        return Ok(Opened { reader: Box::new(reader), columns, complete: true });
    }
    let mut text = encoding::to_utf8(content, settings.encoding)?;
    let mut reader: Box<dyn RowReader> = match format {
        InputFormat::Csv | InputFormat::Tsv => {
            let head = peek(&mut text, HEAD_BYTES)?;
            let delimiter = settings.delimiter.unwrap_or_else(|| match format {
                InputFormat::Tsv => b'\t',
                _ => delimiter_of(&head),
            });
            let text = Box::new(Cursor::new(head).chain(text));
            Box::new(Delimited::new(text, delimiter, max_bytes))
        }
        InputFormat::Text => Box::new(TextFile::new(&file.path, text, max_bytes)),
        InputFormat::Lines => Box::new(TextLines::new(Lines::new(text, max_bytes))),
        InputFormat::Jsonl | InputFormat::Parquet | InputFormat::Warc => {
            Box::new(JsonLines::new(Lines::new(text, max_bytes)))
        }
    };
    let columns = reader.columns()?;
    let complete = format != InputFormat::Jsonl && !columns.is_empty();
    Ok(Opened { reader, columns, complete })
}

fn open_parquet(file: &InputFile, head: &[u8], max_bytes: usize) -> Result<Opened, FileError> {
    let setting = |message: &str| Err(FileError::Setting(message.to_owned()));
    if file.is_stdin() {
        return setting("Parquet cannot be read from a pipe; give the file");
    }
    let mut raw = File::open(&file.path)?;
    if peek(&mut raw, 4)? != head.get(..4).unwrap_or_default() {
        return setting("it is Parquet inside of another compression; decompress it first");
    }
    let mut reader = ParquetRows::new(raw, max_bytes)?;
    let columns = reader.columns()?;
    Ok(Opened { reader: Box::new(reader), columns, complete: true })
}

/// The delimiter of a CSV file: a comma, unless its header has none but another.
fn delimiter_of(head: &[u8]) -> u8 {
    let header = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let in_header = |delimiter: &&u8| header.contains(*delimiter);
    [b',', b';', b'\t', b'|'].iter().find(in_header).copied().unwrap_or(b',')
}

fn not_utf8(error: &std::str::Utf8Error) -> Reject {
    let message = format!(
        "it is no text in the encoding: byte {} does not fit; --encoding says another one",
        error.valid_up_to()
    );
    Reject::new(RejectReason::InvalidEncoding, message)
}

fn malformed(message: impl Into<String>) -> Reject {
    Reject::new(RejectReason::Malformed, message)
}

fn too_large(bytes: u64, limit: usize) -> Reject {
    let message = format!("it has {bytes} bytes, more than {limit}; --max-row-bytes allows more");
    Reject::new(RejectReason::RowTooLarge, message)
}
