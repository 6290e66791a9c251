//! `tasnif bench`, through its arguments and the files that it writes. No time is asserted:
//! only that the numbers fit together.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::process::Output;

use serde_json::{Value, json};
use support::process::{Server, bundle, code, json, run, stderr, stdout, tasnif};
use tempfile::TempDir;

const TITLE: &str = "خطة للمدارس";
const TEXT: &str = "أعلنت الوزارة اليوم خطة جديدة لتطوير المدارس في المدن والقرى.";
/// What keeps a measurement short; what it shows does not matter here.
const SHORT: [&str; 6] = ["--seconds", "0.4", "--warmup", "0.1", "--repeat", "2"];

struct Dir {
    dir: TempDir,
    model: String,
}

impl Dir {
    fn new() -> Self {
        let (dir, model) = bundle();
        Self { dir, model }
    }

    fn name(&self, file: &str) -> String {
        self.dir.path().join(file).to_str().unwrap().to_owned()
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.dir.path().join(file), content).unwrap();
        self.name(file)
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(file)).unwrap()
    }

    /// The report of a short measurement of the tiny model.
    fn report(&self, subject: &str, args: &[&str]) -> Value {
        let common = ["bench", subject, "--model", &self.model, "--json", "-"];
        json(&run(&[&common[..], &SHORT, args].concat(), ""))
    }
}

/// Checks what must hold of every point.
fn check_point(point: &Value, repeats: usize) {
    let number = |field: &str| point[field].as_f64().unwrap();
    assert!(number("documents_per_s") >= 0.0 && number("tokens_per_s") >= 0.0);
    let repeated = point["repeats"].as_array().unwrap();
    assert_eq!(repeated.len(), repeats);
    let mut latencies = vec![&point["latency_us"]];
    latencies.extend(repeated.iter().map(|repeat| &repeat["latency_us"]));
    for latency in latencies.into_iter().filter(|latency| !latency.is_null()) {
        let of = |field: &str| latency[field].as_f64().unwrap();
        assert!(of("p50") <= of("p90") && of("p90") <= of("p99") && of("p99") <= of("max"));
        assert!(of("mean") <= of("max") && of("count") >= 1.0, "{latency}");
    }
    let values: Vec<f64> =
        repeated.iter().map(|repeat| repeat["tokens_per_s"].as_f64().unwrap()).collect();
    let (low, high) = (values.iter().copied().fold(f64::MAX, f64::min), number("tokens_per_s"));
    assert!(low <= high && high <= values.iter().copied().fold(0.0, f64::max));
    let (closed, open) = (point["concurrency"].is_u64(), point["rate"].is_f64());
    let modes = [("closed", true, false), ("open", false, true)];
    assert!(modes.contains(&(point["mode"].as_str().unwrap(), closed, open)), "{point}");
}

