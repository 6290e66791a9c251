//! The batching core: takes jobs of token sequences, forms batches of them, runs
//! these on an [`Encoder`] and answers each job once.
//!
//! It knows no transport and no tensor library. `queue/` is the whole policy, as a
//! machine without threads or clock; `worker.rs` drives it; [`Engine`] is its face.
//!
//! - **Admission** counts tokens. Over `max_queued_tokens`, or its client over
//!   `max_queued_tokens_per_client`, a job is refused with the time in which there should
//!   be room, or waits in a line that is bounded too. Bulk jobs may hold three quarters
//!   of the queue. A job that could not run by its deadline is refused at once as well.
//! - **Clients take turns**: within a lane each gets an equal share of the tokens that
//!   run while it has work there, so one client's flood does not hold up another's job.
//! - **Two lanes**: interactive work goes first, bulk work after `max_interactive_run`
//!   batches of it.
//! - **Nobody waits for a long batch to end**: a bulk batch, or one that holds another
//!   client's flood, pauses for interactive jobs, if the encoder can.
//! - **Batches are natural**: a free worker takes what is there, up to
//!   `max_batch_tokens`. The windows of one job may run in several batches.
//! - **Deadlines and cancellation**: a job past its deadline is answered at that
//!   moment; one whose future is dropped leaves at once. Neither runs if it has not
//!   started; if it has, its rows are dropped.
//! - **Failures stay where they arise**: a batch that fails is run again one job at a
//!   time; NaN fails its own job; a panic of the encoder fails its batch. A panic of
//!   the engine itself fails every open job. The engine goes on after each.
//! - **Nothing accepted is lost**: each job is answered exactly once, also by a drain.

mod batches;
mod config;
mod error;
mod job;
mod queue;
mod rate;
mod stats;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use self::batches::{BatchHistograms, Histogram};
pub use self::config::EngineConfig;
pub use self::error::{EngineError, StartError};
pub use self::job::{Admission, ClientId, Job, JobTiming, Lane, Output};
pub use self::stats::{DrainReport, EngineStats};

use self::queue::{JobId, Queue};
use self::worker::Shared;
use crate::nn::Encoder;

/// Batches jobs and runs them on one encoder.
///
/// Dropping it stops its threads: free ones before the drop returns, busy ones
/// after their batch. No job can be open then, since futures of
/// [`submit`](Self::submit) borrow the engine.
pub struct Engine {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    max_sequence_tokens: usize,
}

impl Engine {
    /// Starts the worker threads. Inside a tokio runtime they share its clock, so
    /// that tests can pause it.
    ///
    /// # Errors
    /// If a setting is out of range, the encoder has no width, or the system gives
    /// no thread.
    pub fn start(encoder: Arc<dyn Encoder>, config: EngineConfig) -> Result<Self, StartError> {
        config.validate()?;
        let width = encoder.width();
        if width == 0 {
            return Err(StartError::NoWidth);
        }
        let max_sequence_tokens = encoder.max_sequence_tokens();
        let shared = Arc::new(Shared::new(encoder, width, Queue::new(config, width)));
        let mut engine = Self { shared, workers: Vec::new(), max_sequence_tokens };
        for worker in 0..config.workers {
            let shared = Arc::clone(&engine.shared);
            let runtime = Handle::try_current().ok();
            let work = move || {
                let _clock = runtime.as_ref().map(Handle::enter);
                shared.work(worker);
            };
            let thread = thread::Builder::new().name(format!("tasnif-worker-{worker}"));
            // On failure the drop of `engine` stops those that have started.
            let handle =
                thread.spawn(work).map_err(|source| StartError::Spawn { worker, source })?;
            engine.workers.push(handle);
        }
        Ok(engine)
    }

