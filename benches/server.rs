//! What a server adds to the model, and what load does to those who wait: `cargo bench --bench
//! server`.
//!
//! One process holds the server and its clients, on the shipped model (or `TASNIF_BENCH_MODEL`).
//! Every figure is a ratio or a difference within this one run:
//!
//! - **path**: a document classified over gRPC with a token, against the same document given to the
//!   pipeline directly, one after the other;
//! - **archive**: p99 of interactive calls while a stream of articles saturates the server, against
//!   that of the same calls on the idle server;
//! - **flood**: p99 of one client's calls while another client keeps 64 calls open, against the
//!   same;
//! - **overload**: calls that arrive at ten times the rate which the server can answer, each with a
//!   deadline, counted from when it should have been sent: how many documents a second are answered
//!   in time, against the most that it can do, before and after. Callers and server share the CPUs,
//!   and ten times the calls cost callers ten times the work; so it is also said what that leaves.
//!
//! `TASNIF_BENCH_SECONDS` is the length of each part, 20 by default. `cargo bench --bench server
//! -- overload` runs that part alone.

#![allow(missing_docs)]
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout, clippy::unwrap_used)]

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tasnif::engine::EngineConfig;
use tasnif::nn::{self, PrecisionChoice};
use tasnif::pipeline::{Classifier, Document, DocumentLimits, Models, Options, Submission};
use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{self, ClassifyRequest, ClassifyStreamRequest};
use tasnif::server::{AuthConfig, Listen, ServerConfig, bind, serve};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

const TOKENS: [(&str, &str); 2] =
    [("news", "token-of-the-newsroom"), ("archive", "token-of-the-archive")];
/// The threads of the callers: they take turns with the server on the same CPUs.
const CLIENTS: &str = "clients";
/// Calls that a flood keeps open.
const FLOOD: usize = 64;
/// Between two interactive calls of a client: without it the client would take half of the
/// engine, which is its share beside one flood, and what takes its share waits its turn.
const PAUSE: Duration = Duration::from_millis(50);
/// How many times its capacity an overloaded server is offered.
const OVERLOAD: f64 = 10.0;
/// Deadline of a call in an overload.
const PATIENCE: Duration = Duration::from_secs(2);

const SENTENCES: [&str; 5] = [
    "قال الوزير إن الحكومة وافقت على المشروع الجديد بعد نقاش طويل في البرلمان.",
    "ارتفعت أسعار النفط في الأسواق العالمية اليوم مع تراجع المخزونات الأمريكية.",
    "فاز الفريق بالمباراة بعد أداء قوي في الشوط الثاني أمام جمهور كبير.",
    "حذرت هيئة الأرصاد من أمطار غزيرة على الساحل ودعت السكان إلى الحذر.",
    "افتتحت الجامعة معرضا للكتاب تشارك فيه دور نشر من عشرين دولة.",
];

fn main() {
    // `cargo test --benches` asks every bench whether it has tests.
    if std::env::args().any(|arg| arg == "--list" || arg == "--test") {
        return;
    }
    let runtime = |name: &str| Builder::new_multi_thread().thread_name(name).enable_all().build();
    let server = runtime("server").unwrap();
    runtime(CLIENTS).unwrap().block_on(run(server.handle()));
}

async fn run(server: &Handle) {
    let seconds = std::env::var("TASNIF_BENCH_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(20));
    let model = std::env::var_os("TASNIF_BENCH_MODEL").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/models/tasnif-base").into(),
        PathBuf::from,
    );
    let threads = nn::default_threads();
    nn::configure_threads(threads).unwrap();
    let workers = nn::batches(PrecisionChoice::default(), nn::default_threads());
    let engine = EngineConfig { workers, ..EngineConfig::default() };
    let classifier = {
        let _clock = server.enter();
        let (precision, limits) = (PrecisionChoice::default(), DocumentLimits::default());
        Arc::new(Classifier::load(&model, None, precision, engine, limits).unwrap())
    };
    println!("model {}, {} threads, {time:?} a part", classifier.info().name, threads);

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    let lines = TOKENS.map(|(name, token)| format!("{name} {token}\n"));
    std::fs::write(&file, lines.concat()).unwrap();
    let listen: Listen = "127.0.0.1:0".parse().unwrap();
    let auth = AuthConfig { tokens_file: Some(file), open_health: true };
    let config = ServerConfig { auth, listen: listen.clone(), ..ServerConfig::default() };
    let bound = listen.clone();
    let listener = server.spawn(async move { bind(&bound).await }).await.unwrap().unwrap();
    let url = format!("http://{}", listener.address());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let models = Models::new(vec![Arc::clone(&classifier)]).unwrap();
    let serving = server.spawn(serve(models, listener, config, async { drop(stopped.await) }));
    let newsroom = Client::connect(&url, 0).await;
    while newsroom.call(0, 1, None).await.is_err() {}

    let parts: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let asked = |part: &str| parts.is_empty() || parts.iter().any(|asked| asked == part);
    let other = Client::connect(&url, 1).await;
    if asked("path") {
        path(&classifier, &newsroom, time).await;
    }
    if asked("archive") {
        archive(&newsroom, &other, time).await;
    }
    if asked("flood") {
        flood(&newsroom, &other, time).await;
    }
    if asked("overload") {
        overload(&newsroom, time).await;
    }
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}

