//! Crawled pages.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::*;
use crate::resume::{killed_after, resume, same};

pub(crate) const TITLE: &str = "المكتبة العامة تفتح قاعة جديدة للأطفال في الحي القديم";
pub(crate) const PARAGRAPHS: [&str; 3] = [
    "فتحت المكتبة العامة، صباح السبت، قاعة جديدة للأطفال فيها ثلاثة آلاف كتاب مصور ومقاعد صغيرة ملونة.",
    "وقالت أمينة المكتبة إن القاعة تستقبل زوارها كل يوم حتى المساء، وإن القراءة الجماعية فيها مرتين في الأسبوع.",
    "وتبرع سكان الحي بكتبهم القديمة، فيما تكفلت جمعية محلية بدهان الجدران وإصلاح النوافذ قبل بدء الدراسة.",
];

/// A record of type `kind`, number `id`.
fn record(kind: &str, id: usize, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:record-{id}>\r\n\
         WARC-Target-URI: https://news.example/{id}\r\nWARC-Date: 2026-03-0{}T08:00:00Z\r\n\
         Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        id % 9 + 1,
        body.len()
    );
    [head.as_bytes(), body, b"\r\n\r\n"].concat()
}

/// A record with what a server answered.
fn response(id: usize, head: &str, body: &[u8]) -> Vec<u8> {
    let answer = [head.replace('\n', "\r\n").as_bytes(), b"\r\n\r\n", body].concat();
    record("response", id, "application/http; msgtype=response", &answer)
}

pub(crate) fn html(id: usize, page: impl AsRef<[u8]>) -> Vec<u8> {
    response(id, "HTTP/1.1 200 OK\nContent-Type: text/html", page.as_ref())
}

/// A page on which an article stands among other things.
pub(crate) fn page(meta: &str, title: &str, paragraphs: &[&str]) -> String {
    let paragraphs: String = paragraphs.iter().map(|text| format!("<p>{text}</p>\n")).collect();
    let menu: String = (0..12).map(|n| format!("<li><a href=\"/{n}\">قسم {n}</a></li>")).collect();
    format!(
        "<!DOCTYPE html><html lang=ar dir=rtl><head>{meta}<title>{title}</title>\
         <style>p {{ color: red }}</style><script>var a = \"<p>ليس نصا</p>\";</script></head>\
         <body><nav class=menu><ul>{menu}</ul></nav><main><article><h1>{title}</h1>\
         <div class=share><a href=#>شارك</a></div>{paragraphs}</article></main>\
         <aside class=sidebar><h3>الأكثر قراءة</h3><p>خبر عن الطقس، وآخر عن السوق.</p></aside>\
         <footer><p>جميع الحقوق محفوظة للصحيفة، ويمنع النقل منها دون إذن.</p></footer>\
         </body></html>"
    )
}

pub(crate) const UTF_8: &str = "<meta charset=utf-8>";

