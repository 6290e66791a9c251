//! What deploy/ asks Prometheus for exists: every metric, label and value, in a scrape of a server
//! that has answered nothing.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

use crate::harness::TestServer;
use crate::scrape::{Scrape, scrape};

const DASHBOARD: &str = include_str!("../../deploy/grafana/tasnif.json");
const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yml");
const DOCS: &str = include_str!("../../docs/observability.md");

/// Words of PromQL, and of Grafana in place of a range.
const WORDS: &[&str] = &[
    "abs",
    "and",
    "by",
    "group_left",
    "histogram_quantile",
    "ignoring",
    "increase",
    "label_values",
    "rate",
    "sum",
    "time",
];

/// Labels that Prometheus itself adds.
const SCRAPED: &[&str] = &["instance", "job"];

/// Every `expr` in the dashboard, and the queries of its variables.
fn dashboard_queries() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match value {
                        Value::String(text) if key == "expr" || key == "definition" => {
                            found.push(text.clone());
                        }
                        other => collect(other, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    // A panel without a query would go unchecked.
    let panels = dashboard["panels"].as_array().unwrap();
    let charts = panels.iter().filter(|panel| panel["type"] != "row");
    assert!(charts.clone().all(|panel| !panel["targets"].as_array().unwrap().is_empty()));
    assert!(found.len() > charts.count());
    found
}

fn alert_queries() -> Vec<String> {
    let alerts = ALERTS.matches("- alert:").count();
    let queries = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let queries: Vec<_> = queries.map(str::to_owned).collect();
    assert!(alerts > 5 && alerts == queries.len(), "{alerts} alerts, {} queries", queries.len());
    queries
}

/// What of `query` is in no scrape.
fn unknown(query: &str, scrape: &Scrape) -> Vec<String> {
    let mut unknown = Vec::new();
    let names = scrape.names();
    let keys: BTreeSet<&str> = names
        .iter()
        .flat_map(|name| scrape.all(name))
        .flat_map(|sample| sample.labels.keys().map(String::as_str))
        .chain(SCRAPED.iter().copied())
        .collect();
    let selector = Regex::new(r"([a-z_][a-z0-9_]*)\{([^}]*)\}").unwrap();
    let matcher = Regex::new(r#"([a-z_]+)(=~|!~|!=|=)"([^"]*)""#).unwrap();
    for selector in selector.captures_iter(query) {
        let name = &selector[1];
        if !names.contains(name) {
            continue; // told below
        }
        for matcher in matcher.captures_iter(&selector[2]) {
            let values =
                scrape.all(name).iter().filter_map(|sample| sample.labels.get(&matcher[1]));
            let values: Vec<_> = values.collect();
            let asked = &matcher[3];
            let exists = if SCRAPED.contains(&&matcher[1]) {
                true
            } else if asked.contains('$') {
                !values.is_empty()
            } else if matcher[2].ends_with('~') {
                let asked = Regex::new(&format!("^(?:{asked})$")).unwrap();
                values.iter().any(|value| asked.is_match(value))
            } else {
                values.iter().any(|value| *value == asked)
            };
            if !exists {
                unknown.push(matcher[0].to_owned());
            }
        }
    }
    let bare = Regex::new(r#""[^"]*"|\{[^}]*\}|\[[^\]]*\]|\$\w+"#).unwrap().replace_all(query, " ");
    for word in Regex::new(r"[A-Za-z_][A-Za-z0-9_]*").unwrap().find_iter(&bare) {
        let word = word.as_str();
        let known = names.contains(word) || keys.contains(word) || WORDS.contains(&word);
        if !known && word != "up" {
            unknown.push(word.to_owned());
        }
    }
    // A label is known by being a label of some metric; here, of a metric of this query.
    let grouping = Regex::new(r"\b(?:by|ignoring) \(([^)]*)\)").unwrap();
    let mentioned: Vec<_> = names.iter().filter(|name| bare.contains(**name)).collect();
    for group in grouping.captures_iter(&bare) {
        for label in group[1].split(", ").filter(|label| !SCRAPED.contains(label)) {
            let has = |name: &&&str| {
                scrape.all(name).iter().any(|sample| sample.labels.contains_key(label))
            };
            if !mentioned.iter().any(has) {
                unknown.push(format!("by ({label})"));
            }
        }
    }
    unknown
}

#[tokio::test]
async fn every_query_asks_for_what_is_there() {
    let server = TestServer::start().await;
    let scrape = scrape(server.monitoring).await;
    for query in dashboard_queries().into_iter().chain(alert_queries()) {
        assert_eq!(unknown(&query, &scrape), [""; 0], "{query}");
    }
    // The check itself sees what is not there.
    for (query, missing) in [
        ("rate(tasnif_request_total[5m])", "tasnif_request_total"),
        ("tasnif_queued_tokens{modell=\"x\"}", "modell=\"x\""),
        ("tasnif_requests_total{code=\"NOT_OK\"}", "code=\"NOT_OK\""),
        ("sum by (code) (tasnif_queued_tokens)", "by (code)"),
        ("sum by (colour) (tasnif_queued_tokens)", "colour"),
    ] {
        assert!(unknown(query, &scrape).contains(&missing.to_owned()), "{query}");
    }
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_exists() {
    let server = TestServer::start().await;
    let scrape = scrape(server.monitoring).await;
    let names: BTreeSet<&str> = scrape
        .names()
        .into_iter()
        .map(|name| {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            base.filter(|base| scrape.described.contains_key(*base)).unwrap_or(name)
        })
        .collect();
    let documented = Regex::new(r"`((?:tasnif|process)_[a-z0-9_]+)`").unwrap();
    let documented: BTreeSet<&str> =
        documented.captures_iter(DOCS).map(|name| name.get(1).unwrap().as_str()).collect();
    let missing: Vec<_> = names.difference(&documented).collect();
    let invented: Vec<_> = documented.difference(&names).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "missing {missing:?}, not there {invented:?}"
    );
}
