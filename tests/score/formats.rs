//! What is read and written.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_array::{ArrayRef, NullArray, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use serde_json::{Value, json};

use crate::harness::*;

/// The answers for the first `count` documents, by way of plain JSON Lines.
fn expected(count: usize) -> Vec<Value> {
    let dir = Dir::new();
    let input = dir.write("in.jsonl", jsonl(&documents(count)));
    scored(&[&input, "-o", &dir.name("out.jsonl")]);
    answers(&dir.lines("out.jsonl"))
}

#[test]
fn a_row_has_its_id_its_answers_and_its_place() {
    let dir = Dir::new();
    let input = dir.write("in.jsonl", jsonl(&documents(12)));
    let out = dir.name("out.jsonl");
    let said = scored(&[&input, "-o", &out, "--scores", "--keep", "section,date=day"]);
    assert!(said.starts_with("12 documents scored, 0 rejected, of 1 file\n"), "{said}");
    let rows = dir.lines("out.jsonl");
    assert_eq!(rows.len(), 12);
    let keys: Vec<&str> = rows[0].as_object().unwrap().keys().map(String::as_str).collect();
    for key in [
        "id",
        "section",
        "day",
        "topic",
        "topic_score",
        "topic_abstained",
        "topic_score_sport",
        "sentiment",
        "sentiment_score_negative",
        "tokens",
        "windows",
        "truncated",
        "file",
        "row",
    ] {
        assert!(keys.contains(&key), "{key} in {keys:?}");
    }
    for (index, row) in rows.iter().enumerate() {
        let document = document(index);
        assert_eq!((&row["id"], &row["section"]), (&document["id"], &document["section"]));
        assert_eq!((&row["file"], &row["row"]), (&json!(input), &json!(index + 1)));
        let labels = ["politics", "economy", "sport", "health", "weather"];
        let score = |label: &str| row[format!("topic_score_{label}")].as_f64().unwrap();
        let best = labels.into_iter().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap();
        assert_eq!((&row["topic"], row["topic_score"].as_f64()), (&json!(best), Some(score(best))));
        assert!((labels.map(score).iter().sum::<f64>() - 1.0).abs() < 1e-5);
    }
    let first_line = String::from_utf8(dir.read("out.jsonl")).unwrap();
    let order = r#"{"id":"doc-0","section":"سياسة","day":"2010-01-15","topic":"#;
    assert!(first_line.starts_with(order), "{first_line}");
}

#[test]
fn the_answers_are_those_of_classify() {
    let dir = Dir::new();
    let input = dir.write("in.jsonl", jsonl(&documents(5)));
    scored(&[&input, "-o", &dir.name("out.jsonl")]);
    for (index, row) in dir.lines("out.jsonl").iter().enumerate() {
        let document = document(index);
        let (title, text) = (document["title"].as_str(), document["text"].as_str());
        let args =
            ["classify", "--model", &MODEL.1, "--title", title.unwrap(), "--text", text.unwrap()];
        let answer = tasnif(&args).output().unwrap();
        let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
        let answer = &answer["classification"];
        assert_eq!(row["topic"], answer["tasks"][0]["label"]);
        let (here, there) = (row["topic_score"].as_f64(), answer["tasks"][0]["score"].as_f64());
        assert!((here.unwrap() - there.unwrap()).abs() < 1e-4, "{here:?} {there:?}");
        assert_eq!(row["tokens"], answer["usage"]["tokens"]);
    }
}

#[test]
fn every_format_gives_the_same_answers() {
    let rows = documents(25);
    let dir = Dir::new();
    let bom_csv = ["\u{feff}".as_bytes(), &csv(&rows, b',')].concat();
    let crlf = jsonl(&rows).replace('\n', "\r\n");
    let utf16: Vec<u8> =
        format!("\u{feff}{}", jsonl(&rows)).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let windows = encoding_rs::WINDOWS_1256.encode(&jsonl(&rows)).0.into_owned();
    let half = jsonl(&rows[..12]).len();
    let (first, second) =
        jsonl(&rows).split_at_checked(half).map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let two = |compress: fn(&[u8]) -> Vec<u8>| {
        [compress(first.as_bytes()), compress(second.as_bytes())].concat()
    };
    let inputs = [
        (dir.write("a.csv", csv(&rows, b',')), vec![]),
        (dir.write("bom.csv", bom_csv), vec![]),
        (dir.write("semicolons.csv", csv(&rows, b';')), vec![]),
        (dir.write("b.tsv", csv(&rows, b'\t')), vec![]),
        (dir.write("crlf.jsonl", crlf), vec![]),
        (dir.write("no-ending", jsonl(&rows)), vec![]),
        (dir.write("c.jsonl.gz", two(gzip)), vec![]),
        (dir.write("named-wrongly.jsonl", gzip(jsonl(&rows).as_bytes())), vec![]),
        (dir.write("d.jsonl.bz2", two(bzip2)), vec![]),
        (dir.write("e.jsonl.zst", two(zstd)), vec![]),
        (dir.write("f.jsonl", utf16), vec![]),
        (dir.write("g.jsonl", windows), vec!["--encoding", "windows-1256"]),
    ];
    let expected = expected(25);
    for (number, (input, more)) in inputs.iter().enumerate() {
        let out = format!("{number}.jsonl");
        scored(&[&[input.as_str(), "-o", &dir.name(&out)], more.as_slice()].concat());
        assert_eq!(answers(&dir.lines(&out)), expected, "{input}");
    }
    // Of two streams of xz, which nothing here can write.
    let out = dir.name("xz.jsonl");
    scored(&["tests/score/two-streams.jsonl.xz", "-o", &out]);
    let ids: Vec<Value> = dir.lines("xz.jsonl").iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
}

