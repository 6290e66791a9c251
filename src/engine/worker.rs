//! The threads that run batches, and what they share with the callers.
//!
//! A panic never ends a thread or leaves a job without an answer: one of the encoder
//! fails its batch; one of the queue's own code, in whatever thread, or of anything
//! else in a worker fails every open job and empties the queue. None is logged with
//! what it says, which may quote a document.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::batches::BatchHistograms;
use super::error::EngineError;
use super::queue::{Batch, Piece, Queue, Ran, Running, Step};
use crate::nn::{Encoder, PackedTokens};

/// What workers and callers share.
pub(super) struct Shared {
    encoder: Arc<dyn Encoder>,
    width: usize,
    state: Mutex<State>,
    /// Wakes a worker: there may be work, or it should stop.
    work: Condvar,
    /// Wakes drains: every job may have been answered.
    idle: Notify,
    /// Panics of the encoder and of the engine itself.
    pub(super) panics: AtomicU64,
    /// The batches that have run.
    pub(super) batches: Mutex<BatchHistograms>,
}

/// What the lock guards.
struct State {
    queue: Queue,
    stopped: bool,
}

impl Shared {
    /// `width` is that of the encoder's rows.
    pub(super) fn new(encoder: Arc<dyn Encoder>, width: usize, queue: Queue) -> Self {
        Self {
            encoder,
            width,
            state: Mutex::new(State { queue, stopped: false }),
            work: Condvar::new(),
            idle: Notify::new(),
            panics: AtomicU64::new(0),
            batches: Mutex::default(),
        }
    }

    /// Changes the queue under the lock, then wakes who is concerned. The clock is
    /// read under the lock too, so that time never goes backwards in the queue.
    ///
    /// # Errors
    /// [`WorkerPanicked`](EngineError::WorkerPanicked) if `change` panicked. Every open
    /// job has been answered likewise then.
    pub(super) fn update<T>(
        &self,
        change: impl FnOnce(&mut Queue, Instant) -> T,
    ) -> Result<T, EngineError> {
        let mut state = self.state.lock();
        let result = self.change(&mut state.queue, change);
        self.wake(&state.queue);
        result
    }