fn chunked(bytes: &[u8]) -> Vec<u8> {
    let mut body: Vec<u8> = bytes
        .chunks(100)
        .flat_map(|chunk| {
            [format!("{:x};x=y\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()
        })
        .collect();
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

/// Every kind of record, those that are documents with the row expected of each.
fn crawl() -> (Vec<Vec<u8>>, Vec<Value>) {
    let article = PARAGRAPHS.join("\n\n");
    let brief = PARAGRAPHS[..2].join("\n\n");
    let encoded = gzip(page(UTF_8, "خبر قصير عن القاعة", &PARAGRAPHS[..2]).as_bytes());
    let arabic = page(
        "<META http-equiv=Content-Type content='text/html; charset=windows-1256'>",
        TITLE,
        &PARAGRAPHS,
    );
    let arabic = encoding_rs::WINDOWS_1256.encode(&arabic).0.into_owned();
    let records = vec![
        record("warcinfo", 1, "application/warc-fields", b"software: none\r\n"),
        record("request", 2, "application/http; msgtype=request", b"GET / HTTP/1.1\r\n\r\n"),
        html(3, page(UTF_8, TITLE, &PARAGRAPHS)),
        response(4, "HTTP/1.1 301 Moved\nContent-Type: text/html\nLocation: /3", b"<p>x"),
        response(5, "HTTP/1.1 200 OK\nContent-Type: image/png", b"\x89PNG\r\n\x1a\n\0\0"),
        record("revisit", 6, "application/http; msgtype=response", b"HTTP/1.1 200 OK\r\n\r\n"),
        response(
            7,
            "HTTP/2 200\ncontent-type: text/html; charset=\"UTF-8\"\n\
             Transfer-Encoding: chunked\nContent-Encoding: gzip",
            &chunked(&encoded),
        ),
        html(8, arabic),
        record("conversion", 9, "text/plain", article.as_bytes()),
        record("metadata", 10, "application/warc-fields", b"fetchTimeMs: 7\r\n"),
        record("response", 11, "text/dns", b"news.example. 60 IN A 192.0.2.1"),
        record("resource", 12, "text/html; charset=utf-8", page("", TITLE, &PARAGRAPHS).as_bytes()),
    ];
    let row = |id: usize, title: &str, text: &str| {
        json!({
            "id": format!("record-{id}"),
            "url": format!("https://news.example/{id}"),
            "date": format!("2026-03-0{}T08:00:00Z", id % 9 + 1),
            "title": title,
            "text": text,
            "number": id,
        })
    };
    let rows = vec![
        row(3, TITLE, &article),
        row(7, "خبر قصير عن القاعة", &brief),
        row(8, TITLE, &article),
        row(9, "", &article),
        row(12, TITLE, &article),
    ];
    (records, rows)
}

/// `(row, reason)` of each rejected row.
pub(crate) fn rejected(dir: &Dir, name: &str) -> Vec<(u64, String)> {
    let one =
        |line: &Value| (line["row"].as_u64().unwrap(), line["reason"].as_str().unwrap().to_owned());
    dir.lines(name).iter().map(one).collect()
}

pub(crate) fn rows(dir: &Dir, name: &str) -> Vec<u64> {
    dir.lines(name).iter().map(|row| row["row"].as_u64().unwrap()).collect()
}

#[test]
fn an_article_scores_as_it_does_without_the_page_around_it() {
    let (records, expected) = crawl();
    let numbers: Vec<u64> = expected.iter().map(|row| row["number"].as_u64().unwrap()).collect();
    let dir = Dir::new();
    let keep = ["--keep", "url,date", "--scores"];
    let plain = dir.write("plain.jsonl", jsonl(&expected));
    scored(&[&[plain.as_str(), "-o", &dir.name("plain-out.jsonl")], &keep[..]].concat());
    let expected = answers(&dir.lines("plain-out.jsonl"));

    let whole = records.concat();
    let members: Vec<u8> = records.iter().flat_map(|record| gzip(record)).collect();
    for (name, bytes) in [
        ("a.warc", whole.clone()),
        ("b.warc.gz", members.clone()),
        ("c.warc.wet.gz", gzip(&whole)),
        ("d.WARC.zst", zstd(&whole)),
        ("no-ending", members),
    ] {
        let input = dir.write(&format!("in-{name}/{name}"), bytes);
        let out = format!("{name}.jsonl");
        let input = if name == "no-ending" { input } else { dir.name(&format!("in-{name}")) };
        let log = stderr(&score(&[&[input.as_str(), "-o", &dir.name(&out)], &keep[..]].concat()));
        for part in ["text=\"text (guessed)\"", "title=\"title (", "id=\"id (", "date=\"date ("] {
            assert!(log.contains(part), "{part} in {log}");
        }
        assert_eq!(answers(&dir.lines(&out)), expected, "{name}");
        assert_eq!(rows(&dir, &out), numbers, "{name}");
        assert!(rejected(&dir, &format!("{out}.rejects.jsonl")).is_empty(), "{name}");
    }
    scored(&[&dir.name("in-a.warc"), "-o", &dir.name("url.jsonl"), "--id", "url", "--strict"]);
    assert_eq!(dir.lines("url.jsonl")[1]["id"], "https://news.example/7");
}

#[test]
fn records_and_responses_may_be_written_carelessly() {
    let article = PARAGRAPHS.join("\n\n");
    let page = page("", TITLE, &PARAGRAPHS);
    let body = |head: &str, body: &str| format!("{head}\r\n\r\n{body}");
    let decoded = body(
        "HTTP/1.1 200 OK\r\nContent-Type: Text/HTML\r\nTransfer-Encoding: chunked\r\n\
         Content-Encoding: br",
        &format!("\r\n{page}"),
    );
    let odd = body(
        "http/1.0 200\r\n: nothing\r\nBad Name: x\r\nContent-Type:text/html;\r\n \
         charset=utf-8\r\nX: \u{1}",
        &page,
    )
    .replacen("http", "HTTP", 1);
    let bare = body("HTTP/1.1 200 OK\r\nContent-Type: text/html", &page).replace('\r', "");
    let mut file = "\r\n".to_owned();
    for (number, answer) in [decoded, odd, bare].into_iter().enumerate() {
        file += &format!(
            "WARC/1.1\r\nwarc-type: response\r\nCONTENT-TYPE: application/http;\r\n\t \
             msgtype=response\r\nWARC-Record-ID : <urn:uuid:odd-{number}>\r\nقيمة: x\r\n\
             no field\r\nContent-Length:{}\r\nWARC-Target-URI: <http://a.example/خبر>\r\n\r\n{answer}",
            answer.len()
        );
        file += ["\r\n\r\n", "\n", "\r\n\r\n\r\n\r\n"][number];
    }
    let plain = format!(
        "WARC/1.0\nWARC-Type: conversion\nContent-Type: text/plain\nContent-Length: {}\n\n{article}",
        article.len()
    );
    let dir = Dir::new();
    let input = dir.write("odd.warc", file + &plain);
    scored(&[&input, "-o", &dir.name("out.jsonl"), "--keep", "url"]);
    assert_eq!(rejected(&dir, "out.jsonl.rejects.jsonl"), []);
    let found = dir.lines("out.jsonl");
    assert_eq!(found.len(), 4);
    for (number, row) in found[..3].iter().enumerate() {
        assert_eq!(row["id"], format!("odd-{number}"));
        assert_eq!(row["tokens"], found[0]["tokens"]);
        assert_eq!(row["url"], "http://a.example/خبر");
    }
    assert_eq!((&found[3]["id"], &found[3]["url"]), (&Value::Null, &Value::Null));
}

#[test]
fn what_is_no_readable_article_is_set_aside_and_what_follows_is_read() {
    let good = page(UTF_8, TITLE, &PARAGRAPHS);
    let arabic = encoding_rs::WINDOWS_1256.encode(&page("", TITLE, &PARAGRAPHS)).0.into_owned();
    let head = |coding: &str| format!("HTTP/1.1 200 OK\nContent-Type: text/html{coding}");
    let large = good.replace("</body>", &" ".repeat(200_000));
    let zipped = head("\nContent-Encoding: gzip");
    let cut = gzip(good.as_bytes());
    let records = [
        html(1, &good),
        response(2, &head("\nContent-Encoding: br"), b"\x8b\x02\x80abc\x03"),
        html(3, &large),
        response(4, "HTTP/1.1 200 OK\nContent-Type: video/mp4", large.as_bytes()),
        html(5, &arabic),
        html(6, "<!-- لا شيء --><br>"),
        record("response", 7, "application/http", b"<p>no head"),
        response(8, &zipped, &cut[..cut.len() - 20]),
        response(9, &zipped, &gzip(large.as_bytes())),
        record("conversion", 10, "text/plain", &arabic),
        record("resource", 11, "text/html", large.as_bytes()),
        record("resource", 12, "text/plain", b" \r\n"),
        // What is not scored may be broken.
        html(13, [good.as_bytes(), b"<footer><p>\xff\xfe</footer>"].concat()),
        response(14, &head("; charset=windows-1256"), &arabic),
    ];
    let dir = Dir::new();
    let input = dir.write("in.warc", records.concat());
    let args = [&input, "-o", &dir.name("out.jsonl"), "--max-row-bytes", "200000"];
    scored(&args);
    let expected = [
        (2, "malformed"),
        (3, "row_too_large"),
        (5, "invalid_encoding"),
        (6, "missing_text"),
        (7, "malformed"),
        (8, "malformed"),
        (9, "row_too_large"),
        (10, "invalid_encoding"),
        (11, "row_too_large"),
        (12, "empty"),
    ];
    let found = rejected(&dir, "out.jsonl.rejects.jsonl");
    assert_eq!(found, expected.map(|(row, reason)| (row, reason.to_owned())));
    assert_eq!(rows(&dir, "out.jsonl"), [1, 13, 14]);
    let said: String = dir
        .lines("out.jsonl.rejects.jsonl")
        .iter()
        .map(|line| line["message"].as_str().unwrap().to_owned())
        .collect();
    assert!(said.contains("\"br\", which is not read"), "{said}");

    fails(&[&args[..], &["--overwrite", "--strict"]].concat(), 7, "row 2: its content");
    // The encoding of pages that do not say it.
    scored(&[&args[..], &["--overwrite", "--encoding", "windows-1256"]].concat());
    assert_eq!(rows(&dir, "out.jsonl"), [1, 5, 10, 13, 14]);
    let tokens: Vec<Value> =
        dir.lines("out.jsonl").iter().map(|row| row["tokens"].clone()).collect();
    assert!(tokens[1] == tokens[0] && tokens[3] == tokens[0] && tokens[4] == tokens[0]);
}

#[test]
fn what_was_cut_or_coded_in_unknown_ways_is_not_taken_for_text() {
    let good = page(UTF_8, TITLE, &PARAGRAPHS);
    let zipped = gzip(good.as_bytes());
    let head = |coding: &str| format!("HTTP/1.1 200 OK\nContent-Type: text/html\n{coding}");
    let chunks = chunked(good.as_bytes());
    let marked = |field: &str| {
        let record = String::from_utf8(html(1, &good)).unwrap();
        record.replacen("WARC-Date", &format!("{field}\r\nWARC-Date"), 1).into_bytes()
    };
    // What each is coded as, and what is said of it if it is set aside.
    let cases: Vec<(Vec<u8>, Option<&str>)> = vec![
        (
            response(1, &head("Content-Encoding: gzip, gzip"), &gzip(&zipped)),
            Some("\"gzip, gzip\""),
        ),
        (
            response(1, &head("Content-Encoding: x-compress"), b"\x1f\x9d\x90"),
            Some("\"x-compress\""),
        ),
        (
            response(1, &head("Content-Encoding: gzip"), b"not gzip"),
            Some("said to be gzip, but is not"),
        ),
        (
            response(1, &head("Content-Encoding: br\nContent-Encoding: gzip"), b"x"),
            Some("\"br, gzip\""),
        ),
        (
            response(1, &head("Content-Encoding: deflate"), &[0xff; 9]),
            Some("cannot be decompressed"),
        ),
        (response(1, &head("Transfer-Encoding: gzip, chunked"), &chunked(&zipped)), None),
        (response(1, &head("Content-Encoding: Identity"), good.as_bytes()), None),
        // Those of Common Crawl are decoded, whatever they say.
        (response(1, &head("Content-Encoding: gzip, br"), good.as_bytes()), None),
        // Servers forget to say it, and leave bytes after it.
        (response(1, &head("X: y"), &zipped), None),
        (response(1, &head("Content-Encoding: x-gzip"), &[&zipped[..], b"\0\0\0"].concat()), None),
        (
            response(
                1,
                &head("Content-Encoding: gzip"),
                &[gzip(&good.as_bytes()[..999]), gzip(&good.as_bytes()[999..])].concat(),
            ),
            None,
        ),
        (response(1, &head("Transfer-Encoding: chunked"), &chunks), None),
        (
            response(1, &head("Transfer-Encoding: chunked"), &chunks[..900]),
            Some("its chunks are broken"),
        ),
        (
            response(1, &head("Transfer-Encoding: chunked"), &chunks[..chunks.len() - 5]),
            Some("its chunks are broken"),
        ),
        (
            response(1, &head("Transfer-Encoding: chunked"), &[&chunks[..208], b"zz\r\n"].concat()),
            Some("its chunks are broken"),
        ),
        (response(1, &head(&"X: y\n".repeat(600)), b""), Some("more than 512")),
        (response(1, &head("Content-Encoding: gzip"), b""), Some("is not")),
        (response(1, &head("Transfer-Encoding: chunked\nContent-Encoding: utf-8"), &chunks), None),
        (
            response(1, &head(&format!("Content-Length: {}", good.len() + 1)), good.as_bytes()),
            Some("of its"),
        ),
        (response(1, &head("Content-Length: 10"), good.as_bytes()), None),
        (
            response(1, &head("Content-Encoding: utf-8\nContent-Length: 99999"), good.as_bytes()),
            Some("of its"),
        ),
        (
            response(1, &head("Content-Encoding: gzip\nContent-Length: 99999"), &zipped),
            Some("of its"),
        ),
        (response(1, &head("Content-Encoding: br\nContent-Length: 99999"), good.as_bytes()), None),
        (marked("WARC-Truncated: length"), Some("WARC-Truncated: length")),
        (marked("WARC-Segment-Number: 1"), Some("WARC-Segment-Number: 1")),
    ];
    let dir = Dir::new();
    let file: Vec<u8> = cases.iter().flat_map(|(record, _)| record.clone()).collect();
    scored(&[&dir.write("in.warc", file), "-o", &dir.name("out.jsonl")]);
    let set_aside = dir.lines("out.jsonl.rejects.jsonl");
    let mut set_aside = set_aside.iter();
    for (row, (_, said)) in (1..).zip(&cases) {
        let Some(said) = said else { continue };
        let reject = set_aside.next().expect("one more that is set aside");
        assert_eq!((&reject["row"], &reject["reason"]), (&json!(row), &json!("malformed")));
        assert!(reject["message"].as_str().unwrap().contains(said), "{said} for {reject}");
    }
    assert_eq!(set_aside.next(), None);
    let found = dir.lines("out.jsonl");
    let whole = cases.iter().filter(|(_, said)| said.is_none()).count();
    assert_eq!(found.len(), whole);
    assert!(found.iter().all(|row| row["tokens"] == found[0]["tokens"]), "{found:?}");
}

#[test]
fn a_damaged_file_stops_with_a_code_and_keeps_what_was_done() {
    let good = html(1, page(UTF_8, TITLE, &PARAGRAPHS));
    let text = |fields: &str, text: &str| {
        let kind = "WARC-Type: conversion\r\nContent-Type: text/plain\r\n";
        format!("WARC/1.0\r\n{kind}{fields}\r\n{text}").into_bytes()
    };
    let huge = "خبر".repeat(1000);
    let long = format!("X: {}\r\n", "x".repeat(70_000));
    for (name, second, says) in [
        ("body", good[..good.len() - 300].to_vec(), "ends inside a record"),
        ("fields", good[..90].to_vec(), "ends inside a record"),
        ("line", b"WARC/1".to_vec(), "ends inside a record"),
        ("length", text("Content-Length: 10000000000\r\n", &huge), "ends inside a record"),
        ("most", text("Content-Length: 18446744073709551615\r\n", &huge), "ends inside a record"),
        ("none", text("", "خبر"), "does not say its length"),
        ("negative", text("Content-Length: -1\r\n", "خبر"), "does not say its length"),
        ("other", b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), "no record begins"),
        ("long", text(&long, ""), "the fields of a record have more than 65536 bytes"),
        ("line-long", [b"WARC/".as_slice(), &[b'x'; 200_000]].concat(), "more than 65536 bytes"),
        ("many", text(&"X: y\r\n".repeat(600), ""), "the fields of a record are more than 512"),
    ] {
        let dir = Dir::new();
        let input = dir.write(&format!("{name}.warc"), [&good[..], &second].concat());
        let after = dir.write("z.warc", &good);
        let args = [&input, &after, "-o", &dir.name("out.jsonl")];
        fails(&args, 5, &format!("{name}.warc is damaged after row 1: "));
        fails(&[&args[..], &["--overwrite"]].concat(), 5, says);
        scored(&[&args[..], &["--overwrite", "--skip-damaged"]].concat());
        assert_eq!(rows(&dir, "out.jsonl"), [1, 1], "{name}");
        let found = rejected(&dir, "out.jsonl.rejects.jsonl");
        assert_eq!(found, [(2, "damaged_file".to_owned())], "{name}");
    }
    let dir = Dir::new();
    let short = [&good[..], &text("Content-Length: 2\r\n", "خبر"), &good].concat();
    let input = dir.write("short.warc", short);
    fails(&[&input, "-o", &dir.name("s.jsonl")], 5, "row 2: no record begins where one should");
    // What is passed over is counted.
    let passed = record("metadata", 2, "application/warc-fields", b"a: b\r\n");
    let input = dir.write("p.warc", [&good[..], &passed, &passed, b"WARC/1"].concat());
    scored(&[&input, "-o", &dir.name("p.jsonl"), "--skip-damaged"]);
    let found = rejected(&dir, "p.jsonl.rejects.jsonl");
    assert_eq!(found, [(4, "damaged_file".to_owned())]);
    let members: Vec<u8> = (0..20).flat_map(|_| gzip(&good)).collect();
    let input = dir.write("a.warc.gz", &members[..members.len() - 40]);
    fails(&[&input, "-o", &dir.name("out.jsonl")], 5, "is damaged after row 19");
    let not = dir.write("b.warc", jsonl(&documents(3)));
    fails(&[&not, "-o", &dir.name("b.jsonl")], 5, "no record begins");
    let empty = dir.write("c.warc", "");
    assert!(scored(&[&empty, "-o", &dir.name("c.jsonl")]).starts_with("0 documents"));
}

/// Stopping does not wait for a document.
#[cfg(unix)]
#[test]
fn it_stops_among_records_that_are_passed_over() {
    const MOST_BYTES: usize = 8 << 30;
    let dir = Dir::new();
    let out = dir.name("out.jsonl");
    let mut command = score_command(&["-", "-o", &out, "--format", "warc"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || {
        let records = record("metadata", 1, "application/warc-fields", &[b'x'; 1000]).repeat(1000);
        let mut fed = 0;
        while fed < MOST_BYTES && input.write_all(&records).is_ok() {
            fed += records.len();
        }
        fed
    });
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(log.any(|line| line.contains("columns")), "it begins to read");
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(log.any(|line| line.contains("stopped before the end")));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(feeding.join().unwrap() < MOST_BYTES, "it read to the end");
}

#[test]
fn killed_and_resumed_it_ends_as_if_undisturbed() {
    let dir = Dir::new();
    let (others, _) = crawl();
    let mut file = Vec::new();
    for (index, document) in documents(40).iter().enumerate() {
        let text = document["text"].as_str().unwrap();
        let paragraphs = [PARAGRAPHS[index % 3], text, PARAGRAPHS[(index + 1) % 3]];
        file.extend(gzip(&others[index % others.len()]));
        file.extend(gzip(&html(index, page(UTF_8, "خبر", &paragraphs))));
        if index % 9 == 4 {
            file.extend(gzip(&html(index, "<br>")));
        }
    }
    let input = dir.write("in.warc.gz", file);
    let (out, report) = (dir.name("out.jsonl"), dir.name("report.html"));
    let args = [&*input, "-o", &*out, "--part-rows", "7", "--scores", "--report", &*report];
    scored(&args);
    let (expected, page) = (dir.state("out"), dir.read("report.html"));
    let mut kills = 0;
    for first in [0, 1, 3, 5] {
        let mut state = "--overwrite";
        for parts in [first, 1, 2] {
            kills += usize::from(killed_after(parts, &[&args[..], &[state]].concat()));
            state = "--resume";
        }
        let output = resume(&args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        same(&dir, "out", &expected);
        assert!(dir.read("report.html") == page, "the report differs");
    }
    assert!(kills > 1, "only {kills} runs were killed before their end");
    // It is read through to know it, as every file is.
    let mut changed = fs::read(&input).unwrap();
    changed.push(0);
    dir.write("in.warc.gz", changed);
    fails(&[&args[..], &["--resume"]].concat(), 8, "in.warc.gz has changed");
}
