//! The kernels alone, to be measured: the most that the machine can do, and one linear layer.

use std::thread;
use std::time::{Duration, Instant};

use super::kernels::{Input, Kernel, Packed};
use super::{Visitor, with_kernel};
use crate::nn::Precision;

/// How long a measurement of the peak goes on.
const TIME: Duration = Duration::from_millis(100);
/// Steps between two looks at the clock.
const STEPS: usize = 50_000;

/// Operations a second that `threads` threads reach together in `precision`, on registers
/// alone; a multiplication and the addition of its product are two.
///
/// It is the fastest of many short runs within a tenth of a second, of the instructions that
/// the kernel of the precision is made of.
pub fn peak(precision: Precision, threads: usize) -> f64 {
    thread::scope(|scope| {
        let one = || with_kernel(precision, Peak);
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(one)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    })
}

struct Peak;

impl Visitor for Peak {
    type Output = f64;

    fn visit<K: Kernel>(self, kernel: K) -> f64 {
        let (mut best, begin) = (0.0_f64, Instant::now());
        while begin.elapsed() < TIME {
            let start = Instant::now();
            let operations = kernel.peak(STEPS);
            best = best.max(operations as f64 / start.elapsed().as_secs_f64());
        }
        best
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

    fn visit<K: Kernel>(self, kernel: K) -> Self::Output {
        let packed = Packed::new(kernel, self.weights, self.bias, self.inputs);
        let (inputs, mut input, mut out) = (self.inputs, Input::default(), Vec::new());
        Box::new(move |rows| {
            let rows = rows.chunks_exact(inputs);
            out.resize(rows.len() * packed.width(), 0.0);
            packed.forward(rows, &mut out, &mut input, |_, _| ());
        })
    }
}
