//! One layer of the encoder, and its attention alone, as shares of what the machine can do.
//!
//! `cargo bench --bench layer` measures a layer of the size of the shipped models' on one thread, in
//! every precision. Criterion gives operations a second (its `elem/s`), those of the products as
//! `tasnif bench` counts them; the peaks and the shares of them are printed. Attention's own
//! products are bf16 or f32 in int8.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::print_stdout)]

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tasnif::nn::Precision;
use tasnif::nn::cpu::measure::{self, LayerSize};

const SIZE: LayerSize = LayerSize { hidden: 384, heads: 12, intermediate: 1536 };
const WORKS: [(&str, &[usize]); 4] =
    [("1x32", &[32]), ("1x128", &[128]), ("1x512", &[512]), ("16x128", &[128; 16])];

fn layers(criterion: &mut Criterion) {
    let LayerSize { hidden, intermediate, .. } = SIZE;
    for precision in Precision::ALL {
        let peak = measure::peak(precision, 1);
        println!("peak of {precision}: {:.1} Gop/s", peak / 1e9);
        for (work, lengths) in WORKS {
            let rows: usize = lengths.iter().sum();
            let linear = 2 * rows * (4 * hidden * hidden + 2 * hidden * intermediate);
            let attention: usize = lengths.iter().map(|length| 4 * length * length * hidden).sum();
            let parts = [
                ("layer", linear + attention, measure::layer(precision, SIZE, lengths)),
                ("attention", attention, measure::attention(precision, SIZE, lengths)),
            ];
            for (part, operations, mut run) in parts {
                let mut group = criterion.benchmark_group(format!("{part}/{precision}"));
                group.throughput(Throughput::Elements(operations as u64));
                group.sample_size(20).warm_up_time(Duration::from_millis(200));
                group.measurement_time(Duration::from_secs(1));
                group.bench_function(work, |bencher| bencher.iter(&mut run));
                let time = measure::median_time(&mut run);
                let share = 100.0 * operations as f64 / time.as_secs_f64() / peak;
                println!("{part} {precision} {work}: {time:.1?}, {share:.0} % of its peak");
            }
        }
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);
