//! Files of one document a line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;

use crate::cli::exit::Failure;
use crate::cli::prepare::MAX_LINE_BYTES;

/// Bytes read of a file, at most: all of its documents are held in memory.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// A line that is not blank, with its number from 1.
pub(super) type Numbered<T> = (u64, T);

/// What `parse` makes of each line of `path` that is not blank, at most `limit` of them; a line of
/// which it makes nothing is left out. It has the line without spaces around it.
///
/// # Errors
/// If the file cannot be read or nothing is made of it, or, with the line's number, if a line is
/// too long, not UTF-8, or refused by `parse`.
pub(super) fn read<T>(
    path: &Path,
    limit: usize,
    mut parse: impl FnMut(&str) -> Result<Option<T>, String>,
) -> anyhow::Result<Vec<Numbered<T>>> {
    let name = path.display();
    let file =
        File::open(path).map_err(|error| Failure::Usage(format!("cannot open {name}: {error}")))?;
    let mut file = BufReader::new(file);
    let mut parsed = Vec::new();
    let (mut line, mut number, mut bytes) = (Vec::new(), 0, 0);
    while parsed.len() < limit {
        line.clear();
        let part = file.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line);
        let read = part.with_context(|| format!("cannot read {name}"))? as u64;
        if read == 0 {
            break;
        }
        number += 1;
        bytes += read;
        let refuse = |problem: String| Failure::Usage(format!("{name}, line {number}: {problem}"));
        if read > MAX_LINE_BYTES {
            return Err(refuse(format!("more than {MAX_LINE_BYTES} bytes")).into());
        }
        if bytes > MAX_FILE_BYTES {
            let problem = format!("the file has more than {MAX_FILE_BYTES} bytes up to here");
            return Err(refuse(format!("{problem}; --documents N takes the first N")).into());
        }
        let text = str::from_utf8(&line).map_err(|error| refuse(format!("not UTF-8: {error}")))?;
        // A file that was written on Windows may begin with a byte order mark.
        let text = text.strip_prefix('\u{feff}').filter(|_| number == 1).unwrap_or(text).trim();
        if text.is_empty() {
            continue;
        }
        if let Some(document) = parse(text).map_err(refuse)? {
            parsed.push((number, document));
        }
    }
    if parsed.is_empty() {
        return Err(Failure::Usage(format!("{name} holds no document")).into());
    }
    Ok(parsed)
}
