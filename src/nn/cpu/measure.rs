//! Parts of the encoder alone, to be measured: the most that the machine can do, a linear layer,
//! what is done to its results, attention, and a whole layer.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::attention::{Attention, Shape};
use super::kernels::{Aligned, Input, Kernel, Operand, Packed, Unscaled, row_stride};
use super::layer::{AfterAttention, Layer, Piece, Workspace};
use super::norm::Norm;
use super::{Visitor, math, with_kernel};
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

/// How long `work` takes, in the median of 31 runs.
pub fn median_time(work: &mut dyn FnMut()) -> Duration {
    let mut times = [(); 31].map(|()| {
        let start = Instant::now();
        work();
        start.elapsed()
    });
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    *median
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
            let stride = row_stride::<f32>(packed.width());
            out.resize(rows.len() / inputs * stride, 0.0);
            packed.forward(Operand::Values(rows, inputs), &mut out, stride, &mut input);
        })
    }
}

/// GELU of `values`, in place: with the error function to 5e-7 if `exact`, as f32 has it, else to
/// 2e-4, as it is where bytes or bf16 come next.
pub fn gelu(values: &mut [f32], exact: bool) {
    let columns = values.len();
    math::gelu(values, 1, columns, columns.max(1), exact);
}

/// Softmax of rows of `columns` values, in place, without the division, which attention leaves to
/// its results: their numerators, and `sums`, the denominator of each. `columns` is a multiple of
/// 32; numerators are to 2 units in the last place if `exact`, else to 1e-4 of themselves.
pub fn softmax_numerators(values: &mut [f32], columns: usize, sums: &mut [f32], exact: bool) {
    math::exponentials(values, columns, columns, sums, exact);
}

/// What adds rows to others of `width` values and normalises the sums in place, as the end of each
/// half of a layer does.
pub fn add_and_normalise(width: usize) -> impl FnMut(&mut [f32], &[f32]) {
    let norm = Norm { weight: vec![1.0; width], bias: vec![0.0; width], epsilon: 1e-12 };
    move |rows, updates| norm.add(rows, updates, width)
}

/// The size of a layer of the encoder.
#[derive(Clone, Copy, Debug)]
pub struct LayerSize {
    /// Values in a row.
    pub hidden: usize,
    /// Heads of attention, among which these are divided.
    pub heads: usize,
    /// Values in a row of the feed-forward part.
    pub intermediate: usize,
}

/// A whole layer in `precision`, with weights of its own making: what is returned runs it over rows
/// of sequences that are as long as `lengths` say, again and again, on one thread.
pub fn layer(precision: Precision, size: LayerSize, lengths: &[usize]) -> Box<dyn FnMut()> {
    with_kernel(precision, WholeLayer { size, lengths })
}

struct WholeLayer<'a> {
    size: LayerSize,
    lengths: &'a [usize],
}

impl Visitor for WholeLayer<'_> {
    type Output = Box<dyn FnMut()>;

    fn visit<K: Kernel, A: Unscaled>(self, kernel: K, attention: A) -> Self::Output {
        let LayerSize { hidden, heads, intermediate } = self.size;
        let linear = |inputs: usize, outputs: usize| {
            Packed::new(kernel, &wave(inputs * outputs), &wave(outputs), inputs)
        };
        let norm = || Norm { weight: vec![1.0; hidden], bias: vec![0.0; hidden], epsilon: 1e-12 };
        let layer = Layer {
            qkv: linear(hidden, 3 * hidden),
            after: AfterAttention {
                attention_output: linear(hidden, hidden),
                attention_norm: norm(),
                intermediate: linear(hidden, intermediate),
                output: linear(intermediate, hidden),
                output_norm: norm(),
            },
        };
        let stride = row_stride::<A::Activation>(layer.qkv.width());
        let shape = Shape { hidden, head_size: hidden / heads, stride };
        let sequences = sequences(self.lengths);
        let mut rows = wave(self.lengths.iter().sum::<usize>() * hidden);
        let (mut qkv, mut workspace) = (Aligned::new(0), Workspace::new(attention));
        Box::new(move || {
            layer.forward(&mut rows, &sequences, &mut qkv, shape, &mut workspace, &mut || ());
        })
    }
}

/// The attention of a layer alone, all heads of it, from queries, keys and values on; otherwise as
/// [`layer`].
pub fn attention(precision: Precision, size: LayerSize, lengths: &[usize]) -> Box<dyn FnMut()> {
    with_kernel(precision, WholeAttention { size, lengths })
}

struct WholeAttention<'a> {
    size: LayerSize,
    lengths: &'a [usize],
}

impl Visitor for WholeAttention<'_> {
    type Output = Box<dyn FnMut()>;

    fn visit<K: Kernel, A: Unscaled>(self, _: K, kernel: A) -> Self::Output {
        let LayerSize { hidden, heads, .. } = self.size;
        let stride = row_stride::<A::Activation>(3 * hidden);
        let shape = Shape { hidden, head_size: hidden / heads, stride };
        let mut attention = Attention::new(kernel);
        let values = wave(self.lengths.iter().sum::<usize>() * shape.stride);
        let mut qkv = Aligned::new(values.len());
        attention.convert_part(&values, stride, &mut qkv, stride);
        let sequences = sequences(self.lengths);
        let mut context = vec![0.0; values.len() / stride * hidden];
        Box::new(move || {
            for Piece { sequence, .. } in &sequences {
                let qkv = qkv.get(sequence.start * shape.stride..sequence.end * shape.stride);
                let context = context.get_mut(sequence.start * hidden..sequence.end * hidden);
                let (Some(qkv), Some(context)) = (qkv, context) else { continue };
                for head in 0..heads {
                    attention.attend(qkv, qkv, shape, head, context);
                }
            }
        })
    }
}

/// Whole sequences, one after the other.
fn sequences(lengths: &[usize]) -> Vec<Piece> {
    let ends = lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    });
    let piece =
        |(length, end): (&usize, usize)| Piece { sequence: end - length..end, queries: 0..*length };
    lengths.iter().zip(ends).map(piece).collect()
}

/// Values up to a tenth, on steps of 7 bits, as the weights of the shipped models.
fn wave(count: usize) -> Vec<f32> {
    let steps = |index: usize| match index % 97 {
        0 => 63.0,
        _ => (63.0 * (index as f32 * 0.37).sin()).round(),
    };
    (0..count).map(|index| steps(index) / 630.0).collect()
}
