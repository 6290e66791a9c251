//! `tasnif` as a process: started, looked at from outside, and ended.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use tasnif::server::proto::classifier_client::ClassifierClient;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::support::process::tasnif;
use crate::support::tiny_bundle;

/// Longest that a test waits for what must happen; far more than it ever takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at another process.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of the log that are kept, to show when a test fails.
const KEPT_LINES: usize = 50;
/// Memory that the allocator may keep of what was freed.
const SLACK_KB: u64 = 64 * 1024;

/// A server in a process of its own, killed when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    log: Arc<Log>,
}

/// What a server wrote to its standard error.
#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    address: Option<SocketAddr>,
    serving: bool,
    ended: bool,
    panics: Vec<String>,
    last: VecDeque<String>,
}

/// What a process holds, as far as the system tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    memory_kb: u64,
    files: usize,
}

/// The tiny bundle in a directory of its own.
pub(crate) fn bundle() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    tiny_bundle(directory.path());
    directory
}

/// `tasnif` with these arguments, to its end, which has to come.
pub(crate) fn run(args: &[&str], input: Vec<u8>) -> Output {
    let mut child = tasnif(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The child may end without reading.
    thread::spawn(move || drop(stdin.write_all(&input)));
    let (ended, end) = mpsc::channel();
    let process = child.id();
    thread::spawn(move || ended.send(child.wait_with_output()));
    match end.recv_timeout(PATIENCE) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            signal(process, "-KILL");
            panic!("{args:?} does not end");
        }
    }
}

fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args([name, &process.to_string()]).status().unwrap();
    assert!(sent.success(), "kill {name} {process}");
}

impl Server {
    /// A server of the model at `model` on a free port, which is ready.
    pub(crate) fn start(model: &Path, args: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", model, args)
    }

    /// The same on `address`.
    pub(crate) fn start_at(address: &str, model: &Path, args: &[&str]) -> Self {
        let first = ["serve", "--listen", address, "--model", model.to_str().unwrap()];
        let mut child = tasnif(&[&first, args].concat()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::<Log>::default();
        let stderr = child.stderr.take().unwrap();
        let reader = Arc::clone(&log);
        thread::spawn(move || reader.read(stderr));
        let address = log.until_serving();
        Self { address, child, log }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> ClassifierClient<Channel> {
        ClassifierClient::new(self.endpoint().connect().await.unwrap())
    }

    /// What the process holds now; `None` where the system does not tell.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let process = Path::new("/proc").join(self.child.id().to_string());
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let memory_kb = memory.trim().trim_end_matches(" kB").parse().ok()?;
        let files = std::fs::read_dir(process.join("fd")).ok()?.count();
        Some(Usage { memory_kb, files })
    }

    /// Waits until the process holds no more than `before`, give or take what an allocator keeps.
    pub(crate) async fn until_back_at(&self, before: Option<Usage>) {
        let Some(before) = before else { return };
        let back =
            |now: Usage| now.files <= before.files && now.memory_kb <= before.memory_kb + SLACK_KB;
        let waiting = async {
            while !self.usage().is_some_and(back) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "before {before:?}, now {:?}", self.usage());
        eprintln!("before {before:?}, after {:?}", self.usage().unwrap());
    }

    /// Asserts that the process runs and that nothing in it has panicked.
    pub(crate) fn assert_unharmed(&mut self) {
        let ended = self.child.try_wait().unwrap();
        let state = self.log.state.lock().unwrap();
        assert!(ended.is_none(), "{ended:?}\n{:#?}", state.last);
        assert!(state.panics.is_empty(), "{:#?}", state.panics);
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how the process then ends.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        signal(self.child.id(), "-TERM");
        let ending = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, ending).await.expect("the server ends")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the server: {ended:?}, {:#?}", self.log.state.lock().unwrap().last);
        }
    }
}

impl Log {
    fn read(&self, stderr: ChildStderr) {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while stderr.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            self.add(&String::from_utf8_lossy(&line));
            line.clear();
        }
        self.state.lock().unwrap().ended = true;
        self.changed.notify_all();
    }

    fn add(&self, line: &str) {
        let mut state = self.state.lock().unwrap();
        if line.contains("listening;") {
            let address = line.split_once("address=").map(|(_, rest)| rest);
            let address = address.and_then(|rest| rest.split_whitespace().next());
            state.address = address.and_then(|address| address.parse().ok());
        }
        state.serving |= state.address.is_some() && line.contains("serving");
        if line.contains("panicked at") || line.contains("panic location=") {
            state.panics.push(line.to_owned());
        }
        if state.last.len() == KEPT_LINES {
            state.last.pop_front();
        }
        state.last.push_back(line.to_owned());
        drop(state);
        self.changed.notify_all();
    }

    fn until_serving(&self) -> SocketAddr {
        let starting = |state: &mut LogState| !state.serving && !state.ended;
        let state = self.state.lock().unwrap();
        let (state, _) = self.changed.wait_timeout_while(state, PATIENCE, starting).unwrap();
        assert!(state.serving, "the server does not start: {:#?}", state.last);
        state.address.unwrap()
    }
}
