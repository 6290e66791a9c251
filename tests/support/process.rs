//! The binary as a child process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::tiny_bundle;

pub fn tasnif(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tasnif"));
    command.args(args).env_remove("TASNIF_LOG");
    command
}

pub fn run(args: &[&str], input: &str) -> Output {
    let mut command = tasnif(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The child may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

pub fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

pub fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

pub fn json(output: &Output) -> Value {
    assert_eq!(code(output), Some(0), "{}", stderr(output));
    serde_json::from_str(stdout(output)).unwrap()
}

pub fn bundle() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny");
    tiny_bundle(&path);
    (dir, path.to_str().unwrap().to_owned())
}

/// A server, killed when dropped.
pub struct Server {
    pub child: Child,
    pub address: String,
    pub log: BufReader<std::process::ChildStderr>,
}

impl Server {
    pub fn start(model: &str) -> Self {
        Self::start_with(model, &[])
    }

    pub fn start_with(model: &str, args: &[&str]) -> Self {
        let mut command = tasnif(&["serve", "--listen", "127.0.0.1:0", "--model", model]);
        command.args(args);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut address = None;
        let mut line = String::new();
        while log.read_line(&mut line).unwrap() > 0 {
            if let Some((_, rest)) = line.split_once("listening;") {
                let found = rest.split_once("address=").map_or("", |(_, found)| found);
                address = found.split_whitespace().next().map(str::to_owned);
            }
            if line.contains("serving") {
                break;
            }
            line.clear();
        }
        Self { child, address: address.expect("an address in the log"), log }
    }

    /// Sends SIGHUP and reads the log until a line has both parts.
    #[cfg(unix)]
    pub fn hang_up_until(&mut self, one: &str, other: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
        let mut line = String::new();
        while !(line.contains(one) && line.contains(other)) {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ended before {one:?}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
