//! What is done to a valid message on its way: its bytes, its compression, its frame and its headers.

use std::io::Write;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::messages::{HEADER_TRICKS, HEALTH_WATCH, RPCS};
use crate::random::Random;
use crate::wire::{Call, framed, with_header};

/// More than a message may have, of one byte.
const BOMB_BYTES: usize = 16 * 1024 * 1024;

static GZIP_BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| gzip(&vec![0; BOMB_BYTES]));
static ZSTD_BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| zstd(&vec![0; BOMB_BYTES]));

pub(crate) fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(message: &[u8]) -> Vec<u8> {
    compress_to_vec(message, CompressionLevel::Fastest)
}

/// A hostile call; some are hostile in nothing.
pub(crate) fn call(random: &mut Random) -> Call {
    let rpc = random.pick(&RPCS);
    let mut message = (rpc.message)(random);
    if !random.once_in(8) {
        mutate(&mut message, random);
    }
    let mut headers = Call::new(rpc.path, Vec::new()).headers;
    let mut body = compress(message, &mut headers, random);
    if random.once_in(10) {
        let again = body.clone();
        (0..random.below(4)).for_each(|_| body.extend(&again));
    }
    if random.once_in(10) {
        random.flip_bits(&mut body);
    }
    if random.once_in(6) {
        spoil(&mut headers, random);
    }
    let rarely = random.once_in(200);
    Call {
        method: if rarely { Method::PUT } else { Method::POST },
        path: rpc.path.to_owned(),
        headers,
        body: pieces(body, random),
        endless: rpc.path == HEALTH_WATCH,
    }
}

/// Changes the bytes of a message.
fn mutate(message: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(message.len() + 1);
    match random.below(10) {
        0 => {
            let count = random.below(300);
            *message = random.bytes(count);
        }
        1 => message.truncate(at),
        2 | 3 => random.flip_bits(message),
        4 => {
            let part = message[at..].to_vec();
            message.extend(part);
        }
        // A length, or another number, that is much more than it was.
        5 => {
            let numbers = [&[0xff; 10][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x80; 11]];
            let end = (at + 1).min(message.len());
            message.splice(at..end, random.pick(&numbers).iter().copied());
        }
        // What another call takes.
        6 => *message = (random.pick(&RPCS).message)(random),
        // Groups in groups, begun and never ended.
        7 => {
            let depth = *random.pick(&[10, 200, 50_000]);
            message.extend(std::iter::repeat_n(*random.pick(&[0x0b, 0xfb]), depth));
        }
        // Many parts with nothing in them.
        8 => {
            let part = [*random.pick(&[0x0a, 0x12, 0x2a, 0x3a]), 0];
            let count = *random.pick(&[10, 300, 40_000]);
            message.extend(part.repeat(count));
        }
        _ => {
            let noise =
                [&b"\xff\xfe"[..], b"\xed\xa0\x80", b"\xc0\x80", b"\0", b"\xf4\x90\x80\x80"];
            let noise = random.pick(&noise).to_vec();
            message.splice(at..at, noise);
        }
    }
}

/// The body of one message, which may be compressed, or say so, or be of another length.
fn compress(message: Vec<u8>, headers: &mut HeaderMap, random: &mut Random) -> Vec<u8> {
    let encoding = match random.below(12) {
        0 | 1 => "gzip",
        2 | 3 => "zstd",
        4 => *random.pick(&["br", "identity", "deflate", "", "gzip, zstd"]),
        _ => return frame(0, &message, random),
    };
    headers.insert("grpc-encoding", encoding.parse().unwrap());
    let is_zstd = encoding == "zstd";
    let squeeze = if is_zstd { zstd } else { gzip };
    let mut squeezed = match random.below(6) {
        // It only says that it is compressed.
        0 => message,
        1 if random.once_in(20) => (if is_zstd { &ZSTD_BOMB } else { &GZIP_BOMB }).to_vec(),
        _ => squeeze(&message),
    };
    match random.below(4) {
        0 => random.flip_bits(&mut squeezed),
        1 => squeezed.truncate(random.below(squeezed.len() + 1)),
        _ => {}
    }
    frame(1, &squeezed, random)
}

/// A message behind a header, which may be another one's.
fn frame(flag: u8, message: &[u8], random: &mut Random) -> Vec<u8> {
    let length = message.len();
    match random.below(16) {
        0 => with_header(random.byte(), length, message),
        1 => with_header(flag, length + 1 + random.below(1_000), message),
        2 => with_header(flag, u32::MAX as usize - random.below(3), message),
        3 => with_header(flag, random.below(length + 1), message),
        4 => message.to_vec(),
        5 => vec![flag; random.below(5)],
        6 => framed(&[]).repeat(1 + random.below(200)),
        7 => Vec::new(),
        _ => with_header(flag, length, message),
    }
}

/// Replaces a header by one that is wrong, or adds it.
fn spoil(headers: &mut HeaderMap, random: &mut Random) {
    if random.once_in(12) {
        headers.remove("te");
        return;
    }
    let (name, value) = *random.pick(&HEADER_TRICKS);
    let value = match value {
        Some(value) => HeaderValue::from_bytes(value).unwrap(),
        None => {
            let noise: Vec<u8> = (0..random.below(200)).map(|_| 32 + random.byte() % 94).collect();
            HeaderValue::from_bytes(&noise).unwrap()
        }
    };
    headers.insert(HeaderName::from_static(name), value);
}

/// `body` cut at random; none of it if there is none.
fn pieces(body: Vec<u8>, random: &mut Random) -> Vec<Bytes> {
    let mut rest = Bytes::from(body);
    let mut pieces = Vec::new();
    while !rest.is_empty() && pieces.len() < 3 && random.once_in(2) {
        pieces.push(rest.split_to(random.below(rest.len() + 1)));
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}
