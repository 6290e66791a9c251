//! `tasnif bench compare`: two reports side by side, if they are of the same work.

use std::io::{Result, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::report::{self, Latency, Point, Repeat, Report};
use super::table::bounds;
use crate::cli::exit::Failure;

/// Compare two files that --json wrote: B over A
///
/// A ratio stands with its spread: from the lowest of B over the highest of A to the highest of
/// B over the lowest of A, of the repeats. Where it contains 1, the two may well be equal.
/// Latency is of the documents that were answered, so what was not is said beside it.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// What was before
    #[arg(value_name = "A.json")]
    a: PathBuf,
    /// What is now
    #[arg(value_name = "B.json")]
    b: PathBuf,
    /// What may differ although it makes the work another
    #[arg(long, value_enum, value_name = "WHAT,…", value_delimiter = ',')]
    allow: Vec<Difference>,
}

/// What makes two measurements ones of different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Difference {
    /// core or serve, which server, and over how many connections
    Subject,
    /// Its processor, cores and system
    Machine,
    /// Threads that compute
    Threads,
    /// f32, bf16 or int8, and the kernels: instruction sets, or candle
    Precision,
    /// The digest of its weights
    Model,
    /// The documents that are sent
    Documents,
}

/// A figure of B over that of A.
struct Ratio {
    middle: f64,
    lowest: f64,
    highest: f64,
}

pub(super) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let (a, b) = (report::read(&args.a)?, report::read(&args.b)?);
    let differences = differences(&a, &b);
    let refused: Vec<&(Difference, String)> =
        differences.iter().filter(|(kind, _)| !args.allow.contains(kind)).collect();
    if !refused.is_empty() {
        let mut message = "the two are not of the same work:".to_owned();
        for (kind, difference) in &refused {
            message.push_str(&format!("\n  {}: {difference}", name(*kind)));
        }
        let names: Vec<String> = refused.iter().map(|(kind, _)| name(*kind)).collect();
        message.push_str(&format!("\n  --allow {} compares them anyway", names.join(",")));
        return Err(Failure::Usage(message).into());
    }
    let mut out = std::io::stdout().lock();
    Ok(print(&mut out, &a, &b, &differences).map_err(Failure::print)?)
}

fn differences(a: &Report, b: &Report) -> Vec<(Difference, String)> {
    let subject = |report: &Report| {
        let server = report.server.as_ref().map(|server| format!(" at {server}"));
        let connections =
            report.settings.connections.map(|count| format!(", connections: {count}"));
        [Some(report.subject.clone()), server, connections]
            .into_iter()
            .flatten()
            .collect::<String>()
    };
    let threads = |report: &Report| report.threads.map_or("unknown".to_owned(), |n| n.to_string());
    let model = |report: &Report| format!("{} {}", report.model.name, report.model.digest);
    let documents = |report: &Report| {
        let work = &report.work;
        format!("{} of {} with digest {}", work.documents, work.source, work.digest)
    };
    // A model may have another name, and documents another source, and be the same.
    let facts = [
        (Difference::Subject, subject(a) == subject(b), subject(a), subject(b)),
        (Difference::Machine, a.machine == b.machine, a.machine.to_string(), b.machine.to_string()),
        (Difference::Threads, a.threads == b.threads, threads(a), threads(b)),
        (
            Difference::Precision,
            a.computes_with() == b.computes_with(),
            a.computes_with(),
            b.computes_with(),
        ),
        (Difference::Model, a.model.digest == b.model.digest, model(a), model(b)),
        (Difference::Documents, a.work.digest == b.work.digest, documents(a), documents(b)),
    ];
    facts
        .into_iter()
        .filter(|(_, same, ..)| !same)
        .map(|(kind, _, a, b)| (kind, format!("A {a}, B {b}")))
        .collect()
}