    /// Runs a job and returns its rows. Dropping the future cancels the job.
    ///
    /// A job with a deadline needs a tokio runtime with its timer on.
    ///
    /// # Errors
    /// - [`InvalidJob`](EngineError::InvalidJob): no sequence, an empty one, or one
    ///   longer than the encoder takes.
    /// - [`TooLarge`](EngineError::TooLarge), [`Overloaded`](EngineError::Overloaded),
    ///   [`ClientOverloaded`](EngineError::ClientOverloaded),
    ///   [`WouldExpire`](EngineError::WouldExpire), [`Draining`](EngineError::Draining):
    ///   the job was not accepted.
    /// - [`DeadlineExceeded`](EngineError::DeadlineExceeded): at the deadline, wherever
    ///   the job then is; at once if it has passed.
    /// - [`Encode`](EngineError::Encode), [`WorkerPanicked`](EngineError::WorkerPanicked):
    ///   a batch with a sequence of the job failed; the rest of the job does not run.
    ///   The latter also if the engine itself panicked, whatever the job was doing.
    pub async fn submit(&self, job: Job) -> Result<Output, EngineError> {
        self.check(&job)?;
        let deadline = job.deadline;
        let (reply, answer) = oneshot::channel();
        let id = self.shared.update(|queue, now| queue.submit(job, reply, now))??;
        let _ticket = Ticket { shared: &self.shared, id };
        let answer = async {
            // The queue answers every job before it lets go of it, except after a
            // panic of the engine itself.
            answer.await.unwrap_or(Err(EngineError::WorkerPanicked))
        };
        match deadline {
            None => answer.await,
            Some(deadline) => tokio::time::timeout_at(deadline, answer)
                .await
                .unwrap_or(Err(EngineError::DeadlineExceeded)),
        }
    }

    /// Refuses now what [`submit`](Self::submit) would refuse of a job of about `tokens`, so that
    /// an overloaded server need not first find out how many it has.
    ///
    /// # Errors
    /// Those of a job that is not accepted.
    pub fn look(
        &self,
        client: &ClientId,
        lane: Lane,
        tokens: usize,
        admission: Admission,
        deadline: Option<Instant>,
    ) -> Result<(), EngineError> {
        let line = (lane, client);
        self.shared.update(|queue, now| queue.look(line, tokens, admission, deadline, now))?
    }

    /// Takes no more work and returns once every accepted job is answered, or after
    /// `timeout`, when those left are answered [`Draining`](EngineError::Draining).
    /// Jobs that wait for room are refused at once: they were not accepted.
    ///
    /// It may be called again and at the same time; the first timeout to pass
    /// ends the work, and every call reports on all of it.
    pub async fn drain(&self, timeout: Duration) -> DrainReport {
        // A panic in either has answered every job, so leaves nothing to do.
        drop(self.shared.update(|queue, _| queue.begin_drain()));
        if tokio::time::timeout(timeout, self.shared.until_idle()).await.is_err() {
            drop(self.shared.update(|queue, _| queue.abandon()));
        }
        self.shared.read(Queue::drain_report)
    }

    /// The counters now.
    pub fn stats(&self) -> EngineStats {
        let worker_restarts = self.shared.panics.load(Ordering::Relaxed);
        EngineStats { worker_restarts, ..self.shared.read(Queue::stats) }
    }

    /// The batches that have run since the start.
    pub fn batches(&self) -> BatchHistograms {
        self.shared.batches.lock().clone()
    }

    fn check(&self, job: &Job) -> Result<(), EngineError> {
        let limit = self.max_sequence_tokens;
        let mut lengths = job.sequences.iter().map(Vec::len).enumerate();
        let message = if job.sequences.is_empty() {
            "it has no sequences".to_owned()
        } else if let Some((index, length)) = lengths.find(|(_, n)| *n == 0 || *n > limit) {
            format!("sequence {index} has {length} tokens; the encoder takes 1 to {limit}")
        } else {
            return Ok(());
        };
        Err(EngineError::InvalidJob { message })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A busy worker is not waited for: its batch may take long, or never end.
        if self.shared.stop() {
            for worker in self.workers.drain(..) {
                // An error would mean that a worker has panicked, and it has said so.
                drop(worker.join());
            }
        }
    }
}

/// Takes its job out of the queue when the caller goes, for whatever reason.
struct Ticket<'a> {
    shared: &'a Shared,
    id: JobId,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        // After a panic the job is gone as well.
        drop(self.shared.update(|queue, now| queue.cancel(self.id, now)));
    }
}
