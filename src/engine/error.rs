//! Why a job has no answer, or an engine does not start.

use std::time::Duration;

use thiserror::Error;

/// Why a job has no rows.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The queue has no room for the job now, nor has the line before it if the job
    /// would wait.
    #[error(
        "the queue holds {queued_tokens} tokens of at most {limit}; retry in {} ms",
        .retry_after.as_millis()
    )]
    Overloaded {
        /// Tokens queued, and those of jobs that wait for room ahead of this one; only
        /// the latter if the job would wait.
        queued_tokens: usize,
        /// The limit that the job would go over: that of the queue, of its lane, or of
        /// those who wait in its lane.
        limit: usize,
        /// When there should be room, by the speed of the last batches.
        retry_after: Duration,
    },
    /// The job's client has as much in the queue, or in the line before it if the job
    /// would wait, as one client may. Others still find room.
    #[error(
        "this client has {queued_tokens} tokens in the queue of at most {limit}; retry in {} ms",
        .retry_after.as_millis()
    )]
    ClientOverloaded {
        /// Tokens of the client's that are queued, or wait for room ahead of this job.
        queued_tokens: usize,
        /// The limit that the job would go over: `max_queued_tokens_per_client` of
        /// [`EngineConfig`](super::EngineConfig), or what bulk jobs may hold of it.
        limit: usize,
        /// When there should be room, by the speed of the last batches and the number of
        /// clients that share it.
        retry_after: Duration,
    },
    /// The job would not run in time: what is queued ahead of it takes too long, by the
    /// speed of the last batches.
    #[error(
        "the document would take about {} ms in the queue, and its deadline is in {} ms; retry in \
         {} ms",
        .needed.as_millis(), .left.as_millis(), .retry_after.as_millis()
    )]
    WouldExpire {
        /// How long the job and what is ahead of it should take, with a margin.
        needed: Duration,
        /// How long there is until the deadline.
        left: Duration,
        /// When the queue should be short enough.
        retry_after: Duration,
    },
    /// The job alone is over the limit of its lane, so there will never be room.
    #[error("the document has {tokens} tokens; the queue takes at most {limit}")]
    TooLarge {
        /// Tokens over all sequences of the job.
        tokens: usize,
        /// The most that its lane holds.
        limit: usize,
    },
    /// The engine is shutting down and takes no work, or gave this job up.
    #[error("the engine is shutting down; retry in {} ms", .retry_after.as_millis())]
    Draining {
        /// When another instance should be there to answer.
        retry_after: Duration,
    },
    /// The job's deadline passed before its answer was there.
    #[error("the deadline passed before the document was classified")]
    DeadlineExceeded,
    /// The encoder panicked in a batch that held the job, or the engine itself did
    /// while the job was open. The engine goes on.
    #[error("the encoder or the engine panicked while the document was queued or running")]
    WorkerPanicked,
    /// The encoder failed on the job itself: it was also tried without other jobs.
    #[error("the encoder failed: {message}")]
    Encode {
        /// What the encoder said.
        message: String,
    },
    /// The job breaks a rule of [`Job`](super::Job): a fault of the caller's code.
    #[error("the job is invalid: {message}")]
    InvalidJob {
        /// Which rule, and where.
        message: String,
    },
}

/// Why an engine does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A field of [`EngineConfig`](super::EngineConfig) is outside its range.
    #[error("engine setting {field} is {value}; it must be {expected}")]
    InvalidConfig {
        /// The field.
        field: &'static str,
        /// What it is.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// The encoder says that its rows hold no values.
    #[error("the encoder gives rows of 0 values; it must give at least 1")]
    NoWidth,
    /// The operating system gave no thread.
    #[error("cannot start worker thread {worker}: {source}")]
    Spawn {
        /// Index of the worker.
        worker: usize,
        /// What the operating system said.
        source: std::io::Error,
    },
}
