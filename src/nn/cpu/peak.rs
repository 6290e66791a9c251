//! What the machine can do at most: the multiply-adds of a precision, on registers alone.

use std::thread;
use std::time::{Duration, Instant};

use super::kernels::Kernel;
use super::{Visitor, with_kernel};
use crate::nn::Precision;

/// How long a measurement goes on.
const TIME: Duration = Duration::from_millis(100);
/// Steps between two looks at the clock.
const STEPS: usize = 50_000;

/// Operations a second that `threads` threads reach together in `precision`, where a
/// multiplication and the addition of its product are two.
///
/// It is the fastest tenth of a second or so, of the instructions that the kernel of the
/// precision is made of, so other work on the machine only shows if it goes on all the time.
pub fn measure(precision: Precision, threads: usize) -> f64 {
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..threads.max(1)).map(|_| scope.spawn(move || one(precision))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
    })
}

fn one(precision: Precision) -> f64 {
    with_kernel(precision, Peak)
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
