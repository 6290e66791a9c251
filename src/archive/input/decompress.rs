//! Compressed streams, known by their first bytes and not by their names.

use std::error::Error;
use std::io::{self, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

/// Bytes that a stream may expand to whatever its compressed size.
pub(super) const FREE_BYTES: u64 = 64 << 20;
/// KiB that a decoder may take: a dictionary of 128 MiB (xz -9 has 64) and what is beside it.
const XZ_MEMORY_KIB: u32 = (128 << 10) + 1_024;
/// The longest magic number looked at, that of xz.
const MAGIC_BYTES: usize = 6;
const BUFFER_BYTES: usize = 64 << 10;

/// The content of `raw`, decompressed if it is gzip, zstd, bzip2 or xz; also if
/// several such streams follow each other. `raw` counts what it has given in `read`.
///
/// Reading fails once there is more than `max_expansion` times what was read, which
/// stops a decompression bomb.
pub(super) fn decompress(
    mut raw: impl Read + Send + 'static,
    read: Arc<AtomicU64>,
    max_expansion: u64,
) -> io::Result<Box<dyn Read + Send>> {
    let magic = peek(&mut raw, MAGIC_BYTES)?;
    let kind = Compression::of(&magic);
    let whole = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(magic).chain(raw));
    let decoder: Box<dyn Read + Send> = match kind {
        None => return Ok(Box::new(whole)),
        Some(Compression::Gzip) => Box::new(MultiGzDecoder::new(whole)),
        Some(Compression::Bzip2) => Box::new(MultiBzDecoder::new(whole)),
        Some(Compression::Xz) => Box::new(XzReader::new_mem_limit(whole, true, XZ_MEMORY_KIB)),
        Some(Compression::Zstd) => Box::new(ZstdFrames { source: Source::Between(whole) }),
    };
    Ok(Box::new(Bounded { decoder, read, given: 0, max_expansion }))
}

/// Reads `count` bytes, or fewer if there are no more.
pub(super) fn peek(reader: &mut impl Read, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(count);
    reader.by_ref().take(count as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Compression {
    fn of(magic: &[u8]) -> Option<Self> {
        match magic {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            // A skippable frame, with which a zstd stream may begin.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            _ => None,
        }
    }
}

/// Counts the bytes that go through.
pub(super) struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Counted<R> {
    pub(super) fn new(inner: R, count: Arc<AtomicU64>) -> Self {
        Self { inner, count }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Ends a stream that expands too much.
struct Bounded {
    decoder: Box<dyn Read + Send>,
    /// Compressed bytes read.
    read: Arc<AtomicU64>,
    given: u64,
    max_expansion: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.given += count as u64;
        let read = self.read.load(Ordering::Relaxed);
        let limit = read.saturating_mul(self.max_expansion).max(FREE_BYTES);
        if self.given > limit {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{read} compressed bytes give more than {limit} bytes, {} times as many; \
                     --max-expansion allows more",
                    self.max_expansion
                ),
            ));
        }
        Ok(count)
    }
}

/// The frames of a zstd stream, one after the other.
struct ZstdFrames<R: Read> {
    source: Source<R>,
}

enum Source<R: Read> {
    Between(R),
    Inside(Box<StreamingDecoder<Begun<R>, FrameDecoder>>),
    Ended,
}

/// A reader of which the first bytes have been looked at.
struct Begun<R> {
    head: Cursor<[u8; 4]>,
    rest: R,
}

impl<R: Read> Read for Begun<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.head.read(buffer)? {
            0 => self.rest.read(buffer),
            count => Ok(count),
        }
    }
}

impl<R: Read> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // An error leaves it ended.
            match std::mem::replace(&mut self.source, Source::Ended) {
                Source::Ended => return Ok(0),
                Source::Between(source) => match next_frame(source)? {
                    Some(frame) => self.source = frame,
                    None => return Ok(0),
                },
                Source::Inside(mut frame) => {
                    let count = frame.read(buffer)?;
                    if count > 0 || buffer.is_empty() {
                        self.source = Source::Inside(frame);
                        return Ok(count);
                    }
                    let expected = frame.decoder.get_checksum_from_data();
                    if expected.is_some() && expected != frame.decoder.get_calculated_checksum() {
                        return Err(invalid("the checksum of a zstd frame is wrong"));
                    }
                    self.source = Source::Between(frame.into_inner().rest);
                }
            }
        }
    }
}

/// Opens the next frame, or goes over one that is to be skipped; `None` at the end.
fn next_frame<R: Read>(mut source: R) -> io::Result<Option<Source<R>>> {
    let word = |source: &mut R| peek(source, 4).map(<[u8; 4]>::try_from);
    let magic = match word(&mut source)? {
        Ok(magic) => magic,
        Err(rest) if rest.is_empty() => return Ok(None),
        Err(_) => return Err(invalid("it ends inside a zstd frame")),
    };
    if matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18]) {
        let length = word(&mut source)?.map_or(u32::MAX, u32::from_le_bytes);
        let skipped = io::copy(&mut source.by_ref().take(length.into()), &mut io::sink())?;
        if skipped < u64::from(length) {
            return Err(invalid("it ends inside a zstd frame"));
        }
        return Ok(Some(Source::Between(source)));
    }
    let begun = Begun { head: Cursor::new(magic), rest: source };
    let frame = StreamingDecoder::new(begun).map_err(invalid)?;
    Ok(Some(Source::Inside(Box::new(frame))))
}

fn invalid(error: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;
    use crate::archive::error::os_error;

    /// The system's number for a failed disk.
    const EIO: i32 = 5;

    /// Ends with what the system says of a disk that fails.
    struct Failing;

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(EIO))
        }
    }

    #[test]
    fn what_the_system_says_inside_of_zstd_is_not_damage() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let whole = compress_to_vec(&text[..], CompressionLevel::Fastest);
        let half = whole.len() / 2;
        for (name, begin, code) in [
            ("in the middle", &whole[..half], Some(EIO)),
            ("in the head of the first frame", &whole[..5], Some(EIO)),
            ("in the head of the second", &[&whole[..], &whole[..5]].concat(), Some(EIO)),
            ("noise", &[&whole[..], b"noise and more noise"].concat(), None),
        ] {
            let raw = Cursor::new(begin.to_vec()).chain(Failing);
            let error = decompress(raw, Arc::default(), u64::MAX)
                .and_then(|mut reader| reader.read_to_end(&mut Vec::new()))
                .unwrap_err();
            assert_eq!(os_error(&error), code, "{name}: {error:?}");
        }
    }
}
