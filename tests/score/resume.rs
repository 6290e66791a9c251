//! Nothing lost, nothing twice, whatever happens to the process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::*;
use crate::support::Tiny;

const ROWS: usize = 60;

/// An archive of two files with good, bad and equal rows.
fn archive(dir: &Dir) -> String {
    let mut first: Vec<String> = documents(ROWS / 2).iter().map(Value::to_string).collect();
    first.insert(7, "{\"text\": \"broken".to_owned());
    first.insert(19, json!({"id": "empty", "text": " "}).to_string());
    dir.write("in/a.jsonl", first.join("\n"));
    let second: Vec<Value> = (ROWS / 2..ROWS).map(document).collect();
    dir.write("in/b.jsonl.gz", gzip(jsonl(&second).as_bytes()));
    dir.name("in")
}

/// An archive, and where its answers go.
struct Case {
    dir: Dir,
    archive: String,
    out: String,
}

impl Case {
    fn new(out: &str) -> Self {
        let dir = Dir::new();
        let (archive, out) = (archive(&dir), dir.name(out));
        Self { dir, archive, out }
    }

    /// One whose answers are there.
    fn scored(out: &str) -> Self {
        let case = Self::new(out);
        scored(&case.args());
        case
    }

    fn args(&self) -> Vec<&str> {
        let Self { archive, out, .. } = self;
        vec![archive, "-o", out, "--part-rows", "7", "--scores", "--batch-tokens", "200"]
    }
}

/// Starts a run and kills it once `parts` parts are written, if it gets that far.
/// Returns whether it was killed.
pub(crate) fn killed_after(parts: usize, args: &[&str]) -> bool {
    killed(parts, score_command(&[args, &["--log", "tasnif=debug"]].concat()))
}

fn killed(parts: usize, mut command: Command) -> bool {
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut written = log.lines().map(Result::unwrap).filter(|line| line.contains("part written"));
    for _ in 0..parts {
        if written.next().is_none() {
            break;
        }
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

pub(crate) fn resume(args: &[&str]) -> Output {
    score(&[args, &["--resume"]].concat())
}

/// What has to be equal: everything, since the manifest tells no time.
pub(crate) fn same(dir: &Dir, out: &str, expected: &BTreeMap<String, Vec<u8>>) {
    let found = dir.state(out);
    let names = |state: &BTreeMap<String, Vec<u8>>| state.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(expected));
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{name} differs");
    }
}

#[test]
fn killed_anywhere_and_resumed_it_ends_as_if_undisturbed() {
    for out in ["parts", "whole.jsonl", "whole.csv", "whole.parquet"] {
        let case = Case::new(out);
        let dir = &case.dir;
        let report = dir.name("report.html");
        let args = [case.args(), vec!["--report", &report]].concat();
        scored(&args);
        let expected = dir.state(out);
        let expected_report = dir.read("report.html");
        assert!(expected.len() > 2, "{:?}", expected.keys());
        assert!(!expected.keys().any(|name| name.contains(".work")), "{:?}", expected.keys());

        let mut kills = 0;
        for first in 0..9 {
            // Killed again and again, a part further each time.
            let mut state = "--overwrite";
            for parts in [first, 1, 0, 2] {
                kills += usize::from(killed_after(parts, &[&args[..], &[state]].concat()));
                state = "--resume";
            }
            let output = resume(&args);
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
            same(dir, out, &expected);
            assert!(dir.read("report.html") == expected_report, "the report differs");
        }
        assert!(kills > 4, "only {kills} runs were killed before their end");
        let again = resume(&args);
        assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
        same(dir, out, &expected);
    }
}

