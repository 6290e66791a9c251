//! Messages compressed with gzip or zstd. They are decompressed here, before tonic sees them, so that
//! what is in them counts as received before anything is made of it. (tonic's own support for zstd
//! builds a C library besides.)
//!
//! gRPC puts each message behind five bytes: whether it is compressed, and its length
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, Request};
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use tonic::Status;
use tonic::body::Body;

use super::received::Received;
use super::status::CallError;

const ENCODING: &str = "grpc-encoding";
const HEADER_BYTES: usize = 5;
/// Memory that a sender may ask for to look back in, at most; what zstd's own levels up to 19 use.
const MAX_WINDOW_BYTES: u64 = 8 * 1024 * 1024;

/// How messages are compressed.
#[derive(Clone, Copy, Debug)]
enum Encoding {
    Gzip,
    Zstd,
}

/// A request's body with its messages decompressed.
struct Decompressed {
    inner: Body,
    encoding: Encoding,
    buffer: BytesMut,
    max_message_bytes: usize,
    received: Arc<Mutex<Received>>,
}

/// `request` as it would be without compression, if it is compressed in a way that is known here.
/// What its messages have then counts as `received`.
pub(crate) fn decompress(
    request: Request<Body>,
    max_message_bytes: usize,
    received: &Arc<Mutex<Received>>,
) -> Request<Body> {
    let Some(encoding) = Encoding::of(request.headers()) else { return request };
    let (mut head, inner) = request.into_parts();
    head.headers.remove(ENCODING);
    let (buffer, received) = (BytesMut::new(), Arc::clone(received));
    let body = Decompressed { inner, encoding, buffer, max_message_bytes, received };
    Request::from_parts(head, Body::new(body))
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let name = headers.get(ENCODING)?.as_bytes();
        let known = [(&b"gzip"[..], Self::Gzip), (b"zstd", Self::Zstd)];
        let is_it = |(known, _): &(&[u8], Self)| name.eq_ignore_ascii_case(known);
        known.into_iter().find(is_it).map(|(_, encoding)| encoding)
    }
}

impl Decompressed {
    /// The next message, if all of it is here.
    fn message(&mut self) -> Result<Option<Bytes>, CallError> {
        let Some(header) = self.buffer.get(..HEADER_BYTES) else { return Ok(None) };
        let mut header = header;
        let (flag, length) = (header.get_u8(), header.get_u32() as usize);
        let limit = self.max_message_bytes;
        if length > limit {
            return Err(CallError::MessageTooLarge { limit, actual: Some(length) });
        }
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        let message = self.buffer.split_to(HEADER_BYTES + length).freeze();
        if flag != 1 {
            // Not compressed; any other flag tonic refuses.
            return Ok(Some(message));
        }
        let inflated =
            inflate(self.encoding, message.get(HEADER_BYTES..).unwrap_or_default(), limit)?;
        self.received.lock().decompressed(message.len(), inflated.len())?;
        Ok(Some(inflated))
    }
}

/// The message in `compressed` behind a header of its own, if it has at most `limit` bytes.
fn inflate(encoding: Encoding, compressed: &[u8], limit: usize) -> Result<Bytes, CallError> {
    let malformed = |error: &dyn ToString| CallError::MalformedMessage(error.to_string());
    let (mut message, mut rest) = (vec![0; HEADER_BYTES], compressed);
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let read = match encoding {
        Encoding::Gzip => MultiGzDecoder::new(compressed).take(most).read_to_end(&mut message),
        Encoding::Zstd => {
            let mut decoder = FrameDecoder::new();
            decoder.set_max_window_size(MAX_WINDOW_BYTES);
            StreamingDecoder::new_with_decoder(&mut rest, decoder)
                .map_err(|error| malformed(&error))?
                .take(most)
                .read_to_end(&mut message)
        }
    };
    read.map_err(|error| malformed(&error))?;
    let length = message.len() - HEADER_BYTES;
    if length > limit {
        return Err(CallError::MessageTooLarge { limit, actual: None });
    }
    if matches!(encoding, Encoding::Zstd) && !rest.is_empty() {
        return Err(malformed(&"there is more behind its zstd frame"));
    }
    if let Some(mut field) = message.get_mut(1..HEADER_BYTES) {
        field.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    }
    Ok(message.into())
}

impl HttpBody for Decompressed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            match self.message() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                // Half a message: tonic says so.
                None if !self.buffer.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(self.buffer.split().freeze()))));
                }
                None => return Poll::Ready(None),
            };
            match frame.into_data() {
                Ok(data) => self.buffer.put(data),
                Err(other) => return Poll::Ready(Some(Ok(trailers(other)))),
            }
        }
    }
}

fn trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    Frame::trailers(frame.into_trailers().unwrap_or_else(|_| HeaderMap::new()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn compressed(message: &[u8]) -> Vec<u8> {
        compress_to_vec(message, CompressionLevel::Fastest)
    }

    fn inflate(compressed: &[u8], limit: usize) -> Result<Bytes, CallError> {
        super::inflate(Encoding::Zstd, compressed, limit)
    }

    #[test]
    fn a_message_is_what_it_was_before_compression() {
        for length in [0_usize, 1, 5, 70_000] {
            let message: Vec<u8> = (0..length).map(|i| (i / 7) as u8).collect();
            let inflated = inflate(&compressed(&message), 70_000).unwrap();
            assert_eq!(&inflated[..1], &[0]);
            assert_eq!(inflated[1..HEADER_BYTES], (length as u32).to_be_bytes());
            assert_eq!(&inflated[HEADER_BYTES..], message);
        }
    }

    #[test]
    fn what_follows_the_first_part_is_not_lost() {
        let parts = [&b"first"[..], b"second"].map(|part| {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap()
        });
        let inflated = super::inflate(Encoding::Gzip, &parts.concat(), 11).unwrap();
        assert_eq!(&inflated[HEADER_BYTES..], b"firstsecond");
        assert!(super::inflate(Encoding::Gzip, &parts.concat(), 10).is_err());

        let twice = [compressed(b"first"), compressed(b"second")].concat();
        let error = inflate(&twice, 100).unwrap_err();
        assert!(matches!(error, CallError::MalformedMessage(_)), "{error:?}");
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = compressed(&vec![0; 64 * 1024 * 1024]);
        assert!(bomb.len() < 200_000);
        let error = inflate(&bomb, 1_000).unwrap_err();
        assert_eq!(error, CallError::MessageTooLarge { limit: 1_000, actual: None });
        assert!(inflate(&compressed(&[7; 1_000]), 1_000).is_ok());
        assert!(inflate(&compressed(&[7; 1_001]), 1_000).is_err());
    }

    #[test]
    fn a_window_over_the_limit_and_noise_are_refused() {
        // Magic number, a descriptor without a content size, a window of 1 GiB.
        let huge = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00];
        let whole = compressed(&[1; 50]);
        for bad in [&huge[..], b"", b"noise", &whole[..whole.len() - 1]] {
            let error = inflate(bad, 1_000).unwrap_err();
            assert!(matches!(error, CallError::MalformedMessage(_)), "{error:?}");
        }
    }
}
