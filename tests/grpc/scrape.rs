//! Asking the monitoring port, and reading what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use regex::Regex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::PATIENCE;

/// A response of the monitoring port.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Lower case.
    pub(crate) headers: String,
    pub(crate) body: String,
}

/// Everything in one scrape.
#[derive(Debug)]
pub(crate) struct Scrape {
    /// By the name of the sample, such as `x_bucket`.
    samples: BTreeMap<String, Vec<Sample>>,
    /// Type and help, by the name of the metric.
    pub(crate) described: BTreeMap<String, (String, String)>,
}

/// One line of a scrape.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// Sends `request` as it is, and reads until the other side closes.
pub(crate) async fn send(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may have closed before all is sent.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // What was answered counts, also if the connection is reset afterwards.
    let _ = read.expect("the connection ends");
    String::from_utf8(answer).unwrap()
}

/// One request without a body.
pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str) -> Response {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = send(address, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, headers: head.to_lowercase(), body: body.to_owned() }
}

/// Scrapes `/metrics`.
pub(crate) async fn scrape(address: SocketAddr) -> Scrape {
    let response = ask(address, "GET", "/metrics").await;
    assert_eq!(response.status, 200);
    assert!(response.headers.contains("content-type: application/openmetrics-text"));
    Scrape::parse(&response.body)
}

impl Scrape {
    fn parse(text: &str) -> Self {
        assert!(text.ends_with("# EOF\n"), "OpenMetrics has an end");
        let line_form = Regex::new(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$").unwrap();
        let label_form = Regex::new(r#"([a-z_]+)="([^"]*)""#).unwrap();
        let mut scrape = Self { samples: BTreeMap::new(), described: BTreeMap::new() };
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(comment) = line.strip_prefix("# ") {
                let [kind, name, rest] = comment.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                    panic!("{line}");
                };
                let (found, help) = scrape.described.entry(name.to_owned()).or_default();
                *(if kind == "TYPE" { found } else { help }) = rest.to_owned();
                continue;
            }
            let parts = line_form.captures(line).unwrap_or_else(|| panic!("{line}"));
            let labels = parts.get(2).map_or("", |labels| labels.as_str());
            let labels = label_form
                .captures_iter(labels)
                .map(|label| (label[1].to_owned(), label[2].to_owned()))
                .collect();
            let sample = Sample { labels, value: parts[3].parse().unwrap() };
            scrape.samples.entry(parts[1].to_owned()).or_default().push(sample);
        }
        scrape
    }

    /// The names of all samples.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.samples.keys().map(String::as_str).collect()
    }

    /// The samples of a name.
    #[track_caller]
    pub(crate) fn all(&self, name: &str) -> &[Sample] {
        self.samples.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// The one sample of a name that has these labels, among others perhaps.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        };
        let found: Vec<_> = self.all(name).iter().filter(has).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}");
        found[0].value
    }

    /// The sum of a name's samples that have these labels.
    #[track_caller]
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        };
        self.all(name).iter().filter(has).map(|sample| sample.value).sum()
    }
}
