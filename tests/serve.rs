//! `tasnif serve` as the binary: its settings, and clients that show tokens and certificates.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::net::TcpListener;
use std::path::Path;

use support::process::{Server, bundle, code, json, run, stderr, stdout, tasnif};

const TEXT: &str = "وافق المجلس على الميزانية الجديدة بعد نقاش طويل.";
const TOKEN: &str = "a-token-of-the-newsroom";

fn write(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn check_prints_settings_that_can_be_given_again() {
    let (dir, model) = bundle();
    let file = write(dir.path(), "tasnif.toml", "[server]\nmax_connections = 7\n");
    let args = ["serve", "--config", &file, "--model", &model, "--drain-timeout", "5s", "--check"];
    let mut command = tasnif(&args);
    command.env("TASNIF_ENGINE_MAX_BATCH_TOKENS", "99");
    let output = command.output().unwrap();
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    for expected in ["max_connections = 7", "drain_timeout = \"5s\"", "max_batch_tokens = 99"] {
        assert!(stdout(&output).contains(expected), "{expected}: {}", stdout(&output));
    }
    let effective = write(dir.path(), "effective.toml", stdout(&output));
    let again = run(&["serve", "--config", &effective, "--check"], "");
    assert_eq!(stdout(&again), stdout(&output));
}

#[test]
fn check_finds_what_serving_would() {
    let (dir, model) = bundle();
    let missing = dir.path().join("missing").to_str().unwrap().to_owned();
    let short = write(dir.path(), "tokens", "news short\n");
    let unknown = write(dir.path(), "bad.toml", "[server]\nmax_conections = 7\n");
    let cases: [(&[&str], i32, &str); 21] = [
        (&["--config", &unknown], 2, "is server.max_connections meant?"),
        (&["--config", &missing], 2, "missing"),
        (&["--set", "engine.linger=soon"], 2, "engine.linger"),
        (&["--set", "server.max_connections=0"], 2, "server.max_connections is 0"),
        (
            &["--set", "server.connection_window_bytes=9"],
            2,
            "server.connection_window_bytes is 9; it must be from 65535",
        ),
        (&["--set", "documents.max_open_bytes=0"], 2, "documents.max_open_bytes is 0; it must be"),
        (&["--set", "documents.max_text_chars=0"], 2, "documents.max_text_chars is 0; it must be"),
        (&["--set", "documents.max_windows=0"], 2, "documents.max_windows is 0; it must be"),
        (&["--set", "reload.watch_interval=0s"], 2, "reload.watch_interval is 0ns; it must be"),
        (
            &["--set", "reload.retire_timeout=2years"],
            2,
            "reload.retire_timeout is 63115200s; it must be from 1 ms to 1 year",
        ),
        (&["--set", "monitoring.header_timeout=2years"], 2, "monitoring.header_timeout is 6311"),
        (&["--set", "tracing.flush_timeout=2years"], 2, "tracing.flush_timeout is 6311"),
        (&["--listen", "0.0.0.0:1"], 2, "0.0.0.0:1"),
        (&["--tls-cert", &missing], 2, "tls.key"),
        (&["--tokens-file", &short], 2, "fewer than 16"),
        (&["--set", "engine.max_batch_tokens=0"], 2, "max_batch_tokens is 0"),
        (&["--max-queued-tokens", "10"], 2, "engine.max_queued_tokens is 10, for bulk work 8"),
        // A window has 64 tokens, and bulk work three quarters of the queue.
        (&["--max-queued-tokens", "84"], 2, "for bulk work 63; it must hold a window, 64 tokens"),
        (&["--precision", "int4"], 2, "--precision: \"int4\" is not a precision"),
        (&["--threads", "0"], 2, "threads is 0"),
        (&["--set", &format!("models={missing}")], 3, "missing"),
    ];
    for (args, expected, says) in cases {
        let whole = [&["serve", "--check", "--model", &model], args].concat();
        let output = run(&whole, "");
        assert_eq!(code(&output), Some(expected), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
    }
    let open =
        ["serve", "--check", "--model", &model, "--listen", "0.0.0.0:1", "--allow-plaintext"];
    assert_eq!(code(&run(&open, "")), Some(0));
    let just_enough = ["serve", "--check", "--model", &model, "--max-queued-tokens", "85"];
    assert_eq!(code(&run(&just_enough, "")), Some(0));
    // An address that is taken, so that it ends in any case.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let args = ["serve", "--model", &model, "--listen", &address, "--max-queued-tokens", "84"];
    let output = run(&args, "");
    assert_eq!(code(&output), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("engine.max_queued_tokens is 84"), "{}", stderr(&output));
}

#[test]
fn the_log_that_check_prints_is_in_effect() {
    let (dir, model) = bundle();
    let file = write(dir.path(), "log.toml", "[log]\nfilter = \"error\"\nformat = \"json\"\n");
    // Arguments, the environment, the filter and form printed, and whether loading is logged.
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str, &'a str, bool);
    let cases: [Case<'_>; 8] = [
        (&[], &[], "info", "text", true),
        (&["--set", "log.filter=debug"], &[("TASNIF_LOG", "warn")], "debug", "text", true),
        (&["--log", "warn"], &[("TASNIF_LOG", "info")], "warn", "text", false),
        (&["--log", "warn", "--set", "log.filter=info"], &[], "info", "text", true),
        (&["--config", &file], &[], "error", "json", false),
        (&["--config", &file], &[("TASNIF_LOG", "info")], "info", "json", true),
        (&["--config", &file, "--log", "info"], &[("TASNIF_LOG_FORMAT", "")], "info", "json", true),
        (
            &["--config", &file, "--log-format", "text", "--log", "info"],
            &[("TASNIF_LOG_FORMAT", "json")],
            "info",
            "text",
            true,
        ),
    ];
    for (args, environment, filter, format, logged) in cases {
        let whole = [&["serve", "--check", "--model", &model], args].concat();
        let output = tasnif(&whole).envs(environment.iter().copied()).output().unwrap();
        assert_eq!(code(&output), Some(0), "{args:?}: {}", stderr(&output));
        for line in [format!("filter = \"{filter}\""), format!("format = \"{format}\"")] {
            assert!(stdout(&output).contains(&line), "{args:?}: {line}: {}", stdout(&output));
        }
        let loaded = stderr(&output).lines().find(|line| line.contains("model loaded"));
        assert_eq!(loaded.is_some(), logged, "{args:?}: {}", stderr(&output));
        let is_json = loaded.is_some_and(|line| line.starts_with('{'));
        assert_eq!(is_json, logged && format == "json", "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_model_directory_may_have_a_comma_in_its_name() {
    let (dir, model) = bundle();
    let comma = dir.path().join("a,b");
    std::fs::rename(model, &comma).unwrap();
    let output = run(&["serve", "--check", "--model", comma.to_str().unwrap()], "");
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let effective = write(dir.path(), "effective.toml", stdout(&output));
    let again = run(&["serve", "--config", &effective, "--check"], "");
    assert_eq!((code(&again), stdout(&again)), (Some(0), stdout(&output)), "{}", stderr(&again));
}

#[test]
fn limits_of_a_document_are_those_that_are_set() {
    let (_dir, model) = bundle();
    let limits = ["documents.max_text_tokens=50", "documents.max_windows=1", "engine.workers=2"];
    let args = limits.map(|limit| ["--set", limit]).concat();
    let server = Server::start_with(&model, &args);
    let ask = |text: &str| run(&["classify", "--server", &server.address, "--text", text], "");
    json(&ask(TEXT));
    let refused = ask(&TEXT.repeat(20));
    assert!(stderr(&refused).contains("tokens; the limit is 50"), "{}", stderr(&refused));

    let limits = ["--set", "documents.max_windows=1"];
    let server = Server::start_with(&model, &limits);
    let long = TEXT.repeat(20);
    let refused = run(&["classify", "--server", &server.address, "--text", &long], "");
    assert!(stderr(&refused).contains("windows; the limit is 1"), "{}", stderr(&refused));
}

#[cfg(unix)]
#[test]
fn a_client_shows_its_token_over_a_socket() {
    let (dir, model) = bundle();
    let tokens = write(dir.path(), "tokens", &format!("news {TOKEN}\n"));
    let token = write(dir.path(), "token", &format!("{TOKEN}\n"));
    let socket = format!("unix:{}", dir.path().join("socket").display());
    let listen = format!("server.listen={socket}");
    let args = ["--tokens-file", &tokens, "--set", &listen];
    let server = Server::start_with(&model, &args);
    assert_eq!(server.address, socket);

    let refused = run(&["classify", "--server", &socket, "--text", TEXT], "");
    assert_eq!(code(&refused), Some(1));
    assert!(stderr(&refused).contains("Unauthenticated"), "{}", stderr(&refused));
    let shown = ["--server", &socket, "--token-file", &token];
    let remote = json(&run(&[&["classify", "--text", TEXT][..], &shown].concat(), ""));
    let local = json(&run(&["classify", "--model", &model, "--text", TEXT], ""));
    assert_eq!(remote["classification"], local["classification"]);
    assert_eq!(json(&run(&[&["models"][..], &shown].concat(), ""))[0]["name"], "tiny");
}
