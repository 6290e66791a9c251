//! Lines of a stream, none longer than a bound.

use std::io::{self, BufRead, BufReader, Read};

const BUFFER_BYTES: usize = 64 << 10;

/// Reads lines, by `\n`, `\r\n` or the end of the stream.
pub(super) struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    pub(super) max_bytes: usize,
    line: Vec<u8>,
    number: u64,
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Its bytes, without the line's end.
    Whole(&'a [u8]),
    /// It has this many bytes, too many.
    TooLong(u64),
}

impl Lines {
    /// Lines of at most `max_bytes`; of longer ones only the length is told.
    pub(super) fn new(reader: Box<dyn Read + Send>, max_bytes: usize) -> Self {
        let reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        Self { reader, max_bytes, line: Vec::new(), number: 0 }
    }

    /// The next line with its number, from 1; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Line<'_>)>> {
        self.line.clear();
        let mut length = 0u64;
        let mut ended = false;
        while !ended {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if buffer.is_empty() {
                break;
            }
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
            length += part.len() as u64;
            // One more for a carriage return.
            if length <= self.max_bytes as u64 + 1 {
                self.line.extend_from_slice(part);
            }
            ended = end.is_some();
            let taken = part.len() + usize::from(ended);
            self.reader.consume(taken);
        }
        if length == 0 && !ended {
            return Ok(None);
        }
        self.number += 1;
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let fits = line.len() <= self.max_bytes && length == self.line.len() as u64;
        Ok(Some((self.number, if fits { Line::Whole(line) } else { Line::TooLong(length) })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_by_any_convention_and_long_ones_are_only_counted() {
        let text = b"a\r\n\nlong line\nexact\r\nlast".to_vec();
        let mut lines = Lines::new(Box::new(io::Cursor::new(text)), 5);
        let expected = [
            (1, Line::Whole(b"a".as_slice())),
            (2, Line::Whole(b"")),
            (3, Line::TooLong(9)),
            (4, Line::Whole(b"exact")),
            (5, Line::Whole(b"last")),
        ];
        for want in expected {
            assert_eq!(lines.next().unwrap(), Some(want));
        }
        assert_eq!(lines.next().unwrap(), None);
    }
}
