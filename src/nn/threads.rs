//! How many threads compute.

use super::{NnError, PrecisionChoice};

/// Threads that this process may keep busy: the cores that its affinity mask and,
/// on Linux, its control group's quota leave it. At least 1.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Sets how many threads all models of this process share. To be called once,
/// before the first model runs.
///
/// Without it the thread pool takes [`default_threads`], or what `RAYON_NUM_THREADS` says.
///
/// # Errors
/// [`NnError::Threads`] if the pool is already in use, or a thread cannot start.
pub fn configure_threads(threads: usize) -> Result<(), NnError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("nn-{index}"))
        .build_global()
        .map_err(|source| NnError::Threads { threads, source })
}

/// Batches to run side by side on `threads` threads. They do not wait for each other, except in
/// candle, each of whose products takes all threads.
pub fn batches(precision: PrecisionChoice, threads: usize) -> usize {
    if precision == PrecisionChoice::Reference { 1 } else { threads }
}
