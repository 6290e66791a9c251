//! The whole encoder of the shipped model, as a share of the machine's peak.
//!
//! `cargo bench --bench encoder` runs batches of several shapes in every precision and in the
//! reference, on as many threads as the process may use; `taskset -c 0` makes it one. Criterion
//! gives operations a second (its `elem/s`), counted as in `tasnif bench`; the peaks, the share
//! of them, tokens a second, and what a layer takes in the mean are printed.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tasnif::bundle::Bundle;
use tasnif::nn::cpu::measure;
use tasnif::nn::{self, Encoder, PackedTokens, Precision, PrecisionChoice};

/// Lengths of news in tokens: deciles of a log-normal distribution, in no order.
const NEWS: [usize; 16] =
    [92, 512, 31, 200, 147, 330, 10, 260, 60, 420, 118, 512, 174, 228, 45, 300];

fn encoder(criterion: &mut Criterion) {
    let threads = nn::default_threads();
    nn::configure_threads(threads).unwrap();
    let bundle = Bundle::load(Path::new("models/tasnif-base")).unwrap();
    let works: [(&str, &[usize]); 5] = [
        ("1x32", &[32]),
        ("1x128", &[128]),
        ("1x512", &[512]),
        ("16x128", &[128; 16]),
        ("news", &NEWS),
    ];
    let exactly = Precision::ALL.map(PrecisionChoice::Exactly);
    for choice in exactly.into_iter().chain([PrecisionChoice::Reference]) {
        let model = nn::load(&bundle, choice).unwrap();
        let peak = measure::peak(model.computes_with().precision, threads);
        println!("{choice}: peak {:.1} Gop/s on {threads} threads", peak / 1e9);
        let mut group = criterion.benchmark_group(choice.to_string());
        group.sample_size(10).measurement_time(Duration::from_secs(5));
        for (name, lengths) in works {
            let batch = batch(lengths, bundle.config.vocab_size);
            let operations = bundle.config.operations(&bundle.poolings(), lengths.iter().copied());
            group.throughput(Throughput::Elements(operations as u64));
            group.bench_function(name, |bencher| {
                bencher.iter_batched(
                    || (),
                    |()| black_box(model.encode(&batch, &mut || ()).unwrap()),
                    BatchSize::PerIteration,
                );
            });
            let time = measure::median_time(&mut || {
                drop(black_box(model.encode(&batch, &mut || ()).unwrap()));
            });
            println!(
                "{choice} {name}: {:.1} % of peak, {:.0} tokens/s, {:.1?} a layer",
                100.0 * operations / time.as_secs_f64() / peak,
                batch.tokens() as f64 / time.as_secs_f64(),
                time / bundle.config.layers as u32
            );
        }
    }
}

fn batch(lengths: &[usize], vocab_size: usize) -> PackedTokens {
    let mut batch = PackedTokens::new();
    for (index, length) in lengths.iter().enumerate() {
        let id = |token: usize| ((index * 7_919 + token * 104_729) % vocab_size) as u32;
        batch.push(&(0..*length).map(id).collect::<Vec<_>>());
    }
    batch
}

criterion_group!(benches, encoder);
criterion_main!(benches);
