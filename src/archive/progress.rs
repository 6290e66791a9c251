//! How far a run is, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of a run, to be read from another thread while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    total_bytes: AtomicU64,
    position: AtomicU64,
    resumed_rows: AtomicU64,
    scored: AtomicU64,
    rejected: AtomicU64,
    duplicates: AtomicU64,
    tokens: AtomicU64,
    parts: AtomicU64,
}

/// A look at [`Progress`]. The counts are those of this run, without the rows that
/// an earlier one had done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes of the archive as it is on disk; 0 if not known.
    pub total_bytes: u64,
    /// Bytes of it up to the last row that was written.
    pub position: u64,
    /// Rows that an earlier run had done.
    pub resumed_rows: u64,
    /// Rows with an answer.
    pub scored: u64,
    /// Rows without.
    pub rejected: u64,
    /// Rows whose answer was that of an equal text.
    pub duplicates: u64,
    /// Tokens that the model has read.
    pub tokens: u64,
    /// Parts on disk, those of an earlier run included.
    pub parts: u64,
}

impl Progress {
    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            total_bytes: read(&self.total_bytes),
            position: read(&self.position),
            resumed_rows: read(&self.resumed_rows),
            scored: read(&self.scored),
            rejected: read(&self.rejected),
            duplicates: read(&self.duplicates),
            tokens: read(&self.tokens),
            parts: read(&self.parts),
        }
    }

    pub(super) fn begins(&self, total_bytes: u64, resumed_rows: u64, parts: u64) {
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.resumed_rows.store(resumed_rows, Ordering::Relaxed);
        self.parts.store(parts, Ordering::Relaxed);
    }

    pub(super) fn scored(&self, position: u64, tokens: u64, duplicate: bool) {
        self.position.store(position, Ordering::Relaxed);
        self.scored.fetch_add(1, Ordering::Relaxed);
        if duplicate {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
        } else {
            self.tokens.fetch_add(tokens, Ordering::Relaxed);
        }
    }

    pub(super) fn rejected(&self, position: u64) {
        self.position.store(position, Ordering::Relaxed);
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn committed(&self, parts: u64) {
        self.parts.store(parts, Ordering::Relaxed);
    }
}
