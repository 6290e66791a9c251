//! The pages of one row group, with zstd in Rust.
//!
//! The parquet crate decompresses zstd by the C library, which this build does
//! without. Pages of zstd columns are therefore read as if they were not compressed
//! and decompressed here.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use parquet::arrow::arrow_reader::RowGroups;
use parquet::basic::Compression;
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;
use ruzstd::decoding::StreamingDecoder;

/// Bytes of a decompressed page, at most. Writers aim at 1 MiB.
const MAX_PAGE_BYTES: u64 = 256 << 20;

/// Row group `group` of a file.
pub(super) struct OneRowGroup<'a> {
    file: &'a Arc<File>,
    metadata: &'a ParquetMetaData,
    group: usize,
}

impl<'a> OneRowGroup<'a> {
    /// `group` is less than the file's number of row groups.
    pub(super) fn new(file: &'a Arc<File>, metadata: &'a ParquetMetaData, group: usize) -> Self {
        Self { file, metadata, group }
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
        let pages: Box<dyn PageReader> = match chunk.compression() {
            Compression::ZSTD(_) => {
                let plain = chunk.clone().into_builder();
                let plain = plain.set_compression(Compression::UNCOMPRESSED).build()?;
                Box::new(ZstdPages(self.pages(&plain)?))
            }
            _ => Box::new(self.pages(chunk)?),
        };
        Ok(Box::new(OneChunk(Some(pages))))
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
        SerializedPageReader::new(Arc::clone(self.file), chunk, self.num_rows(), None)
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

/// Decompresses the pages that it gives.
struct ZstdPages(SerializedPageReader<File>);

impl Iterator for ZstdPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for ZstdPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.0.get_next_page()?.map(decompressed).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.0.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.0.skip_next_page()
    }
}

fn decompressed(mut page: Page) -> Result<Page> {
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
        let broken = |error: &dyn std::fmt::Display| {
            ParquetError::General(format!("a zstd page cannot be decompressed: {error}"))
        };
        let frame = StreamingDecoder::new(values).map_err(|error| broken(&error))?;
        let read = frame.take(MAX_PAGE_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| broken(&error))?;
        if bytes.len() as u64 > MAX_PAGE_BYTES {
            return Err(broken(&format_args!("it has more than {MAX_PAGE_BYTES} bytes")));
        }
    }
    *buffer = bytes.into();
    Ok(page)
}
