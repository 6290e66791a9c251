//! One job in the queue: what of it is still to run, and the rows it has so far.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{JobId, Piece, Reply};
use crate::engine::error::EngineError;
use crate::engine::job::{ClientId, Job, JobTiming, Lane, Output};
use crate::nn::Rows;

/// A job that has not been answered.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) client: ClientId,
    pub(super) lane: Lane,
    pub(super) deadline: Option<Instant>,
    /// Sequences in no batch yet, in order.
    pub(super) rest: VecDeque<Vec<u32>>,
    /// Tokens of `rest`.
    pub(super) rest_tokens: usize,
    /// When it got into its lane; until then, when it came.
    pub(super) admitted: Instant,
    /// Sequences in the job.
    sequences: usize,
    /// Sequences that have no row yet.
    missing: usize,
    /// Rows in the job's order, `[sequences * width]`; empty before the first.
    rows: Vec<f32>,
    /// Start and tokens of its first batch.
    first_batch: Option<(Instant, usize)>,
    /// How long its batches have paused.
    pub(super) paused: Duration,
    reply: Reply,
}

impl Entry {
    pub(super) fn new(job: Job, tokens: usize, reply: Reply, now: Instant) -> Self {
        Self {
            client: job.client,
            lane: job.lane,
            deadline: job.deadline,
            rest_tokens: tokens,
            admitted: now,
            sequences: job.sequences.len(),
            missing: job.sequences.len(),
            rows: Vec::new(),
            first_batch: None,
            paused: Duration::ZERO,
            reply,
            rest: job.sequences.into(),
        }
    }

    /// Tokens of the next sequence; 0 if there is none.
    pub(super) fn next_tokens(&self) -> usize {
        self.rest.front().map_or(0, Vec::len)
    }

    /// Moves the next sequence to the end of `pieces`.
    pub(super) fn take_into(&mut self, id: JobId, pieces: &mut Vec<Piece>) {
        let first = self.sequences - self.rest.len();
        let Some(sequence) = self.rest.pop_front() else { return };
        self.rest_tokens -= sequence.len();
        match pieces.last_mut() {
            Some(piece) if piece.job == id => piece.sequences.push(sequence),
            _ => pieces.push(Piece { job: id, first, sequences: vec![sequence] }),
        }
    }

    /// Takes sequences back that were the last to leave.
    pub(super) fn give_back(&mut self, sequences: Vec<Vec<u32>>) {
        for sequence in sequences.into_iter().rev() {
            self.rest_tokens += sequence.len();
            self.rest.push_front(sequence);
        }
    }

    /// Notes that a batch of `tokens` with sequences of this job starts.
    pub(super) fn starts(&mut self, now: Instant, tokens: usize) {
        self.first_batch.get_or_insert((now, tokens));
    }

    /// Keeps the rows of `piece`.
    pub(super) fn store(&mut self, piece: &Piece, rows: &[f32], width: usize) {
        self.rows.resize(self.sequences * width, 0.0);
        for (slot, value) in self.rows.iter_mut().skip(piece.first * width).zip(rows) {
            *slot = *value;
        }
        self.missing -= piece.sequences.len();
    }

    /// Whether every sequence has its row.
    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Answers with the rows.
    pub(super) fn complete(mut self, width: usize, now: Instant) {
        let (started, batch_tokens) = self.first_batch.unwrap_or((now, 0));
        let open = now.saturating_duration_since(started);
        // Those of batches on several workers may overlap.
        let paused = self.paused.min(open);
        let timing = JobTiming {
            queue: started.saturating_duration_since(self.admitted) + paused,
            inference: open - paused,
            batch_tokens,
        };
        let result = Rows::new(std::mem::take(&mut self.rows), width)
            .map(|rows| Output { rows, timing })
            .ok_or_else(|| EngineError::Encode { message: "rows of 0 values".to_owned() });
        self.answer(result);
    }

    /// Tells the caller.
    pub(super) fn answer(self, result: Result<Output, EngineError>) {
        // A caller that has gone between its answer and its cancellation wants none.
        drop(self.reply.send(result));
    }
}
