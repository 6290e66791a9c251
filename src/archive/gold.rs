//! True labels: which column holds those of which task, and what they mean.

use super::stats::GoldLabel;
use crate::bundle::Task;

/// A column of true labels, as `COLUMN` or `COLUMN:TASK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoldColumn {
    /// The column.
    pub column: String,
    /// The task; without it, the one of the column's name, or the only one.
    pub task: Option<String>,
}

impl std::str::FromStr for GoldColumn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (column, task) = match text.rsplit_once(':') {
            Some((column, task)) => (column, Some(task.to_owned())),
            None => (text, None),
        };
        if column.is_empty() || task.as_deref() == Some("") {
            return Err("expected COLUMN or COLUMN:TASK".to_owned());
        }
        Ok(Self { column: column.to_owned(), task })
    }
}

/// For each of `tasks` the index in `columns` of its true labels.
///
/// # Errors
/// In words, if a column's task is not clear or has another column.
pub(super) fn assign(columns: &[GoldColumn], tasks: &[Task]) -> Result<Vec<Option<usize>>, String> {
    let mut places = vec![None; tasks.len()];
    let names = || tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>().join(", ");
    for (index, gold) in columns.iter().enumerate() {
        let wanted = gold.task.as_ref().unwrap_or(&gold.column);
        let named = tasks.iter().position(|task| task.name == *wanted);
        let only = (gold.task.is_none() && tasks.len() == 1).then_some(0);
        let column = &gold.column;
        let place = named.or(only).and_then(|task| places.get_mut(task));
        let Some(place) = place else {
            return Err(match &gold.task {
                Some(task) => format!("--evaluate {column}:{task}: the tasks are {}", names()),
                None => format!(
                    "--evaluate {column}: say whose labels these are, as {column}:TASK; the \
                     tasks are {}",
                    names()
                ),
            });
        };
        if place.replace(index).is_some() {
            return Err(format!("--evaluate {column}: the task has another column already"));
        }
    }
    Ok(places)
}

/// What the value `value` says for `task`: a label by its id or one of its names.
pub(super) fn label(task: &Task, value: Option<&str>) -> GoldLabel {
    let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) else {
        return GoldLabel::Missing;
    };
    let same = |name: &str| name.to_lowercase() == value.to_lowercase();
    let place = task
        .labels
        .iter()
        .position(|label| same(&label.id) || same(&label.name_ar) || same(&label.name_en));
    place.map_or_else(|| GoldLabel::Unknown(value.to_owned()), GoldLabel::Known)
}
