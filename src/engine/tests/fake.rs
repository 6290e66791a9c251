//! An encoder whose batches the tests hold and let go, and tools to drive an engine.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::engine::{ClientId, DrainReport, Engine, EngineConfig, EngineError, Job, Lane, Output};
use crate::nn::{EncodeError, Encoder, PackedTokens, Rows};

/// Values in a row.
pub(super) const WIDTH: usize = 3;
/// Longest sequence that the encoder takes.
pub(super) const MAX_SEQUENCE: usize = 64;
/// A sequence with this token makes its batch fail.
pub(super) const FAILS: u32 = 1_001;
/// A sequence with this token has a row with NaN.
pub(super) const NAN: u32 = 1_002;
/// A sequence with this token makes the encoder panic.
pub(super) const PANICS: u32 = 1_003;
/// A sequence with this token gets no row at all.
pub(super) const NO_ROW: u32 = 1_004;

/// The row of a sequence: all its tokens matter, and their order.
pub(super) fn row(ids: &[u32]) -> [f32; WIDTH] {
    let sum: u32 = ids.iter().sum();
    let hash = ids.iter().fold(7_u32, |hash, id| (hash * 31 + id) % 8_191);
    [ids.len() as f32, sum as f32, hash as f32]
}

/// The rows of a job, as its caller should see them.
pub(super) fn rows(job: &Job) -> Rows {
    Rows::new(job.sequences.iter().flat_map(|ids| row(ids)).collect(), WIDTH).unwrap()
}

fn compute(batch: &PackedTokens) -> Result<Rows, EncodeError> {
    let has = |token: u32| batch.ids().contains(&token);
    assert!(!has(PANICS), "a sequence that panics");
    if has(FAILS) {
        return Err(EncodeError::UnknownToken { id: FAILS, vocab_size: 1_000 });
    }
    let sequences = batch.iter().filter(|ids| !ids.contains(&NO_ROW));
    let value_of = |ids: &[u32]| if ids.contains(&NAN) { [0.0, f32::NAN, 0.0] } else { row(ids) };
    Ok(Rows::new(sequences.flat_map(value_of).collect(), WIDTH).unwrap())
}

/// Runs batches at once.
pub(super) struct Echo;

impl Encoder for Echo {
    fn width(&self) -> usize {
        WIDTH
    }

    fn max_sequence_tokens(&self) -> usize {
        MAX_SEQUENCE
    }

    fn encode(&self, batch: &PackedTokens, _: &mut dyn FnMut()) -> Result<Rows, EncodeError> {
        compute(batch)
    }
}

/// Holds every batch in each of its layers until the test lets it go.
struct Gated {
    calls: Sender<Call>,
    layers: usize,
}

/// A batch that the encoder holds in a layer. Dropping it lets it go.
pub(super) struct Call {
    pub(super) sequences: Vec<Vec<u32>>,
    pub(super) layer: usize,
    _gate: Sender<()>,
}

impl Call {
    /// The first token of every sequence.
    pub(super) fn tags(&self) -> Vec<u32> {
        self.sequences.iter().map(|ids| ids[0]).collect()
    }

    /// Lets the layer end, and with the last the batch.
    pub(super) fn go(self) {}
}

impl Encoder for Gated {
    fn width(&self) -> usize {
        WIDTH
    }

    fn max_sequence_tokens(&self) -> usize {
        MAX_SEQUENCE
    }

    fn encode(&self, batch: &PackedTokens, pause: &mut dyn FnMut()) -> Result<Rows, EncodeError> {
        for layer in 0..self.layers {
            if layer > 0 {
                pause();
            }
            let (_gate, opened) = channel();
            let sequences = batch.iter().map(<[u32]>::to_vec).collect();
            // After the test has ended nobody takes the call, which opens the gate.
            drop(self.calls.send(Call { sequences, layer, _gate }));
            assert!(opened.recv().is_err(), "the gate opens by being dropped");
        }
        compute(batch)
    }
}

/// The batches that reach the encoder, in order.
pub(super) struct Calls(Arc<Mutex<Receiver<Call>>>);

impl Calls {
    /// Waits for the next batch, during which a paused clock stands still.
    pub(super) async fn next(&self) -> Call {
        let calls = Arc::clone(&self.0);
        // The limit only turns a hang into a failure.
        let next = move || calls.lock().recv_timeout(Duration::from_secs(60));
        tokio::task::spawn_blocking(next).await.unwrap().expect("no batch reached the encoder")
    }

    /// The next batch, if it has reached the encoder.
    pub(super) fn try_next(&self) -> Option<Call> {
        self.0.lock().try_recv().ok()
    }
}

/// An engine whose batches the test lets go, and these.
pub(super) fn gated(config: EngineConfig) -> (Arc<Engine>, Calls) {
    layered(1, config)
}

/// The same with an encoder of `layers`, in each of which the test holds a batch.
pub(super) fn layered(layers: usize, config: EngineConfig) -> (Arc<Engine>, Calls) {
    let (calls, held) = channel();
    let engine = Engine::start(Arc::new(Gated { calls, layers }), config).unwrap();
    (Arc::new(engine), Calls(Arc::new(Mutex::new(held))))
}

/// Batches of 10 tokens and room for 100, with one worker.
pub(super) fn small() -> EngineConfig {
    EngineConfig { max_batch_tokens: 10, max_queued_tokens: 100, ..EngineConfig::default() }
}

/// A job with sequences of these lengths; every token is `tag`.
pub(super) fn job(tag: u32, lengths: &[usize]) -> Job {
    let sequences = lengths.iter().map(|length| vec![tag; *length]).collect();
    Job { sequences, ..Job::default() }
}

/// The same in the bulk lane.
pub(super) fn bulk(tag: u32, lengths: &[usize]) -> Job {
    Job { lane: Lane::Bulk, ..job(tag, lengths) }
}

/// The same of `client`.
pub(super) fn of(client: &str, job: Job) -> Job {
    Job { client: ClientId::new(client), ..job }
}

/// A call that has begun: awaiting it goes on, dropping it cancels.
pub(super) type Begun<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Polls `call` once.
async fn begin<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> Begun<T> {
    let mut call: Begun<T> = Box::pin(call);
    match poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await {
        Poll::Pending => call,
        Poll::Ready(result) => Box::pin(std::future::ready(result)),
    }
}

/// Submits a job and returns once the engine knows of it.
pub(super) async fn submit(engine: &Arc<Engine>, job: Job) -> Begun<Result<Output, EngineError>> {
    let engine = Arc::clone(engine);
    begin(async move { engine.submit(job).await }).await
}

/// Starts a drain, which goes on by itself, and returns once it has begun.
pub(super) async fn drain(engine: &Arc<Engine>, timeout: Duration) -> JoinHandle<DrainReport> {
    let engine = Arc::clone(engine);
    tokio::spawn(begin(async move { engine.drain(timeout).await }).await)
}

/// Keeps a paused clock from moving by itself while the test waits for a thread.
pub(super) struct Frozen {
    _end: Sender<()>,
}

/// Stops the clock until the guard is dropped; `tokio::time::advance` moves it.
pub(super) fn freeze() -> Frozen {
    let (_end, ended) = channel();
    // tokio moves no paused clock while a blocking task runs.
    tokio::task::spawn_blocking(move || ended.recv());
    Frozen { _end }
}
