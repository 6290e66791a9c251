//! Many times the calls that the server can answer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tasnif::nn;
use tokio::task::JoinSet;
use tonic::Code;

use crate::client::Client;
use crate::latency::Latencies;

/// How many times its capacity an overloaded server is offered.
const OVERLOAD: f64 = 10.0;
/// Turns of an overload.
const ROUNDS: u32 = 5;
/// Deadline of a call in an overload.
const PATIENCE: Duration = Duration::from_secs(2);

/// Calls with documents of `sentences`, offered at [`OVERLOAD`] times the capacity.
pub(crate) async fn overload(client: &Client, what: &str, sentences: usize, time: Duration) {
    println!(
        "overload: {OVERLOAD} times the capacity of {what}, each with {PATIENCE:?} to be answered"
    );
    let time = time / ROUNDS;
    let (mut calls, mut goodput) = (Calls::default(), Vec::new());
    let (mut of_rest, mut engine) = (Vec::new(), Vec::new());
    let mut before = capacity(client, sentences, time).await;
    println!("  capacity {before}");
    for _ in 0..ROUNDS {
        let rate = before.documents * OVERLOAD;
        let during = calls.overload(client, sentences, rate, time).await;
        println!("  goodput {during}");
        let after = capacity(client, sentences, time).await;
        println!("  capacity {after}");
        let mean = f64::midpoint(before.documents, after.documents);
        goodput.push(during.documents / mean);
        if let (Some(before_cpu), Some(during_cpu), Some(after_cpu)) =
            (&before.cpu, &during.cpu, &after.cpu)
        {
            let rest =
                |capacity: &Capacity, cpu: &CpuShares| capacity.documents / (1.0 - cpu.callers);
            let mean = f64::midpoint(rest(&before, before_cpu), rest(&after, after_cpu));
            of_rest.push(rest(&during, during_cpu) / mean);
            engine.push(during_cpu.engine / f64::midpoint(before_cpu.engine, after_cpu.engine));
        }
        before = after;
    }
    let Calls { in_time, late, refused, expired, other } = calls;
    in_time.print("answered in time");
    println!("  refused {refused}, expired {expired}, late {late}, other {other}");
    let accepted = in_time.count() + late + expired;
    let share = in_time.count() as f64 / accepted.max(1) as f64;
    println!("  in time, of those accepted: {share:.3}");
    println!("  goodput is {} of the capacity around it", spread(goodput));
    if !engine.is_empty() {
        println!("  {} of it by the CPU time that callers leave", spread(of_rest));
        println!("  the engine has {} of the CPU time that it has at its capacity", spread(engine));
    }
}

/// The median, and the least and the most.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (middle, last) = (values.len() / 2, values.len() - 1);
    format!("{:.2} ({:.2} to {:.2})", values[middle], values[0], values[last])
}

/// What became of calls.
#[derive(Default)]
struct Calls {
    in_time: Latencies,
    late: u64,
    refused: u64,
    expired: u64,
    other: u64,
}

impl Calls {
    /// Calls `rate` times a second until the queue is full, and then for `time`, of which the
    /// goodput is returned. All are answered then.
    async fn overload(
        &mut self,
        client: &Client,
        sentences: usize,
        rate: f64,
        time: Duration,
    ) -> Capacity {
        let start = Instant::now();
        let gap = Duration::from_secs_f64(1.0 / rate);
        let mut calls = JoinSet::new();
        let mut full = None;
        for index in 0.. {
            let due = start + gap * index;
            if due.duration_since(start) >= PATIENCE + time {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
            if due.duration_since(start) >= PATIENCE {
                full.get_or_insert_with(|| (Instant::now(), CpuTimes::now()));
            }
            let client = client.clone();
            calls.spawn(async move {
                let left = (due + PATIENCE).saturating_duration_since(Instant::now());
                let outcome = client.call(index as usize, sentences, Some(left)).await;
                (outcome, due.elapsed(), Instant::now())
            });
        }
        let (full, cpu) = full.unwrap();
        let (end, cpu) = (Instant::now(), cpu.zip(CpuTimes::now()));
        let mut good = 0;
        for (outcome, taken, answered) in calls.join_all().await {
            match outcome {
                Ok(()) if taken <= PATIENCE => {
                    good += usize::from((full..end).contains(&answered));
                    self.in_time.record(taken);
                }
                Ok(()) => self.late += 1,
                Err(Code::ResourceExhausted) => self.refused += 1,
                Err(Code::DeadlineExceeded | Code::Cancelled) => self.expired += 1,
                Err(_) => self.other += 1,
            }
        }
        Capacity::of(good, end - full, cpu)
    }
}

/// What a server did in a while.
struct Capacity {
    /// Documents a second.
    documents: f64,
    /// The shares of the CPUs that were taken, from 0 to 1, where they can be told.
    cpu: Option<CpuShares>,
}

struct CpuShares {
    callers: f64,
    engine: f64,
}

impl Capacity {
    /// `documents` in `time`, at whose start and end the CPU times were `cpu`.
    fn of(documents: usize, time: Duration, cpu: Option<(CpuTimes, CpuTimes)>) -> Self {
        let cpus = nn::default_threads() as f64;
        let share = |start: f64, end: f64| (end - start) / time.as_secs_f64() / cpus;
        let cpu = cpu.map(|(start, end)| CpuShares {
            callers: share(start.callers, end.callers),
            engine: share(start.engine, end.engine),
        });
        Self { documents: documents as f64 / time.as_secs_f64(), cpu }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} documents/s", self.documents)?;
        let Some(CpuShares { callers, engine }) = self.cpu else { return Ok(()) };
        let (callers, engine) = (callers * 100.0, engine * 100.0);
        write!(f, "; of the CPUs {engine:.1} % for the engine, {callers:.1} % for the callers")
    }
}

/// Seconds.
#[derive(Clone, Copy)]
struct CpuTimes {
    callers: f64,
    engine: f64,
}

impl CpuTimes {
    /// Until now, where it can be told.
    #[cfg(target_os = "linux")]
    fn now() -> Option<Self> {
        let mut times = Self { callers: 0.0, engine: 0.0 };
        let myself = procfs::process::Process::myself().unwrap();
        for stat in myself.tasks().unwrap().flatten().filter_map(|task| task.stat().ok()) {
            let seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
            if stat.pid == myself.pid {
                // All callers are on the first thread.
                times.callers += seconds;
            } else if ["tasnif-worker", "nn-"].iter().any(|name| stat.comm.starts_with(name)) {
                times.engine += seconds;
            }
        }
        Some(times)
    }

    #[cfg(not(target_os = "linux"))]
    fn now() -> Option<Self> {
        None
    }
}

/// What the server does with as many calls open as it likes.
async fn capacity(client: &Client, sentences: usize, time: Duration) -> Capacity {
    let done = Arc::new(AtomicUsize::new(0));
    let mut calls = JoinSet::new();
    for worker in 0..32 {
        let (client, done) = (client.clone(), Arc::clone(&done));
        calls.spawn(async move {
            for index in 0.. {
                if client.call(worker * 1_000_000 + index, sentences, None).await.is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, start, cpu) = (done.load(Ordering::Relaxed), Instant::now(), CpuTimes::now());
    tokio::time::sleep(time).await;
    let documents = done.load(Ordering::Relaxed) - before;
    let capacity = Capacity::of(documents, start.elapsed(), cpu.zip(CpuTimes::now()));
    calls.shutdown().await;
    // What was cut off is at an end.
    tokio::time::sleep(Duration::from_secs(1)).await;
    capacity
}
