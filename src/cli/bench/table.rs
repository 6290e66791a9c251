//! A report for people.

use std::io::{Result, Write};

use super::report::{Point, Report};

/// Prints `report` as a table.
pub(super) fn print(out: &mut impl Write, report: &Report) -> Result<()> {
    head(out, report)?;
    let share = report.points.iter().any(|point| point.share_of_peak.is_some());
    let cached = report.points.iter().any(|point| point.cached > 0);
    write!(out, "\n{:>7}  {:<12}  {:>26}  {:>26}", "batch", "load", "documents/s", "tokens/s")?;
    if share {
        write!(out, "  {:>7}", "of peak")?;
    }
    writeln!(out, "  {:>9}  {:>9}  {:>9}  {:>9}", "p50 ms", "p90 ms", "p99 ms", "max ms")?;
    for point in &report.points {
        row(out, point, share, *point == report.best)?;
    }
    writeln!(out)?;
    if report.settings.repeat > 1 {
        let repeat = report.settings.repeat;
        writeln!(out, "throughput: median (lowest–highest) of {repeat} repeats; latency: of all")?;
    }
    if report.points.iter().any(|point| point.knee) {
        writeln!(out, "knee: where throughput over latency is highest")?;
    }
    if cached {
        writeln!(out, "some answers came from the server's cache, which costs next to nothing")?;
    }
    Ok(())
}

fn head(out: &mut impl Write, report: &Report) -> Result<()> {
    let Report { model, work, settings, .. } = report;
    let threads = report.threads.map_or(String::new(), |threads| format!(", threads: {threads}"));
    let what = match (report.subject.as_str(), &report.server) {
        ("core", _) => "the engine in process".to_owned(),
        (_, None) => "a server of this process, over loopback".to_owned(),
        (_, Some(url)) => format!("the server at {url}"),
    };
    writeln!(out, "measured  {what}")?;
    let precision = report.computes_with();
    let digest = model.digest.get(..12).unwrap_or(&model.digest);
    writeln!(
        out,
        "model     {} {}, weights {digest}, {precision}{threads}",
        model.name, model.revision
    )?;
    let place = if report.server.is_some() { "client   " } else { "machine  " };
    writeln!(out, "{place} {}", report.machine)?;
    write!(out, "documents {} ({})", work.documents, work.source)?;
    match &work.tokens {
        None => writeln!(out)?,
        Some(tokens) => writeln!(
            out,
            " of {}–{} tokens, p50 {}, p90 {}, {} in all",
            tokens.min, tokens.max, tokens.p50, tokens.p90, tokens.total
        )?,
    }
    let (seconds, warmup) = (settings.seconds, settings.warmup_s);
    writeln!(out, "points    {seconds} s each, after {warmup} s of warm-up")
}

fn row(out: &mut impl Write, point: &Point, share: bool, best: bool) -> Result<()> {
    let batch = point.batch_tokens.map_or("-".to_owned(), |tokens| tokens.to_string());
    let load = point.load();
    let documents: Vec<f64> = point.repeats.iter().map(|repeat| repeat.documents_per_s).collect();
    let tokens: Vec<f64> = point.repeats.iter().map(|repeat| repeat.tokens_per_s).collect();
    write!(
        out,
        "{batch:>7}  {load:<12}  {:>26}  {:>26}",
        spread(point.documents_per_s, &documents),
        spread(point.tokens_per_s, &tokens)
    )?;
    if share {
        let share = point.share_of_peak.unwrap_or_default() * 100.0;
        write!(out, "  {share:>5.1} %")?;
    }
    match point.latency_us {
        None => write!(out, "  {:>9}  {:>9}  {:>9}  {:>9}", "-", "-", "-", "-")?,
        Some(latency) => {
            for us in [latency.p50, latency.p90, latency.p99, latency.max] {
                write!(out, "  {:>9.2}", us as f64 / 1_000.0)?;
            }
        }
    }
    for (said, what) in [(best, "best"), (point.knee, "knee")] {
        if said {
            write!(out, "  {what}")?;
        }
    }
    for (code, count) in &point.errors {
        write!(out, "  {count} × {code}")?;
    }
    writeln!(out)
}

/// `middle` with the lowest and highest of `values`.
fn spread(middle: f64, values: &[f64]) -> String {
    let digits = usize::from(middle < 100.0);
    let (lowest, highest) = bounds(values);
    if values.len() < 2 {
        return format!("{middle:.digits$}");
    }
    format!("{middle:.digits$} ({lowest:.digits$}–{highest:.digits$})")
}

/// The lowest and the highest of `values`.
pub(super) fn bounds(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, 0.0), |(low, high), &value| (low.min(value), high.max(value)))
}
