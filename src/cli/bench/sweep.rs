//! All points of a measurement, each several times.

use std::io;
use std::path::Path;

use anyhow::Context;
use chrono::{DateTime, SecondsFormat, Utc};

use super::args::LoadArgs;
use super::load::{Load, Target, measure};
use super::machine::Machine;
use super::report::{self, Model, Point, Report, SCHEMA, Settings};
use super::tally::Sample;
use super::work::Work;
use super::{plot, table};
use crate::cli::exit::Failure;
use crate::cli::{output, render};

/// A target with the tokens that its batches have at most, if that is known.
pub(super) type Setting<T> = (Option<usize>, T);

/// What is measured.
pub(super) struct Subject {
    /// `core` or `serve`.
    pub(super) name: &'static str,
    pub(super) server: Option<String>,
    /// To the server, of this process or another's.
    pub(super) connections: Option<u16>,
    pub(super) model: Model,
    pub(super) precision: String,
    pub(super) threads: Option<usize>,
    pub(super) peak_operations_per_s: Option<f64>,
    pub(super) work: Work,
    /// Whether the operations of each document are known.
    pub(super) known_operations: bool,
}

/// Measures every load of `args` on every setting, and reports.
///
/// # Errors
/// If nothing is answered at all, or the report cannot be written.
pub(super) async fn run<T: Target>(
    subject: Subject,
    settings: &[Setting<T>],
    args: &LoadArgs,
    seed: u64,
) -> anyhow::Result<()> {
    let started_at = DateTime::<Utc>::from(std::time::SystemTime::now());
    let loads = args.loads()?;
    let plan: Vec<(&Setting<T>, Load)> = settings
        .iter()
        .flat_map(|setting| loads.iter().map(move |&load| (setting, load)))
        .collect();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); plan.len()];
    // Round by round, so that what drifts, such as heat, meets all points alike.
    for round in 0..args.repeat {
        for (((batch_tokens, target), load), samples) in plan.iter().zip(&mut samples) {
            let documents = subject.work.documents;
            let seed = seed.wrapping_add(u64::from(round));
            let sample = measure(target, documents, *load, args.timing(), seed).await;
            tracing::info!(
                round = round + 1,
                of = args.repeat,
                batch_tokens,
                ?load,
                documents_per_s = (sample.documents_per_s * 10.0).round() / 10.0,
                tokens_per_s = sample.tokens_per_s.round(),
                errors = sample.errors.values().sum::<u64>(),
                "measured"
            );
            samples.push(sample);
        }
    }
    let peak = subject.peak_operations_per_s;
    let mut points: Vec<Point> = plan
        .iter()
        .zip(&samples)
        .map(|(((tokens, _), load), samples)| {
            Point::new(*load, *tokens, samples, subject.known_operations, peak)
        })
        .collect();
    report::mark_knees(&mut points);
    let best = report::best(&points).cloned().with_context(|| nothing_answered(&points))?;
    let report = Report {
        schema: SCHEMA,
        tasnif_version: env!("CARGO_PKG_VERSION").to_owned(),
        subject: subject.name.to_owned(),
        server: subject.server,
        started_at: started_at.to_rfc3339_opts(SecondsFormat::Secs, true),
        machine: Machine::this(),
        model: subject.model,
        precision: subject.precision,
        threads: subject.threads,
        peak_operations_per_s: peak,
        work: subject.work,
        settings: Settings {
            seconds: args.seconds,
            warmup_s: args.warmup,
            repeat: args.repeat,
            seed,
            connections: subject.connections,
        },
        best,
        points,
    };
    write(&report, args)
}

fn nothing_answered(points: &[Point]) -> String {
    let mut codes: Vec<&str> =
        points.iter().flat_map(|point| point.errors.keys()).map(String::as_str).collect();
    codes.sort_unstable();
    codes.dedup();
    if codes.is_empty() {
        return "no document was answered in the time of a point; give it more --seconds"
            .to_owned();
    }
    format!("no document was answered: {}", codes.join(", "))
}

/// Whatever becomes of one of them, the others are written: what was measured took its time.
fn write(report: &Report, args: &LoadArgs) -> anyhow::Result<()> {
    let json = args.json.as_ref().filter(|_| !args.prints_json());
    let written = [
        json.map_or(Ok(()), |path| write_json(report, path)),
        args.plot.as_ref().map_or(Ok(()), |path| write_plot(report, path)),
        // Last: a reader that leaves is no failure, and must hide none.
        print(report, args.prints_json()).map_err(|error| Failure::print(error).into()),
    ];
    written.into_iter().collect()
}

fn write_json(report: &Report, path: &Path) -> anyhow::Result<()> {
    let mut json = Vec::new();
    render::json(&mut json, report)?;
    Ok(output::write(path, &json)?)
}

fn print(report: &Report, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json { render::json(&mut out, report) } else { table::print(&mut out, report) }
}

fn write_plot(report: &Report, path: &Path) -> anyhow::Result<()> {
    let svg = plot::draw(report).map_err(|error| anyhow::anyhow!("cannot draw: {error}"))?;
    Ok(output::write(path, svg.as_bytes())?)
}
