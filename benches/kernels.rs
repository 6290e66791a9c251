//! Matrix products, as shares of what the machine can do at most, beside two crates.
//!
//! `cargo bench --bench kernels` measures linear layers of the shapes of the shipped model, on
//! one thread, in blocks of rows as the encoder has them, and the same products in
//! `rten-gemm`, whose weights are packed before too, and `gemm`, on which candle stands.
//! Criterion gives operations a second (its `elem/s`); the peaks and each product's share of its
//! own are printed. Then GELU, softmax and the norm, of values that lie in the cache, beside
//! `rten-vecmath`, in values a second; `tasnif-short` is what int8 and bf16 have. Of softmax Tasnif
//! leaves the division to attention, which divides shorter rows.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::time::Duration;

use candle_core::{Device, Tensor};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB};
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use rten_vecmath::{Gelu, Normalize, NormalizeOptions, Softmax, Sum, SumSquareSub};
use tasnif::nn::Precision;
use tasnif::nn::cpu::measure;

/// Inputs and outputs: attention's output, query with key and value, and the feed-forward two.
const LAYERS: [(usize, usize); 4] = [(384, 384), (384, 1152), (384, 1536), (1536, 384)];
const ROWS: [usize; 5] = [10, 48, 128, 1024, 4096];

fn products(criterion: &mut Criterion) {
    let peaks = Precision::ALL.map(|precision| (precision, measure::peak(precision, 1)));
    for (precision, peak) in peaks {
        println!("peak of {precision}: {:.1} Gop/s", peak / 1e9);
    }
    let peak = |wanted| peaks.into_iter().find(|(one, _)| *one == wanted).unwrap().1;
    let (f32, int8) = (peak(Precision::F32), peak(Precision::Int8));
    // The crates take their threads from here.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    for (inputs, outputs) in LAYERS {
        for rows in ROWS {
            let mut group = criterion.benchmark_group(format!("{rows}x{inputs}x{outputs}"));
            let operations = 2 * rows * inputs * outputs;
            group.throughput(Throughput::Elements(operations as u64));
            group.sample_size(20).warm_up_time(Duration::from_millis(100));
            group.measurement_time(Duration::from_millis(400));
            let (values, weights) = (wave(rows * inputs), on_steps(inputs, outputs));
            let bias = vec![0.5; outputs];
            let mut product = |name: &str, peak: f64, work: &mut dyn FnMut()| {
                run(&mut group, name, operations as f64 / peak, work);
            };
            for (precision, peak) in peaks {
                let mut linear = measure::linear(precision, &weights, &bias, inputs);
                product(&format!("tasnif-{precision}"), peak, &mut || linear(black_box(&values)));
            }
            // Weights that lie on no steps of 7 bits, of which AVX2 multiplies a part twice.
            let wide = wave(outputs * inputs);
            let mut linear = measure::linear(Precision::Int8, &wide, &bias, inputs);
            product("tasnif-int8-of-8-bits", int8, &mut || linear(black_box(&values)));
            let mut out = vec![0.0_f32; rows * outputs];
            let a = NdTensor::from_data([rows, inputs], values.clone());
            let b = NdTensor::from_data([inputs, outputs], weights.clone());
            let gemm = GemmExecutor::<f32>::new();
            let packed = gemm.prepack_b(b.view());
            product("rten-gemm-f32", f32, &mut || {
                let (a, b) = (GemmInputA::Unpacked(a.view()), GemmInputB::Packed(&packed));
                gemm.gemm(black_box(&mut out), a, b, Default::default()).unwrap();
            });
            // By way of candle, as its linear layers do: weights are [outputs, inputs].
            let a = Tensor::from_slice(&values, (rows, inputs), &Device::Cpu).unwrap();
            let b = Tensor::from_slice(&weights, (outputs, inputs), &Device::Cpu).unwrap();
            let b = b.t().unwrap();
            product("gemm-f32", f32, &mut || drop(black_box(a.matmul(&b).unwrap())));
            let mut out = vec![0_i32; rows * outputs];
            let a = NdTensor::from_data([rows, inputs], bytes(rows * inputs));
            let signed: Vec<i8> =
                bytes(inputs * outputs).into_iter().map(|byte| byte as i8 / 2).collect();
            let b = NdTensor::<i8, 2>::from_data([inputs, outputs], signed);
            let gemm = GemmExecutor::<u8, i8, i32>::new();
            let packed = gemm.prepack_b(b.view());
            // Of int8 it is the product alone, in i32.
            product("rten-gemm-int8", int8, &mut || {
                let (a, b) = (GemmInputA::Unpacked(a.view()), GemmInputB::Packed(&packed));
                gemm.gemm(black_box(&mut out), a, b, Default::default()).unwrap();
            });
        }
    }
}

