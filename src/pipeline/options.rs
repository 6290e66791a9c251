//! The options of a request, checked against the model that is asked.

use super::settings::DocumentLimits;
use super::types::{ClassifyError, Options};
use crate::bundle::Task;

/// Task names in a request, at most, repeated ones included.
const MAX_TASK_NAMES: usize = 64;

/// Checks `options`, which ask the model called `model`, and returns the indices of those of its
/// `tasks` to report.
///
/// # Errors
/// The fault that every document with these options would be refused for.
pub(super) fn select(
    options: &Options,
    model: &str,
    tasks: &[Task],
    limits: &DocumentLimits,
) -> Result<Vec<usize>, ClassifyError> {
    if !(0.0..=1.0).contains(&options.min_score) {
        return Err(ClassifyError::InvalidOption {
            field: "options.min_score",
            value: options.min_score.to_string(),
            expected: "a number from 0 to 1".to_owned(),
        });
    }
    let limit = limits.max_evidence_sentences;
    if options.evidence > limit {
        return Err(ClassifyError::InvalidOption {
            field: "options.evidence",
            value: options.evidence.to_string(),
            expected: format!("from 0 to {limit}"),
        });
    }
    if options.tasks.len() > MAX_TASK_NAMES {
        return Err(ClassifyError::FieldTooLong {
            field: "options.tasks",
            unit: "names",
            limit: MAX_TASK_NAMES,
            actual: options.tasks.len(),
        });
    }
    if options.tasks.is_empty() {
        return Ok((0..tasks.len()).collect());
    }
    let mut selected = Vec::with_capacity(tasks.len());
    for name in &options.tasks {
        let Some(index) = tasks.iter().position(|task| task.name == *name) else {
            return Err(ClassifyError::UnknownTask {
                task: name.clone(),
                model: model.to_owned(),
                known: tasks.iter().map(|task| task.name.clone()).collect(),
            });
        };
        // Asking twice is answered once, so that a request cannot grow its answer.
        if !selected.contains(&index) {
            selected.push(index);
        }
    }
    Ok(selected)
}
