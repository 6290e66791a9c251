//! The worker threads. Alone in its process, since they are set up once.

#![allow(clippy::expect_used)]

#[cfg(target_os = "linux")]
mod support;

use tasnif::nn::{NnError, configure_threads, default_threads};

#[test]
fn threads_are_set_up_once_and_a_second_time_is_an_error() {
    configure_threads(default_threads()).expect("nothing has run before");
    let again = configure_threads(7);
    assert!(matches!(again, Err(NnError::Threads { threads: 7, .. })), "{again:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn threads_are_as_many_as_the_affinity_mask_leaves() {
    use std::process::Command;

    if default_threads() == 1 {
        return; // It is one thread anyway.
    }
    let directory = support::written(&support::Tiny::bundle());
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first: String =
        allowed.expect("a list").trim().chars().take_while(char::is_ascii_digit).collect();
    let found = Command::new("taskset")
        .args(["-c", &first, env!("CARGO_BIN_EXE_tasnif"), "bench", "core"])
        .args(["--seconds", "0.1", "--warmup", "0", "--concurrency", "1", "--json", "-"])
        .arg("--model")
        .arg(directory.path())
        .output()
        .expect("taskset is there");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let report: serde_json::Value = serde_json::from_slice(&found.stdout).expect("a report");
    assert_eq!(report["threads"], 1);
}
