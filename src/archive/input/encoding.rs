//! Text in other encodings as UTF-8.

use std::io::{self, Cursor, Read};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8};

use super::decompress::peek;

const BUFFER_BYTES: usize = 64 << 10;
/// The longest byte order mark, that of UTF-8.
const MARK_BYTES: usize = 3;
/// Stands for what cannot be decoded: a byte that UTF-8 never has, so that the row
/// that holds it is refused.
const NO_TEXT: u8 = 0xff;

/// `raw` as UTF-8 without a byte order mark. The mark, if there is one, says the
/// encoding; else it is `encoding`. UTF-8 passes as it is, valid or not.
pub(super) fn to_utf8(
    mut raw: Box<dyn Read + Send>,
    encoding: &'static Encoding,
) -> io::Result<Box<dyn Read + Send>> {
    let head = peek(&mut raw, MARK_BYTES)?;
    let (encoding, mark) = Encoding::for_bom(&head).unwrap_or((encoding, 0));
    let rest = head.get(mark..).unwrap_or_default().to_vec();
    let whole = Box::new(Cursor::new(rest).chain(raw));
    if encoding == UTF_8 {
        return Ok(whole);
    }
    Ok(Box::new(Transcoder {
        raw: whole,
        decoder: encoding.new_decoder_without_bom_handling(),
        input: vec![0; BUFFER_BYTES],
        taken: 0,
        filled: 0,
        ended: false,
        output: vec![0; BUFFER_BYTES],
        given: 0,
        decoded: 0,
    }))
}

struct Transcoder {
    raw: Box<dyn Read + Send>,
    decoder: Decoder,
    /// `input[taken..filled]` is still to be decoded.
    input: Vec<u8>,
    taken: usize,
    filled: usize,
    /// Whether the decoder has seen the end.
    ended: bool,
    /// `output[given..decoded]` is still to be given.
    output: Vec<u8>,
    given: usize,
    decoded: usize,
}

impl Read for Transcoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.decoded && !self.ended {
            self.decode()?;
        }
        let ready = self.output.get(self.given..self.decoded).unwrap_or_default();
        let count = io::copy(&mut ready.take(buffer.len() as u64), &mut { buffer })? as usize;
        self.given += count;
        Ok(count)
    }
}

impl Transcoder {
    /// Decodes at least a part of the input.
    fn decode(&mut self) -> io::Result<()> {
        if self.taken == self.filled {
            self.taken = 0;
            self.filled = self.raw.read(&mut self.input)?;
        }
        let last = self.filled == 0;
        let input = self.input.get(self.taken..self.filled).unwrap_or_default();
        // The last byte stays free for the mark.
        let room = self.output.len().saturating_sub(1);
        let output = self.output.get_mut(..room).unwrap_or_default();
        let (result, read, written) =
            self.decoder.decode_to_utf8_without_replacement(input, output, last);
        self.taken += read;
        (self.given, self.decoded) = (0, written);
        match result {
            DecoderResult::InputEmpty => self.ended = last,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(..) => {
                if let Some(free) = self.output.get_mut(written) {
                    *free = NO_TEXT;
                    self.decoded += 1;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8], encoding: &'static Encoding) -> Vec<u8> {
        let mut out = Vec::new();
        let raw = Box::new(Cursor::new(bytes.to_vec()));
        to_utf8(raw, encoding).unwrap().read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn a_byte_order_mark_wins_and_goes() {
        let text = "خبر\n";
        let utf16 = |big: bool| -> Vec<u8> {
            let units = std::iter::once(0xfeff).chain(text.encode_utf16());
            units.flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
        };
        assert_eq!(decoded(&utf16(false), UTF_8), text.as_bytes());
        assert_eq!(decoded(&utf16(true), UTF_8), text.as_bytes());
        assert_eq!(decoded(format!("\u{feff}{text}").as_bytes(), UTF_8), text.as_bytes());
        let windows = encoding_rs::WINDOWS_1256.encode(text).0.into_owned();
        assert_eq!(decoded(&windows, encoding_rs::WINDOWS_1256), text.as_bytes());
    }

    #[test]
    fn what_cannot_be_decoded_is_no_utf8() {
        let lone = [0xff, 0xfe, 0x00, 0xd8, 0x41, 0x00];
        assert_eq!(decoded(&lone, UTF_8), [NO_TEXT, b'A']);
        let long: Vec<u8> =
            "نص".repeat(100_000).encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(decoded(&long, encoding_rs::UTF_16LE).len(), 400_000);
    }
}
