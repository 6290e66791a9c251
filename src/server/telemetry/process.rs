//! Memory, time and files of the process, by the names that Prometheus' own clients use.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

/// Reads the process. Where there is no `/proc` it says nothing.
#[derive(Debug)]
pub(super) struct ProcessCollector;

#[cfg(not(target_os = "linux"))]
impl Collector for ProcessCollector {
    fn encode(&self, _: DescriptorEncoder<'_>) -> fmt::Result {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        use prometheus_client::encoding::NoLabelSet;
        use prometheus_client::metrics::MetricType;

        // What cannot be read is left out: the rest is worth having, most of all then.
        let Ok(reading) = Reading::take() else { return Ok(()) };
        encoder
            .encode_descriptor(
                "process_cpu_seconds",
                "Time on a core, of all threads together",
                None,
                MetricType::Counter,
            )?
            .encode_counter::<NoLabelSet, _, f64>(&reading.cpu_seconds, None)?;
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory in use", reading.resident_bytes),
            ("process_virtual_memory_bytes", "Address space in use", reading.virtual_bytes),
            ("process_open_fds", "Open file descriptors", reading.open_files),
            ("process_max_fds", "File descriptors that may be open", reading.max_files),
            ("process_threads", "Threads", reading.threads),
            ("process_start_time_seconds", "Start, since the Unix epoch", reading.started),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
struct Reading {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    open_files: f64,
    max_files: f64,
    threads: f64,
    /// Seconds since the Unix epoch.
    started: f64,
}

#[cfg(target_os = "linux")]
impl Reading {
    fn take() -> procfs::ProcResult<Self> {
        use procfs::process::{LimitValue, Process};

        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        let max_files = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(files) => files as f64,
            LimitValue::Unlimited => f64::INFINITY,
        };
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            resident_bytes: (stat.rss * procfs::page_size()) as f64,
            virtual_bytes: stat.vsize as f64,
            open_files: process.fd_count()? as f64,
            max_files,
            threads: stat.num_threads as f64,
            started: procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks,
        })
    }
}