/// Benches `work`, and prints how much of the peak it reaches in the median: `seconds` is how long
/// it would take at it.
fn run(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, seconds: f64, work: &mut dyn FnMut()) {
    group.bench_function(name, |bencher| bencher.iter(&mut *work));
    let time = measure::median_time(work).as_secs_f64();
    println!("{name}: {:.0} % of peak", 100.0 * seconds / time);
}

/// What follows products: GELU of a block of rows, softmax of the scores of a block of queries, and
/// the norm of a block. Each begins by writing its input, which would else change from run to run.
fn vectors(criterion: &mut Criterion) {
    let (inner, scores, hidden) = (wave(48 * 1536), wave(48 * 128), wave(48 * 384));
    let mut out = vec![0.0; inner.len()];
    let mut bench = |part: &str, name: &str, input: &[f32], work: &mut dyn FnMut(&mut [f32])| {
        let mut group = criterion.benchmark_group(part);
        group.throughput(Throughput::Elements(input.len() as u64));
        group.sample_size(20).measurement_time(Duration::from_secs(1));
        let out = &mut out[..input.len()];
        let mut run = || {
            out.copy_from_slice(input);
            work(black_box(out));
        };
        group.bench_function(name, |bencher| bencher.iter(&mut run));
        let values = input.len() as f64 / measure::median_time(&mut run).as_secs_f64();
        println!("{part} {name}: {:.2} G values/s", values / 1e9);
    };
    for (name, exact) in [("tasnif", true), ("tasnif-short", false)] {
        bench("gelu", name, &inner, &mut |out| measure::gelu(out, exact));
        let mut sums = vec![0.0; 48];
        bench("softmax", name, &scores, &mut |out| {
            measure::softmax_numerators(out, 128, &mut sums, exact);
        });
    }
    bench("gelu", "rten-vecmath", &inner, &mut |out| Gelu {}.map_mut(out));
    bench("softmax", "rten-vecmath", &scores, &mut |out| {
        for row in out.chunks_exact_mut(128) {
            black_box(Softmax::new_mut(row).dispatch());
        }
    });
    let mut normalise = measure::add_and_normalise(384);
    bench("norm", "tasnif", &hidden, &mut |out| normalise(out, &hidden));
    let (ones, zeros) = (vec![1.0; 384], vec![0.0; 384]);
    bench("norm", "rten-vecmath", &hidden, &mut |out| {
        for (row, update) in out.chunks_exact_mut(384).zip(hidden.chunks_exact(384)) {
            row.iter_mut().zip(update).for_each(|(value, update)| *value += update);
            let mean = Sum::new(row).dispatch() / 384.0;
            let variance = SumSquareSub::new(row, mean).dispatch() / 384.0;
            let options = NormalizeOptions {
                pre_scale_bias: mean,
                scale: (variance + 1e-12).sqrt().recip(),
                element_scale: Some(&ones),
                bias: 0.0,
                element_bias: Some(&zeros),
            };
            Normalize::new_mut(row, options).dispatch();
        }
    });
}

fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|index| (index as f32 * 0.37).sin()).collect()
}

/// Weights, `[outputs, inputs]`, of 7 bits in int8, as those of the shipped models.
fn on_steps(inputs: usize, outputs: usize) -> Vec<f32> {
    let mut weights = wave(inputs * outputs);
    weights.iter_mut().for_each(|weight| *weight = (*weight * 63.0).round() / 63.0);
    weights.iter_mut().step_by(inputs).for_each(|weight| *weight = 1.0);
    weights
}

fn bytes(count: usize) -> Vec<u8> {
    wave(count).into_iter().map(|value| (value * 100.0) as i8 as u8).collect()
}

criterion_group!(benches, products, vectors);
criterion_main!(benches);
