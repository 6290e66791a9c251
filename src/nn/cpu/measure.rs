//! The kernels alone, to be measured: the most that the machine can do, and one linear layer.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::kernels::{Input, Kernel, Packed, Unscaled};
use super::{Visitor, with_kernel};
use crate::nn::Precision;

/// Runs of which the fastest is the peak.
const RUNS: usize = 12;
/// How long each thread goes on in a run.
const TIME: Duration = Duration::from_millis(10);
/// Steps between two looks at the clock.
const STEPS: usize = 20_000;

/// Operations a second that `threads` threads reach together in `precision`, on registers
/// alone; a multiplication and the addition of its product are two.
///
/// It is the fastest of a dozen runs of 10 ms, of the instructions that the kernel of the
/// precision is made of. In a run all threads begin at once, and it lasts until the last is done.
pub fn peak(precision: Precision, threads: usize) -> f64 {
    let barrier = Barrier::new(threads.max(1));
    let one = || with_kernel(precision, Peak(&barrier));
    let runs = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(one)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>()
    });
    let together = |run: usize| {
        let threads = || runs.iter().filter_map(|runs| runs.get(run));
        let start = threads().map(|part| part.start).min()?;
        let end = threads().map(|part| part.end).max()?;
        let operations = threads().map(|part| part.operations).sum::<usize>();
        Some(operations as f64 / (end - start).as_secs_f64())
    };
    (0..RUNS).filter_map(together).fold(0.0, f64::max)
}

/// What a thread did in a run.
struct Part {
    start: Instant,
    end: Instant,
    operations: usize,
}

struct Peak<'a>(&'a Barrier);

impl Visitor for Peak<'_> {
    type Output = Vec<Part>;

    fn visit<K: Kernel, A: Unscaled>(self, kernel: K, _: A) -> Self::Output {
        let run = |_| {
            self.0.wait();
            let (start, mut operations) = (Instant::now(), 0);
            while start.elapsed() < TIME {
                operations += kernel.peak(STEPS);
            }
            Part { start, end: Instant::now(), operations }
        };
        (0..RUNS).map(run).collect()
    }
}

/// What applies a layer to rows, `[rows, inputs]`.
pub type Apply = Box<dyn FnMut(&[f32])>;

/// Packs a linear layer for the kernel of `precision`: `weights`, `[outputs, inputs]`, and
/// `bias`, `[outputs]`. What is returned applies it to rows, with all that this takes but the
/// packing: it converts them, multiplies, and scales. The results are not kept.
pub fn linear(precision: Precision, weights: &[f32], bias: &[f32], inputs: usize) -> Apply {
    with_kernel(precision, Linear { weights, bias, inputs })
}

struct Linear<'a> {
    weights: &'a [f32],
    bias: &'a [f32],
    inputs: usize,
}

impl Visitor for Linear<'_> {
    type Output = Apply;

    fn visit<K: Kernel, A: Unscaled>(self, kernel: K, _: A) -> Self::Output {
        let packed = Packed::new(kernel, self.weights, self.bias, self.inputs);
        let (inputs, mut input, mut out) = (self.inputs, Input::default(), Vec::new());
        Box::new(move |rows| {
            out.resize(rows.len() / inputs * packed.width(), 0.0);
            packed.forward(rows, inputs, &mut out, &mut input, |_, _| ());
        })
    }
}
