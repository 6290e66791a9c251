//! One file from parts.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::column::writer::ColumnCloseResult;
use parquet::file::writer::SerializedFileWriter;

use super::formats::{OutputFormat, parquet_properties};
use crate::archive::error::{About, ArchiveError};

/// Writes the rows of `parts`, of which there is at least one, to `whole` and hands
/// it to the disk.
pub(super) fn assemble(
    format: OutputFormat,
    parts: &[PathBuf],
    whole: &Path,
) -> Result<(), ArchiveError> {
    let out = File::create(whole).writing(whole)?;
    let file = match format {
        OutputFormat::Jsonl => concatenate(parts, out, false),
        OutputFormat::Csv => concatenate(parts, out, true),
        OutputFormat::Parquet => concatenate_parquet(parts, out),
    };
    file.and_then(|file| file.sync_all()).writing(whole)
}

/// Only the first part keeps its header, if they have one.
fn concatenate(parts: &[PathBuf], out: File, header: bool) -> io::Result<File> {
    let mut out = BufWriter::new(out);
    let header_bytes = if header { header_bytes(parts)? } else { 0 };
    for (place, part) in parts.iter().enumerate() {
        let mut part = BufReader::new(File::open(part)?);
        if place > 0 {
            io::copy(&mut part.by_ref().take(header_bytes), &mut io::sink())?;
        }
        io::copy(&mut part, &mut out)?;
    }
    out.flush()?;
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

/// Every part has the same header, so the first tells how long it is. The name of a
/// column may have a line's end in it, but then it is quoted.
fn header_bytes(parts: &[PathBuf]) -> io::Result<u64> {
    let Some(first) = parts.first() else { return Ok(0) };
    let mut reader = BufReader::new(File::open(first)?);
    let (mut line, mut length, mut quotes) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line)?;
        length += bytes as u64;
        quotes += line.iter().filter(|&&byte| byte == b'"').count();
        if bytes == 0 || quotes % 2 == 0 {
            return Ok(length);
        }
    }
}

/// Takes the row groups over as they are.
fn concatenate_parquet(parts: &[PathBuf], out: File) -> io::Result<File> {
    let mut writer: Option<SerializedFileWriter<File>> = None;
    let mut out = Some(out);
    for part in parts {
        let file = File::open(part)?;
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
        let metadata = metadata.metadata();
        let writer = match (&mut writer, out.take()) {
            (Some(writer), _) => writer,
            (none, Some(out)) => {
                let about = metadata.file_metadata();
                let schema = about.schema_descr().root_schema_ptr();
                let properties = parquet_properties()
                    .into_builder()
                    .set_key_value_metadata(about.key_value_metadata().cloned())
                    .build();
                none.insert(SerializedFileWriter::new(out, schema, properties.into())?)
            }
            (None, None) => return Err(io::Error::other("the output is gone")),
        };
        for group in metadata.row_groups() {
            let mut to = writer.next_row_group()?;
            for column in group.columns() {
                let bytes = u64::try_from(column.compressed_size()).unwrap_or_default();
                let rows = u64::try_from(group.num_rows()).unwrap_or_default();
                let result = ColumnCloseResult {
                    bytes_written: bytes,
                    rows_written: rows,
                    metadata: column.clone(),
                    bloom_filter: None,
                    column_index: None,
                    offset_index: None,
                };
                to.append_column(&file, result)?;
            }
            to.close()?;
        }
    }
    match (writer, out) {
        (Some(writer), _) => Ok(writer.into_inner()?),
        (None, Some(out)) => Ok(out),
        (None, None) => Err(io::Error::other("the output is gone")),
    }
}