#[test]
fn core_measures_every_load_with_every_batch_and_draws_it() {
    let dir = Dir::new();
    let (report, plot) = (dir.name("report.json"), dir.name("plot.svg"));
    let loads = ["--concurrency", "1,4", "--rate", "150", "--batch-tokens", "64,256"];
    let rest = ["--documents", "20", "--median-words", "10", "--threads", "1"];
    let files = ["--json", &report, "--plot", &plot, "--model", &dir.model];
    let output = run(&[&["bench", "core"][..], &SHORT, &loads, &rest, &files].concat(), "");
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&dir.read("report.json")).unwrap();
    let kernels = report["model"]["kernels"].as_str().unwrap();
    let model = format!("f32 ({kernels}), threads: 1");
    for part in ["closed 1", "closed 4", "open 150/s", "best", "20 (generator)", &model] {
        assert!(stdout(&output).contains(part), "{part} in\n{}", stdout(&output));
    }
    assert_eq!((&report["schema"], &report["subject"]), (&json!(1), &json!("core")));
    assert_eq!(report["tasnif_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&report["precision"], &report["threads"]), (&json!("f32"), &json!(1)));
    assert_eq!(
        (&report["model"]["name"], &report["model"]["revision"]),
        (&json!("tiny"), &json!("tiny-1"))
    );
    assert_eq!(report["model"]["digest"].as_str().unwrap().len(), 64);
    assert!(report["machine"]["cores"].as_u64().unwrap() >= 1);
    let points = report["points"].as_array().unwrap();
    assert_eq!(points.len(), 6, "three loads with two sizes of batches");
    for point in points {
        check_point(point, 2);
        assert!(point["operations_per_s"].is_f64());
        assert_eq!(point["share_of_peak"].is_null(), report["peak_operations_per_s"].is_null());
    }
    // The headline is a point, and none that had no errors was faster.
    let headline = points.iter().find(|point| {
        point.as_object().unwrap().iter().all(|(field, value)| report[field] == *value)
    });
    assert!(headline.is_some(), "{report}");
    let speed = |point: &Value| point["tokens_per_s"].as_f64().unwrap();
    let clean = |point: &&Value| point["errors"].as_object().unwrap().is_empty();
    assert!(points.iter().filter(clean).all(|point| speed(point) <= speed(&report)));
    let knees = points.iter().filter(|point| point["knee"] == true).count();
    assert_eq!(knees, 2, "one for each line of more than one load");

    let svg = dir.read("plot.svg");
    let svg = roxmltree::Document::parse(&svg).unwrap();
    let texts: Vec<&str> = svg.descendants().filter_map(|node| node.text()).collect();
    for part in ["knee", "p99", "documents/s", "Throughput over the tokens of a batch"] {
        assert!(texts.iter().any(|text| text.contains(part)), "{part} in {texts:?}");
    }
}

#[test]
fn ids_of_any_form_are_the_same_work_as_their_texts() {
    let dir = Dir::new();
    let texts: Vec<Value> =
        vec![json!({"title": TITLE, "text": TEXT}), json!({"text": TEXT.repeat(8)})];
    let rows: String = texts.iter().map(|row| format!("{row}\n")).collect();
    let prepared = run(&["prepare", "--model", &dir.model], &rows);
    assert_eq!(code(&prepared), Some(0), "{}", stderr(&prepared));
    let lines: Vec<Value> =
        stdout(&prepared).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let windows = |line: usize| lines[line]["windows"].as_array().unwrap();
    assert!(windows(0).len() == 1 && windows(1).len() > 1);

    // A byte order mark, as editors on Windows write one, is no part of a document.
    let texts = dir.write("texts.jsonl", format!("\u{feff}{rows}"));
    let ids = dir.write("ids.jsonl", &prepared.stdout);
    let bare = format!("\n{}\n{}\n", windows(0)[0], lines[1]);
    let bare = dir.write("bare.jsonl", bare);
    let named = format!("\u{feff}{}\n{}", json!({"ids": windows(0)[0]}), lines[1]);
    let named = dir.write("named.jsonl", named);
    let one = ["--concurrency", "2"];
    let of_texts = dir.report("core", &[&one[..], &["--texts", &texts]].concat());
    assert_eq!(of_texts["work"]["source"], "texts");
    for file in [&ids, &bare, &named] {
        let of_ids = dir.report("core", &[&one[..], &["--ids", file]].concat());
        assert_eq!(of_ids["work"]["source"], "ids");
        for field in ["digest", "documents", "tokens"] {
            assert_eq!(of_ids["work"][field], of_texts["work"][field], "{file}: {field}");
        }
    }
    let served = dir.report("serve", &[&one[..], &["--texts", &texts]].concat());
    assert_eq!(served["work"], of_texts["work"], "served as in process");
    let first = ["--ids", &ids, "--documents", "1", "--concurrency", "1"];
    assert_eq!(dir.report("core", &first)["work"]["documents"], 1);
}

#[test]
fn what_prepare_refused_is_left_out_and_counted() {
    let dir = Dir::new();
    let rows = format!("{}\nno document\n{}\n", json!({"text": TEXT}), json!({"text": " "}));
    let prepared = run(&["prepare", "--model", &dir.model], &rows);
    assert_eq!(stdout(&prepared).matches("\"error\"").count(), 2, "{}", stdout(&prepared));
    let ids = dir.write("ids.jsonl", &prepared.stdout);
    let args = ["bench", "core", "--model", &dir.model, "--json", "-", "--ids", &ids];
    let output = run(&[&args[..], &SHORT, &["--concurrency", "1"]].concat(), "");
    assert_eq!(json(&output)["work"]["documents"], 1);
    let warnings: Vec<_> =
        stderr(&output).lines().filter(|line| line.contains("left out")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("ids.jsonl"), "{warnings:?}");
    assert!(warnings[0].ends_with(": 2"), "{warnings:?}");
}

/// Tokens to a document, by the throughputs.
fn tokens_per_document(report: &Value) -> f64 {
    let per_s = |field: &str| report[field].as_f64().unwrap();
    per_s("tokens_per_s") / per_s("documents_per_s")
}

#[test]
fn throughputs_are_of_what_was_answered() {
    let dir = Dir::new();
    let texts = dir.write("texts.txt", TEXT);
    let args = ["--texts", &texts, "--concurrency", "3"];
    let core = dir.report("core", &args);
    let tokens = core["work"]["tokens"]["total"].as_f64().unwrap();
    assert!(tokens > 10.0);
    let served = dir.report("serve", &args);
    let server = Server::start(&dir.model);
    let url = format!("http://{}", server.address);
    let other = [&["bench", "serve", "--json", "-", "--server", &url][..], &SHORT, &args].concat();
    let other = json(&run(&other, ""));
    for report in [&core, &served, &other] {
        assert!((tokens_per_document(report) - tokens).abs() < 1e-6, "{report}");
        assert_eq!(report["errors"], json!({}));
        check_point(&report["points"][0], 2);
    }
    assert_eq!((&served["subject"], &served["server"]), (&json!("serve"), &Value::Null));
    assert_eq!((&other["server"], &other["threads"]), (&json!(url), &Value::Null));
    assert_eq!((&other["batch_tokens"], &other["share_of_peak"]), (&Value::Null, &Value::Null));
    for field in ["name", "revision", "digest", "architecture", "device"] {
        assert_eq!(other["model"][field], core["model"][field], "{field}");
    }
}

#[test]
fn documents_that_are_refused_are_counted_by_code() {
    let dir = Dir::new();
    // The second is more than the queue ever holds.
    let long = json!({"windows": vec![vec![7; 128]; 2_100]});
    let ids = dir.write("ids.jsonl", format!("[5, 6, 7]\n{long}\n"));
    let report = dir.report("core", &["--ids", &ids, "--rate", "100", "--concurrency", "1"]);
    for point in report["points"].as_array().unwrap() {
        assert!(point["errors"]["too_large"].as_u64().unwrap() >= 1, "{point}");
    }
    assert!(report["latency_us"]["count"].as_u64().unwrap() >= 1, "{report}");
}

#[test]
fn answers_from_a_cache_are_told() {
    let dir = Dir::new();
    let server = Server::start_with(&dir.model, &["--cache-bytes", "100000"]);
    let texts = dir.write("texts.txt", TEXT);
    let args = ["bench", "serve", "--server", &server.address, "--texts", &texts];
    let output = run(&[&args[..], &SHORT, &["--concurrency", "1"]].concat(), "");
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("from the server's cache"), "{}", stdout(&output));
}

