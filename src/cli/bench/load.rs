//! Load on a target: closed loops, which send a document when one is answered, and open ones,
//! to which documents arrive whether or not the target keeps up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand_distr::{Distribution, Exp};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::tally::{Outcome, Sample, Tally, Window};
use super::work::{Order, random};

/// Documents that an open loop has open, at most; those over it are counted as `not_sent`.
const MAX_OPEN: usize = 16_384;
/// How long the last documents may take once the time is over; then they are `unfinished`.
const DRAIN: Duration = Duration::from_secs(60);
/// How long a closed loop waits after an error, which costs the target next to nothing.
const PAUSE: Duration = Duration::from_millis(10);

/// What documents are sent to.
pub(super) trait Target: Clone + Send + Sync + 'static {
    /// Sends document `index` and waits for the answer.
    fn call(&self, index: usize) -> impl Future<Output = Outcome> + Send;
}

/// How documents are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Load {
    /// This many are open at any time.
    Closed { concurrency: u16 },
    /// This many arrive a second, at moments of chance (a Poisson process).
    Open { rate: f64 },
}

/// How long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) warmup: Duration,
    pub(super) measured: Duration,
}

/// One run of a load: who is sent what, when, and what comes of it.
struct Run<T> {
    target: T,
    order: Order,
    window: Window,
    tally: Mutex<Tally>,
}

/// Puts `load` on `target` and measures it. The same seed sends the same `documents` at the same
/// moments.
pub(super) async fn measure<T: Target>(
    target: &T,
    documents: usize,
    load: Load,
    timing: Timing,
    seed: u64,
) -> Sample {
    let start = Instant::now();
    let begin = start + timing.warmup;
    let window = Window { begin, end: begin + timing.measured };
    let run = Arc::new(Run {
        target: target.clone(),
        order: Order::new(documents, seed),
        window,
        tally: Mutex::new(Tally::new(window, load)),
    });
    let calls = match load {
        Load::Closed { concurrency } => run.close(concurrency),
        Load::Open { rate } => run.open(start, rate, seed).await,
    };
    run.finish(calls).await;
    run.tally.lock().sample()
}

impl<T: Target> Run<T> {
    fn close(self: &Arc<Self>, concurrency: u16) -> JoinSet<()> {
        let mut calls = JoinSet::new();
        for _ in 0..concurrency {
            let run = Arc::clone(self);
            calls.spawn(async move {
                loop {
                    let sent = Instant::now();
                    if sent >= run.window.end {
                        break;
                    }
                    let outcome = run.target.call(run.order.next()).await;
                    let finished = Instant::now();
                    let failed = outcome.is_err();
                    let sampled = run.window.contains(finished);
                    run.tally.lock().record(sent, finished, sampled, outcome);
                    if failed {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
        }
        calls
    }

    /// Sends documents until the time is over; those that are returned are not answered yet.
    async fn open(self: &Arc<Self>, start: Instant, rate: f64, seed: u64) -> JoinSet<()> {
        let (run, runtime) = (Arc::clone(self), Handle::current());
        // On a thread of its own, since the runtime's timer is only as fine as a millisecond.
        let arriving = tokio::task::spawn_blocking(move || run.arrive(start, rate, seed, &runtime));
        arriving.await.unwrap_or_default()
    }

    fn arrive(self: &Arc<Self>, start: Instant, rate: f64, seed: u64, on: &Handle) -> JoinSet<()> {
        let mut calls = JoinSet::new();
        let Ok(gaps) = Exp::new(rate) else { return calls };
        let mut random = random(seed);
        let mut due = start;
        loop {
            due += Duration::from_secs_f64(gaps.sample(&mut random));
            if due >= self.window.end {
                return calls;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            while calls.try_join_next().is_some() {}
            let (run, index) = (Arc::clone(self), self.order.next());
            let sampled = self.window.contains(due);
            if calls.len() >= MAX_OPEN {
                self.tally.lock().fail("not_sent", u64::from(sampled));
                continue;
            }
            let call = async move {
                let outcome = run.target.call(index).await;
                // From when it was due: that it was sent late is the load's doing.
                run.tally.lock().record(due, Instant::now(), sampled, outcome);
            };
            calls.spawn_on(call, on);
        }
    }

    async fn finish(&self, mut calls: JoinSet<()>) {
        let all = async { while calls.join_next().await.is_some() {} };
        let over = self.window.end + DRAIN;
        if tokio::time::timeout_at(over.into(), all).await.is_err() {
            let left = calls.len() as u64;
            calls.shutdown().await;
            self.tally.lock().fail("unfinished", left);
        }
    }
}
