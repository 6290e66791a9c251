//! The pages of one row group, decompressed in bounds.
//!
//! The parquet crate decompresses zstd by the C library, which this build does
//! without, and gives gzip and brotli as much memory as they ask for. Pages of such
//! columns are therefore read as if they were not compressed and decompressed here.
//! A dictionary's value is repeated for each row that refers to it, so each is bounded by itself.
//! Snappy and LZ4 get what the page's header says, 2 GiB at most. The parquet crate's
//! fallback for LZ4 of before 2020, in frames of its own, goes beyond that and is off.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use brotli::Decompressor;
use flate2::read::MultiGzDecoder;
use parquet::arrow::arrow_reader::RowGroups;
use parquet::basic::{Compression as Codec, Type};
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::properties::ReaderProperties;
use parquet::file::serialized_reader::SerializedPageReader;
use ruzstd::decoding::StreamingDecoder;

use crate::archive::error::os_error;

/// Bytes of a decompressed page, at most. Writers aim at 1 MiB.
const MAX_PAGE_BYTES: u64 = 256 << 20;
/// Bytes of one value of a dictionary, at most.
const MAX_REPEATED_BYTES: usize = 32 << 20;
const BROTLI_BUFFER_BYTES: usize = 4 << 10;

/// Row group `group` of a file.
pub(super) struct OneRowGroup<'a> {
    file: &'a Arc<File>,
    metadata: &'a ParquetMetaData,
    group: usize,
    failure: &'a Arc<OnceLock<i32>>,
}

impl<'a> OneRowGroup<'a> {
    /// `group` is less than the file's number of row groups. Where the system cannot read a page, `failure` gets the
    /// number of its error, of which the reader of rows tells words alone.
    pub(super) fn new(
        file: &'a Arc<File>,
        metadata: &'a ParquetMetaData,
        group: usize,
        failure: &'a Arc<OnceLock<i32>>,
    ) -> Self {
        Self { file, metadata, group, failure }
    }

    fn row_group(&self) -> &RowGroupMetaData {
        self.metadata.row_group(self.group)
    }
}

impl RowGroups for OneRowGroup<'_> {
    fn num_rows(&self) -> usize {
        usize::try_from(self.row_group().num_rows()).unwrap_or_default()
    }

    fn column_chunks(&self, column: usize) -> Result<Box<dyn PageIterator>> {
        let chunk = self.row_group().column(column);
        let compression = Compression::of(chunk.compression());
        let pages = if compression.is_some() {
            let plain = chunk.clone().into_builder();
            self.pages(&plain.set_compression(Codec::UNCOMPRESSED).build()?)?
        } else {
            self.pages(chunk)?
        };
        let texts = chunk.column_type() == Type::BYTE_ARRAY;
        let failure = Arc::clone(self.failure);
        Ok(Box::new(OneChunk(Some(Box::new(BoundedPages { pages, compression, texts, failure })))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::once(self.row_group()))
    }

    fn metadata(&self) -> &ParquetMetaData {
        self.metadata
    }
}

impl OneRowGroup<'_> {
    fn pages(&self, chunk: &ColumnChunkMetaData) -> Result<SerializedPageReader<File>> {
        let properties = ReaderProperties::builder().set_backward_compatible_lz4(false).build();
        let (file, properties) = (Arc::clone(self.file), Arc::new(properties));
        SerializedPageReader::new_with_properties(file, chunk, self.num_rows(), None, properties)
    }
}

/// The pages of the only chunk.
struct OneChunk(Option<Box<dyn PageReader>>);

impl Iterator for OneChunk {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(Ok)
    }
}

impl PageIterator for OneChunk {}

/// A compression that is undone here.
#[derive(Clone, Copy, Debug)]
enum Compression {
    Zstd,
    Gzip,
    Brotli,
}

impl Compression {
    fn of(codec: Codec) -> Option<Self> {
        match codec {
            Codec::ZSTD(_) => Some(Self::Zstd),
            Codec::GZIP(_) => Some(Self::Gzip),
            Codec::BROTLI(_) => Some(Self::Brotli),
            _ => None,
        }
    }

