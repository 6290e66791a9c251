//! From the logits of every window to calibrated labels.

use super::types::{LabelScore, Options, TaskResult};
use crate::bundle::Task;

/// Logits of one task, a label each, in the bundle's order.
pub(super) type TaskLogits = Vec<f32>;

/// One row of logits for each task from the rows of a document's windows: their
/// mean, weighted by the windows' tokens, since a short last window says less.
///
/// Each row holds the logits of all `tasks`, one after the other.
pub(super) fn aggregate<'a>(
    rows: impl Iterator<Item = &'a [f32]>,
    lengths: &[usize],
    tasks: &[Task],
) -> Vec<TaskLogits> {
    let width = tasks.iter().map(|task| task.labels.len()).sum();
    let total: usize = lengths.iter().sum();
    let mut mean = vec![0f64; width];
    for (row, &length) in rows.zip(lengths) {
        let weight = length as f64 / total.max(1) as f64;
        for (mean, &logit) in mean.iter_mut().zip(row) {
            *mean += weight * f64::from(logit);
        }
    }
    let mut mean = mean.into_iter().map(|logit| logit as f32);
    tasks.iter().map(|task| mean.by_ref().take(task.labels.len()).collect()).collect()
}

/// Calibrated probabilities: the logits over the task's temperature (Guo et al.,
/// 2017, arXiv 1706.04599) through softmax, or through sigmoid if any number of
/// labels may hold.
pub(super) fn probabilities(task: &Task, logits: &[f32]) -> Vec<f32> {
    let scaled = logits.iter().map(|&logit| f64::from(logit) / f64::from(task.temperature));
    if task.multi_label {
        return scaled.map(|logit| (1.0 / (1.0 + (-logit).exp())) as f32).collect();
    }
    let scaled: Vec<f64> = scaled.collect();
    let largest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = scaled.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| (power / sum) as f32).collect()
}

/// The answer of `task`, without evidence.
pub(super) fn decide(task: &Task, logits: &[f32], options: &Options) -> TaskResult {
    let scores = probabilities(task, logits);
    let mut ranked: Vec<LabelScore> = task
        .labels
        .iter()
        .zip(scores.iter().zip(logits))
        .map(|(label, (&score, &logit))| LabelScore {
            label: label.id.clone(),
            name_ar: label.name_ar.clone(),
            name_en: label.name_en.clone(),
            code: label.code.clone(),
            score,
            logit: options.with_logits.then_some(logit),
        })
        .collect();
    // The sort is stable, so equal scores stay in the bundle's order.
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    let best = ranked.first().map(|best| (best.label.clone(), best.score));
    let (label, score) = best.unwrap_or_default();
    ranked.retain(|label| label.score >= options.min_score);
    if options.top_k > 0 {
        ranked.truncate(options.top_k);
    }
    TaskResult {
        task: task.name.clone(),
        label,
        score,
        abstained: score < task.abstain_below,
        labels: ranked,
        evidence: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{HeadKind, Label, Pooling};

    fn task(labels: &[&str], multi_label: bool, temperature: f32) -> Task {
        let label = |id: &&str| Label {
            id: (*id).to_owned(),
            name_ar: String::new(),
            name_en: String::new(),
            code: String::new(),
        };
        Task {
            name: "topic".into(),
            multi_label,
            pooling: Pooling::Mean,
            head: HeadKind::Linear,
            temperature,
            abstain_below: 0.5,
            labels: labels.iter().map(label).collect(),
        }
    }

    #[test]
    fn windows_weigh_as_many_as_their_tokens() {
        let tasks = [task(&["a", "b"], false, 1.0), task(&["c"], false, 1.0)];
        let rows: [&[f32]; 2] = [&[0.0, 4.0, 1.0], &[4.0, 0.0, 1.0]];
        let logits = aggregate(rows.into_iter(), &[300, 100], &tasks);
        assert_eq!(logits, [vec![1.0, 3.0], vec![1.0]]);
    }

    #[test]
    fn softmax_survives_large_logits_and_temperature_flattens_it() {
        let sharp = probabilities(&task(&["a", "b"], false, 1.0), &[1e30, -1e30]);
        assert_eq!(sharp, [1.0, 0.0]);
        let flat = probabilities(&task(&["a", "b"], false, 10.0), &[2.0, 0.0]);
        assert!((flat[0] - 0.549_834).abs() < 1e-5, "{flat:?}");
    }

    #[test]
    fn any_number_of_labels_may_hold_in_a_multi_label_task() {
        let scores = probabilities(&task(&["a", "b", "c"], true, 1.0), &[0.0, 100.0, -1000.0]);
        assert_eq!(scores, [0.5, 1.0, 0.0]);
    }

    #[test]
    fn listing_follows_the_options_and_the_best_label_stays() {
        let task = task(&["a", "b", "c"], false, 1.0);
        let options = Options { top_k: 1, min_score: 0.9, ..Default::default() };
        let result = decide(&task, &[0.1, 0.3, 0.2], &options);
        assert_eq!((result.label.as_str(), result.abstained), ("b", true));
        assert_eq!(result.labels, []);
        let options = Options { top_k: 2, with_logits: true, ..Default::default() };
        let labels = decide(&task, &[0.1, 0.3, 0.2], &options).labels;
        let listed: Vec<_> = labels.iter().map(|l| (l.label.as_str(), l.logit)).collect();
        assert_eq!(listed, [("b", Some(0.3)), ("c", Some(0.2))]);
    }
}
