//! Hostile and damaged files.

use std::fs;

use parquet::basic::Compression;
use serde_json::{Value, json};

use crate::harness::*;

#[test]
fn what_a_short_damaged_file_holds_before_the_damage_is_scored() {
    let dir = Dir::new();
    let whole = gzip(jsonl(&documents(60)).as_bytes());
    let input = dir.write("a.jsonl.gz", &whole[..whole.len() - 9]);
    scored(&[&input, "-o", &dir.name("out.jsonl"), "--skip-damaged"]);
    let rows = dir.lines("out.jsonl").len();
    assert!((50..=60).contains(&rows), "{rows}");
    let rejects = dir.lines("out.jsonl.rejects.jsonl");
    assert_eq!((rejects.len(), &rejects[0]["reason"]), (1, &"damaged_file".into()));
}

#[test]
fn a_truncated_file_stops_with_a_code_and_keeps_what_was_done() {
    let rows = documents(400);
    let text = jsonl(&rows);
    for (name, whole) in [
        ("a.jsonl.gz", gzip(text.as_bytes())),
        ("b.jsonl.bz2", bzip2(text.as_bytes())),
        ("c.jsonl.zst", zstd(text.as_bytes())),
        ("two-streams.jsonl.xz", fs::read("tests/score/two-streams.jsonl.xz").unwrap()),
    ] {
        let dir = Dir::new();
        let input = dir.write(name, &whole[..whole.len() * 3 / 4]);
        let after = dir.write("z.jsonl", jsonl(&documents(3)));
        let out = dir.name("out");
        let args = [&input, &after, "-o", &out, "--part-rows", "50"];
        fails(&args, 5, "is damaged after row");
        // The others are one block, damaged while the columns are looked for.
        if name.starts_with('a') {
            let manifest = dir.lines("out.manifest.jsonl");
            assert!(manifest.len() > 2, "{name}: {}", manifest.len());
            assert!(manifest.iter().skip(1).all(|part| part["rows"] == 50), "{name}");
        }

        scored(&[&args[..], &["--overwrite", "--skip-damaged"]].concat());
        let rejects = dir.lines("out.rejects.jsonl");
        assert_eq!((rejects.len(), &rejects[0]["reason"]), (1, &"damaged_file".into()), "{name}");
        let last = dir.state("out/").into_values().next_back().unwrap();
        let last = String::from_utf8(last).unwrap();
        assert!(last.lines().last().unwrap().contains("z.jsonl"), "{name}: the next file is read");
    }
}

#[test]
fn damage_inside_a_file_is_found() {
    let text = jsonl(&documents(200));
    for (name, mut bytes) in [
        ("a.jsonl.gz", gzip(text.as_bytes())),
        ("b.jsonl.bz2", bzip2(text.as_bytes())),
        ("c.jsonl.zst", zstd(text.as_bytes())),
    ] {
        let dir = Dir::new();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8].iter_mut().for_each(|byte| *byte ^= 0x5a);
        let input = dir.write(name, &bytes);
        fails(&[&input, "-o", &dir.name("out.jsonl")], 5, "is damaged");
    }
    let dir = Dir::new();
    let input = dir.path("a.parquet");
    write_parquet(&input, &documents(60), Compression::SNAPPY);
    let bytes = fs::read(&input).unwrap();
    let mut damaged = 0;
    // Bytes all over the file: none may crash it or hang it.
    for place in (0..bytes.len()).step_by(bytes.len() / 40) {
        let mut bytes = bytes.clone();
        bytes[place] ^= 0xff;
        fs::write(&input, &bytes).unwrap();
        let output = score(&[input.to_str().unwrap(), "-o", &dir.name("out"), "--overwrite"]);
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 2 | 5)), "{place}: {code:?} {}", stderr(&output));
        damaged += usize::from(code == Some(5));
    }
    assert!(damaged > 5, "{damaged}");
}

#[test]
fn a_bomb_is_stopped_and_a_huge_row_takes_no_memory() {
    let dir = Dir::new();
    let zeros = vec![b'a'; 80 << 20];
    let bomb = dir.write("bomb.jsonl.gz", gzip(&zeros));
    fails(&[&bomb, "-o", &dir.name("a.jsonl")], 5, "--max-expansion allows more");
    let args = [&bomb, "-o", &dir.name("b.jsonl"), "--max-expansion", "5000"];
    scored(&args);
    let rejects = dir.lines("b.jsonl.rejects.jsonl");
    assert_eq!(rejects[0]["reason"], "row_too_large");
    assert!(rejects[0]["message"].as_str().unwrap().contains("83886080"), "{rejects:?}");
    for (name, head) in [("row.csv.gz", "text\n\""), ("row.txt.gz", "")] {
        let bomb = dir.write(name, gzip(&[head.as_bytes(), &zeros].concat()));
        let out = format!("{name}.jsonl");
        scored(&[&bomb, "-o", &dir.name(&out), "--max-expansion", "5000"]);
        assert_eq!(dir.lines(&format!("{out}.rejects.jsonl"))[0]["reason"], "row_too_large");
    }
}

#[test]
fn a_page_of_parquet_is_bounded_whatever_it_expands_to() {
    let dir = Dir::new();
    let text = "a".repeat((256 << 20) + 1);
    let input = dir.path("bomb.parquet");
    let rows = [json!({"text": text})];
    write_parquet(&input, &rows, Compression::GZIP(Default::default()));
    let input = input.to_str().unwrap();
    fails(&[input, "-o", &dir.name("out.jsonl")], 5, "has more than 268435456 bytes");
}

#[test]
fn a_value_in_a_dictionary_of_parquet_is_bounded_since_rows_repeat_it() {
    let dir = Dir::new();
    let text = "a".repeat(33 << 20);
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::LZ4_RAW] {
        let input = dir.path("bomb.parquet");
        write_parquet(&input, &vec![json!({"text": text}); 9], compression);
        let out = dir.name("out.jsonl");
        let args = [input.to_str().unwrap(), "-o", &out, "--overwrite"];
        fails(&args, 5, "a value of a dictionary has 34603008 bytes");
    }
}

#[test]
fn a_row_may_have_a_hundred_thousand_columns() {
    let dir = Dir::new();
    let names: Vec<String> = (0..100_000).map(|column| format!("c{column}")).collect();
    let header = format!("{},text,c_last\n", names.join(","));
    let row = |text: &str| format!("{}{text},end\n", "1,".repeat(100_000));
    let text = header + &row("خبر أول") + &"1,".repeat(3) + "\n" + &row("خبر ثان");
    let input = dir.write("wide.csv", text);
    scored(&[&input, "-o", &dir.name("out.jsonl"), "--keep", "c99999,c_last"]);
    let rows = dir.lines("out.jsonl");
    let kept: Vec<&Value> = rows.iter().map(|row| &row["c_last"]).collect();
    assert_eq!(kept, ["end", "end"]);
    assert_eq!(dir.lines("out.jsonl.rejects.jsonl")[0]["row"], 2);

    let members: Vec<String> = (0..100_000).map(|n| format!("\"c{n}\":[{n}]")).collect();
    let line = format!("{{{},\"text\":\"خبر\"}}\n{}\n", members.join(","), "[".repeat(100_000));
    let input = dir.write("wide.jsonl", line);
    scored(&[&input, "-o", &dir.name("b.jsonl"), "--text", "text"]);
    assert_eq!(dir.lines("b.jsonl").len(), 1);
    assert_eq!(dir.lines("b.jsonl.rejects.jsonl")[0]["reason"], "malformed");
}
