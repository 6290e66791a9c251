//! The first stage: the rows of the archive, in chunks.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;

use super::Sent;
use crate::archive::input::{Row, Source};

/// Rows, and about bytes, that go to the next stage at a time.
const CHUNK_ROWS: usize = 64;
const CHUNK_BYTES: usize = 1 << 20;

/// Reads the archive in chunks, but not its first `skip` rows.
pub(in crate::archive) fn read(
    mut source: Source,
    skip: u64,
    stop: &AtomicBool,
    to: &SyncSender<Sent<Vec<Row>>>,
) {
    let mut left = skip;
    let mut chunk = Vec::new();
    let mut bytes = 0;
    let end = loop {
        let row = match source.next_row(stop) {
            Err(error) => break Err(error),
            Ok(None) => break Ok(None),
            Ok(Some(_)) if left > 0 => {
                left -= 1;
                continue;
            }
            Ok(Some(row)) => row,
        };
        bytes += row.fields.len();
        chunk.push(row);
        if chunk.len() >= CHUNK_ROWS || bytes >= CHUNK_BYTES {
            bytes = 0;
            // Whoever does not take it has told why.
            if to.send(Ok(Some(std::mem::take(&mut chunk)))).is_err() {
                return;
            }
        }
    };
    if to.send(Ok(Some(chunk))).is_ok() {
        drop(to.send(end));
    }
}
