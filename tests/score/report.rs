//! The page about an archive.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::harness::*;

fn report(dir: &Dir) -> String {
    let mut rows = documents(60);
    for (index, row) in rows.iter_mut().enumerate() {
        row["gold"] = json!(["sport", "economy"][index % 2]);
    }
    rows[3]["title"] = json!("<script>alert(1)</script> & «عنوان»");
    rows[3]["text"] = json!("خبر ".repeat(300));
    rows[4]["date"] = json!("yesterday");
    let input = dir.write("in.jsonl", jsonl(&rows) + "{broken\n");
    let out = dir.name("out.jsonl");
    let page = dir.name("report.html");
    scored(&[&input, "-o", &out, "--report", &page, "--evaluate", "gold:topic"]);
    String::from_utf8(dir.read("report.html")).unwrap()
}

#[test]
fn a_page_that_cannot_be_written_is_told_before_the_work() {
    let dir = Dir::new();
    let input = dir.write("in.jsonl", jsonl(&documents(2)));
    fails(
        &[&input, "-o", &dir.name("out.jsonl"), "--report", &dir.name("no/page.html")],
        6,
        "page.html",
    );
    assert!(!dir.path("out.jsonl").exists());
}

#[test]
fn it_is_one_file_with_everything_in_it() {
    let page = report(&Dir::new());
    for section in [
        "Shares: topic",
        "Shares: sentiment",
        "By topic: sentiment",
        "Over time",
        "Confidence",
        "Beside the true labels: topic",
        "Lengths",
        "Rejected rows",
        "malformed",
        "1 document without a date",
    ] {
        assert!(page.contains(section), "{section}");
    }
    assert!(page.matches("<svg").count() >= 8, "{}", page.matches("<svg").count());
    assert!(page.contains("lang=\"ar\">رياضة<"), "labels in Arabic");
    // Nothing is fetched, and nothing of the archive is markup.
    let links = page.replace("http://www.w3.org/2000/svg", "");
    for part in ["http:", "https:", "src=", "<script", "@import", "url("] {
        assert!(!links.contains(part), "{part}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; «عنوان»"));
}

/// Needs a Chromium, which TASNIF_CHROMIUM or the PATH names; passes without one.
#[test]
fn a_browser_shows_it() {
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).flat_map(|dir| names.map(|name| dir.join(name)));
    let named = std::env::var_os("TASNIF_CHROMIUM").map(PathBuf::from);
    let Some(chromium) = named.into_iter().chain(on_path).find(|path| path.is_file()) else {
        println!("there is no Chromium here");
        return;
    };
    let dir = Dir::new();
    report(&dir);
    let picture = dir.name("report.png");
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,3000"])
        .arg(format!("--user-data-dir={}", dir.name("profile")))
        .arg(format!("--screenshot={picture}"))
        .arg(format!("file://{}", dir.name("report.html")))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(dir.read("report.png").len() > 50_000, "an empty page is smaller");
}