    /// Reads the queue under the lock.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Queue) -> T) -> T {
        look(&self.state.lock().queue)
    }

    /// Returns once every job has been answered.
    pub(super) async fn until_idle(&self) {
        loop {
            let mut idle = pin!(self.idle.notified());
            // Registered before the look, so that no wake-up falls in between.
            idle.as_mut().enable();
            if self.read(Queue::is_empty) {
                return;
            }
            idle.await;
        }
    }

    /// Tells the workers to end. Returns whether all are free, so will end at once.
    pub(super) fn stop(&self) -> bool {
        let mut state = self.state.lock();
        state.stopped = true;
        self.work.notify_all();
        state.queue.no_batch_runs()
    }

    /// Runs batches until [`stop`](Self::stop), whatever panics.
    pub(super) fn work(&self, worker: usize) {
        let mut panicked = false;
        loop {
            let turn = catch_unwind(AssertUnwindSafe(|| {
                // In here, so that a panic of this is one more and not the end.
                if mem::take(&mut panicked) {
                    self.give_up(worker);
                }
                self.turn(worker)
            }));
            match turn {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => panicked = true,
            }
        }
    }

    /// Runs one batch. Returns false, without one, if the engine stops.
    fn turn(&self, worker: usize) -> bool {
        let Some(Batch { pieces, mut running }) = self.next_batch() else { return false };
        if running.has_left_out {
            self.run_urgent(worker, &mut running);
        }
        let ran = self.run(worker, pieces, &mut || self.run_urgent(worker, &mut running));
        self.observe(&running, &ran);
        // A panic in it has answered every job, so leaves nothing to do.
        drop(self.update(|queue, now| queue.finish(running, ran, now)));
        true
    }

    /// Runs the urgent work that there is now, while the batch `outer` pauses for it.
    fn run_urgent(&self, worker: usize, outer: &mut Running) {
        let run = || {
            while let Ok(Some(batch)) = self.update(|queue, now| queue.next_urgent(outer, now)) {
                let Batch { pieces, running } = batch;
                let ran = self.run(worker, pieces, &mut || ());
                self.observe(&running, &ran);
                drop(self.update(|queue, now| queue.finish_urgent(outer, running, ran, now)));
            }
        };
        // What panics outside of queue and encoder must not look like a panic of the
        // encoder that pauses: the jobs of the urgent batch would never be answered.
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            self.give_up(worker);
        }
    }

    /// Counts a batch that has run.
    fn observe(&self, running: &Running, ran: &[Ran]) {
        let sequences = ran.iter().map(|(piece, _)| piece.sequences.len()).sum();
        let time = running.time(Instant::now());
        self.batches.lock().observe(running.tokens, sequences, time);
    }

    /// Answers the jobs of a batch that was lost to a panic, by answering all.
    fn give_up(&self, worker: usize) {
        let mut state = self.state.lock();
        state.queue.reset();
        self.wake(&state.queue);
        drop(state);
        self.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(worker, "a worker panicked; every open job fails and it goes on");
    }

    /// Changes the locked queue. The lock does not notice a panic, after which the
    /// queue may be half-changed, so it is emptied before anybody else sees it.
    fn change<T>(
        &self,
        queue: &mut Queue,
        change: impl FnOnce(&mut Queue, Instant) -> T,
    ) -> Result<T, EngineError> {
        catch_unwind(AssertUnwindSafe(|| change(queue, Instant::now()))).map_err(|_| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            queue.reset();
            tracing::error!("the queue panicked; every open job fails and the engine goes on");
            EngineError::WorkerPanicked
        })
    }

    /// Waits for a batch; `None` if the engine stops.
    fn next_batch(&self) -> Option<Batch> {
        let mut state = self.state.lock();
        while !state.stopped {
            // After a panic the queue is empty, so there is nothing to run.
            let step = self.change(&mut state.queue, Queue::next).unwrap_or(Step::Wait);
            match step {
                Step::Run(batch) => {
                    // What is left is for the next free worker.
                    self.wake(&state.queue);
                    return Some(batch);
                }
                Step::WaitUntil(ready) => {
                    let time = ready.saturating_duration_since(Instant::now());
                    self.work.wait_for(&mut state, time);
                }
                Step::Wait => {
                    self.wake(&state.queue);
                    self.work.wait(&mut state);
                }
            }
        }
        None
    }

    fn wake(&self, queue: &Queue) {
        if queue.has_queued() {
            self.work.notify_one();
        }
        if queue.is_empty() {
            self.idle.notify_waiters();
        }
    }

    /// Runs the pieces together. If the encoder fails on them, each is tried once
    /// alone, so that a bad document fails alone; not after a panic, which may
    /// have cost memory or time that should not be spent twice.
    fn run(&self, worker: usize, pieces: Vec<Piece>, pause: &mut dyn FnMut()) -> Vec<Ran> {
        let together = match self.encode(worker, &pieces, pause) {
            Err(EngineError::Encode { .. }) if pieces.len() > 1 => {
                let alone = |piece: Piece| {
                    let rows = self.encode(worker, slice::from_ref(&piece), pause);
                    (piece, rows.and_then(|rows| all_finite(rows, self.width)))
                };
                return pieces.into_iter().map(alone).collect();
            }
            together => together,
        };
        let mut rows = together.map(Vec::into_iter);
        let share = |piece: Piece| {
            let values = piece.sequences.len() * self.width;
            let own = match &mut rows {
                Ok(rows) => all_finite(rows.by_ref().take(values).collect(), self.width),
                Err(error) => Err(error.clone()),
            };
            (piece, own)
        };
        pieces.into_iter().map(share).collect()
    }

    /// The rows of all pieces, `[sequences * width]`.
    fn encode(
        &self,
        worker: usize,
        pieces: &[Piece],
        pause: &mut dyn FnMut(),
    ) -> Result<Vec<f32>, EngineError> {
        // The encoder and the pieces are only borrowed, so nothing half-changed of
        // the engine's is seen after a panic.
        catch_unwind(AssertUnwindSafe(|| self.try_encode(pieces, pause))).unwrap_or_else(|_| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(worker, "the encoder panicked; its batch fails and the worker goes on");
            Err(EngineError::WorkerPanicked)
        })
    }

    /// The same, but the encoder may panic, and so may an error of its when it is shown.
    fn try_encode(
        &self,
        pieces: &[Piece],
        pause: &mut dyn FnMut(),
    ) -> Result<Vec<f32>, EngineError> {
        let mut packed = PackedTokens::new();
        for sequence in pieces.iter().flat_map(|piece| &piece.sequences) {
            packed.push(sequence);
        }
        let rows = self
            .encoder
            .encode(&packed, pause)
            .map_err(|error| EngineError::Encode { message: error.to_string() })?;
        if rows.len() != packed.sequences() || rows.width() != self.width {
            let (found, width) = (rows.len(), rows.width());
            let (expected, expected_width) = (packed.sequences(), self.width);
            return Err(EngineError::Encode {
                message: format!(
                    "it gave {found} rows of {width} values; expected {expected} of {expected_width}"
                ),
            });
        }
        Ok(rows.as_slice().to_vec())
    }
}

/// Refuses rows of NaN or infinity, which are no answer to give a caller.
fn all_finite(rows: Vec<f32>, width: usize) -> Result<Vec<f32>, EngineError> {
    match rows.iter().position(|value| !value.is_finite()) {
        None => Ok(rows),
        Some(at) => Err(EngineError::Encode {
            message: format!(
                "value {} of row {} is not finite",
                at.checked_rem(width).unwrap_or(0),
                at.checked_div(width).unwrap_or(0)
            ),
        }),
    }
}
