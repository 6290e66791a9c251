//! What the engine says of itself.

/// A snapshot of the engine's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineStats {
    /// Jobs accepted and not yet answered, queued or running.
    pub open_jobs: usize,
    /// Jobs that wait for room in the queue; no figure but the next counts them.
    pub waiting_jobs: usize,
    /// Tokens of the jobs that wait for room.
    pub waiting_tokens: usize,
    /// Clients with jobs queued, counted in each lane.
    pub queued_clients: usize,
    /// Tokens queued, in no batch yet.
    pub queued_tokens: usize,
    /// Those of them that are in the bulk lane.
    pub queued_bulk_tokens: usize,
    /// Sequences queued, in no batch yet.
    pub queued_sequences: usize,
    /// Tokens in batches that run now, paused ones included.
    pub running_tokens: usize,
    /// Batches that run now, paused ones included.
    pub running_batches: usize,
    /// Sequences encoded since the start.
    pub finished_sequences: u64,
    /// Tokens encoded since the start.
    pub finished_tokens: u64,
    /// Batches that ended since the start, failed ones included.
    pub batches: u64,
    /// Batches of urgent work since the start that ran while another paused for them.
    pub preemptions: u64,
    /// Panics since the start, after each of which the engine went on: of the encoder,
    /// which fail their batch, and of the engine itself, which fail every open job.
    pub worker_restarts: u64,
    /// Speed of the last batches over all workers, in tokens a second; a guess before the first.
    pub tokens_per_second: f64,
}

/// What became of the work that a drain found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Accepted jobs that ended in their own time: answered, expired or left by their caller.
    pub finished: usize,
    /// Accepted jobs that were answered `Draining` because the time was up.
    pub abandoned: usize,
    /// Jobs that waited for room, so were not accepted, and were refused at once.
    pub refused: usize,
}
