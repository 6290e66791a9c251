//! Archives as they come, against what they were made of.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::harness::*;

/// A row of a made-up archive.
#[derive(Clone, Debug)]
struct Made {
    text: String,
    note: String,
}

/// Text with everything that formats stumble over, and something to read in it; or
/// nothing.
fn text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "خبر", "news", " ", "\"", "\"\"", ",", ";", "\t", "\n", "\r\n", "'", "\\", "\u{feff}", "«",
        "»", "{", "}", "[", "null", "\u{200f}", "😀", "é", "\u{85}", "0",
    ]);
    let some =
        prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("خبر{}", pieces.concat()));
    prop_oneof![9 => some, 1 => Just(String::new())]
}

fn made() -> impl Strategy<Value = Vec<Made>> {
    let row = (text(), text()).prop_map(|(text, note)| Made { text, note });
    prop::collection::vec(row, 0..25)
}

/// How the archive is written.
#[derive(Clone, Copy, Debug)]
struct Style {
    csv: bool,
    delimiter: u8,
    crlf: bool,
    always_quote: bool,
    mark: bool,
    utf16: bool,
    compression: usize,
    part_rows: u64,
}

fn style() -> impl Strategy<Value = Style> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let delimiter = prop::sample::select(vec![b',', b';', b'\t', b'|']);
    (flags, delimiter, 0..4usize, 1..8u64).prop_map(|(flags, delimiter, compression, part_rows)| {
        let (csv, crlf, always_quote, mark, utf16) = flags;
        Style { csv, delimiter, crlf, always_quote, mark, utf16, compression, part_rows }
    })
}

fn written(rows: &[Made], style: Style) -> Vec<u8> {
    let ending = if style.crlf { "\r\n" } else { "\n" };
    let body = if style.csv {
        let quotes =
            if style.always_quote { csv::QuoteStyle::Always } else { csv::QuoteStyle::Necessary };
        let terminator =
            if style.crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let mut writer = csv::WriterBuilder::new()
            .delimiter(style.delimiter)
            .quote_style(quotes)
            .terminator(terminator)
            .from_writer(Vec::new());
        writer.write_record(["id", "text", "note"]).unwrap();
        for (number, row) in rows.iter().enumerate() {
            writer.write_record([&number.to_string(), &row.text, &row.note]).unwrap();
        }
        String::from_utf8(writer.into_inner().unwrap()).unwrap()
    } else {
        let line = |(number, row): (usize, &Made)| {
            format!("{}{ending}", json!({"note": row.note, "id": number, "text": row.text}))
        };
        rows.iter().enumerate().map(line).collect()
    };
    let body = if style.mark || style.utf16 { format!("\u{feff}{body}") } else { body };
    let bytes = if style.utf16 {
        body.encode_utf16().flat_map(u16::to_be_bytes).collect()
    } else {
        body.into_bytes()
    };
    match style.compression {
        1 => gzip(&bytes),
        2 => bzip2(&bytes),
        3 => zstd(&bytes),
        _ => bytes,
    }
}

#[test]
fn every_row_comes_out_once_in_order_with_what_was_kept_of_it() {
    let mut runner = TestRunner::new(Config { cases: 48, ..Config::default() });
    let result = runner.run(&(made(), style()), |(rows, style)| {
        let dir = Dir::new();
        let name = if style.csv { "in.csv" } else { "in.jsonl" };
        let input = dir.write(name, written(&rows, style));
        let part_rows = style.part_rows.to_string();
        let args = [
            &input,
            "-o",
            &dir.name("out.jsonl"),
            "--keep",
            "note",
            "--part-rows",
            &part_rows,
            "--text",
            "text",
        ];
        scored(&args);
        let scored = dir.lines("out.jsonl");
        let rejected = dir.lines("out.jsonl.rejects.jsonl");
        let (mut scored, mut rejected) = (scored.iter(), rejected.iter());
        for (number, row) in rows.iter().enumerate() {
            let id = if style.csv { json!(number.to_string()) } else { json!(number) };
            if row.text.is_empty() {
                let line = rejected.next().expect("one more rejected row");
                prop_assert_eq!(
                    (&line["row"], &line["reason"]),
                    (&json!(number + 1), &json!("empty"))
                );
                continue;
            }
            let line = scored.next().expect("one more scored row");
            prop_assert_eq!((&line["row"], &line["id"]), (&json!(number + 1), &id));
            prop_assert_eq!(&line["note"], &Value::from(row.note.as_str()));
        }
        prop_assert!(scored.next().is_none() && rejected.next().is_none());
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
