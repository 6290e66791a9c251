//! What a server adds to the model, and what load does to those who wait: `cargo bench --bench
//! server`.
//!
//! One process holds the server and its clients, on the shipped model (or `TASNIF_BENCH_MODEL`).
//! Every figure is a ratio or a difference within this one run:
//!
//! - **path**: a document classified over gRPC with a token, against the same document given to the
//!   pipeline directly, one after the other;
//! - **archive**: p99 of interactive calls, an open loop, while a stream of articles saturates the
//!   server, against that of the same calls on the idle server;
//! - **flood**: p99 of one client's calls, the same loop, while another client keeps 64 calls open,
//!   against the same;
//! - **overload**: calls with leads, then articles, at ten times the rate that the server can
//!   answer, each with a deadline, counted from when it should have been sent: how many documents a
//!   second are answered in time, against the most that it can do just before and after, in turns
//!   since machines drift. Callers and server share the CPUs, and ten times the calls cost callers
//!   ten times the work; so it is also said what that leaves, and what CPU time the engine has,
//!   which does not drift.
//!
//! `TASNIF_BENCH_PRECISION` is what `--precision` is to the server. `TASNIF_BENCH_SECONDS`, 20 by
//! default, is the length of each part, and of all turns of an overload together; interactive calls
//! go on until there are 1,000, the fewest that a p99 is printed of.
//! `cargo bench --bench server -- overload` runs that part alone.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout, clippy::unwrap_used)]

mod client;
mod latency;
mod overload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tasnif::engine::EngineConfig;
use tasnif::nn::{self, PrecisionChoice};
use tasnif::pipeline::{Classifier, Document, DocumentLimits, Models, Options, Submission};
use tasnif::server::{AuthConfig, Listen, ServerConfig, bind, serve};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinSet;

use crate::client::{Client, TOKENS, document, text};
use crate::latency::{Latencies, compare};
use crate::overload::overload;

/// Sentences of an article; of its title and lead there are two.
const ARTICLE: usize = 12;
/// Calls that a flood keeps open.
const FLOOD: usize = 64;

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
    println!("model {}, {threads} threads, {time:?} a part", classifier.info().name);

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    let lines = TOKENS.map(|(name, token)| format!("{name} {token}\n"));
    std::fs::write(&file, lines.concat()).unwrap();
    let listen: Listen = "127.0.0.1:0".parse().unwrap();
    let auth = AuthConfig { tokens_file: Some(file), open_health: true };
    let config = ServerConfig { auth, listen: listen.clone(), ..ServerConfig::default() };
    let listener = server.spawn(async move { bind(&listen).await }).await.unwrap().unwrap();
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

async fn path(classifier: &Classifier, client: &Client, time: Duration) {
    println!("path: one document of 2 sentences at a time");
    let (mut bare, mut served) = (Latencies::default(), Latencies::default());
    let start = Instant::now();
    let mut index = 0;
    while start.elapsed() < time {
        let document = Document { text: text(index, 2), ..Document::default() };
        let called = Instant::now();
        let (options, submission) = (Options::default(), Submission::default());
        let answer = classifier.classify(&document, &options, &submission);
        answer.await.unwrap();
        bare.record(called.elapsed());
        let called = Instant::now();
        client.call(index, 2, None).await.unwrap();
        served.record(called.elapsed());
        index += 1;
    }
    bare.print("pipeline");
    served.print("gRPC with a token");
    println!("  added at p50: {:.2} ms", served.ms(0.5) - bare.ms(0.5));
}

async fn archive(client: &Client, loader: &Client, time: Duration) {
    println!("archive: interactive calls beside a stream of articles");
    let quiet = client.interactive(time).await;
    let stop = Arc::new(AtomicBool::new(false));
    let read = Arc::new(AtomicUsize::new(0));
    let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&read));
    let indices = (0..).take_while(move |_| !stopped.load(Ordering::Relaxed));
    let mut answers = loader.stream(indices.map(|index| document(index, ARTICLE))).await;
    let reading = tokio::spawn(async move {
        while answers.message().await.unwrap().is_some() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    while read.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (before, start) = (read.load(Ordering::Relaxed), Instant::now());
    let busy = client.interactive(time).await;
    let articles = (read.load(Ordering::Relaxed) - before) as f64;
    let articles_per_s = articles / start.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    compare(&quiet, &busy);
    println!("  the stream went on at {articles_per_s:.1} articles/s");
    reading.await.unwrap();
}

async fn flood(client: &Client, flooder: &Client, time: Duration) {
    println!("flood: one client's calls beside {FLOOD} open calls of another");
    let quiet = client.interactive(time).await;
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
    let busy = client.interactive(time).await;
    calls.shutdown().await;
    compare(&quiet, &busy);
}
