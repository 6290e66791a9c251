//! The sections of the report.

use std::collections::BTreeMap;

use htmlize::escape_text;

use super::charts::{self, Row};
use crate::archive::evaluation::{ClassScore, Evaluation};
use crate::archive::run::Summary;
use crate::archive::stats::SCORE_BINS;
use crate::bundle::{Label, Task};

/// Columns of a chart over time, at most; with more months, years are shown.
const MAX_MONTHS: usize = 60;
/// Labels that a chart over time tells apart; the others are one.
const MAX_SERIES: usize = 9;
/// Files listed.
const MAX_FILES: usize = 200;

pub(super) fn overview(summary: &Summary) -> String {
    let stats = &summary.stats;
    let figure = |value: String, name: &str| format!("<div><b>{value}</b>{name}</div>\n");
    let mut figures = vec![
        figure(grouped(stats.scored), "documents scored"),
        figure(grouped(stats.rejected_rows()), "rows rejected"),
        figure(grouped(stats.duplicates), "equal to one before"),
        figure(grouped(stats.tokens), "tokens"),
        figure(percent(stats.truncated, stats.scored), "not read to the end"),
    ];
    for (task, counts) in summary.tasks.iter().zip(&stats.tasks) {
        let abstained = counts.abstained.iter().sum();
        let name = format!("abstained on {}", escape_text(&task.name));
        figures.push(figure(percent(abstained, stats.scored), &name));
    }
    format!(
        "<p class=\"note\">Model {} {} · {} in {}</p>\n<div class=\"figures\">\n{}</div>\n",
        escape_text(&summary.model.name),
        escape_text(&summary.model.revision),
        counted(summary.inputs.len(), "file"),
        counted(summary.parts as usize, "part"),
        figures.concat()
    )
}

pub(super) fn labels(summary: &Summary) -> String {
    let total = summary.stats.scored;
    let mut html = String::new();
    for (task, counts) in summary.tasks.iter().zip(&summary.stats.tasks) {
        let mut ranked: Vec<(&Label, u64, u64)> = task
            .labels
            .iter()
            .zip(counts.labels.iter().zip(&counts.abstained))
            .map(|(label, (&rows, &abstained))| (label, rows, abstained))
            .collect();
        ranked.sort_by_key(|(_, rows, _)| std::cmp::Reverse(*rows));
        let rows: Vec<Row<'_>> =
            ranked.iter().map(|(label, rows, _)| row(label, vec![*rows])).collect();
        html += &heading(&format!("Shares: {}", task.name));
        html += &drawn(charts::bars(&rows, total));
        let lines: String = ranked
            .iter()
            .map(|(label, rows, abstained)| {
                format!(
                    "<tr><td>{}</td><td class=\"ar\" lang=\"ar\">{}</td><td class=\"n\">{}</td>\
                     <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
                    escape_text(&label.id),
                    escape_text(&label.name_ar),
                    grouped(*rows),
                    percent(*rows, total),
                    percent(*abstained, *rows)
                )
            })
            .collect();
        html += &table(
            "<th>label</th><th></th><th class=\"n\">documents</th><th class=\"n\">share</th>\
             <th class=\"n\">of these abstained</th>",
            &lines,
        );
    }
    html
}

pub(super) fn crossed(summary: &Summary) -> String {
    let mut tasks = summary.tasks.iter();
    let Some(first) = tasks.next() else { return String::new() };
    let mut html = String::new();
    for (task, counts) in tasks.zip(&summary.stats.crossed) {
        let labels = ids(task);
        let rows: Vec<Row<'_>> = first
            .labels
            .iter()
            .zip(counts)
            .filter(|(_, counts)| counts.iter().sum::<u64>() > 0)
            .map(|(label, counts)| row(label, counts.clone()))
            .collect();
        html += &heading(&format!("By {}: {}", first.name, task.name));
        html += &legend(&labels);
        html += &drawn(charts::shares(&rows, &labels));
    }
    html
}