#[test]
fn parquet_is_read_in_every_compression_and_its_types_are_kept() {
    let rows = documents(25);
    let dir = Dir::new();
    let expected = expected(25);
    for (name, compression) in [
        ("plain", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("gzip", Compression::GZIP(Default::default())),
        ("brotli", Compression::BROTLI(Default::default())),
        ("lz4", Compression::LZ4_RAW),
    ] {
        let input = dir.path(&format!("{name}.parquet"));
        write_parquet(&input, &rows, compression);
        let out = format!("{name}.jsonl");
        let args = [input.to_str().unwrap(), "-o", &dir.name(&out), "--keep", "number,time"];
        scored(&args);
        let mut found = answers(&dir.lines(&out));
        for (index, row) in found.iter_mut().enumerate() {
            let kept = row.as_object_mut().unwrap();
            assert_eq!(kept.remove("number"), Some(json!(index)));
            let time = kept.remove("time").unwrap();
            assert!(time.as_str().unwrap().starts_with("2015-07-31T00:00:00"), "{time}");
        }
        assert_eq!(found, expected, "{name}");
    }
    // Written by the C library, by way of pyarrow, with pages of both versions.
    for name in ["zstd-v1", "zstd-v2"] {
        let out = format!("{name}.jsonl");
        let input = format!("tests/score/{name}.parquet");
        scored(&[&input, "-o", &dir.name(&out), "--keep", "number"]);
        let numbers: Vec<Value> = dir.lines(&out).iter().map(|row| row["number"].clone()).collect();
        assert_eq!(numbers, (0..40).map(|n| json!(n)).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn a_column_of_parquet_may_hold_nothing() {
    let dir = Dir::new();
    let texts: Vec<Option<&str>> = vec![Some("ارتفعت أسعار النفط"), Some("فاز الفريق بالكأس")];
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("title", Arc::new(NullArray::new(2)) as ArrayRef, true),
        ("text", Arc::new(StringArray::from(texts)) as ArrayRef, true),
    ])
    .unwrap();
    let input = dir.path("in.parquet");
    let file = std::fs::File::create(&input).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    scored(&[input.to_str().unwrap(), "-o", &dir.name("out.jsonl"), "--keep", "title"]);
    let kept: Vec<Value> = dir.lines("out.jsonl").iter().map(|row| row["title"].clone()).collect();
    assert_eq!(kept, [Value::Null, Value::Null]);
}

#[test]
fn output_may_be_csv_or_parquet_in_one_file_or_in_parts() {
    let rows = documents(25);
    let dir = Dir::new();
    let input = dir.write("in.jsonl", jsonl(&rows));
    let args = ["--part-rows", "10", "--keep", "section"];
    let run = |out: &str, more: &[&str]| {
        scored(&[&[input.as_str(), "-o", &dir.name(out)], &args[..], more].concat());
    };
    run("out.jsonl", &[]);
    let expected = dir.lines("out.jsonl");

    run("out.csv", &[]);
    let mut reader = csv::Reader::from_path(dir.path("out.csv")).unwrap();
    let names = reader.headers().unwrap().clone();
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 25);
    for (record, row) in records.iter().zip(&expected) {
        for (name, value) in names.iter().zip(record) {
            let wanted = row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned);
            assert_eq!(value, wanted, "{name}");
        }
    }

    run("out.parquet", &[]);
    run("parts", &["--output-format", "parquet"]);
    let parts =
        ["parts/part-00000.parquet", "parts/part-00001.parquet", "parts/part-00002.parquet"];
    let whole = read_parquet(&dir.path("out.parquet"));
    let of_parts: Vec<_> = parts.iter().flat_map(|part| read_parquet(&dir.path(part))).collect();
    for batches in [whole, of_parts] {
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 25);
        let mut wanted = expected.iter();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let wanted = wanted.next().unwrap();
                let column = |name: &str| batch.column_by_name(name).unwrap();
                assert_eq!(column("section").as_string::<i32>().value(row), wanted["section"]);
                assert_eq!(column("topic").as_string::<i32>().value(row), wanted["topic"]);
                let score = column("topic_score").as_primitive::<Float32Type>().value(row);
                assert_eq!(score, wanted["topic_score"].as_f64().unwrap() as f32);
                assert_eq!(column("row").as_primitive::<Int64Type>().value(row), wanted["row"]);
            }
        }
    }
}