/// Each state of the disk that a kill may leave is one that a run passes through;
/// these are made by hand, so that none is left to luck.
#[test]
fn half_written_files_are_written_again() {
    let case = Case::scored("out");
    let (dir, args) = (&case.dir, case.args());
    let expected = dir.state("out");
    let manifest = String::from_utf8(dir.read("out.manifest.jsonl")).unwrap();
    let lines: Vec<&str> = manifest.split_inclusive('\n').collect();
    let rejects = dir.read("out.rejects.jsonl");

    // The answers that later parts need, as they are before the end.
    for parts in 0..lines.len() - 1 {
        let text: String = lines[..=parts].concat();
        for torn in ["", "{\"part\":", lines[parts + 1].trim_end()] {
            let kept = kept_answers(dir, &args, parts);
            dir.write("out.manifest.jsonl", format!("{text}{torn}"));
            dir.write("out.rejects.jsonl", [&rejects[..], b"{\"file\": \"half"].concat());
            for (name, bytes) in kept {
                dir.write(&name, bytes);
            }
            if parts < lines.len() - 2 {
                dir.write(&format!("out/part-{parts:05}.jsonl"), "stray");
                dir.write(&format!("out/.part-{parts:05}.jsonl.tmp"), "half");
            }
            let output = resume(&args);
            assert_eq!(output.status.code(), Some(0), "{parts} {torn:.20}: {}", stderr(&output));
            same(dir, "out", &expected);
        }
    }
    // Not even the first line was written.
    for torn in ["", "{\"tasnif\""] {
        dir.write("out.manifest.jsonl", torn);
        assert_eq!(resume(&args).status.code(), Some(0));
        same(dir, "out", &expected);
    }
}

/// The files of answers after `parts` parts, from a run that failed in the next one.
fn kept_answers(dir: &Dir, args: &[&str], parts: usize) -> BTreeMap<String, Vec<u8>> {
    if parts == 0 {
        return BTreeMap::new();
    }
    let is_over =
        || dir.read("out.manifest.jsonl").windows(12).any(|part| part == b"{\"complete\":");
    for _ in 0..5 {
        killed_after(parts, &[args, &["--overwrite"]].concat());
        // A run that has come to its end, or nearly, clears up what it has kept.
        if !is_over() {
            return dir.state("out.work");
        }
    }
    BTreeMap::new()
}

#[test]
fn a_part_that_was_changed_is_noticed() {
    let case = Case::scored("out");
    let (dir, args) = (&case.dir, case.args());
    let part = dir.read("out/part-00001.jsonl");
    dir.write("out/part-00001.jsonl", &part[..part.len() - 1]);
    fails(&[&args[..], &["--resume"]].concat(), 8, "part-00001.jsonl is not as it was written");

    let case = Case::scored("out.jsonl");
    let whole = case.dir.read("out.jsonl");
    case.dir.write("out.jsonl", &whole[..whole.len() - 1]);
    let output = resume(&case.args());
    assert_eq!(output.status.code(), Some(8), "{}", stderr(&output));
    assert!(stderr(&output).contains("out.jsonl is not as it was written"));
}

#[test]
fn what_is_there_is_neither_overwritten_nor_resumed_unasked() {
    let case = Case::scored("out.jsonl");
    let (dir, args) = (&case.dir, case.args());
    let expected = dir.state("out");
    fails(&args, 2, "--resume");
    same(dir, "out", &expected);
    let few = args.iter().map(|arg| if *arg == "7" { "9" } else { *arg }).collect::<Vec<_>>();
    scored(&[&few[..], &["--overwrite"]].concat());
    assert_eq!(answers(&dir.lines("out.jsonl")).len(), ROWS);
    // Files of others stay.
    let parts = dir.name("parts");
    dir.write("parts/notes.txt", "mine");
    fails(&[&case.archive, "-o", &parts], 2, "--overwrite");
    scored(&[&case.archive, "-o", &parts, "--overwrite"]);
    assert_eq!(dir.read("parts/notes.txt"), b"mine");
}