#[derive(Clone)]
struct Client {
    client: ClassifierClient<Channel>,
    token: usize,
}

impl Client {
    async fn connect(url: &str, token: usize) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
        Self { client: ClassifierClient::new(endpoint.connect().await.unwrap()), token }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = format!("Bearer {}", TOKENS[self.token].1);
        request.metadata_mut().insert("authorization", value.parse().unwrap());
        request
    }

    async fn call(
        &self,
        index: usize,
        sentences: usize,
        timeout: Option<Duration>,
    ) -> Result<(), Code> {
        let document = Some(document(index, sentences));
        let mut request = self.request(ClassifyRequest { document, options: None });
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let answer = self.client.clone().classify(request).await;
        answer.map(drop).map_err(|status| status.code())
    }

    /// Latencies of calls one after the other for `time`, with a [`PAUSE`] between them.
    async fn latencies(&self, time: Duration) -> Histogram<u64> {
        let mut histogram = histogram();
        let start = Instant::now();
        let mut index = 0;
        while start.elapsed() < time {
            let called = Instant::now();
            self.call(index, 2, None).await.expect("an interactive call is answered");
            histogram.saturating_record(micros(called.elapsed()));
            tokio::time::sleep(PAUSE).await;
            index += 1;
        }
        histogram
    }
}

/// A text of `sentences`, different for each `index`.
fn text(index: usize, sentences: usize) -> String {
    let chosen = (0..sentences).map(|i| SENTENCES[(index + i) % SENTENCES.len()]);
    format!("{index} {}", chosen.collect::<Vec<_>>().join(" "))
}

fn document(index: usize, sentences: usize) -> proto::Document {
    proto::Document { text: text(index, sentences), ..proto::Document::default() }
}

/// Of microseconds, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000, 3).unwrap()
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

fn ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}

fn line(name: &str, histogram: &Histogram<u64>) {
    println!(
        "  {name:<28} n {:>6}   p50 {:>8.2} ms   p99 {:>8.2} ms",
        histogram.len(),
        ms(histogram, 0.5),
        ms(histogram, 0.99)
    );
}

async fn path(classifier: &Classifier, client: &Client, time: Duration) {
    println!("path: one document of 2 sentences at a time");
    let (mut bare, mut served) = (histogram(), histogram());
    let start = Instant::now();
    let mut index = 0;
    while start.elapsed() < time {
        let document = Document { text: text(index, 2), ..Document::default() };
        let called = Instant::now();
        let (options, submission) = (Options::default(), Submission::default());
        let answer = classifier.classify(&document, &options, &submission);
        answer.await.unwrap();
        bare.saturating_record(micros(called.elapsed()));
        let called = Instant::now();
        client.call(index, 2, None).await.unwrap();
        served.saturating_record(micros(called.elapsed()));
        index += 1;
    }
    line("pipeline", &bare);
    line("gRPC with a token", &served);
    println!("  added at p50: {:.2} ms", ms(&served, 0.5) - ms(&bare, 0.5));
}

fn compare(quiet: &Histogram<u64>, busy: &Histogram<u64>) {
    line("alone", quiet);
    line("beside the load", busy);
    println!("  p99 ratio: {:.2}", ms(busy, 0.99) / ms(quiet, 0.99));
}