pub(super) fn time(summary: &Summary) -> String {
    let stats = &summary.stats;
    let Some(date) = &summary.columns.date else { return String::new() };
    let mut html = heading("Over time");
    html += &format!(
        "<p class=\"note\">By column {}. {} without a date that can be read. The grey columns \
         above say how many documents there are.</p>\n",
        escape_text(date),
        counted(stats.undated as usize, "document")
    );
    let by_year = stats.months.len() > MAX_MONTHS;
    for (index, task) in summary.tasks.iter().enumerate() {
        // By label and span of time, in order.
        let mut spans: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (month, counts) in &stats.months {
            let span = if by_year { month.get(..4).unwrap_or(month) } else { month };
            let sums = spans.entry(span).or_insert_with(|| vec![0; task.labels.len()]);
            let counts = counts.get(index).map(Vec::as_slice).unwrap_or_default();
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        if spans.is_empty() {
            continue;
        }
        let (labels, spans) = main_series(task, spans);
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let rows: Vec<Row<'_>> =
            spans.into_iter().map(|(label, counts)| Row { label, name_ar: "", counts }).collect();
        html += &format!("<h3>{}</h3>\n{}", escape_text(&task.name), legend(&labels));
        html += &drawn(charts::over_time(&rows, &labels));
    }
    html
}

/// The most frequent labels of `spans`, and the others as one.
fn main_series<'a>(
    task: &Task,
    spans: BTreeMap<&'a str, Vec<u64>>,
) -> (Vec<String>, BTreeMap<&'a str, Vec<u64>>) {
    let total = |place: usize| spans.values().filter_map(|counts| counts.get(place)).sum::<u64>();
    let mut places: Vec<usize> = (0..task.labels.len()).collect();
    if places.len() <= MAX_SERIES {
        return (ids(task).into_iter().map(str::to_owned).collect(), spans);
    }
    places.sort_by_key(|&place| std::cmp::Reverse(total(place)));
    let (main, others) = places.split_at(MAX_SERIES);
    let ids = main.iter().filter_map(|&place| task.labels.get(place)).map(|label| &label.id);
    let labels = ids.cloned().chain(["others".to_owned()]).collect();
    let at = |counts: &[u64], place: &usize| counts.get(*place).copied().unwrap_or_default();
    let few = |counts: Vec<u64>| {
        let rest = others.iter().map(|place| at(&counts, place)).sum();
        main.iter().map(|place| at(&counts, place)).chain([rest]).collect()
    };
    (labels, spans.into_iter().map(|(span, counts)| (span, few(counts))).collect())
}

pub(super) fn confidence(summary: &Summary) -> String {
    let mut html = heading("Confidence");
    html += "<p class=\"note\">Documents by the calibrated probability of their label. Left of \
             the red line the model abstains.</p>\n";
    for (task, counts) in summary.tasks.iter().zip(&summary.stats.tasks) {
        let bin = |(bin, &count): (usize, &u64)| {
            (format!("{:.2}", bin as f64 / SCORE_BINS as f64), count)
        };
        let columns: Vec<(String, u64)> = counts.scores.iter().enumerate().map(bin).collect();
        html += &format!("<h3>{}</h3>\n", escape_text(&task.name));
        html += &drawn(charts::histogram(&columns, Some(f64::from(task.abstain_below))));
    }
    html
}

pub(super) fn evaluations(summary: &Summary) -> String {
    summary.evaluations().iter().map(evaluation).collect()
}