#[test]
fn another_input_model_or_option_is_refused_with_the_reason() {
    let case = Case::new("out");
    let dir = &case.dir;
    let resumed = [case.args(), vec!["--resume"]].concat();
    assert_eq!(score(&resumed).status.code(), Some(0), "nothing to resume is no fault");
    let manifest = dir.read("out.manifest.jsonl");

    let with = |more: &[&'static str]| [&resumed[..], more].concat();
    fails(&with(&["--dedup", "0"]), 8, "option memory-texts was 100000 and is 0");
    fails(&with(&["--title", "section"]), 8, "option columns");
    fails(&with(&["--task", "topic"]), 8, "option task");

    let first = dir.read("in/a.jsonl");
    let mut changed = first.clone();
    let last = changed.len() - 4;
    changed[last] = b'x';
    dir.write("in/a.jsonl", &changed);
    fails(&resumed, 8, "a.jsonl has changed: it had");
    dir.write("in/a.jsonl", &first);
    dir.write("in/c.jsonl", "");
    fails(&resumed, 8, "the number of input files was 2 and is 3");
    fs::remove_file(dir.path("in/c.jsonl")).unwrap();

    let mut other = Tiny::bundle();
    other.tensors.get_mut("heads.topic.bias").unwrap().1[0] += 1.0;
    other.write(&dir.path("other"));
    let model = dir.name("other");
    let on_other = [&["score", "--quiet", "--model", &model], &resumed[..]].concat();
    let output = tasnif(&on_other).output().unwrap();
    assert_eq!(output.status.code(), Some(8));
    assert!(stderr(&output).contains("the model's weights"), "{}", stderr(&output));

    let mut other = Tiny::bundle();
    other.tasnif.as_mut().unwrap()["text"]["stride"] = json!(30);
    other.write(&dir.path("other"));
    let output = tasnif(&on_other).output().unwrap();
    assert_eq!(output.status.code(), Some(8));
    assert!(stderr(&output).contains("the model's configuration"), "{}", stderr(&output));

    assert!(dir.read("out.manifest.jsonl") == manifest, "a refusal changes nothing");
    assert_eq!(score(&resumed).status.code(), Some(0));
}

#[cfg(unix)]
#[test]
fn one_output_has_one_writer() {
    let case = Case::scored("out");
    let (dir, args) = (&case.dir, case.args());
    let manifest = fs::File::open(dir.path("out.manifest.jsonl")).unwrap();
    manifest.lock().unwrap();
    fails(&[&args[..], &["--resume"]].concat(), 8, "another process");
    fails(&[&args[..], &["--overwrite"]].concat(), 8, "another process");
}

#[cfg(unix)]
#[test]
fn a_full_disk_ends_it_with_a_code_and_leaves_what_was_done() {
    let case = Case::scored("out");
    let (dir, args) = (&case.dir, case.args());
    let expected = dir.state("out");
    let mut met = 0;
    for blocks in 1..40 {
        // A bound on the size of each file stands for one on all of them.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_tasnif"), "score", "--quiet"]);
        let output =
            command.args(["--model", &MODEL.1]).args(&args).arg("--overwrite").output().unwrap();
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
        assert!(stderr(&output).contains("cannot write"), "{}", stderr(&output));
        met += 1;
        let output = resume(&args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        same(dir, "out", &expected);
    }
    assert!(met > 3, "{met}");
}

/// With real weights the last bits of a score do depend on what shares its batch.
#[test]
fn the_shipped_model_gives_the_same_bytes_too() {
    let dir = Dir::new();
    let input = dir.write("in.jsonl", jsonl(&documents(24)));
    let out = dir.name("out.jsonl");
    let args = ["score", "--quiet", &input, "-o", &out, "--part-rows", "6", "--scores"];
    let run = |more: &[&str]| tasnif(&[&args[..], more].concat());
    assert!(run(&[]).output().unwrap().status.success());
    let expected = dir.state("out");
    assert!(killed(1, run(&["--overwrite", "--log", "tasnif=debug"])));
    assert!(!dir.exists("out.jsonl"));
    let output = run(&["--resume"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    same(&dir, "out", &expected);
}
