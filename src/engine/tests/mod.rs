//! The engine with its threads, on a fake encoder. The tests decide when a batch
//! ends and, where time matters, stop the clock; none of them sleeps.

mod batching;
mod deadlines;
mod drain;
mod failures;
mod fake;
mod panics;
mod preemption;
mod stress;
