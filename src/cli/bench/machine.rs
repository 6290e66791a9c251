//! The machine that a measurement ran on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::nn;

/// What decides how fast a machine is, as far as it says so itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Machine {
    /// The processor's own name for itself; `unknown` where it does not say.
    pub(super) cpu: String,
    /// Cores that the process may use: its affinity, and on Linux its control group's quota.
    pub(super) cores: usize,
    /// `linux`, `macos`, `windows`.
    pub(super) os: String,
    /// `x86_64`, `aarch64`.
    pub(super) arch: String,
}

impl Machine {
    /// This one.
    pub(super) fn this() -> Self {
        Self {
            cpu: cpu_name().unwrap_or_else(|| "unknown".to_owned()),
            cores: nn::default_threads(),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, os, arch } = self;
        let plural = if *cores == 1 { "core" } else { "cores" };
        write!(f, "{cpu}, {cores} {plural}, {os} {arch}")
    }
}

#[cfg(target_os = "linux")]
fn cpu_name() -> Option<String> {
    use procfs::Current;
    procfs::CpuInfo::current().ok()?.model_name(0).map(|name| name.trim().to_owned())
}

#[cfg(not(target_os = "linux"))]
fn cpu_name() -> Option<String> {
    None
}
