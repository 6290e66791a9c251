//! The speed of scoring an archive beside that of the engine alone, on the same texts.
//!
//! `cargo bench --bench archive [-- MODEL]` scores made-up articles by turns with the
//! bare engine, which finds all windows cut in its queue, and as an archive, from
//! JSON Lines on disk to results on disk. It prints the ratio of the medians, and that of
//! the shares of time in which the encoder ran, which other processes disturb less.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing)]
#![allow(unreachable_pub)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tasnif::archive::{Archive, ArchiveSettings, Progress};
use tasnif::bundle::Bundle;
use tasnif::engine::{Admission, Engine, EngineConfig, Job, Lane};
use tasnif::nn::{self, Encoder, PrecisionChoice};
use tasnif::pipeline::{Classifier, Document, DocumentLimits, LongText, token_windows};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::wrapped::wrapped;

#[path = "../tests/support/wrapped.rs"]
mod wrapped;

const ARTICLES: usize = 64;
const ROUNDS: usize = 15;

fn main() {
    let named = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let model = PathBuf::from(named.unwrap_or_else(|| "models/tasnif-base".to_owned()));
    nn::configure_threads(nn::default_threads()).unwrap();
    let runtime = Runtime::new().unwrap();
    let articles: Vec<String> = (0..ARTICLES).map(article).collect();

    let bundle = Bundle::load(&model).unwrap();
    let windows = |text: &String| {
        let document = Document { text: text.clone(), ..Document::default() };
        let limits = DocumentLimits::default();
        let (config, tokenizer) = (&bundle.text, &bundle.tokenizer);
        token_windows(&document, config, tokenizer, LongText::Windows, &limits).unwrap()
    };
    let windows: Vec<Vec<Vec<u32>>> = articles.iter().map(windows).collect();
    let tokens: usize = windows.iter().flatten().map(Vec::len).sum();
    println!("{ARTICLES} articles, {tokens} tokens, {} threads", nn::default_threads());

    let busy_us = Arc::new(AtomicU64::new(0));
    let busy = Arc::clone(&busy_us);
    let timed = wrapped(
        nn::load(&bundle, PrecisionChoice::default()).unwrap(),
        move |encoder, batch, pause| {
            let began = Instant::now();
            let rows = encoder.encode(batch, pause);
            busy.fetch_add(began.elapsed().as_micros() as u64, Ordering::Relaxed);
            rows
        },
    );
    let encoder: Arc<dyn Encoder> = Arc::new(timed);
    let workers = nn::batches(PrecisionChoice::default(), nn::default_threads());
    let config = EngineConfig { workers, ..EngineConfig::default() };
    let engine = {
        let _clock = runtime.enter();
        Arc::new(Engine::start(Arc::clone(&encoder), config).unwrap())
    };
    let limits = DocumentLimits::default();
    let shared = Arc::clone(&encoder);
    let classifier = Classifier::new(bundle, None, shared, config, limits).unwrap();

    runtime.block_on(bare(&engine, &windows[..4]));
    let (mut engines, mut archives, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let run = |whole: bool| {
            busy_us.store(0, Ordering::Relaxed);
            let time = if whole {
                archive(&classifier, &runtime, &articles)
            } else {
                runtime.block_on(bare(&engine, &windows))
            };
            let busy = busy_us.load(Ordering::Relaxed) as f64 / time.as_micros() as f64;
            (tokens as f64 / time.as_secs_f64(), busy)
        };
        // In turn, so that a machine that becomes faster or slower favours neither.
        let first = run(round % 2 == 1);
        let second = run(round % 2 == 0);
        let (alone, whole) = if round % 2 == 0 { (first, second) } else { (second, first) };
        println!(
            "round {round}: engine {:.0} tokens/s, encoder busy {:.1} %; archive {:.0} tokens/s, \
             encoder busy {:.1} %",
            alone.0,
            alone.1 * 100.0,
            whole.0,
            whole.1 * 100.0
        );
        engines.push(alone.0);
        archives.push(whole.0);
        shares.push(whole.1 / alone.1);
    }
    println!(
        "medians of {ROUNDS}: archive / engine {:.3}; the encoder is busy {:.3} times as much",
        median(archives) / median(engines),
        median(shares)
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn bare(engine: &Arc<Engine>, documents: &[Vec<Vec<u32>>]) -> Duration {
    let began = Instant::now();
    let mut jobs = JoinSet::new();
    for sequences in documents.iter().cloned() {
        let engine = Arc::clone(engine);
        let (lane, admission, deadline) = (Lane::Bulk, Admission::Wait, None);
        jobs.spawn(async move {
            engine.submit(Job { sequences, lane, admission, deadline, ..Job::default() }).await
        });
    }
    while let Some(output) = jobs.join_next().await {
        output.unwrap().unwrap();
    }
    began.elapsed()
}

/// From opening the archive to its results being on disk.
fn archive(classifier: &Classifier, runtime: &Runtime, articles: &[String]) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("in.jsonl");
    let row =
        |(id, text): (usize, &String)| format!("{}\n", serde_json::json!({"id": id, "text": text}));
    let rows: String = articles.iter().enumerate().map(row).collect();
    std::fs::write(&input, rows).unwrap();
    let settings = ArchiveSettings {
        inputs: vec![input],
        output: directory.path().join("out.jsonl"),
        ..ArchiveSettings::default()
    };
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let archive = Archive::open(settings, &stop).unwrap();
    archive.score(classifier, runtime.handle(), &Progress::default(), &stop).unwrap();
    began.elapsed()
}

/// An article of 60 to 400 words, none like another.
fn article(index: usize) -> String {
    const WORDS: [&str; 20] = [
        "أعلنت",
        "الوزارة",
        "خطة",
        "جديدة",
        "لتطوير",
        "المدارس",
        "في",
        "المدن",
        "والقرى",
        "ارتفعت",
        "أسعار",
        "النفط",
        "سجل",
        "الفريق",
        "هدفين",
        "حذر",
        "الأطباء",
        "من",
        "المرض",
        "اليوم",
    ];
    let word = |place: usize| WORDS[(index * 17 + place * place + place * 3) % WORDS.len()];
    let words = 60 + index * 67 % 340;
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}
