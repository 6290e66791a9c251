//! Rows that cannot be scored.

use arrow_array::RecordBatch;
use serde_json::{Value, json};

use crate::harness::*;
use crate::support::Tiny;

/// `(row, reason)` of each rejected row.
fn rejected(dir: &Dir, name: &str) -> Vec<(u64, String)> {
    let lines = dir.lines(name);
    let one = |line: &Value| {
        assert!(line["message"].as_str().is_some_and(|message| message.len() > 10), "{line}");
        (line["row"].as_u64().unwrap(), line["reason"].as_str().unwrap().to_owned())
    };
    lines.iter().map(one).collect()
}

fn owned(rows: &[(u64, &str)]) -> Vec<(u64, String)> {
    rows.iter().map(|(row, reason)| (*row, (*reason).to_owned())).collect()
}

#[test]
fn each_kind_of_bad_row_is_set_aside_with_its_reason() {
    let dir = Dir::new();
    let good = document(0).to_string();
    let long = json!({"id": "long", "text": "خبر ".repeat(40)}).to_string();
    let too_long = json!({"text": "a".repeat(400_001)}).to_string();
    let many_windows = json!({"text": "في ".repeat(20_000)}).to_string();
    let mut lines: Vec<Vec<u8>> = [
        good.as_str(),
        "{\"text\": \"broken",
        "[1, 2]",
        "{\"title\": \"no text\"}",
        "{\"text\": null}",
        "{\"text\": 7}",
        "{\"text\": \"  \"}",
        "{\"text\": \"<br> &nbsp;\"}",
        &too_long,
        &many_windows,
        &long,
    ]
    .map(|line| line.as_bytes().to_vec())
    .into();
    lines.push(b"{\"text\": \"\xff\xfe\"}".to_vec());
    lines.push(format!("{{\"text\": \"{}\"}}", "x".repeat(2_000_000)).into_bytes());
    lines.push(good.clone().into_bytes());
    let input = dir.write("in.jsonl", lines.join(&b'\n'));
    let args = [&input, "-o", &dir.name("out.jsonl"), "--max-row-bytes", "1000000", "--json"];
    let summary: Value = serde_json::from_str(&scored(&args)).unwrap();
    let expected = [
        (2, "malformed"),
        (3, "malformed"),
        (4, "missing_text"),
        (5, "missing_text"),
        (6, "not_text"),
        (7, "empty"),
        (8, "empty"),
        (9, "too_long"),
        (10, "too_long"),
        (12, "invalid_encoding"),
        (13, "row_too_large"),
    ];
    assert_eq!(rejected(&dir, "out.jsonl.rejects.jsonl"), owned(&expected));
    let rows: Vec<Value> = dir.lines("out.jsonl").iter().map(|row| row["row"].clone()).collect();
    assert_eq!(rows, [1, 11, 14]);
    assert_eq!(summary["stats"]["rejects"]["malformed"], 2);
    assert_eq!(summary["stats"]["scored"], 3);

    let reject = ["--long-text", "reject", "--max-row-bytes", "1000000"];
    scored(&[&[input.as_str(), "-o", &dir.name("b.jsonl")], &reject[..]].concat());
    assert!(rejected(&dir, "b.jsonl.rejects.jsonl").contains(&(11, "too_long".to_owned())));
}

#[test]
fn a_rejected_row_is_named_and_its_message_is_short() {
    let dir = Dir::new();
    let lines = [
        json!({"id": "no-text", "text": null}).to_string(),
        json!({"id": 7, "text": ["no", "text"]}).to_string(),
        json!("خبر".repeat(50_000)).to_string(),
        json!({"id": "i".repeat(50_000), "text": ""}).to_string(),
    ];
    let input = dir.write("in.jsonl", lines.join("\n"));
    scored(&[&input, "-o", &dir.name("out.jsonl")]);
    let rejects = dir.lines("out.jsonl.rejects.jsonl");
    let ids: Vec<Option<&str>> = rejects.iter().map(|row| row["id"].as_str()).collect();
    assert_eq!(ids, [Some("no-text"), Some("7"), None, Some("i".repeat(1_000).as_str())]);
    let longest = rejects.iter().map(|row| row["message"].as_str().unwrap().chars().count()).max();
    assert_eq!(longest, Some(301), "clipped, and an ellipsis");
}

#[test]
fn rows_of_csv_have_as_many_fields_as_the_header() {
    let dir = Dir::new();
    let text = "id,text\n1,خبر عن المدرسة\n2\n3,خبر,زائد\n4,\"خبر\nفي سطرين\"\n5,\"مفتوح\n6,خبر\n";
    let input = dir.write("in.csv", text);
    scored(&[&input, "-o", &dir.name("out.jsonl")]);
    assert_eq!(
        rejected(&dir, "out.jsonl.rejects.jsonl"),
        owned(&[(2, "malformed"), (3, "malformed")])
    );
    let rows: Vec<Value> = dir.lines("out.jsonl").iter().map(|row| row["row"].clone()).collect();
    assert_eq!(rows, [1, 4, 5], "an open quote takes the rest");
}

