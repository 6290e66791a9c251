//! `tasnif verify` through its arguments, files and exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::path::Path;
#[cfg(target_os = "linux")]
use std::process::Stdio;

use serde_json::{Value, json};
use support::process::{bundle, code, run, stderr, stdout, tasnif};

#[test]
fn built_in_documents_pass_in_f32_and_have_a_table() {
    let (_dir, model) = bundle();
    let output = run(&["verify", "--model", &model, "--precision", "f32"], "");
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    for part in ["built-in documents: 42 documents", "f32", "topic", "sentiment", "100.00 %"] {
        assert!(stdout(&output).contains(part), "{part:?} in\n{}", stdout(&output));
    }
    let output = run(&["verify", "--model", &model, "--precision", "f32", "--json", "-"], "");
    let results: Value = serde_json::from_str(stdout(&output)).expect("nothing but JSON");
    assert_eq!(results["sets"][0]["documents"], json!(42));
}

#[test]
fn the_models_that_ship_pass_the_gate_in_every_precision() {
    for name in ["tasnif-base", "tasnif-mini"] {
        let model = format!("{}/models/{name}", env!("CARGO_MANIFEST_DIR"));
        let output = run(&["verify", "--model", &model, "--json", "-"], "");
        assert_eq!(code(&output), Some(0), "{name}: {}", stderr(&output));
        let results: Value = serde_json::from_str(stdout(&output)).expect("nothing but JSON");
        let compared = results["sets"][0]["precisions"].as_array().expect("precisions");
        let names: Vec<_> = compared.iter().map(|found| found["precision"].as_str()).collect();
        assert_eq!(names, [Some("f32"), Some("bf16"), Some("int8")], "{name}");
    }
}

#[test]
fn files_are_read_with_their_labels_and_the_json_has_all_of_it() {
    let (dir, model) = bundle();
    let data = rows(dir.path(), 20);
    let results = dir.path().join("results.json");
    let output = run(
        &[
            "verify",
            "--model",
            &model,
            "--precision",
            "f32",
            "--data",
            &data,
            "--limit",
            "12",
            "--alias",
            "sports=sport",
            "--json",
            results.to_str().unwrap(),
        ],
        "",
    );
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let results: Value = serde_json::from_slice(&std::fs::read(results).unwrap()).unwrap();
    let set = &results["sets"][0];
    assert_eq!((&set["documents"], &set["left_out"]), (&json!(12), &json!(0)));
    assert_eq!(set["file"]["sha256"].as_str().unwrap().len(), 64);
    let f32 = &set["precisions"][0];
    assert!(f32["max_delta"].as_f64().unwrap() <= 1e-4);
    // Six rows of either class; those of the sentiment have a label that the model has not.
    let topic = &f32["tasks"][0];
    assert_eq!((&topic["differing"], &topic["documents"]), (&json!(0), &json!(12)));
    let f1 = &topic["macro_f1"];
    assert_eq!((&f1["rows"], &f1["classes"]), (&json!(12), &json!(2)));
    assert_eq!(f1["reference"], f1["found"]);
    assert_eq!(f32["tasks"][1]["macro_f1"], Value::Null);
    assert_eq!(results["failures"], json!([]));
}

#[test]
fn what_fails_is_named_and_has_a_code_and_what_passes_is_recorded() {
    let (dir, model) = bundle();
    let data = rows(dir.path(), 200);
    let manifest = Path::new(&model).join("tasnif.json");
    let before: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    // A random model is unsure of everything, so int8 gives some rows another label.
    let args = ["verify", "--model", &model, "--precision", "int8", "--data", &data, "--record"];
    let output = run(&args, "");
    assert_eq!(code(&output), Some(9), "{}\n{}", stdout(&output), stderr(&output));
    assert!(stderr(&output).contains("the label differs for"), "{}", stderr(&output));
    let read = || -> Value { serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap() };
    assert_eq!(read().get("precisions"), Some(&json!([])));

    // A document of which the label is clear passes, but is recorded only where it is many; what is
    // not verified stays.
    let clear = dir.path().join("clear.jsonl");
    let recorded = [
        ("int8", 142, json!([])),
        ("bf16", 143, json!(["bf16"])),
        ("int8", 143, json!(["int8", "bf16"])),
    ];
    for (precision, count, expected) in recorded {
        std::fs::write(&clear, format!("{}\n", json!({"text": "فاز الفريق"})).repeat(count))
            .unwrap();
        let data = clear.to_str().unwrap();
        let args =
            ["verify", "--model", &model, "--precision", precision, "--data", data, "--record"];
        let output = run(&args, "");
        assert_eq!(code(&output), Some(0), "{}", stderr(&output));
        assert_eq!(read()["precisions"], expected);
        let too_few = stdout(&output).contains("no file has 143 documents: int8");
        assert_eq!(too_few, count < 143, "{}", stdout(&output));
    }
    let mut after = read();
    after.as_object_mut().unwrap().remove("precisions");
    assert_eq!(after, before);
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    let (dir, model) = bundle();
    let data = rows(dir.path(), 2);
    let empty = dir.path().join("empty.jsonl");
    std::fs::write(&empty, "{\"text\": \"\"}\n").unwrap();
    let empty = empty.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--data", empty, "--record"], 2, "no document in it can be read (1 rows are left out)"),
        (&["--limit", "5"], 2, "--data"),
        (&["--json", "/nowhere/results.json"], 6, "cannot write /nowhere/results.json"),
        (&["--precision", "fp4"], 2, "expected f32, bf16 or int8"),
        (&["--data", "-"], 2, "standard input"),
        (&["--data", "/nowhere.jsonl"], 5, "/nowhere.jsonl"),
        (&["--data", &data, "--evaluate", "topic:weather"], 2, "the tasks are topic, sentiment"),
        (&["--data", &data, "--alias", "sports=chess"], 2, "no task of the model has a label"),
    ];
    for (args, expected, message) in cases {
        let output = run(&[&["verify", "--model", &model], args].concat(), "");
        assert_eq!(code(&output), Some(expected), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("--resume"), "it is of score: {}", stderr(&output));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_reader_that_leaves_ends_no_comparison() {
    let (dir, model) = bundle();
    let data = rows(dir.path(), 200);
    let results = dir.path().join("results.json");
    let results = results.to_str().unwrap();
    let args = ["verify", "--model", &model, "--precision", "int8", "--data", &data];
    let mut command = tasnif(&[&args[..], &["--json", results]].concat());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(code(&output), Some(9), "{}", stderr(&output));
    let results: Value = serde_json::from_slice(&std::fs::read(results).unwrap()).unwrap();
    assert_ne!(results["failures"], json!([]));
}

/// A file of `count` rows: the first half about sport, the second about health.
fn rows(dir: &Path, count: usize) -> String {
    let words =
        ["قال", "الوزير", "فاز", "الفريق", "أمطار", "على", "السواحل", "ارتفعت", "أسعار", "من"];
    let row = |index: usize| {
        let word = |place: usize| words[(index * 7 + place * (index + 3)) % words.len()];
        let text: Vec<&str> = (0..5 + index % 9).map(word).collect();
        let topic = if index < count / 2 { "sports" } else { "health" };
        json!({"text": text.join(" "), "topic": topic, "sentiment": "mixed"}).to_string() + "\n"
    };
    let path = dir.join("rows.jsonl");
    std::fs::write(&path, (0..count).map(row).collect::<String>()).unwrap();
    path.to_str().unwrap().to_owned()
}
