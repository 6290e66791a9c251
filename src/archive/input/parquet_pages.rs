//! The pages of one row group, decompressed in bounds.
//!
//! The parquet crate decompresses zstd by the C library, which this build does
//! without, and gives gzip and brotli as much memory as they ask for. Pages of such
//! columns are therefore read as if they were not compressed and decompressed here.
//! Snappy and LZ4 get what the page's header says, 2 GiB at most. The parquet crate's
//! fallback for LZ4 of before 2020, in frames of its own, goes beyond that and is off.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use brotli::Decompressor;
use flate2::read::MultiGzDecoder;
use parquet::arrow::arrow_reader::RowGroups;
use parquet::basic::Compression as Codec;
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::properties::ReaderProperties;
use parquet::file::serialized_reader::SerializedPageReader;
use ruzstd::decoding::StreamingDecoder;

/// Bytes of a decompressed page, at most. Writers aim at 1 MiB.
const MAX_PAGE_BYTES: u64 = 256 << 20;
const BROTLI_BUFFER_BYTES: usize = 4 << 10;

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
        let pages: Box<dyn PageReader> = match Compression::of(chunk.compression()) {
            Some(compression) => {
                let plain = chunk.clone().into_builder();
                let plain = plain.set_compression(Codec::UNCOMPRESSED).build()?;
                Box::new(CompressedPages { pages: self.pages(&plain)?, compression })
            }
            None => Box::new(self.pages(chunk)?),
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

/// What is undone here.
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

/// Decompresses the pages that it gives.
struct CompressedPages {
    pages: SerializedPageReader<File>,
    compression: Compression,
}

impl Iterator for CompressedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CompressedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        page.map(|page| decompressed(page, self.compression)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
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