/// As the command line calls it.
fn name(kind: Difference) -> String {
    kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn print(
    out: &mut impl Write,
    a: &Report,
    b: &Report,
    differences: &[(Difference, String)],
) -> Result<()> {
    let describe = |report: &Report| {
        let Report { tasnif_version, started_at, model, .. } = report;
        format!("tasnif {tasnif_version}, {started_at}, {} {}", model.name, report.computes_with())
    };
    writeln!(out, "A  {}", describe(a))?;
    writeln!(out, "B  {}", describe(b))?;
    for (kind, difference) in differences {
        writeln!(out, "differs in {}: {difference}", name(*kind))?;
    }
    writeln!(
        out,
        "\n{:<28}  {:>12}  {:>12}  {:>21}  {:>21}  {:>21}",
        "", "A tokens/s", "B tokens/s", "tokens/s B/A", "p50 B/A", "p99 B/A"
    )?;
    // Another's server does not say how large its batches are.
    let one_is_unknown = a.best.batch_tokens.is_none() != b.best.batch_tokens.is_none();
    let by_load = one_is_unknown && has_one_batch_size(a) && has_one_batch_size(b);
    let name = if by_load { Point::load } else { Point::name };
    row(out, "best", &a.best, &b.best, name(&a.best) == name(&b.best))?;
    for point in &a.points {
        let label = name(point);
        match b.points.iter().find(|other| name(other) == label) {
            Some(other) => row(out, &label, point, other, true)?,
            None => writeln!(out, "{label:<28}  only in A")?,
        }
    }
    for point in &b.points {
        let label = name(point);
        if !a.points.iter().any(|other| name(other) == label) {
            writeln!(out, "{label:<28}  only in B")?;
        }
    }
    if a.settings.repeat.min(b.settings.repeat) < 2 {
        writeln!(out, "\none of the two has no repeats, so its spread is not known")?;
    }
    Ok(())
}

fn has_one_batch_size(report: &Report) -> bool {
    report.points.iter().all(|point| point.batch_tokens == report.best.batch_tokens)
}

/// Latency is compared of the same load alone.
fn row(out: &mut impl Write, name: &str, a: &Point, b: &Point, same_load: bool) -> Result<()> {
    let tokens = ratio(a, b, |repeat| Some(repeat.tokens_per_s));
    let latency = |value: fn(&Latency) -> u64| {
        ratio(a, b, move |repeat| repeat.latency_us.as_ref().map(|latency| value(latency) as f64))
    };
    write!(out, "{name:<28}  {:>12.0}  {:>12.0}", a.tokens_per_s, b.tokens_per_s)?;
    let latency = |value| latency(value).filter(|_| same_load);
    for ratio in [tokens, latency(|latency| latency.p50), latency(|latency| latency.p99)] {
        let text = ratio.map_or("-".to_owned(), |Ratio { middle, lowest, highest }| {
            format!("{middle:.3} ({lowest:.3}–{highest:.3})")
        });
        write!(out, "  {text:>21}")?;
    }
    if !same_load {
        write!(out, "  A {}, B {}", a.name(), b.name())?;
    }
    for (side, point) in [("A", a), ("B", b)] {
        if !point.errors.is_empty() {
            write!(out, "  {side} {:.1} % not answered", point.share_of_errors() * 100.0)?;
        }
        if point.cached > 0 {
            write!(out, "  {side} {} from a cache", point.cached)?;
        }
    }
    writeln!(out)
}

/// B's median over A's, with the bounds that the repeats set; `None` if one has no such figure, or
/// A's is zero.
fn ratio(a: &Point, b: &Point, value: impl Fn(&Repeat) -> Option<f64>) -> Option<Ratio> {
    let of = |point: &Point| -> Vec<f64> { point.repeats.iter().filter_map(&value).collect() };
    let (a, b) = (of(a), of(b));
    let ((a_low, a_high), (b_low, b_high)) = (bounds(&a), bounds(&b));
    if a.is_empty() || b.is_empty() || a_low <= 0.0 {
        return None;
    }
    Some(Ratio {
        middle: report::median(b.into_iter()) / report::median(a.into_iter()),
        lowest: b_low / a_high,
        highest: b_high / a_low,
    })
}