async fn archive(client: &Client, loader: &Client, time: Duration) {
    println!("archive: interactive calls beside a stream of articles");
    let quiet = client.latencies(time).await;
    let stop = Arc::new(AtomicBool::new(false));
    let read = Arc::new(AtomicUsize::new(0));
    let stopped = Arc::clone(&stop);
    let requests =
        tokio_stream::iter((0..).map(|index| ClassifyStreamRequest {
            document: Some(document(index, 12)),
            options: None,
        }));
    let requests =
        tokio_stream::StreamExt::take_while(requests, move |_| !stopped.load(Ordering::Relaxed));
    let reply = loader.client.clone().classify_stream(loader.request(requests)).await.unwrap();
    let counted = Arc::clone(&read);
    let reading = tokio::spawn(async move {
        let mut responses = reply.into_inner();
        while responses.message().await.unwrap().is_some() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    while read.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = read.load(Ordering::Relaxed);
    let busy = client.latencies(time).await;
    let articles = read.load(Ordering::Relaxed) - before;
    stop.store(true, Ordering::Relaxed);
    compare(&quiet, &busy);
    println!("  the stream went on at {:.1} articles/s", articles as f64 / time.as_secs_f64());
    reading.await.unwrap();
}

async fn flood(client: &Client, flooder: &Client, time: Duration) {
    println!("flood: one client's calls beside {FLOOD} open calls of another");
    let quiet = client.latencies(time).await;
    let mut calls = JoinSet::new();
    for worker in 0..FLOOD {
        let flooder = flooder.clone();
        calls.spawn(async move {
            for index in 0.. {
                // Refusals are the server's good right.
                let _ = flooder.call(worker * 1_000_000 + index, 2, None).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let busy = client.latencies(time).await;
    calls.shutdown().await;
    compare(&quiet, &busy);
}

async fn overload(client: &Client, time: Duration) {
    println!("overload: {OVERLOAD} times the capacity, each call with {PATIENCE:?} to be answered");
    let before = capacity(client, time).await;
    println!("  capacity {before}");
    let gap = Duration::from_secs_f64(1.0 / (before.documents * OVERLOAD));
    // What was cut off is at an end.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (start, cpu) = (Instant::now(), clients_cpu());
    let mut calls = JoinSet::new();
    for index in 0.. {
        let due = start + gap * index;
        if due.duration_since(start) >= time {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let client = client.clone();
        calls.spawn(async move {
            let left = (due + PATIENCE).saturating_duration_since(Instant::now());
            let outcome = client.call(index as usize, 2, Some(left)).await;
            (outcome, due.elapsed())
        });
    }
    let (mut good, mut late, mut refused, mut expired, mut other) = (0, 0, 0, 0, 0);
    let mut latencies = histogram();
    for (outcome, taken) in calls.join_all().await {
        match outcome {
            Ok(()) if taken <= PATIENCE => {
                good += 1;
                latencies.saturating_record(micros(taken));
            }
            Ok(()) => late += 1,
            Err(Code::ResourceExhausted) => refused += 1,
            Err(Code::DeadlineExceeded | Code::Cancelled) => expired += 1,
            Err(_) => other += 1,
        }
    }
    let during = Capacity::since(start, cpu, good as usize);
    line("answered in time", &latencies);
    println!("  refused {refused}, expired {expired}, late {late}, other {other}");
    let after = capacity(client, time).await;
    println!("  capacity afterwards {after}");
    println!("  goodput {during}");
    let share = 2.0 * during.documents / (before.documents + after.documents);
    let of_rest = 2.0 * during.of_rest() / (before.of_rest() + after.of_rest());
    println!("  {share:.2} of the capacity; {of_rest:.2} of it by the CPU time that callers leave");
    let accepted = good + late + expired;
    println!("  in time, of those accepted: {:.3}", f64::from(good) / f64::from(accepted.max(1)));
}

/// What a server did in a while.
struct Capacity {
    /// Documents a second.
    documents: f64,
    /// The share of the CPUs that its callers took, from 0 to 1.
    callers: f64,
}

impl Capacity {
    /// `documents` since `start`, when callers had taken `cpu`.
    fn since(start: Instant, cpu: Duration, documents: usize) -> Self {
        let seconds = start.elapsed().as_secs_f64();
        let callers = clients_cpu().saturating_sub(cpu).as_secs_f64();
        let cpus = nn::default_threads() as f64;
        Self { documents: documents as f64 / seconds, callers: callers / seconds / cpus }
    }

    /// Documents a second, if callers had taken nothing.
    fn of_rest(&self) -> f64 {
        self.documents / (1.0 - self.callers)
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { documents, callers } = self;
        write!(f, "{documents:.1} documents/s; callers took {:.1} % of the CPUs", callers * 100.0)
    }
}

/// CPU time of the callers' threads; nothing where it cannot be told.
#[cfg(target_os = "linux")]
fn clients_cpu() -> Duration {
    let myself = procfs::process::Process::myself().unwrap();
    let ticks = |task: procfs::process::Task| {
        let stat = task.stat().ok()?;
        // The first thread runs the part itself.
        (stat.comm == CLIENTS || stat.pid == myself.pid).then_some(stat.utime + stat.stime)
    };
    let ticks: u64 = myself.tasks().unwrap().flatten().filter_map(ticks).sum();
    Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64)
}

#[cfg(not(target_os = "linux"))]
fn clients_cpu() -> Duration {
    Duration::ZERO
}

/// What the server does with as many calls open as it likes.
async fn capacity(client: &Client, time: Duration) -> Capacity {
    let done = Arc::new(AtomicUsize::new(0));
    let mut calls = JoinSet::new();
    for worker in 0..32 {
        let (client, done) = (client.clone(), Arc::clone(&done));
        calls.spawn(async move {
            for index in 0.. {
                if client.call(worker * 1_000_000 + index, 2, None).await.is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, start, cpu) = (done.load(Ordering::Relaxed), Instant::now(), clients_cpu());
    tokio::time::sleep(time).await;
    let capacity = Capacity::since(start, cpu, done.load(Ordering::Relaxed) - before);
    calls.shutdown().await;
    capacity
}