fn evaluation(evaluation: &Evaluation) -> String {
    let share = |share: f64| format!("{:.1} %", share * 100.0);
    // What does not occur cannot be found.
    let found = |class: &ClassScore, value: f64| {
        if class.support > 0 { share(value) } else { "–".to_owned() }
    };
    let frequent = evaluation.macro_f1_without_rare().map(|f1| {
        let classes = evaluation.frequent_classes;
        format!(
            "<div><b>{}</b>macro-F1 of the {classes} classes with 5 rows or more</div>\n",
            share(f1)
        )
    });
    let mut html = heading(&format!("Beside the true labels: {}", evaluation.task));
    html += &format!(
        "<div class=\"figures\">\n<div><b>{}</b>accuracy</div>\n<div><b>{}</b>macro-F1</div>\n{}\
         <div><b>{}</b>accuracy where it does not abstain, on {} of the documents</div>\n\
         <div><b>{}</b>documents with a true label</div>\n</div>\n",
        share(evaluation.accuracy),
        share(evaluation.macro_f1),
        frequent.unwrap_or_default(),
        share(evaluation.accuracy_when_sure),
        share(evaluation.coverage),
        grouped(evaluation.rows)
    );
    if evaluation.missing_rows > 0 || evaluation.unknown_rows > 0 {
        let unknown = evaluation
            .unknown
            .iter()
            .map(|(label, rows)| format!("<bdi>{}</bdi> ({})", escape_text(label), grouped(*rows)));
        html += &format!(
            "<p class=\"note\">Not counted: {} without a true label, {} with one that the model \
             does not have: {}</p>\n",
            grouped(evaluation.missing_rows),
            grouped(evaluation.unknown_rows),
            unknown.collect::<Vec<_>>().join(", ")
        );
    }
    let lines: String = evaluation
        .classes
        .iter()
        .map(|class| {
            format!(
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
                escape_text(&class.label),
                share(class.precision),
                found(class, class.recall),
                found(class, class.f1),
                grouped(class.support)
            )
        })
        .collect();
    html += &table(
        "<th>label</th><th class=\"n\">precision</th><th class=\"n\">recall</th>\
         <th class=\"n\">F1</th><th class=\"n\">documents</th>",
        &lines,
    );
    html + &confusion(evaluation)
}

fn confusion(evaluation: &Evaluation) -> String {
    let classes = &evaluation.classes;
    let header: String =
        classes.iter().map(|class| format!("<th>{}</th>", escape_text(&class.label))).collect();
    let line = |(class, counts): (&ClassScore, &Vec<u64>)| {
        let cells: String = counts
            .iter()
            .map(|&count| {
                // The share of the true label, as shade.
                let shade = count as f64 / class.support.max(1) as f64;
                let shown = if count > 0 { grouped(count) } else { String::new() };
                format!(
                    "<td class=\"n\" style=\"background:rgba(47,109,168,{:.2})\">{shown}</td>",
                    shade * 0.7
                )
            })
            .collect();
        format!("<tr><th>{}</th>{cells}</tr>\n", escape_text(&class.label))
    };
    let lines: String = classes.iter().zip(&evaluation.confusion).map(line).collect();
    format!(
        "<h3>True labels down, given ones across</h3>\n<div class=\"scroll\"><table \
         class=\"confusion\"><thead><tr><td></td>{header}</tr></thead><tbody>\n{lines}\
         </tbody></table></div>\n"
    )
}

pub(super) fn lengths(summary: &Summary) -> String {
    let stats = &summary.stats;
    let used = |count: &u64| *count > 0;
    let first = stats.lengths.iter().position(used).unwrap_or_default();
    let last = stats.lengths.iter().rposition(used).unwrap_or_default();
    let columns: Vec<(String, u64)> = stats
        .lengths
        .iter()
        .enumerate()
        .take(last + 1)
        .skip(first)
        .map(|(bin, &count)| (grouped(1 << bin), count))
        .collect();
    let mut html = heading("Lengths");
    html += "<p class=\"note\">Documents by tokens, from the number below each column on.</p>\n";
    html += &drawn(charts::histogram(&columns, None));
    html += "<h3>The longest, which take the model most time</h3>\n";
    let lines: String = stats
        .longest
        .iter()
        .map(|document| {
            format!(
                "<tr><td class=\"n\">{}</td><td class=\"path\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"path\"><bdi>{}</bdi></td><td class=\"ar\" dir=\"auto\">{}</td></tr>\n",
                grouped(document.tokens),
                escape_text(&document.file),
                document.row,
                escape_text(&document.id),
                escape_text(&document.title)
            )
        })
        .collect();
    html + &table(
        "<th class=\"n\">tokens</th><th>file</th><th class=\"n\">row</th><th>id</th><th>title</th>",
        &lines,
    )
}

