//! What the server's log says, and what it never does: the text of a document.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;
use support::tiny_bundle;
use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{ClassifyBatchRequest, ClassifyRequest, Document};
use tempfile::TempDir;
use tonic::Request;

const TITLE: &str = "مناقصة المطار";
const TEXT: &str = "أعلنت الوزارة اليوم خطة سرية لتطوير المدارس. Zanzibar";

/// A server in a process of its own, killed when dropped.
struct Server {
    child: Child,
    address: String,
    /// Taken while it is read.
    log: Option<BufReader<ChildStderr>>,
    read: String,
    _bundle: TempDir,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let bundle = tempfile::tempdir().unwrap();
        let model = bundle.path().join("tiny");
        tiny_bundle(&model);
        let mut child = Command::new(env!("CARGO_BIN_EXE_tasnif"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--model"])
            .arg(&model)
            .args(args)
            .env_remove("TASNIF_LOG")
            .env_remove("TASNIF_LOG_FORMAT")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (mut address, mut read, mut line) = (None, String::new(), String::new());
        while log.read_line(&mut line).unwrap() > 0 {
            read.push_str(&line);
            let said: Value = serde_json::from_str(&line).expect("a JSON object a line");
            let message = said["message"].as_str().unwrap_or_default();
            if message.starts_with("listening;") {
                address = Some(said["address"].as_str().unwrap().to_owned());
            }
            if message == "serving" {
                break;
            }
            line.clear();
        }
        let address = address.expect("an address in the log");
        Self { child, address, log: Some(log), read, _bundle: bundle }
    }

    /// Sends documents in all sorts of calls, good and bad. Returns all that was logged.
    fn log_of_some_calls(mut self) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Read all the while: a server whose log nobody reads waits with the rest.
        let mut log = self.log.take().unwrap();
        let rest = std::thread::spawn(move || {
            let mut rest = String::new();
            log.read_to_string(&mut rest).unwrap();
            rest
        });
        runtime.block_on(calls(&self.address));
        self.child.kill().unwrap();
        std::mem::take(&mut self.read) + &rest.join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn document(id: &str) -> Document {
    Document { id: id.to_owned(), title: TITLE.to_owned(), text: TEXT.to_owned() }
}

async fn calls(address: &str) {
    let mut client = ClassifierClient::connect(format!("http://{address}")).await.unwrap();
    let mut request =
        Request::new(ClassifyRequest { document: Some(document("d1")), options: None });
    let metadata = request.metadata_mut();
    metadata.insert("x-request-id", "req-7".parse().unwrap());
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    metadata.insert("traceparent", traceparent.parse().unwrap());
    client.classify(request).await.unwrap();
    let too_long = Document { text: TEXT.repeat(20_000), ..document("d2") };
    let batch = ClassifyBatchRequest { documents: vec![document("d1"), too_long], options: None };
    client.classify_batch(batch).await.unwrap();
    let stream = tokio_stream::iter([tasnif::server::proto::ClassifyStreamRequest {
        document: Some(document("d3")),
        options: None,
    }]);
    let mut answers = client.classify_stream(stream).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    // The id of a document that is refused may be quoted, its text may not.
    let nothing = Document { text: "\u{640}".repeat(3), ..document("d4") };
    let nothing = Document { title: String::new(), ..nothing };
    client.classify(ClassifyRequest { document: Some(nothing), options: None }).await.unwrap_err();
}

/// The forms in which a text may be written in a log: as it is, and as its bytes are.
fn forms(word: &str) -> Vec<String> {
    let bytes = |form: fn(u8) -> String, between: &str| {
        word.bytes().map(form).collect::<Vec<_>>().join(between)
    };
    vec![
        word.to_owned(),
        bytes(|byte| format!("\\x{byte:02x}"), ""),
        bytes(|byte| format!("\\\\x{byte:02x}"), ""),
        bytes(|byte| format!("{byte:02x}"), ""),
        bytes(|byte| byte.to_string(), ", "),
        word.escape_unicode().to_string(),
    ]
}

#[test]
fn the_text_of_a_document_is_never_logged() {
    let log = Server::start(&["--log", "trace"]).log_of_some_calls();
    assert!(log.contains("call answered") && log.contains("h2::"), "this is the level trace");
    for word in TEXT.split(' ').chain(TITLE.split(' ')) {
        for form in forms(word) {
            assert!(!log.contains(&form), "{word} is logged as {form}");
        }
    }
}

#[test]
fn the_text_of_a_document_is_logged_where_it_was_asked_for() {
    let log = Server::start(&["--log", "tasnif=debug", "--log-documents"]).log_of_some_calls();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let documents: Vec<_> =
        lines.iter().filter(|line| line["message"] == "document answered").collect();
    let first = documents.first().expect("a document");
    assert_eq!((&first["id"], &first["text"]), (&"d1".into(), &TEXT.into()));
    assert_eq!((&first["title"], &first["request_id"]), (&TITLE.into(), &"req-7".into()));
    assert!(first["labels"].as_str().unwrap().contains("topic="));
    assert_eq!(documents.len(), 3);
}

#[test]
fn a_call_has_one_line_with_its_ids_and_the_level_of_its_code() {
    let log = Server::start(&["--log", "tasnif=debug"]).log_of_some_calls();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let calls: Vec<_> = lines.iter().filter(|line| line["method"].is_string()).collect();
    let named: Vec<_> = calls.iter().filter(|line| line["request_id"] == "req-7").collect();
    assert_eq!(named.len(), 1);
    let call = named[0];
    assert_eq!(call["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!((&call["level"], &call["code"]), (&"DEBUG".into(), &"Ok".into()));
    assert_eq!(call["method"], "tasnif.v1.Classifier/Classify");
    assert!(call["duration_us"].is_u64());
    let refused: Vec<_> = calls.iter().filter(|line| line["code"] == "InvalidArgument").collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["level"], "DEBUG");
    let quiet = Server::start(&[]).log_of_some_calls();
    assert!(!quiet.contains("\"method\""), "a client can fill the log: {quiet}");
}