#[test]
fn strict_stops_at_the_first_bad_row_with_its_own_code() {
    let dir = Dir::new();
    let text = jsonl(&documents(7)) + "oops\n" + &jsonl(&documents(3));
    let input = dir.write("in.jsonl", text);
    let out = dir.name("out");
    fails(&[&input, "-o", &out, "--strict", "--part-rows", "3"], 7, "row 8: broken JSON");
    assert_eq!(dir.lines("out/part-00001.jsonl").len(), 3, "what was done stays");
    assert!(!dir.exists("out/part-00002.jsonl"));
}

#[test]
fn wrong_settings_are_refused_before_the_model_loads() {
    let dir = Dir::new();
    let input = dir.write("in.csv", csv(&documents(3), b','));
    let odd = dir.write("odd.csv", "a,b\n1,2\n");
    let list = dir.write("list.json", "[{\"text\": \"خبر\"}]");
    let unknown = dir.write("unknown.xyz", "خبر");
    let out = dir.name("out.jsonl");
    let missing = dir.name("missing.jsonl");
    let cases: [(&[&str], i32, &str); 12] = [
        (&[&odd, "-o", &out], 2, "name it with --text. There is \"a\", \"b\""),
        (&[&input, "-o", &out, "--id", "nr"], 2, "there is no column \"nr\""),
        (&[&list, "-o", &out], 2, "jq -c"),
        (&[&unknown, "-o", &out], 2, "--format"),
        (&[&missing, "-o", &out], 5, "missing.jsonl"),
        (&[&dir.name("no*.csv"), "-o", &out], 2, "nothing matches"),
        (&[&input, "-", "-o", &out], 2, "standard input"),
        (&["-", "-o", &out, "--resume", "--format", "lines"], 2, "not resumed"),
        (&[&input, "-o", &out, "--encoding", "klingon"], 2, "klingon"),
        (&[&input, "-o", &out, "--output-format", "csv"], 2, "--output-format says csv"),
        (&[&input, "-o", &out, "--keep", "section=topic"], 2, "two columns \"topic\""),
        (&[&input, "-o", &out, "--task", "weather"], 2, "topic, sentiment"),
    ];
    for (args, code, says) in cases {
        fails(args, code, says);
    }
    assert!(!dir.exists("out.jsonl.manifest.jsonl"));
}

#[test]
fn archives_may_be_empty_or_of_one_row() {
    let dir = Dir::new();
    for (name, text, rows) in [
        ("empty.jsonl", String::new(), 0),
        ("blank.jsonl", "\n\n".to_owned(), 0),
        ("header.csv", "id,text\n".to_owned(), 0),
        ("one.csv", "id,text\n1,خبر".to_owned(), 1),
        ("one.jsonl", document(1).to_string(), 1),
    ] {
        let input = dir.write(name, text);
        for format in ["jsonl", "csv", "parquet"] {
            let out = format!("{name}-out.{format}");
            let said = scored(&[&input, "-o", &dir.name(&out)]);
            assert!(said.starts_with(&format!("{rows} documents scored")), "{name}: {said}");
            assert!(dir.exists(&out));
        }
        assert_eq!(dir.lines(&format!("{name}-out.jsonl")).len(), rows);
        let batches = read_parquet(&dir.path(&format!("{name}-out.parquet")));
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
    }
}

#[test]
fn a_text_that_no_queue_has_room_for_is_set_aside() {
    let (dir, positions) = (Dir::new(), 1_100);
    let mut tiny = Tiny::bundle();
    tiny.config["max_position_embeddings"] = json!(positions);
    tiny.add("embeddings.position_embeddings.weight", &[positions, 32], 0.0, 0.1);
    if let Some(tasnif) = &mut tiny.tasnif {
        tasnif["text"]["window"] = json!(1_024);
        tasnif["text"]["stride"] = json!(640);
    }
    tiny.write(&dir.path("model"));
    // 133,000 tokens, which 208 windows read 1.6 times: what a text may have, and more than bulk work may queue.
    let long = json!({"text": "في ".repeat(133_000)}).to_string();
    let input =
        dir.write("in.jsonl", [document(0).to_string(), long, document(1).to_string()].join("\n"));
    let args =
        ["score", "--quiet", "--model", &dir.name("model"), &input, "-o", &dir.name("out.jsonl")];
    let output = tasnif(&args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(dir.lines("out.jsonl").len(), 2);
    assert_eq!(rejected(&dir, "out.jsonl.rejects.jsonl"), owned(&[(2, "too_long")]));
}