    fn decoder<'a>(self, bytes: &'a [u8]) -> Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Zstd => {
                Box::new(StreamingDecoder::new(bytes).map_err(|error| self.broken(&error))?)
            }
            Self::Gzip => Box::new(MultiGzDecoder::new(bytes)),
            Self::Brotli => Box::new(Decompressor::new(bytes, BROTLI_BUFFER_BYTES)),
        })
    }

    fn broken(self, error: &dyn std::fmt::Display) -> ParquetError {
        ParquetError::General(format!("a {self:?} page cannot be decompressed: {error}"))
    }
}

/// Pages in bounds.
struct BoundedPages {
    pages: SerializedPageReader<File>,
    /// What is undone here.
    compression: Option<Compression>,
    /// Whether values are of any length, each behind its own.
    texts: bool,
    /// See [`OneRowGroup::new`].
    failure: Arc<OnceLock<i32>>,
}

impl Iterator for BoundedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for BoundedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page().inspect_err(|error| {
            if let ParquetError::External(error) = error
                && let Some(code) = error.downcast_ref::<io::Error>().and_then(os_error)
            {
                self.failure.get_or_init(|| code);
            }
        })?;
        let Some(mut page) = page else { return Ok(None) };
        if let Some(compression) = self.compression {
            page = decompressed(page, compression)?;
        }
        let repeated = match &page {
            Page::DictionaryPage { buf, .. } if self.texts => longest(buf),
            _ => 0,
        };
        for (what, bytes, limit) in [
            ("page", page.buffer().len(), MAX_PAGE_BYTES as usize),
            ("value of a dictionary", repeated, MAX_REPEATED_BYTES),
        ] {
            if bytes > limit {
                let message = format!("a {what} has {bytes} bytes; at most {limit} are read");
                return Err(ParquetError::General(message));
            }
        }
        Ok(Some(page))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

/// Bytes of the longest of the values of any length that `page` holds, each behind its length (Parquet's encoding PLAIN).
fn longest(page: &[u8]) -> usize {
    let (mut rest, mut longest) = (page, 0);
    while let Some((length, values)) = rest.split_first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        longest = longest.max(length);
        rest = values.get(length..).unwrap_or_default();
    }
    longest
}

fn decompressed(mut page: Page, compression: Compression) -> Result<Page> {
    let (buffer, plain) = match &mut page {
        Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => (buf, 0),
        Page::DataPageV2 { is_compressed: false, .. } => return Ok(page),
        // The levels stand before the values and are never compressed.
        Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
            (buf, *def_levels_byte_len as usize + *rep_levels_byte_len as usize)
        }
    };
    let (Some(levels), Some(values)) = (buffer.get(..plain), buffer.get(plain..)) else {
        return Err(ParquetError::EOF("a page ends inside its levels".to_owned()));
    };
    let mut bytes = levels.to_vec();
    if !values.is_empty() {
        let decoder = compression.decoder(values)?;
        let read = decoder.take(MAX_PAGE_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| compression.broken(&error))?;
        if bytes.len() as u64 > MAX_PAGE_BYTES {
            let bound = format_args!("it has more than {MAX_PAGE_BYTES} bytes");
            return Err(compression.broken(&bound));
        }
    }
    *buffer = bytes.into();
    Ok(page)
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::ParquetMetaDataReader;

    use super::*;

    /// The pages of a file of one column, read through `File`s that `options` open.
    fn pages(options: &mut std::fs::OpenOptions) -> (Result<Vec<Page>>, Option<i32>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let column: ArrayRef = Arc::new(StringArray::from(vec!["أ", "ب"]));
        let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
        let file = File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();

        let readable = File::open(&path).unwrap();
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&readable).unwrap();
        let file = Arc::new(options.open(&path).unwrap());
        let failure = Arc::default();
        let group = OneRowGroup::new(&file, &metadata, 0, &failure);
        let pages = group.column_chunks(0).unwrap().next().unwrap().unwrap().collect();
        (pages, failure.get().copied())
    }

    #[test]
    fn what_the_system_cannot_read_is_no_damage() {
        let (read, failure) = pages(File::options().read(true));
        assert_eq!((read.unwrap().len(), failure), (2, None));
        let (unread, failure) = pages(File::options().write(true));
        assert!(unread.is_err());
        assert!(failure.is_some());
    }
}