fn compare(args: &[&str]) -> Output {
    run(&[&["bench", "compare"][..], args].concat(), "")
}

#[test]
fn compare_prints_ratios_with_their_spread_and_refuses_other_work() {
    let dir = Dir::new();
    let latency = |p50: u64| json!({"p50": p50, "p90": p50, "p99": 2 * p50, "max": 3 * p50, "mean": p50, "count": 9});
    let mut a = dir.report("core", &["--concurrency", "1,2", "--documents", "5"]);
    // Known numbers in a report that is otherwise a real one.
    let set = |point: &mut Value, speeds: [f64; 2], p50: u64| {
        point["tokens_per_s"] = json!((speeds[0] + speeds[1]) / 2.0);
        for (repeat, speed) in point["repeats"].as_array_mut().unwrap().iter_mut().zip(speeds) {
            repeat["tokens_per_s"] = json!(speed);
            repeat["latency_us"] = latency(p50);
        }
    };
    set(&mut a["points"][0], [90.0, 110.0], 1_000);
    let mut b = a.clone();
    set(&mut b["points"][0], [198.0, 202.0], 500);
    b["points"][1]["concurrency"] = json!(9);
    let (file_a, file_b) = (dir.write("a.json", a.to_string()), dir.write("b.json", b.to_string()));
    let output = compare(&[&file_a, &file_b]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let table = stdout(&output);
    let line = table.lines().find(|line| line.starts_with("closed 1,")).unwrap();
    for part in ["2.000 (1.800–2.244)", "0.500 (0.500–0.500)"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(table.contains("only in A") && table.contains("only in B"), "{table}");

    // What was not answered is in no latency; and that of another load says nothing.
    let mut other = b.clone();
    other["points"][0]["errors"] = json!({"overloaded": 27});
    other["points"][0]["latency_us"] = latency(500);
    other["concurrency"] = json!(7);
    let other = dir.write("other.json", other.to_string());
    let output = compare(&[&file_a, &other]);
    let line = |start| stdout(&output).lines().find(|line| line.starts_with(start)).unwrap();
    assert!(line("closed 1,").contains("B 75.0 % not answered"), "{}", stdout(&output));
    assert!(line("best").contains("B closed 7, batch"), "{}", stdout(&output));
    assert_eq!(line("best").matches('(').count(), 1, "throughput alone: {}", stdout(&output));

    // A server that is another's does not say how large its batches are.
    let mut remote = a.clone();
    for place in ["/batch_tokens", "/points/0/batch_tokens", "/points/1/batch_tokens"] {
        *remote.pointer_mut(place).unwrap() = Value::Null;
    }
    let remote = dir.write("remote.json", remote.to_string());
    let output = compare(&[&file_a, &remote]);
    assert!(stdout(&output).contains("\nclosed 2 "), "{}", stdout(&output));
    assert!(!stdout(&output).contains("only in"), "{}", stdout(&output));

    let kernels = a["model"]["kernels"].as_str().unwrap();
    let precisions = format!("A f32 ({kernels}), B int8 ({kernels})");
    let changes: [(&str, &str, Value, &str); 8] = [
        ("/subject", "subject", json!("serve"), "A core, B serve"),
        ("/machine/cpu", "machine", json!("Z80"), "B Z80"),
        ("/threads", "threads", json!(64), "B 64"),
        ("/precision", "precision", json!("int8"), &precisions),
        ("/model/kernels", "precision", json!("candle"), "B f32 (candle)"),
        ("/settings/connections", "subject", json!(3), "B core, connections: 3"),
        ("/model/digest", "model", json!("beef"), "B tiny beef"),
        ("/work/digest", "documents", json!("feed"), "digest feed"),
    ];
    let mut all = b.clone();
    for (place, kind, value, says) in changes {
        let mut other = b.clone();
        *other.pointer_mut(place).unwrap() = value.clone();
        *all.pointer_mut(place).unwrap() = value;
        let other = dir.write("other.json", other.to_string());
        let refused = compare(&[&file_a, &other]);
        assert_eq!(code(&refused), Some(2), "{kind}: {}", stdout(&refused));
        for part in [says, &format!("--allow {kind} ")] {
            assert!(stderr(&refused).contains(part), "{part} in {}", stderr(&refused));
        }
        let allowed = compare(&[&file_a, &other, "--allow", kind]);
        assert_eq!(code(&allowed), Some(0), "{}", stderr(&allowed));
        assert!(stdout(&allowed).contains(&format!("differs in {kind}")));
    }
    let all = dir.write("other.json", all.to_string());
    let listed = "subject,machine,threads,precision,model,documents";
    let refused = compare(&[&file_a, &all]);
    assert!(stderr(&refused).contains(&format!("--allow {listed} ")), "{}", stderr(&refused));
    assert_eq!(code(&compare(&[&file_a, &all, "--allow", listed])), Some(0));

    for (content, says) in
        [("{}", "schema"), ("{\"schema\": 99}", "schema is 99"), ("x", "not what")]
    {
        let broken = dir.write("broken.json", content);
        let refused = compare(&[&file_a, &broken]);
        assert_eq!(code(&refused), Some(2));
        assert!(stderr(&refused).contains(says), "{}", stderr(&refused));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_was_measured_is_written_although_a_part_of_it_cannot_be() {
    let dir = Dir::new();
    let report = dir.write("report.json", "an older one");
    let args = ["bench", "core", "--model", &dir.model, "--concurrency", "1", "--documents", "5"];
    let files = ["--plot", "/dev/full", "--json", &report];
    let output = run(&[&args[..], &SHORT, &files].concat(), "");
    assert_eq!(code(&output), Some(6), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot write /dev/full"), "{}", stderr(&output));
    assert!(stdout(&output).contains("closed 1"), "{}", stdout(&output));
    let written: Value = serde_json::from_str(&dir.read("report.json")).unwrap();
    assert_eq!(written["concurrency"], json!(1));

    // What is never measured leaves what was there, and nothing where there was none.
    let nothing = ["--rate", "0.01", "--seconds", "0.05", "--warmup", "0", "--repeat", "1"];
    let new = dir.name("new.json");
    for file in [&report, &new] {
        let args = ["bench", "core", "--model", &dir.model, "--json", file];
        let output = run(&[&args[..], &nothing].concat(), "");
        assert_eq!(code(&output), Some(1), "{}", stderr(&output));
    }
    assert_eq!(serde_json::from_str::<Value>(&dir.read("report.json")).unwrap(), written);
    assert!(!std::path::Path::new(&new).exists());
}

#[test]
fn bad_input_is_refused_before_anything_is_measured() {
    let dir = Dir::new();
    let file = |name: &str, content: &str| dir.write(name, content);
    let blank = file("blank", "\n  \n");
    let broken = file("broken", "[5, 6]\n\n[7, \"x\"]\n");
    let outside = file("outside", "[5]\n[5, 4000000]\n");
    let nothing = file("nothing", "[5]\n{\"windows\": [[5], []]}\n");
    let long = file("long", &format!("{}\n", json!({"ids": vec![5; 129]})));
    let rows = file("rows", "{\"text\": \"خبر\"}\n{\"title\": \"عنوان\"}\n");
    let empty_text = file("empty", "{\"text\": \"خبر\"}\n{\"text\": \" \"}\n");
    let latin = dir.write("latin", b"abc\nde\xff\n");
    let missing = dir.name("no/such/file");
    let cases: [(&[&str], i32, &[&str]); 25] = [
        (&["core", "--ids", &missing], 2, &["cannot open"]),
        (&["core", "--ids", &blank], 2, &["holds no document"]),
        (&["core", "--ids", &broken], 2, &["broken, line 3", "expected [ids]"]),
        (&["core", "--ids", &outside], 2, &["line 2", "id 4000000", "vocabulary of"]),
        (&["core", "--ids", &nothing], 2, &["line 2", "no ids"]),
        (&["core", "--ids", &long], 2, &["line 1", "129", "128"]),
        (&["core", "--ids", &long, "--texts", &rows], 2, &["cannot be used with"]),
        (&["core", "--texts", &rows], 2, &["rows, line 2", "text"]),
        (&["core", "--texts", &empty_text], 2, &["line 2", "document.text"]),
        (&["core", "--texts", &latin], 2, &["line 2", "UTF-8"]),
        (&["serve", "--texts", &blank], 2, &["holds no document"]),
        (&["core", "--precision", "int3"], 2, &["--precision"]),
        (&["core", "--concurrency", "0"], 2, &["--concurrency"]),
        (&["core", "--rate", "0"], 2, &["--rate", "0.01 to"]),
        (&["core", "--seconds", "0"], 2, &["--seconds", "0.05 to 3600"]),
        (&["core", "--batch-tokens", "0"], 2, &["--batch-tokens"]),
        (&["core", "--json", &missing], 6, &["cannot write", "no/such/file"]),
        (&["core", "--plot", &missing], 6, &["cannot write", "no/such/file"]),
        (&["core", "--logits", &missing], 6, &["cannot write", "no/such/file"]),
        (&["core", "--model", &missing], 3, &["a model is a directory with"]),
        (&["serve", "--server", "127.0.0.1:1"], 4, &["tasnif serve"]),
        (&["serve", "--server", "127.0.0.1:1", "--threads", "2"], 2, &["--threads", "--server"]),
        (&["serve", "--server", "http://127.0.0.1:1", "--ca", &rows], 2, &["--ca", "https"]),
        (&["serve", "--client-cert", &rows, "--client-key", &rows], 2, &["--server"]),
        (&["compare", &missing, &missing], 2, &["cannot open"]),
    ];
    for (args, expected, says) in cases {
        let mut command = vec!["bench"];
        command.extend(args);
        if args[0] == "core" && !args.contains(&"--model") {
            command.extend(["--model", &dir.model]);
        }
        let output = run(&command, "");
        assert_eq!(code(&output), Some(expected), "{args:?}: {}", stderr(&output));
        for part in says {
            assert!(stderr(&output).contains(part), "{args:?}: {part} in {}", stderr(&output));
        }
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn a_server_that_wants_a_token_gets_it_or_says_so_at_once() {
    let dir = Dir::new();
    let tokens = dir.write("tokens", "news a-token-of-the-newsroom\n");
    let token = dir.write("token", "a-token-of-the-newsroom\n");
    let server = Server::start_with(&dir.model, &["--tokens-file", &tokens]);
    let args = ["bench", "serve", "--server", &server.address, "--concurrency", "2"];
    let args = [&args[..], &SHORT].concat();
    let output = tasnif(&args).output().unwrap();
    assert_eq!(code(&output), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("Unauthenticated"), "{}", stderr(&output));
    let report = json(&run(&[&args[..], &["--json", "-", "--token-file", &token]].concat(), ""));
    assert_eq!(report["errors"], json!({}));
    let named = |args: &[&str], file: &str| {
        let output = tasnif(args).env("TASNIF_TOKEN_FILE", file).output().unwrap();
        assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    };
    named(&args, &token);
    // A server of this process wants none.
    let own = ["bench", "serve", "--model", &dir.model, "--concurrency", "2"];
    named(&[&own[..], &SHORT].concat(), "/no/such/file");
}
