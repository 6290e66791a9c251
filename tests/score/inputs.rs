//! What is read, and what is never read or replaced: the output's own files, and others' files.

use std::fs;

use serde_json::Value;

use crate::harness::*;

/// A run in `dir`, as somebody who has gone there types it.
fn there(dir: &Dir, args: &[&str]) {
    let output = score_command(args).current_dir(dir.path("")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
}

#[test]
fn files_of_the_output_are_no_input_however_they_are_named() {
    for (input, out, whole) in [
        (".", "scored.jsonl", "scored.jsonl"),
        ("*.jsonl", "scored.jsonl", "scored.jsonl"),
        ("../here", "./deeper/../scored", "scored/part-00000.jsonl"),
    ] {
        let dir = Dir::new();
        dir.write("here/a.jsonl", jsonl(&documents(3)));
        dir.write("here/deeper/b.txt", "خبر عن المدارس");
        let here = dir.name("here");
        let run = |more: &[&str]| {
            let args = [&[input, "-o", out][..], more].concat();
            let output = score_command(&args).current_dir(&here).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
            dir.read(&format!("here/{whole}"))
        };
        let first = run(&[]);
        assert_eq!(run(&["--resume"]), first);
        assert_eq!(run(&["--overwrite"]), first);
    }
}

#[test]
fn a_file_that_is_named_in_several_ways_is_read_once() {
    let dir = Dir::new();
    dir.write("a.jsonl", jsonl(&documents(3)));
    std::os::unix::fs::symlink(dir.path("a.jsonl"), dir.path("b.jsonl")).unwrap();
    let whole = dir.name("a.jsonl");
    there(&dir, &[".", "a.jsonl", "./*.jsonl", &whole, "-o", "out.jsonl"]);
    assert_eq!(dir.lines("out.jsonl").len(), 3);
}

#[test]
fn a_file_whose_name_begins_like_the_output_is_read() {
    let dir = Dir::new();
    dir.write("data/b.jsonl", jsonl(&documents(2)));
    dir.write("data/news.jsonl", jsonl(&documents(3)));
    there(&dir, &["data", "-o", "data/news"]);
    assert_eq!(dir.lines("data/news/part-00000.jsonl").len(), 5);
}

#[test]
fn what_score_did_not_write_is_not_replaced() {
    let dir = Dir::new();
    let archive = jsonl(&documents(3));
    let (a, b) = (dir.write("a.jsonl", &archive), dir.write("b.jsonl", "notes"));
    let part = dir.write("parts/part-00000.jsonl", "somebody's");
    let parts = dir.name("parts");
    let work = dir.write("out.work/corpus.jsonl", &archive);
    let rejects = dir.write("set.rejects.jsonl", "somebody's");
    let manifest = dir.write("train.manifest.jsonl", "{\"audio\": \"a.wav\"}\n");
    for (out, how, kept) in [
        (&a, "--overwrite", &a),
        (&b, "--overwrite", &b),
        (&b, "--resume", &b),
        (&parts, "--overwrite", &part),
        (&parts, "--resume", &part),
        (&dir.name("out"), "--overwrite", &work),
        (&dir.name("out"), "--resume", &work),
        (&dir.name("set"), "--overwrite", &rejects),
        (&dir.name("train"), "--overwrite", &manifest),
    ] {
        let before = fs::read(kept).unwrap();
        fails(&[&a, "-o", out, how], 2, "says that score wrote it");
        assert_eq!(fs::read(kept).unwrap(), before, "{out} {how}");
    }

    // An output of `score` is not its own input either.
    let out = dir.name("out.jsonl");
    scored(&[&a, "-o", &out]);
    let before = fs::read(&out).unwrap();
    fails(&[&out, "-o", &out, "--overwrite"], 2, "all inputs are files of the output");
    assert_eq!(fs::read(&out).unwrap(), before);

    // Other files may lie beside parts, and be read.
    let spark = dir.write("mixed/part-00000-5f3e-c000.jsonl", jsonl(&documents(2)));
    let mixed = dir.name("mixed");
    for how in ["--overwrite", "--overwrite", "--resume"] {
        scored(&[&a, &mixed, "-o", &mixed, how]);
        assert_eq!(dir.lines("mixed/part-00000.jsonl").len(), 5);
        assert_eq!(fs::read(&spark).unwrap(), jsonl(&documents(2)).as_bytes());
    }

    // What is gone is not resumed.
    fs::remove_file(dir.path("mixed/part-00000.jsonl")).unwrap();
    fails(&[&a, &mixed, "-o", &mixed, "--resume"], 8, "is gone");
}

#[test]
fn a_file_that_cannot_be_scored_is_met_like_a_damaged_one() {
    let dir = Dir::new();
    dir.write("in/a.jsonl", jsonl(&documents(3)));
    dir.write("in/b.json", "[{\"text\": \"خبر\"}]");
    dir.write("in/c.jsonl", jsonl(&documents(2)));
    let (input, out) = (dir.name("in"), dir.name("out"));
    let args = [input.as_str(), "-o", &out, "--part-rows", "3"];
    fails(&args, 5, "jq -c");
    assert_eq!(dir.lines("out/part-00000.jsonl").len(), 3, "what was done stays");
    scored(&[&args[..], &["--resume", "--skip-damaged"]].concat());
    let rejects = dir.lines("out.rejects.jsonl");
    assert_eq!((rejects.len(), &rejects[0]["reason"]), (1, &"damaged_file".into()));
    let parts: Vec<Value> = dir.lines("out.manifest.jsonl");
    assert!(parts.len() > 2, "{parts:?}");
    assert_eq!(dir.lines("out/part-00001.jsonl").len(), 2);

    // Nor does it matter that it is the first.
    dir.write("in/a.jsonl", "");
    scored(&[&input, "-o", &dir.name("b.jsonl"), "--skip-damaged"]);
    assert_eq!(dir.lines("b.jsonl").len(), 2);
    let list = dir.name("in/b.json");
    fails(&[&list, "-o", &dir.name("c.jsonl"), "--skip-damaged"], 2, "jq -c");
}

#[cfg(unix)]
#[test]
fn a_pipe_is_read_as_standard_input_alone_and_never_replaced() {
    use std::os::unix::fs::FileTypeExt;
    use std::process::{Command, Stdio};

    let dir = Dir::new();
    let archive = dir.write("a.jsonl", jsonl(&documents(3)));
    let pipe = dir.name("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fails(&[&pipe, "-o", &dir.name("out.jsonl")], 2, "say - and give it as standard input");
    for how in ["--overwrite", "--resume"] {
        fails(&[&archive, "-o", &pipe, how], 2, "says that score wrote it");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo(), "{how}");
    }
    let args = ["/dev/stdin", "-o", &dir.name("out.jsonl")];
    let given = score_command(&args).stdin(Stdio::piped()).output().unwrap();
    assert_eq!(given.status.code(), Some(2), "{}", stderr(&given));
}

#[test]
fn a_byte_order_mark_does_not_hide_the_format() {
    let dir = Dir::new();
    let input = dir.write("news.dump", format!("\u{feff}{}", jsonl(&documents(2))));
    scored(&[&input, "-o", &dir.name("out.jsonl")]);
    assert_eq!(dir.lines("out.jsonl").len(), 2);
}
