//! The binary, through its arguments, streams and exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::io::Read;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::process::{Server, bundle, code, json, run, stderr, stdout, tasnif};

const TEXT: &str = "أعلنت الوزارة اليوم خطة جديدة لتطوير المدارس في المدن والقرى.";

#[test]
fn classify_prints_json_where_there_is_no_terminal() {
    let (_dir, model) = bundle();
    let answer = json(&run(&["classify", "-", "--model", &model, "--title", "مدارس"], TEXT));
    let tasks = answer["classification"]["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    for task in tasks {
        let labels = task["labels"].as_array().unwrap();
        let sum: f64 = labels.iter().map(|label| label["score"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
        assert_eq!(task["label"], labels[0]["label"], "best first");
        assert!(labels[0].get("logit").is_none(), "logits only if asked for");
    }
    assert_eq!(answer["classification"]["usage"]["windows"], 1);
}

#[test]
fn classify_follows_its_options() {
    let (_dir, model) = bundle();
    let long = format!("{TEXT} ").repeat(20);
    let args = ["classify", "-", "--model", &model, "--task", "topic", "--top-k", "2", "--logits"];
    let answer = json(&run(&[&args[..], &["--long-text", "head"]].concat(), &long));
    let answer = &answer["classification"];
    assert_eq!(answer["tasks"].as_array().unwrap().len(), 1);
    let labels = answer["tasks"][0]["labels"].as_array().unwrap();
    assert!(labels.len() == 2 && labels.iter().all(|label| label["logit"].is_number()));
    assert_eq!(
        (&answer["usage"]["windows"], &answer["usage"]["truncated"]),
        (&1.into(), &true.into())
    );
    let whole = json(&run(&args, &long));
    assert!(whole["classification"]["usage"]["windows"].as_u64().unwrap() > 1);
}

#[test]
fn a_file_is_read_and_the_table_has_bars_and_evidence() {
    let (dir, model) = bundle();
    let file = dir.path().join("article.txt");
    std::fs::write(&file, format!("{TEXT} {TEXT} وقال الوزير إن العمل يبدأ غدا.")).unwrap();
    let args =
        ["classify", file.to_str().unwrap(), "--model", &model, "--table", "--evidence", "2"];
    let output = run(&args, "");
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let table = stdout(&output);
    for part in ["topic", "sentiment", " %", "█", "window", "tiny"] {
        assert!(table.contains(part), "{part:?} in\n{table}");
    }
}

#[test]
fn failures_have_their_codes_and_say_what_to_do() {
    let (dir, model) = bundle();
    let missing = dir.path().join("nothing");
    let missing = missing.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 10] = [
        (&["prepare", "--model", &model, "--window", "65"], 2, "over the model's 64"),
        (&["prepare", "--model", &model, "--stride", "64"], 2, "a stride of 64"),
        (&["prepare", "--model", missing], 3, "a model is a directory with"),
        (&["classify", "--model", &model, "--text", " "], 1, "document.text"),
        (
            &["classify", "--model", &model, "--text", TEXT, "--task", "weather"],
            1,
            "topic, sentiment",
        ),
        (&["classify"], 2, "--text"),
        (&["classify", missing, "--model", &model], 2, "cannot open"),
        (&["--log", "a=b=c", "models", "--model", &model], 2, "--log"),
        (&["classify", "--model", missing, "--text", TEXT], 3, "a model is a directory with"),
        (&["classify", "--server", "127.0.0.1:1", "--text", TEXT], 4, "tasnif serve"),
    ];
    for (args, expected, says) in cases {
        let output = run(args, "");
        assert_eq!(code(&output), Some(expected), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_place() {
    let (dir, model) = bundle();
    let file = dir.path().join("latin.txt");
    std::fs::write(&file, b"abc\xff").unwrap();
    let output = run(&["classify", file.to_str().unwrap(), "--model", &model], "");
    assert_eq!(code(&output), Some(1));
    assert!(stderr(&output).contains("not UTF-8: byte 3"), "{}", stderr(&output));
}

#[test]
fn models_shows_tasks_precision_and_digest() {
    let (_dir, model) = bundle();
    let named = format!("news={model}");
    let models = json(&run(&["models", "--model", &named, "--model", &model], ""));
    assert_eq!((&models[0]["name"], &models[1]["name"]), (&"news".into(), &"tiny".into()));
    assert_eq!(models[0]["precision"], "f32");
    let int8 = json(&run(&["models", "--model", &model, "--precision", "int8"], ""));
    assert_eq!(int8[0]["precision"], "int8");
    assert_eq!(models[0]["digest"].as_str().unwrap().len(), 64);
    let twice = run(&["models", "--model", &model, "--model", &model], "");
    assert_eq!(code(&twice), Some(2), "{}", stderr(&twice));
}

#[test]
fn prepare_gives_a_line_of_windows_for_each_document() {
    let (_dir, model) = bundle();
    let long = TEXT.repeat(20);
    let rows = format!(
        "{}\n{}\nnot json\n{}\n",
        serde_json::json!({"id": "a", "title": "مدارس", "text": TEXT, "topic": "education"}),
        serde_json::json!({"id": 2, "text": long}),
        serde_json::json!({"id": "c", "text": ""}),
    );
    let lines = |args: &[&str]| -> Vec<Value> {
        let output = run(&[&["prepare", "--model", &model], args].concat(), &rows);
        assert_eq!(code(&output), Some(0), "{}", stderr(&output));
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let prepared = lines(&[]);
    assert_eq!(prepared.len(), 4);
    assert_eq!((&prepared[0]["id"], &prepared[1]["id"]), (&"a".into(), &2.into()));
    assert_eq!(prepared[0]["windows"].as_array().unwrap().len(), 1);
    assert!(prepared[1]["windows"].as_array().unwrap().len() > 1);
    assert!(prepared[2]["error"].is_string() && prepared[3]["error"].is_string());
    let head = lines(&["--head", "40"]);
    let windows = head[1]["windows"].as_array().unwrap();
    assert_eq!((windows.len(), windows[0].as_array().unwrap().len()), (1, 40));
}

#[test]
fn a_server_that_says_nothing_and_a_file_without_a_token_are_named() {
    // The system takes connections that nobody accepts.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let args = ["classify", "--server", &url, "--text", TEXT, "--timeout", "1"];
    let output = run(&args, "");
    assert_eq!(code(&output), Some(1));
    for part in ["has not answered in time", "--timeout"] {
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }

    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::write(&empty, " \n").unwrap();
    let output = run(&[&args[..], &["--token-file", empty.to_str().unwrap()]].concat(), "");
    assert_eq!(code(&output), Some(2));
    assert!(stderr(&output).contains("--token-file"), "{}", stderr(&output));
    let output = tasnif(&args).env("TASNIF_TOKEN_FILE", &empty).output().unwrap();
    assert_eq!(code(&output), Some(2));
    for part in ["TASNIF_TOKEN_FILE", "it holds no token"] {
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

#[test]
fn a_cause_is_told_once() {
    let output = run(&["models", "--model", "/nowhere/model"], "");
    assert_eq!(code(&output), Some(3));
    let said = stderr(&output).lines().next().unwrap();
    assert_eq!(said.matches("expected a model directory").count(), 1, "{said}");
}

#[test]
fn prepare_bounds_a_line_and_takes_a_model_with_a_name() {
    let (_dir, model) = bundle();
    let row = serde_json::json!({"id": "a", "text": TEXT});
    let long = "x".repeat((16 << 20) + 1);
    // The first begins with a byte order mark, as editors on Windows write one.
    let rows = format!("\u{feff}{row}\n{long}\n{row}\n{long}");
    let output = run(&["prepare", "--model", &format!("news={model}")], &rows);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let lines: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    for (good, bad) in [(0, 1), (2, 3)] {
        assert!(lines[good]["windows"].is_array(), "{}", lines[good]);
        let error = lines[bad]["error"].as_str().unwrap();
        assert_eq!(error, "the line has more than 16777216 bytes");
    }
}

#[test]
fn the_variables_of_the_log_are_of_every_command() {
    let (_dir, model) = bundle();
    let models = |flags: &[&str], environment: &[(&str, &str)]| {
        let mut command = tasnif(&[&["models", "--model", &model], flags].concat());
        command.envs(environment.iter().copied()).output().unwrap()
    };
    let logged = |flags: &[&str], environment: &[(&str, &str)]| {
        let output = models(flags, environment);
        assert_eq!(code(&output), Some(0), "{}", stderr(&output));
        let line = stderr(&output).lines().find(|line| line.contains("model loaded"));
        line.map(|line| if line.starts_with('{') { "json" } else { "text" })
    };
    assert_eq!(logged(&[], &[("TASNIF_LOG", ""), ("TASNIF_LOG_FORMAT", "")]), Some("text"));
    assert_eq!(logged(&[], &[("TASNIF_LOG_FORMAT", "json")]), Some("json"));
    assert_eq!(logged(&["--log-format", "text"], &[("TASNIF_LOG_FORMAT", "json")]), Some("text"));
    assert_eq!(logged(&[], &[("TASNIF_LOG", "error")]), None);
    assert_eq!(logged(&["--log", "info"], &[("TASNIF_LOG", "error")]), Some("text"));
    // Settings of a server are no other command's.
    assert_eq!(logged(&[], &[("TASNIF_THREADS", "many")]), Some("text"));
    let refused = models(&[], &[("TASNIF_LOG_FORMAT", "xml")]);
    assert_eq!(code(&refused), Some(2));
    assert!(stderr(&refused).contains("TASNIF_LOG_FORMAT: "), "{}", stderr(&refused));
}

#[cfg(unix)]
#[test]
fn a_server_answers_and_ends_on_sigterm() {
    let (_dir, model) = bundle();
    let mut server = Server::start(&model);
    let args = ["classify", "--server", &server.address, "--text", TEXT];
    let remote = json(&run(&args, ""));
    let local = json(&run(&["classify", "--model", &model, "--text", TEXT], ""));
    assert_eq!(remote["classification"], local["classification"], "here as there");
    let models = json(&run(&["models", "--server", &server.address], ""));
    assert_eq!(models[0]["name"], "tiny");

    let refused = run(&["classify", "--server", &server.address, "--text", " "], "");
    assert_eq!(code(&refused), Some(1));
    assert!(stderr(&refused).contains("InvalidArgument"), "{}", stderr(&refused));

    let busy = run(&["serve", "--listen", &server.address, "--model", &model], "");
    assert_eq!(code(&busy), Some(4), "{}", stderr(&busy));
    assert!(stderr(&busy).contains("--listen"), "{}", stderr(&busy));

    let id = server.child.id().to_string();
    assert!(Command::new("kill").arg(&id).status().unwrap().success());
    let mut rest = String::new();
    server.log.read_to_string(&mut rest).unwrap();
    assert_eq!(server.child.wait().unwrap().code(), Some(0), "{rest}");
    assert!(rest.contains("draining") && rest.contains("drained"), "{rest}");
}

#[cfg(unix)]
#[test]
fn a_server_reloads_on_sighup_and_answers_the_same_text_from_its_cache() {
    let (_dir, model) = bundle();
    let mut server = Server::start_with(&model, &["--cache-bytes", "100000"]);
    let address = server.address.clone();
    let usage = || {
        let answer = json(&run(&["classify", "--server", &address, "--text", TEXT], ""));
        answer["classification"]["usage"]["cached"].as_bool()
    };
    assert_eq!((usage(), usage()), (Some(false), Some(true)));
    let revision = || json(&run(&["models", "--server", &address], ""))[0]["revision"].clone();
    assert_eq!(revision(), "tiny-1");

    let manifest = Path::new(&model).join("tasnif.json");
    let good = std::fs::read_to_string(&manifest).unwrap();
    let rename_over = |text: &str| {
        let fresh = Path::new(&model).join("fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, &manifest).unwrap();
    };
    rename_over("{}");
    server.hang_up_until("model not replaced", "tasnif.json");
    assert_eq!((revision(), usage()), ("tiny-1".into(), Some(true)));
    rename_over(&good.replace("tiny-1", "tiny-2"));
    server.hang_up_until("model replaced", "tiny-2");
    assert_eq!((revision(), usage()), ("tiny-2".into(), Some(false)));
    server.hang_up_until("model unchanged", "");
}

#[test]
fn the_shipped_model_classifies() {
    assert!(Path::new("models/tasnif-base/model.safetensors").exists());
    let text = "سجل المهاجم هدفين وقاد فريقه إلى الفوز بلقب الدوري أمام جماهير غفيرة في الملعب.";
    let answer = json(&run(&["classify", "--text", text], ""));
    let tasks = &answer["classification"]["tasks"];
    assert_eq!((&tasks[0]["label"], &tasks[1]["label"]), (&"sport".into(), &"positive".into()));
}