pub(super) fn rejects(summary: &Summary) -> String {
    let stats = &summary.stats;
    let mut html = heading("Rejected rows");
    if stats.rejects.is_empty() {
        return html + "<p>None.</p>\n";
    }
    let lines: String = stats
        .rejects
        .iter()
        .map(|(reason, rows)| {
            format!(
                "<tr><td>{}</td><td class=\"n\">{}</td></tr>\n",
                reason.as_str(),
                grouped(*rows)
            )
        })
        .collect();
    html += &table("<th>reason</th><th class=\"n\">rows</th>", &lines);
    let lines: String = stats
        .rejected
        .iter()
        .map(|row| {
            format!(
                "<tr><td class=\"path\">{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td></tr>\n",
                escape_text(&row.file),
                row.row,
                row.reject.reason.as_str(),
                escape_text(&row.reject.message)
            )
        })
        .collect();
    html += &format!("<h3>The first {}</h3>\n", stats.rejected.len());
    html + &table("<th>file</th><th class=\"n\">row</th><th>reason</th><th></th>", &lines)
}

pub(super) fn provenance(summary: &Summary) -> String {
    let (model, columns) = (&summary.model, &summary.columns);
    let optional = |column: &Option<String>| column.as_deref().unwrap_or("none").to_owned();
    let about = [
        ("weights, SHA-256", model.digest.clone()),
        ("weights and settings, SHA-256", model.config_digest.clone()),
        ("runs as", format!("{} on {}", model.precision, model.device)),
        ("text column", columns.text.clone()),
        ("title column", optional(&columns.title)),
        ("id column", optional(&columns.id)),
    ];
    let lines: String = about
        .iter()
        .map(|(name, value)| {
            format!("<tr><td>{name}</td><td class=\"path\">{}</td></tr>\n", escape_text(value))
        })
        .collect();
    let files: String = summary
        .inputs
        .iter()
        .take(MAX_FILES)
        .map(|file| {
            format!(
                "<tr><td class=\"path\">{}</td><td class=\"n\">{}</td><td class=\"path\">{}</td>\
                 </tr>\n",
                escape_text(&file.path),
                grouped(file.bytes),
                file.sha256
            )
        })
        .collect();
    let left = summary.inputs.len().saturating_sub(MAX_FILES);
    let more = if left > 0 { format!("<p>And {left} more.</p>\n") } else { String::new() };
    format!(
        "{}{}{}{more}",
        heading("What was read, and by what"),
        table("<th></th><th></th>", &lines),
        table("<th>file</th><th class=\"n\">bytes</th><th>SHA-256</th>", &files)
    )
}

fn row<'a>(label: &'a Label, counts: Vec<u64>) -> Row<'a> {
    Row { label: &label.id, name_ar: &label.name_ar, counts }
}

fn ids(task: &Task) -> Vec<&str> {
    task.labels.iter().map(|label| label.id.as_str()).collect()
}

fn heading(text: &str) -> String {
    format!("<h2>{}</h2>\n", escape_text(text))
}

fn table(header: &str, lines: &str) -> String {
    format!("<table><thead><tr>{header}</tr></thead><tbody>\n{lines}</tbody></table>\n")
}

fn legend(labels: &[&str]) -> String {
    let entry = |(place, label): (usize, &&str)| {
        let colour = charts::css_colour(place, labels);
        format!("<span><i style=\"background:{colour}\"></i>{}</span>", escape_text(*label))
    };
    let entries: String = labels.iter().enumerate().map(entry).collect();
    format!("<p class=\"legend\">{entries}</p>\n")
}

/// A chart that cannot be drawn is not worth the rest of the page.
fn drawn(svg: Result<String, Box<dyn std::error::Error>>) -> String {
    svg.unwrap_or_else(|error| {
        format!(
            "<p class=\"note\">This chart could not be drawn: {}</p>\n",
            escape_text(error.to_string())
        )
    })
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count as u64))
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
