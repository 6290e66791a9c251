//! Archives as they come, against what they were made of.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::harness::*;

/// A row of a made-up archive.
#[derive(Clone, Debug)]
struct Made {
    text: String,
    note: String,
    /// Whether it is in another encoding than the rows around it.
    stray: bool,
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
    let row = (text(), text()).prop_map(|(text, note)| Made { text, note, stray: false });
    let stray = Just(Made { text: "خبر".to_owned(), note: "نص".to_owned(), stray: true });
    prop::collection::vec(prop_oneof![9 => row, 1 => stray], 0..15)
}

/// How the archive is written.
#[derive(Clone, Copy, Debug)]
struct Style {
    csv: bool,
    delimiter: u8,
    crlf: bool,
    always_quote: bool,
    mark: bool,
    encoding: Encoding,
    compression: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Utf16Le,
    Utf16Be,
}

fn style() -> impl Strategy<Value = Style> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let delimiter = prop::sample::select(vec![b',', b';', b'\t', b'|']);
    let encoding = prop_oneof![2 => Just(Encoding::Utf8), 1 => Just(Encoding::Utf16Le), 1 => Just(Encoding::Utf16Be)];
    (flags, delimiter, encoding, 0..4usize).prop_map(|(flags, delimiter, encoding, compression)| {
        let (csv, crlf, always_quote, mark) = flags;
        Style { csv, delimiter, crlf, always_quote, mark, encoding, compression }
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
    let mark = style.mark || style.encoding != Encoding::Utf8;
    let body = if mark { format!("\u{feff}{body}") } else { body };
    let bytes = match style.encoding {
        Encoding::Utf16Le => body.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Encoding::Utf16Be => body.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        // Unlike those of a stray row, no note of another is this word alone.
        Encoding::Utf8 => replaced(body.as_bytes(), "نص".as_bytes(), b"\xe4\xd5"),
    };
    match style.compression {
        1 => gzip(&bytes),
        2 => bzip2(&bytes),
        3 => zstd(&bytes),
        _ => bytes,
    }
}

/// `bytes` with `to` for each `from`.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut result = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(from) {
            result.extend_from_slice(to);
            rest = after;
        } else {
            result.push(rest[0]);
            rest = &rest[1..];
        }
    }
    result
}

#[test]
fn every_row_comes_out_once_in_order_with_what_was_kept_of_it() {
    let mut runner = TestRunner::new(Config { cases: 48, ..Config::default() });
    let files = prop::collection::vec((made(), style()), 1..4);
    let result = runner.run(&(files, 1..8u64), |(files, part_rows)| {
        let dir = Dir::new();
        let inputs: Vec<String> = (0..)
            .zip(&files)
            .map(|(number, (rows, style))| {
                let ending = if style.csv { "csv" } else { "jsonl" };
                dir.write(&format!("{number}.{ending}"), written(rows, *style))
            })
            .collect();
        let (out, part_rows) = (dir.name("out.jsonl"), part_rows.to_string());
        let mut args: Vec<&str> = inputs.iter().map(String::as_str).collect();
        args.extend(["-o", &out, "--keep", "note", "--part-rows", &part_rows, "--text", "text"]);
        args.extend(["--id", "id"]);
        scored(&args);
        let scored = dir.lines("out.jsonl");
        let rejected = dir.lines("out.jsonl.rejects.jsonl");
        let (mut scored, mut rejected) = (scored.iter(), rejected.iter());
        for (input, (rows, style)) in inputs.iter().zip(&files) {
            for (number, row) in rows.iter().enumerate() {
                let id = if style.csv { json!(number.to_string()) } else { json!(number) };
                let place = (&json!(input), &json!(number + 1));
                let reason = match (row.stray, style.encoding) {
                    (true, Encoding::Utf8) => Some("invalid_encoding"),
                    _ if row.text.is_empty() => Some("empty"),
                    _ => None,
                };
                if let Some(reason) = reason {
                    let line = rejected.next().expect("one more rejected row");
                    prop_assert_eq!((&line["file"], &line["row"]), place);
                    prop_assert_eq!(&line["reason"], reason);
                    continue;
                }
                let line = scored.next().expect("one more scored row");
                prop_assert_eq!((&line["file"], &line["row"]), place);
                prop_assert_eq!((&line["id"], &line["note"]), (&id, &json!(row.note)));
            }
        }
        prop_assert!(scored.next().is_none() && rejected.next().is_none());
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
