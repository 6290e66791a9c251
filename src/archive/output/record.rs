//! A scored row, and the columns in which it is written.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::archive::columns::Keep;
use crate::archive::row::Cell;
use crate::bundle::Task;
use crate::pipeline::{TaskResult, Usage};

/// Digits after the point of a score. Those after it differ from machine to machine.
const SCORE_UNIT: f64 = 1e6;

/// The answer for a text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::archive) struct Answer {
    /// One for each task, in the order of the schema.
    pub(in crate::archive) tasks: Vec<TaskAnswer>,
    pub(in crate::archive) tokens: usize,
    pub(in crate::archive) windows: usize,
    pub(in crate::archive) truncated: bool,
}

/// The answer of one task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::archive) struct TaskAnswer {
    /// Index of the best label in the schema.
    pub(in crate::archive) label: usize,
    pub(in crate::archive) abstained: bool,
    /// The score of each label, in the schema's order.
    pub(in crate::archive) scores: Vec<f32>,
}

impl TaskAnswer {
    /// The best label's score.
    pub(in crate::archive) fn score(&self) -> f32 {
        self.scores.get(self.label).copied().unwrap_or_default()
    }
}

/// A scored row.
#[derive(Clone, Debug)]
pub(in crate::archive) struct Record {
    /// The file's path.
    pub(in crate::archive) file: String,
    pub(in crate::archive) row: u64,
    pub(in crate::archive) id: Cell,
    pub(in crate::archive) keep: Vec<Cell>,
    pub(in crate::archive) answer: Arc<Answer>,
}

/// The columns of the output.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::archive) struct Schema {
    pub(in crate::archive) keep: Vec<String>,
    pub(in crate::archive) tasks: Vec<Task>,
    /// Whether every label's score is written.
    pub(in crate::archive) scores: bool,
}

impl Schema {
    /// # Errors
    /// In words, if two columns have one name.
    pub(in crate::archive) fn new(
        keep: &[Keep],
        tasks: Vec<Task>,
        scores: bool,
    ) -> Result<Self, String> {
        let keep = keep.iter().map(|keep| keep.name.clone()).collect();
        let schema = Self { keep, tasks, scores };
        let names = schema.names();
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        let mut pairs = sorted.iter().zip(sorted.iter().skip(1));
        match pairs.find(|(a, b)| a == b) {
            None => Ok(schema),
            Some((name, _)) => Err(format!(
                "the output would have two columns {name:?}; keep the archive's under another \
                 name with --keep {name}=NAME"
            )),
        }
    }

    /// The names of the columns, in order.
    pub(in crate::archive) fn names(&self) -> Vec<String> {
        let mut names = vec!["id".to_owned()];
        names.extend(self.keep.iter().cloned());
        for task in &self.tasks {
            let name = &task.name;
            names.extend([name.clone(), format!("{name}_score"), format!("{name}_abstained")]);
            if self.scores {
                names.extend(task.labels.iter().map(|label| format!("{name}_score_{}", label.id)));
            }
        }
        names.extend(["tokens", "windows", "truncated", "file", "row"].map(str::to_owned));
        names
    }

    /// The values of `record`, a value a column.
    pub(in crate::archive) fn values<'a>(&'a self, record: &'a Record) -> Vec<Value<'a>> {
        let answer = &record.answer;
        let mut values = vec![Value::of(&record.id)];
        values.extend(record.keep.iter().map(Value::of));
        for (task, answer) in self.tasks.iter().zip(&answer.tasks) {
            let label = task.labels.get(answer.label).map_or("", |label| label.id.as_str());
            values.push(Value::Text(label));
            values.push(Value::Score(rounded(answer.score())));
            values.push(Value::Flag(answer.abstained));
            if self.scores {
                values.extend(answer.scores.iter().map(|&score| Value::Score(rounded(score))));
            }
        }
        values.push(Value::Count(answer.tokens as u64));
        values.push(Value::Count(answer.windows as u64));
        values.push(Value::Flag(answer.truncated));
        values.push(Value::Text(&record.file));
        values.push(Value::Count(record.row));
        values
    }

    /// An answer of the right shape that says nothing.
    pub(super) fn blank(&self) -> Answer {
        let scores = |task: &Task| vec![0.0; task.labels.len()];
        let tasks = self
            .tasks
            .iter()
            .map(|task| TaskAnswer { scores: scores(task), ..TaskAnswer::default() });
        Answer { tasks: tasks.collect(), ..Answer::default() }
    }

    /// The answer in `results`, one a task of the schema.
    pub(in crate::archive) fn answer(&self, results: &[TaskResult], usage: Usage) -> Answer {
        let of_task = |(task, result): (&Task, &TaskResult)| {
            let place = |id: &str| task.labels.iter().position(|label| label.id == id);
            let mut scores = vec![0.0; task.labels.len()];
            for label in &result.labels {
                if let Some(score) = place(&label.label).and_then(|place| scores.get_mut(place)) {
                    *score = label.score;
                }
            }
            let label = place(&result.label).unwrap_or_default();
            TaskAnswer { label, abstained: result.abstained, scores }
        };
        Answer {
            tasks: self.tasks.iter().zip(results).map(of_task).collect(),
            tokens: usage.tokens,
            windows: usage.windows,
            truncated: usage.truncated,
        }
    }
}

/// A value of the output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::archive) enum Value<'a> {
    Null,
    Text(&'a str),
    /// JSON that is no string.
    Json(&'a str),
    Score(f64),
    Flag(bool),
    Count(u64),
}

impl<'a> Value<'a> {
    fn of(cell: &'a Cell) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Text(text) => Self::Text(text),
            Cell::Json(json) => Self::Json(json),
        }
    }
}

fn rounded(score: f32) -> f64 {
    (f64::from(score) * SCORE_UNIT).round() / SCORE_UNIT
}
