//! What stands on crawled pages.

use crate::harness::*;
use crate::warc::{PARAGRAPHS, TITLE, UTF_8, html, page, rejected, rows};

#[test]
fn a_page_may_be_long_where_no_attributes_are() {
    let good = page(UTF_8, TITLE, &PARAGRAPHS);
    let json = "{&quot;key&quot;: \'a / b\', <i>} ".repeat(5_000);
    let within = |part: &str| good.replace("<article>", &format!("{part}<article>"));
    let long = [
        within(&format!("<!-- {} -->", "a 'long' comment / <b>\n".repeat(10_000))),
        within(&format!("<div data-state=\"{json}\"></div>")),
        within(&format!("<img src=\"data:image/png;base64,{}\">", "aB/+ ".repeat(200_000))),
        within(&format!("<img src=data:image/png;base64,{}>", "aB/'".repeat(200_000))),
        within(&format!("<script>if (a <b) {{ {} }}</script>", "x = 'y' / \"z\"; ".repeat(20_000))),
        within(&format!("<svg><path d='{}'/></svg>", "M 0 0 L 9 9 ".repeat(20_000))),
    ];
    let dir = Dir::new();
    let file: Vec<u8> = long.iter().chain([&good]).flat_map(|page| html(1, page)).collect();
    scored(&[&dir.write("in.warc", file), "-o", &dir.name("out.jsonl")]);
    assert_eq!(rejected(&dir, "out.jsonl.rejects.jsonl"), []);
    let found = dir.lines("out.jsonl");
    assert_eq!(found.len(), long.len() + 1);
    assert!(found.iter().all(|row| row["tokens"] == found[0]["tokens"]), "{found:?}");
}

#[test]
fn a_hostile_page_takes_neither_the_stack_nor_the_day() {
    let good = page(UTF_8, TITLE, &PARAGRAPHS);
    let attributes: String = (0..200_000).map(|n| format!(" a{n}")).collect();
    let formats: String = (0..5_000).map(|n| format!("<b a={n}>")).collect();
    let words = "كلمة ".repeat(100_000);
    let hostile = [
        "<div>".repeat(100_000),
        "<span>".repeat(100_000),
        format!("<table>{}", "<div>".repeat(100_000)),
        format!("<template>{}", "<div>".repeat(100_000)),
        "<template>".repeat(100_000),
        "<svg><g>".repeat(100_000),
        format!("{}{formats}{}", "<div>".repeat(400), "</div>x".repeat(400)),
        "<a><div>".repeat(50_000),
        "<br>".repeat(100_000),
        format!("<div{attributes}>{good}"),
        format!("<title>{}</title>{}", "عنوان ".repeat(5_000), "<h2>خبر</h2>".repeat(10_000)),
        format!("{}{words}", "<h2><span>".repeat(120)),
        format!("{}{words}", "<div>".repeat(500)),
    ];
    // Much work, but within bounds.
    let base = format!("<base href=\"https://news.example/{}\">", "x".repeat(100_000));
    let links = "<p>خبر، ثم خبر <a href=y>في القرية</a></p>".repeat(5_000);
    let classes = format!("<div class=\"{}\">", "x ".repeat(10_000)).repeat(20);
    let heavy = [
        good.replace("</article>", &links).replace("<title>", &format!("{base}<title>")),
        format!("{}{}", "<div>".repeat(400), good),
        good.replace("<article>", &format!("<article>{classes}")),
        good.replace("</article>", &"<table><tr><td>".repeat(80)),
    ];
    let mut records: Vec<Vec<u8>> =
        hostile.iter().enumerate().map(|(id, page)| html(id, page)).collect();
    records.extend(heavy.iter().map(|page| html(99, page)));
    records.push(html(100, &good));
    let dir = Dir::new();
    let input = dir.write("in.warc.gz", records.iter().flat_map(|r| gzip(r)).collect::<Vec<_>>());
    let output = score(&[&input, "-o", &dir.name("out.jsonl"), "--long-text", "head"]);
    let log = stderr(&output);
    assert!(output.status.success() && !log.contains("WARN"), "{log}");
    let found = rejected(&dir, "out.jsonl.rejects.jsonl");
    let bounded: Vec<u64> = (1..=hostile.len() as u64).collect();
    assert_eq!(found.iter().map(|(row, _)| *row).collect::<Vec<_>>(), bounded);
    assert!(found.iter().all(|(_, reason)| reason == "malformed"), "{found:?}");
    for line in dir.lines("out.jsonl.rejects.jsonl") {
        let message = line["message"].as_str().unwrap();
        assert!(message.contains(" more than "), "{message}");
    }
    assert_eq!(rows(&dir, "out.jsonl").len(), heavy.len() + 1);
}

/// Where the parser is given its next piece, it could be lost, and the value would end at another
/// quote.
#[test]
fn a_byte_order_mark_amid_a_page_is_a_part_of_it() {
    let start = format!("{:x<255}=", "<p ");
    let attributes: String = (0..200_000).map(|n| format!(" a{n}")).collect();
    let article: String = PARAGRAPHS.iter().map(|text| format!("<p>{text}</p>")).collect();
    let page = format!("{start}\u{feff}\" b=\"{attributes}><article>{article}</article>");
    let dir = Dir::new();
    scored(&[&dir.write("in.warc", html(1, page)), "-o", &dir.name("out.jsonl")]);
    let found = rejected(&dir, "out.jsonl.rejects.jsonl");
    assert_eq!(found, [(1, "missing_text".to_owned())]);
}
