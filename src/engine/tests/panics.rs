//! Panics where none should be: no caller hangs and no thread is lost.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::fake::*;
use crate::engine::queue::Queue;
use crate::engine::worker::Shared;
use crate::engine::{Admission, DrainReport, Engine, EngineConfig, EngineError, Job, Output};
use crate::nn::{EncodeError, Encoder, PackedTokens, Rows};

/// Panics when it is told that there is an answer: in the thread and at the moment
/// in which the queue gives it, with the queue half-changed.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("the waker of a test");
    }
}

/// Polls `call` once, to be woken by a [`Bomb`].
pub(super) fn arm<F: Future>(call: Pin<&mut F>) {
    assert!(call.poll(&mut Context::from_waker(&Waker::from(Arc::new(Bomb)))).is_pending());
}

const PANICKED: Result<Output, EngineError> = Err(EngineError::WorkerPanicked);

#[tokio::test]
async fn a_panic_of_the_queue_in_a_worker_answers_every_job_and_the_engine_goes_on() {
    let (engine, calls) = gated(EngineConfig { workers: 2, ..small() });
    let mut armed = pin!(engine.submit(job(1, &[10])));
    arm(armed.as_mut());
    let held = calls.next().await;
    let running = submit(&engine, job(2, &[10])).await;
    let late = calls.next().await;
    let queued = submit(&engine, job(3, &[50, 50])).await;
    let waiting = submit(&engine, Job { admission: Admission::Wait, ..job(4, &[9]) }).await;
    held.go();
    for open in [running, queued, waiting] {
        assert_eq!(open.await, PANICKED, "while the other worker is still busy");
    }
    assert_eq!(armed.await.unwrap().rows, rows(&job(1, &[10])), "it was given before the panic");
    let stats = engine.stats();
    assert_eq!((stats.open_jobs, stats.queued_tokens, stats.worker_restarts), (0, 0, 1));

    let next = [submit(&engine, job(5, &[10])).await, submit(&engine, job(6, &[10])).await];
    let first = calls.next().await;
    late.go();
    let second = calls.next().await;
    first.go();
    second.go();
    for (next, tag) in next.into_iter().zip([5, 6]) {
        assert_eq!(next.await.unwrap().rows, rows(&job(tag, &[10])));
    }
    let stats = engine.stats();
    assert_eq!((stats.running_batches, stats.running_tokens, stats.worker_restarts), (0, 0, 1));
}

#[tokio::test]
async fn a_panic_of_the_queue_in_a_caller_answers_every_job_and_the_drain_ends() {
    let (engine, calls) = gated(small());
    let running = submit(&engine, job(1, &[10])).await;
    let _held = calls.next().await;
    let queued = submit(&engine, job(2, &[50, 50])).await;
    let mut armed = pin!(engine.submit(Job { admission: Admission::Wait, ..job(3, &[9]) }));
    arm(armed.as_mut());
    let report = engine.drain(Duration::MAX).await;
    assert_eq!(report, DrainReport { finished: 2, abandoned: 0, refused: 1 });
    assert!(matches!(armed.await, Err(EngineError::Draining { .. })));
    for open in [running, queued] {
        assert_eq!(open.await, PANICKED);
    }
    assert!(matches!(engine.submit(job(4, &[1])).await, Err(EngineError::Draining { .. })));
    assert_eq!(engine.stats().worker_restarts, 1);
}

#[tokio::test]
async fn dropping_an_engine_after_a_panic_does_not_wait_for_a_forgotten_batch() {
    let (engine, calls) = gated(EngineConfig { workers: 2, ..small() });
    let late = {
        let mut armed = pin!(engine.submit(job(1, &[10])));
        arm(armed.as_mut());
        let held = calls.next().await;
        let running = submit(&engine, job(2, &[10])).await;
        let late = calls.next().await;
        held.go();
        assert_eq!(running.await, PANICKED);
        late
    };
    drop(Arc::into_inner(engine).expect("the last owner"));
    late.go();
}

