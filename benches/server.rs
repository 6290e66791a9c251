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
//! - **overload**: calls with leads, then articles, at ten times the rate that the server can
//!   answer, each with a deadline, counted from when it should have been sent: how many documents a
//!   second are answered in time, against the most that it can do just before and after, in turns since machines
//!   drift. Callers and server share the CPUs, and ten times the calls cost callers ten times the
//!   work; so it is also said what that leaves, and what CPU time the engine has, which does not
//!   drift.
//!
//! `TASNIF_BENCH_PRECISION` is what `--precision` is to the server. `TASNIF_BENCH_SECONDS`, 20 by
//! default, is the length of each part, and of all turns of an overload together.
//! `cargo bench --bench server -- overload` runs that part alone.

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
/// Sentences of an article; of its title and lead there are two.
const ARTICLE: usize = 12;
/// Calls that a flood keeps open.
const FLOOD: usize = 64;
/// Between two interactive calls of a client: without it the client would take half of the
/// engine, which is its share beside one flood, and what takes its share waits its turn.
const PAUSE: Duration = Duration::from_millis(50);
/// How many times its capacity an overloaded server is offered.
const OVERLOAD: f64 = 10.0;
/// Turns of an overload.
const ROUNDS: u32 = 5;
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
    let server = Builder::new_multi_thread().enable_all().build().unwrap();
    // All callers are on this thread, so as to take little from the server.
    let clients = Builder::new_current_thread().enable_all().build().unwrap();
    clients.block_on(run(server.handle()));
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
    let precision: PrecisionChoice = std::env::var("TASNIF_BENCH_PRECISION")
        .map_or_else(|_| PrecisionChoice::default(), |name| name.parse().unwrap());
    let workers = nn::batches(precision, threads);
    let engine = EngineConfig { workers, ..EngineConfig::default() };
    let classifier = {
        let _clock = server.enter();
        let limits = DocumentLimits::default();
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
        for (what, sentences) in [("leads", 2), ("articles", ARTICLE)] {
            overload(&newsroom, what, sentences, time).await;
        }
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
    let requests = tokio_stream::iter((0..).map(|index| ClassifyStreamRequest {
        document: Some(document(index, ARTICLE)),
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

async fn overload(client: &Client, what: &str, sentences: usize, time: Duration) {
    println!(
        "overload: {OVERLOAD} times the capacity of {what}, each with {PATIENCE:?} to be answered"
    );
    let time = time / ROUNDS;
    let (mut calls, mut goodput) = (Calls::default(), Vec::new());
    let (mut of_rest, mut engine) = (Vec::new(), Vec::new());
    let mut before = capacity(client, sentences, time).await;
    println!("  capacity {before}");
    for _ in 0..ROUNDS {
        let rate = before.documents * OVERLOAD;
        let during = calls.overload(client, sentences, rate, time).await;
        println!("  goodput {during}");
        let after = capacity(client, sentences, time).await;
        println!("  capacity {after}");
        let mean = f64::midpoint(before.documents, after.documents);
        goodput.push(during.documents / mean);
        if let (Some(before_cpu), Some(during_cpu), Some(after_cpu)) =
            (&before.cpu, &during.cpu, &after.cpu)
        {
            let rest =
                |capacity: &Capacity, cpu: &CpuShares| capacity.documents / (1.0 - cpu.callers);
            let mean = f64::midpoint(rest(&before, before_cpu), rest(&after, after_cpu));
            of_rest.push(rest(&during, during_cpu) / mean);
            engine.push(during_cpu.engine / f64::midpoint(before_cpu.engine, after_cpu.engine));
        }
        before = after;
    }
    let Calls { in_time, late, refused, expired, other } = calls;
    line("answered in time", &in_time);
    println!("  refused {refused}, expired {expired}, late {late}, other {other}");
    let accepted = in_time.len() + late + expired;
    println!("  in time, of those accepted: {:.3}", in_time.len() as f64 / accepted.max(1) as f64);
    println!("  goodput is {} of the capacity around it", spread(goodput));
    if !engine.is_empty() {
        println!("  {} of it by the CPU time that callers leave", spread(of_rest));
        println!("  the engine has {} of the CPU time that it has at its capacity", spread(engine));
    }
}

/// The median, and the least and the most.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (middle, last) = (values.len() / 2, values.len() - 1);
    format!("{:.2} ({:.2} to {:.2})", values[middle], values[0], values[last])
}

/// What became of calls.
struct Calls {
    /// Their latencies.
    in_time: Histogram<u64>,
    late: u64,
    refused: u64,
    expired: u64,
    other: u64,
}

impl Default for Calls {
    fn default() -> Self {
        Self { in_time: histogram(), late: 0, refused: 0, expired: 0, other: 0 }
    }
}

impl Calls {
    /// Calls `rate` times a second until the queue is full, and then for `time`, of which the
    /// goodput is returned. All are answered then.
    async fn overload(
        &mut self,
        client: &Client,
        sentences: usize,
        rate: f64,
        time: Duration,
    ) -> Capacity {
        let start = Instant::now();
        let gap = Duration::from_secs_f64(1.0 / rate);
        let mut calls = JoinSet::new();
        let mut full = None;
        for index in 0.. {
            let due = start + gap * index;
            if due.duration_since(start) >= PATIENCE + time {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
            if due.duration_since(start) >= PATIENCE {
                full.get_or_insert_with(|| (Instant::now(), CpuTimes::now()));
            }
            let client = client.clone();
            calls.spawn(async move {
                let left = (due + PATIENCE).saturating_duration_since(Instant::now());
                let outcome = client.call(index as usize, sentences, Some(left)).await;
                (outcome, due.elapsed(), Instant::now())
            });
        }
        let (full, cpu) = full.unwrap();
        let (end, cpu) = (Instant::now(), cpu.zip(CpuTimes::now()));
        let mut good = 0;
        for (outcome, taken, answered) in calls.join_all().await {
            match outcome {
                Ok(()) if taken <= PATIENCE => {
                    good += usize::from((full..end).contains(&answered));
                    self.in_time.saturating_record(micros(taken));
                }
                Ok(()) => self.late += 1,
                Err(Code::ResourceExhausted) => self.refused += 1,
                Err(Code::DeadlineExceeded | Code::Cancelled) => self.expired += 1,
                Err(_) => self.other += 1,
            }
        }
        Capacity::of(good, end - full, cpu)
    }
}

/// What a server did in a while.
struct Capacity {
    /// Documents a second.
    documents: f64,
    /// The shares of the CPUs that were taken, from 0 to 1, where they can be told.
    cpu: Option<CpuShares>,
}

struct CpuShares {
    callers: f64,
    engine: f64,
}

impl Capacity {
    /// `documents` in `time`, at whose start and end the CPU times were `cpu`.
    fn of(documents: usize, time: Duration, cpu: Option<(CpuTimes, CpuTimes)>) -> Self {
        let cpus = nn::default_threads() as f64;
        let share = |start: f64, end: f64| (end - start) / time.as_secs_f64() / cpus;
        let cpu = cpu.map(|(start, end)| CpuShares {
            callers: share(start.callers, end.callers),
            engine: share(start.engine, end.engine),
        });
        Self { documents: documents as f64 / time.as_secs_f64(), cpu }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} documents/s", self.documents)?;
        let Some(CpuShares { callers, engine }) = self.cpu else { return Ok(()) };
        let (callers, engine) = (callers * 100.0, engine * 100.0);
        write!(f, "; of the CPUs {engine:.1} % for the engine, {callers:.1} % for the callers")
    }
}

/// Seconds.
#[derive(Clone, Copy)]
struct CpuTimes {
    callers: f64,
    engine: f64,
}

impl CpuTimes {
    /// Until now, where it can be told.
    #[cfg(target_os = "linux")]
    fn now() -> Option<Self> {
        let mut times = Self { callers: 0.0, engine: 0.0 };
        let myself = procfs::process::Process::myself().unwrap();
        for stat in myself.tasks().unwrap().flatten().filter_map(|task| task.stat().ok()) {
            let seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
            if stat.pid == myself.pid {
                // All callers are on the first thread.
                times.callers += seconds;
            } else if ["tasnif-worker", "nn-"].iter().any(|name| stat.comm.starts_with(name)) {
                times.engine += seconds;
            }
        }
        Some(times)
    }

    #[cfg(not(target_os = "linux"))]
    fn now() -> Option<Self> {
        None
    }
}

/// What the server does with as many calls open as it likes.
async fn capacity(client: &Client, sentences: usize, time: Duration) -> Capacity {
    let done = Arc::new(AtomicUsize::new(0));
    let mut calls = JoinSet::new();
    for worker in 0..32 {
        let (client, done) = (client.clone(), Arc::clone(&done));
        calls.spawn(async move {
            for index in 0.. {
                if client.call(worker * 1_000_000 + index, sentences, None).await.is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, start, cpu) = (done.load(Ordering::Relaxed), Instant::now(), CpuTimes::now());
    tokio::time::sleep(time).await;
    let documents = done.load(Ordering::Relaxed) - before;
    let capacity = Capacity::of(documents, start.elapsed(), cpu.zip(CpuTimes::now()));
    calls.shutdown().await;
    // What was cut off is at an end.
    tokio::time::sleep(Duration::from_secs(1)).await;
    capacity
}
