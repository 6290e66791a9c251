//! What a run has done, for people.

use std::collections::BTreeMap;
use std::io::{Result, Write};
use std::time::Duration;

use serde::Serialize;

use super::super::render;
use crate::archive::{ClassScore, Evaluation, Snapshot, Summary};
use crate::bundle::Task;

/// Labels of a task that are listed.
const MAX_LABELS: usize = 20;

pub(super) fn print(
    out: &mut impl Write,
    summary: &Summary,
    run: &Snapshot,
    elapsed: Duration,
) -> Result<()> {
    let stats = &summary.stats;
    let files = summary.inputs.len();
    writeln!(
        out,
        "{} documents scored, {} rejected, of {files} {}",
        stats.scored,
        stats.rejected_rows(),
        if files == 1 { "file" } else { "files" }
    )?;
    for (reason, rows) in &stats.rejects {
        writeln!(out, "  {rows} {}", reason.as_str())?;
    }
    writeln!(
        out,
        "{} were equal to one before; {} tokens in {} windows; {} not read to the end",
        stats.duplicates, stats.tokens, stats.windows, stats.truncated
    )?;
    let seconds = elapsed.as_secs_f64().max(1e-3);
    writeln!(
        out,
        "This run: {} documents in {seconds:.1} s, {:.1} a second, {:.0} tokens/s",
        run.scored,
        run.scored as f64 / seconds,
        run.tokens as f64 / seconds
    )?;
    for (task, counts) in summary.tasks.iter().zip(&stats.tasks) {
        let abstained: u64 = counts.abstained.iter().sum();
        writeln!(out, "{} (abstained on {abstained})", task.name)?;
        labels(out, task, &counts.labels, stats.scored)?;
    }
    summary.evaluations().iter().try_for_each(|evaluated| evaluation(out, evaluated))
}

/// The summary and the evaluations as JSON.
pub(super) fn json(out: &mut impl Write, summary: &Summary) -> Result<()> {
    #[derive(Serialize)]
    struct Whole<'a> {
        #[serde(flatten)]
        summary: &'a Summary,
        labels: BTreeMap<&'a str, Vec<&'a str>>,
        evaluations: Vec<Evaluation>,
    }
    let ids = summary.tasks.iter().map(|task| {
        (task.name.as_str(), task.labels.iter().map(|label| label.id.as_str()).collect())
    });
    let labels = ids.collect();
    render::json(out, &Whole { summary, labels, evaluations: summary.evaluations() })
}

fn evaluation(out: &mut impl Write, evaluation: &Evaluation) -> Result<()> {
    let share = |share: f64| format!("{:.1} %", share * 100.0);
    // What does not occur cannot be found.
    let found = |class: &ClassScore, value: f64| {
        if class.support > 0 { share(value) } else { "–".to_owned() }
    };
    let frequent = evaluation.macro_f1_without_rare().map(|f1| {
        format!(
            " ({} of the {} classes with 5 rows or more)",
            share(f1),
            evaluation.frequent_classes
        )
    });
    writeln!(
        out,
        "{} beside {} true labels: accuracy {}, macro-F1 {}{}; {} where it did not abstain ({})",
        evaluation.task,
        evaluation.rows,
        share(evaluation.accuracy),
        share(evaluation.macro_f1),
        frequent.unwrap_or_default(),
        share(evaluation.accuracy_when_sure),
        share(evaluation.coverage),
    )?;
    if evaluation.missing_rows + evaluation.unknown_rows > 0 {
        let unknown: Vec<String> =
            evaluation.unknown.iter().map(|(label, rows)| format!("{label:?} ({rows})")).collect();
        writeln!(
            out,
            "  not counted: {} rows without a true label, {} with one that the model does not \
             have{}{}",
            evaluation.missing_rows,
            evaluation.unknown_rows,
            if unknown.is_empty() { "" } else { ": " },
            unknown.join(", ")
        )?;
    }
    let names = evaluation.classes.iter().map(|class| class.label.chars().count());
    let width = names.max().unwrap_or_default().max(5);
    writeln!(out, "  {:width$}  precision  recall      F1  documents", "label")?;
    for class in &evaluation.classes {
        writeln!(
            out,
            "  {:width$}  {:>9}  {:>6}  {:>6}  {:>9}",
            class.label,
            share(class.precision),
            found(class, class.recall),
            found(class, class.f1),
            class.support
        )?;
    }
    writeln!(out, "  true labels down, given ones across, in the same order:")?;
    let largest = evaluation.confusion.iter().flatten().max().copied().unwrap_or_default();
    let cell = largest.to_string().len();
    for (class, counts) in evaluation.classes.iter().zip(&evaluation.confusion) {
        let counts: Vec<String> = counts.iter().map(|count| format!("{count:>cell$}")).collect();
        writeln!(out, "  {:width$}  {}", class.label, counts.join(" "))?;
    }
    Ok(())
}

fn labels(out: &mut impl Write, task: &Task, counts: &[u64], total: u64) -> Result<()> {
    let mut ranked: Vec<(&str, u64)> =
        task.labels.iter().map(|label| label.id.as_str()).zip(counts.iter().copied()).collect();
    ranked.sort_by_key(|(_, rows)| std::cmp::Reverse(*rows));
    let width = ranked.iter().map(|(label, _)| label.chars().count()).max().unwrap_or_default();
    for (label, rows) in ranked.into_iter().take(MAX_LABELS) {
        let share = rows as f64 * 100.0 / total.max(1) as f64;
        writeln!(out, "  {label:width$}  {rows:>9}  {share:5.1} %")?;
    }
    Ok(())
}