#[test]
fn directories_patterns_text_files_and_pipes_are_inputs() {
    let dir = Dir::new();
    for index in 0..3 {
        let row = document(index);
        dir.write(&format!("in/sub/{index}.txt"), row["text"].as_str().unwrap());
    }
    dir.write("in/2010.jsonl", jsonl(&documents(2)));
    dir.write("in/notes.md", "no input");
    dir.write("in/.hidden.jsonl", "no input");
    dir.write("in/_SUCCESS.txt", "no input");
    scored(&[&dir.name("in"), "-o", &dir.name("a.jsonl")]);
    let files: Vec<String> =
        dir.lines("a.jsonl").iter().map(|row| row["file"].as_str().unwrap().to_owned()).collect();
    let names: Vec<&str> = files.iter().map(|file| file.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["2010.jsonl", "2010.jsonl", "0.txt", "1.txt", "2.txt"]);

    scored(&[&dir.name("in/*/[12].txt"), "-o", &dir.name("b.jsonl")]);
    let rows = dir.lines("b.jsonl");
    assert_eq!(rows.len(), 2);
    assert!(rows[0]["id"].as_str().unwrap().ends_with("in/sub/1.txt"), "a text's id is its file");

    let lines = "خبر أول عن المدارس\n\n  \nخبر ثان عن الفريق\n";
    let mut command = score_command(&["-", "--format", "lines", "-o", &dir.name("c.jsonl")]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let rows: Vec<Value> = dir.lines("c.jsonl").iter().map(|row| row["row"].clone()).collect();
    assert_eq!(rows, [1, 4], "numbered as an editor does");
}

#[test]
fn columns_are_guessed_or_named_and_it_is_said() {
    let dir = Dir::new();
    let rows: Vec<Value> = documents(3)
        .iter()
        .map(|row| json!({"URL": row["id"], "Headline": row["title"], "Body": row["text"], "n": 1}))
        .collect();
    let input = dir.write("in.jsonl", jsonl(&rows).replace("\"n\":1", "\"n\":1.50"));
    let output = score(&[&input, "-o", &dir.name("a.jsonl"), "--keep", "n"]);
    let log = stderr(&output);
    for part in [
        "text=\"Body (guessed)\"",
        "title=\"Headline (guessed)\"",
        "id=\"URL (guessed)\"",
        "date=\"none\"",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
    let named = ["--text", "Body", "--title", "Headline", "--id", "URL"];
    scored(&[&[input.as_str(), "-o", &dir.name("b.jsonl"), "--keep", "n"], &named[..]].concat());
    assert_eq!(dir.read("a.jsonl"), dir.read("b.jsonl"));
    assert!(String::from_utf8(dir.read("a.jsonl")).unwrap().contains("\"n\":1.50,"), "as it was");
    let untitled = [&input, "-o", &dir.name("c.jsonl"), "--title", "none at all"];
    scored(&untitled);
    assert_ne!(answers(&dir.lines("c.jsonl")), answers(&dir.lines("a.jsonl")), "titles count");
}

#[test]
fn equal_texts_are_scored_once() {
    let dir = Dir::new();
    let mut rows = documents(10);
    rows.extend(documents(10));
    let input = dir.write("in.jsonl", jsonl(&rows));
    let summary = |dedup: &str, out: &str| -> Value {
        let args = [&input, "-o", &dir.name(out), "--json", "--dedup", dedup, "--part-rows", "4"];
        serde_json::from_str(&scored(&args)).unwrap()
    };
    // Among ten there is one already.
    assert_eq!(summary("1000", "a.jsonl")["stats"]["duplicates"], 11);
    assert_eq!(summary("0", "b.jsonl")["stats"]["duplicates"], 0);
    assert_eq!(summary("2", "c.jsonl")["stats"]["duplicates"], 0, "the memory is bounded");
    for other in ["b.jsonl", "c.jsonl"] {
        for (a, b) in dir.lines("a.jsonl").iter().zip(&dir.lines(other)) {
            assert_eq!(
                (&a["id"], &a["topic"], &a["tokens"]),
                (&b["id"], &b["topic"], &b["tokens"])
            );
        }
    }
}
