//! Answers kept for the next document that says the same: wire copy repeats.
//!
//! What is kept is what the model made of a text, the logits of every task, so options that only
//! choose what is reported (tasks, `top_k`, `min_score`, logits) share one entry. Evidence is
//! computed anew each time. Errors are never kept.
//!
//! Identical documents that come while the first one runs wait for it. Whatever ends the first
//! without an answer (its deadline, a caller who leaves, a full queue) is its own: then one of
//! those who wait runs in its place. They wait inside the room for open documents and with
//! deadlines of their own, so they are as bounded as if they ran, but they take no place in the
//! engine's queue.
//!
//! One cache serves all models of a process, within one budget. A model's fingerprint is part of
//! each key, so after a reload the old model's entries are not found, and age out.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::decision::TaskLogits;
use super::shares::Line;
use super::types::{ClassifyError, Document, LongText, Usage};

/// Bytes of an entry beside its key and answer: the library's books and what the allocator adds.
/// Measured with a counting allocator as 341 an entry at 10,000 to 1,000,000 entries, before the
/// allocations that an answer has inside.
const ENTRY_OVERHEAD_BYTES: usize = 400;

/// Settings of a [`Cache`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct CacheConfig {
    /// Bytes that the entries of all models take, keys and books included, at most; 0: no cache.
    pub max_bytes: u64,
}

/// A snapshot of a cache's counters, which count since the start unless they say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Documents whose answer was there.
    pub hits: u64,
    /// Documents answered by an identical one that ran at the time.
    pub coalesced: u64,
    /// Documents that ran, those that failed included.
    pub misses: u64,
    /// Documents that wait now for an identical one to be answered.
    pub waiting: u64,
    /// Entries that had to go for the room they took.
    pub evictions: u64,
    /// Entries now.
    pub entries: u64,
    /// Bytes of these, keys and books included.
    pub bytes: u64,
}

/// Answers by model and text, and the documents that are on their way to one.
pub struct Cache {
    answers: moka::sync::Cache<Key, Arc<Answer>>,
    /// By line too: nobody is answered by a run in another, which may be longer.
    flights: Mutex<HashMap<(Key, Line), Flight>>,
    counters: Arc<Counters>,
}

/// A cache as one model uses it.
pub(super) struct ModelCache {
    cache: Arc<Cache>,
    model: String,
}

/// What a model and a text come to: a hash of both, wide enough that no two texts share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

/// What a model made of a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// Those of every task of the model.
    pub(super) logits: Vec<TaskLogits>,
    /// What was read for them.
    pub(super) usage: Usage,
}

/// A document that runs, for all of its client's who ask the same in the same lane. Lanes are kept
/// apart, since an interactive document must not wait for one that waits in the bulk lane, and so
/// are clients, which wait for their own turns.
struct Flight {
    answer: Arc<OnceCell<Arc<Answer>>>,
    callers: u64,
}

/// A caller's place in a flight, until it is dropped.
struct Seat<'a> {
    cache: &'a Cache,
    flight: (Key, Line),
    answer: Arc<OnceCell<Arc<Answer>>>,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    coalesced: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

impl Cache {
    /// An empty cache, or none if the settings allow it no bytes.
    pub fn new(config: CacheConfig) -> Option<Arc<Self>> {
        if config.max_bytes == 0 {
            return None;
        }
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        // News is repeated soon or never, so the oldest go first. The library's other policy
        // would not let new texts in while old ones have been asked for more often.
        let answers = moka::sync::Cache::builder()
            .max_capacity(config.max_bytes)
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_, answer: &Arc<Answer>| answer.entry_bytes())
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    counted.evictions.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build();
        Some(Arc::new(Self { answers, flights: Mutex::default(), counters }))
    }

    /// The counters now.
    pub fn stats(&self) -> CacheStats {
        // What was inserted last is not counted, nor evicted for, before this.
        self.answers.run_pending_tasks();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let waiting = self.flights.lock().values().map(|flight| flight.callers - 1).sum();
        CacheStats {
            waiting,
            hits: count(&self.counters.hits),
            coalesced: count(&self.counters.coalesced),
            misses: count(&self.counters.misses),
            evictions: count(&self.counters.evictions),
            entries: self.answers.entry_count(),
            bytes: self.answers.weighted_size(),
        }
    }

    /// The answer that is kept.
    pub(super) fn get(&self, key: Key) -> Option<Arc<Answer>> {
        let answer = self.answers.get(&key)?;
        self.counters.hits.fetch_add(1, Ordering::Relaxed);
        Some(answer)
    }

    /// The answer of `run`, which is kept, or that of an identical document which runs now in the
    /// same line. Dropping the future leaves the others to themselves.
    ///
    /// # Errors
    /// Those of `run` alone: what another document fails for is not shared.
    pub(super) async fn join(
        &self,
        key: Key,
        line: Line,
        run: impl Future<Output = Result<Answer, ClassifyError>>,
    ) -> Result<Arc<Answer>, ClassifyError> {
        let seat = self.sit((key, line));
        let mut ran = false;
        // One future at a time runs. If it fails, panics or is dropped, the next one does.
        let run = async {
            // The one before may have ended between the caller's look and now.
            if let Some(answer) = self.answers.get(&key) {
                return Ok(answer);
            }
            ran = true;
            self.counters.misses.fetch_add(1, Ordering::Relaxed);
            let answer = Arc::new(run.await?);
            self.answers.insert(key, Arc::clone(&answer));
            Ok::<_, ClassifyError>(answer)
        };
        let answer = seat.answer.get_or_try_init(|| run).await.cloned()?;
        if !ran {
            self.counters.coalesced.fetch_add(1, Ordering::Relaxed);
        }
        Ok(answer)
    }

    fn sit(&self, flight: (Key, Line)) -> Seat<'_> {
        let mut flights = self.flights.lock();
        let entry = flights
            .entry(flight.clone())
            .or_insert_with(|| Flight { answer: Arc::default(), callers: 0 });
        entry.callers += 1;
        Seat { cache: self, flight, answer: Arc::clone(&entry.answer) }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut flights = self.cache.flights.lock();
        if let Some(flight) = flights.get_mut(&self.flight) {
            flight.callers -= 1;
            if flight.callers == 0 {
                flights.remove(&self.flight);
            }
        }
    }
}

impl ModelCache {
    /// `cache` for the model that `identity` stands for: all that, beside the document, decides
    /// its answers.
    pub(super) fn new(cache: Arc<Cache>, identity: String) -> Self {
        Self { cache, model: identity }
    }

    /// The cache, and the key of the model's answer to `document`.
    pub(super) fn place(&self, document: &Document, long_text: LongText) -> (&Cache, Key) {
        (&self.cache, Key::new(&self.model, document, long_text))
    }
}

impl Key {
    /// The key of what `model` answers to a document. The document's id is no part of it.
    fn new(model: &str, document: &Document, long_text: LongText) -> Self {
        let mut hash = Sha256::new();
        for part in [model, &document.title, &document.text] {
            // The length keeps the end of a part from passing for the start of the next.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update([long_text as u8]);
        Self(hash.finalize().into())
    }
}

impl Answer {
    /// Bytes of an entry with this answer.
    fn entry_bytes(&self) -> u32 {
        let logits = self.logits.iter().map(|task| size_of_val(task.as_slice()));
        let heap = size_of_val(self.logits.as_slice()) + logits.sum::<usize>();
        let bytes = ENTRY_OVERHEAD_BYTES + size_of::<Key>() + size_of::<Self>() + heap;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
