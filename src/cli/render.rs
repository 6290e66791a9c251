//! Answers for people and for programs.

use std::io::{Result, Write};

use serde::Serialize;

use crate::server::proto::{Classification, ClassifyResponse, Model, TaskResult};

/// Columns of a bar that stands for probability 1.
const BAR_COLUMNS: usize = 24;
/// Characters of a sentence of evidence, at most.
const EVIDENCE_CHARS: usize = 100;

/// `value` as JSON and a line's end.
pub(super) fn json(out: &mut impl Write, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// One table a task: label, probability, bar and Arabic name, the last since
/// terminals without bidirectional text would tear a line after it.
pub(super) fn classification(
    out: &mut impl Write,
    response: &ClassifyResponse,
    text: &str,
) -> Result<()> {
    let Some(answer) = &response.classification else { return Ok(()) };
    let label_width = label_width(answer);
    for task in &answer.tasks {
        let abstained = if task.abstained { "  (abstained: too unsure)" } else { "" };
        writeln!(out, "{}{abstained}", task.task)?;
        for label in &task.labels {
            let percent = label.score * 100.0;
            let bar = bar(label.score);
            writeln!(
                out,
                "  {:label_width$}  {percent:5.1} %  {bar}  {}",
                label.label, label.name_ar
            )?;
        }
        evidence(out, task, text)?;
    }
    let usage = answer.usage.unwrap_or_default();
    let windows = if usage.windows == 1 { "window" } else { "windows" };
    let truncated = if usage.truncated { ", the rest was not read" } else { "" };
    let total_ms = response.timing.unwrap_or_default().total_us as f64 / 1_000.0;
    writeln!(
        out,
        "{} · {} tokens in {} {windows}{truncated} · {total_ms:.0} ms",
        answer.model, usage.tokens, usage.windows
    )
}

fn label_width(answer: &Classification) -> usize {
    let labels = answer.tasks.iter().flat_map(|task| &task.labels);
    labels.map(|label| label.label.chars().count()).max().unwrap_or_default()
}

fn evidence(out: &mut impl Write, task: &TaskResult, text: &str) -> Result<()> {
    for evidence in &task.evidence {
        let (start, end) = (evidence.start as usize, evidence.end as usize);
        let length = end.saturating_sub(start);
        let sentence = text.chars().skip(start).take(length.min(EVIDENCE_CHARS));
        // A control character of the article must not steer the reader's terminal.
        let mut shown: String = sentence.map(|c| if c.is_control() { ' ' } else { c }).collect();
        if length > EVIDENCE_CHARS {
            shown.push('…');
        }
        let points = evidence.weight * 100.0;
        writeln!(out, "    −{points:.1} points without: {shown}")?;
    }
    Ok(())
}

/// A bar of eighths of a column.
fn bar(score: f32) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (score.clamp(0.0, 1.0) * (BAR_COLUMNS * 8) as f32).round() as usize;
    let rest = EIGHTHS.get(eighths % 8).copied().unwrap_or_default();
    let full = "█".repeat(eighths / 8);
    let blank = " ".repeat(BAR_COLUMNS.saturating_sub(eighths.div_ceil(8)));
    format!("{full}{rest}{blank}")
}

/// What is loaded: a block a model.
pub(super) fn models(out: &mut impl Write, models: &[Model]) -> Result<()> {
    for (index, model) in models.iter().enumerate() {
        let default = if index == 0 { "  (default)" } else { "" };
        writeln!(out, "{}{default}", model.name)?;
        writeln!(out, "  revision   {}", model.revision)?;
        writeln!(
            out,
            "  runs as    {}, {} by {} on {}",
            model.architecture, model.precision, model.kernels, model.device
        )?;
        writeln!(out, "  window     {} tokens", model.max_window_tokens)?;
        writeln!(out, "  weights    sha256 {}", model.digest)?;
        for task in &model.tasks {
            let labels: Vec<&str> = task.labels.iter().map(|label| label.label.as_str()).collect();
            let kind = if task.multi_label { "any of " } else { "" };
            writeln!(out, "  {:<9}  {kind}{}", task.name, labels.join(", "))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_their_columns() {
        for score in [0.0, 0.004, 0.3, 0.5, 0.999, 1.0] {
            assert_eq!(bar(score).chars().count(), BAR_COLUMNS, "{score}");
        }
        assert_eq!(bar(0.5).trim_end().chars().count(), BAR_COLUMNS / 2);
    }
}