/// Puts a job into the queue of `shared`.
fn put(shared: &Shared, job: Job) -> oneshot::Receiver<Result<Output, EngineError>> {
    let (reply, answer) = oneshot::channel();
    shared.update(|queue, now| queue.submit(job, reply, now)).unwrap().unwrap();
    answer
}

fn shared(encoder: impl Encoder + 'static) -> Shared {
    let width = encoder.width();
    Shared::new(Arc::new(encoder), width, Queue::new(small(), width))
}

/// Stops the workers of `shared` when the test ends, however it ends.
struct Stop<'a>(&'a Shared);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[test]
fn a_worker_that_panics_outside_of_queue_and_encoder_serves_again() {
    let shared = shared(Echo);
    let first = put(&shared, job(1, &[3]));
    let mut idle = pin!(shared.until_idle());
    arm(idle.as_mut());
    thread::scope(|scope| {
        let _stop = Stop(&shared);
        scope.spawn(|| shared.work(0));
        // The worker panics when it wakes who waits for an idle engine.
        assert_eq!(first.blocking_recv().unwrap().unwrap().rows, rows(&job(1, &[3])));
        while shared.panics.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        let next = put(&shared, job(2, &[3])).blocking_recv().unwrap();
        assert_eq!(next.unwrap().rows, rows(&job(2, &[3])));
    });
    assert_eq!(shared.panics.load(Ordering::Relaxed), 1);
}

/// Fails with an error that panics when it is shown, but only on [`PANICS`].
struct BadError;

#[derive(Debug)]
struct Unshowable;

impl fmt::Display for Unshowable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("an error that cannot be shown");
    }
}

impl std::error::Error for Unshowable {}

impl Encoder for BadError {
    fn width(&self) -> usize {
        WIDTH
    }

    fn max_sequence_tokens(&self) -> usize {
        MAX_SEQUENCE
    }

    fn encode(&self, batch: &PackedTokens, pause: &mut dyn FnMut()) -> Result<Rows, EncodeError> {
        if batch.ids().contains(&PANICS) {
            return Err(EncodeError::Backend(Box::new(Unshowable)));
        }
        Echo.encode(batch, pause)
    }
}

#[tokio::test]
async fn an_error_that_panics_when_shown_fails_its_batch_alone() {
    let engine = Engine::start(Arc::new(BadError), small()).unwrap();
    assert_eq!(engine.submit(job(PANICS, &[3])).await, PANICKED);
    assert_eq!(engine.submit(job(2, &[3])).await.unwrap().rows, rows(&job(2, &[3])));
    assert_eq!(engine.stats().worker_restarts, 1);
}

/// Panics with what could be the text of a document.
struct Quotes;

const QUOTE: &str = "a secret of the document";

impl Encoder for Quotes {
    fn width(&self) -> usize {
        WIDTH
    }

    fn max_sequence_tokens(&self) -> usize {
        MAX_SEQUENCE
    }

    fn encode(&self, _: &PackedTokens, _: &mut dyn FnMut()) -> Result<Rows, EncodeError> {
        panic!("{QUOTE}");
    }
}

/// What a subscriber has written.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_log_of_a_panic_does_not_say_what_it_says() {
    let log = Log::default();
    let panic_once = || {
        let shared = shared(Quotes);
        let answer = put(&shared, job(1, &[3]));
        thread::scope(|scope| {
            scope.spawn(|| {
                let _stop = Stop(&shared);
                assert_eq!(answer.blocking_recv().unwrap(), PANICKED);
            });
            shared.work(7);
        });
    };
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        // tracing may miss an event that a thread of another test meets for the first
        // time just now, so it is asked to look again. The limit only turns a hang
        // into a failure.
        let start = Instant::now();
        while log.0.lock().is_empty() && start.elapsed() < Duration::from_secs(60) {
            tracing::callsite::rebuild_interest_cache();
            panic_once();
        }
    });
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    assert!(log.contains("the encoder panicked") && log.contains("worker=7"), "{log}");
    assert!(!log.contains(QUOTE), "{log}");
}
