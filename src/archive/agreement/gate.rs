//! What is counted of a precision beside the reference, and what is good enough.

use serde::Serialize;

use crate::archive::evaluation::Evaluation;
use crate::archive::stats::Gold;
use crate::bundle::{Precision, Task};

/// By how much a logit in f32 may differ: sums in another order, and no more.
const MAX_F32_DELTA: f32 = 1e-4;
/// Of how many documents the label may differ.
const MAX_DIFFERING: f64 = 0.007;
/// Documents from which on passing says something: of fewer, one is more than may differ.
pub const ENOUGH_DOCUMENTS: u64 = 143;
/// By how many points macro-F1 may differ, up or down.
const MAX_F1_POINTS: f64 = 0.3;

/// A precision beside the reference, on some documents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// The precision.
    pub precision: Precision,
    /// What it was computed by, such as an instruction set.
    pub kernels: String,
    /// Largest difference of a logit.
    pub max_delta: f32,
    /// Mean difference of the logits, without sign.
    pub mean_delta: f64,
    /// One for each task.
    pub tasks: Vec<TaskAgreement>,
}

/// The answers of one task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskAgreement {
    /// The task.
    pub task: String,
    /// Documents.
    pub documents: u64,
    /// Of these, those whose label differs.
    pub differing: u64,
    /// Share of the documents that have the same label; 1 of none.
    pub agreement: f64,
    /// How good the labels are, if there are true ones.
    pub macro_f1: Option<MacroF1>,
}

/// Mean F1 of the classes that at least 5 rows have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MacroF1 {
    /// Rows with a true label.
    pub rows: u64,
    /// Classes that count.
    pub classes: usize,
    /// That of the reference.
    pub reference: f64,
    /// That of the precision.
    pub found: f64,
}

impl MacroF1 {
    /// By how many points the precision is better than the reference.
    pub fn points(&self) -> f64 {
        (self.found - self.reference) * 100.0
    }
}

impl Agreement {
    /// In what it is not good enough, in words; nothing if it passes.
    pub fn failures(&self) -> Vec<String> {
        if self.precision == Precision::F32 {
            let delta = self.max_delta;
            let failure = format!("a logit differs by {delta:.1e}, more than {MAX_F32_DELTA:.0e}");
            return if delta <= MAX_F32_DELTA { Vec::new() } else { vec![failure] };
        }
        let mut failures = Vec::new();
        for task in &self.tasks {
            let name = &task.task;
            let (differing, documents) = (task.differing, task.documents);
            if differing > 1 && differing as f64 > MAX_DIFFERING * documents as f64 {
                failures.push(format!(
                    "{name}: the label differs for {differing} of {documents} documents, more than \
                     {:.1} %",
                    MAX_DIFFERING * 100.0
                ));
            }
            let points = task.macro_f1.as_ref().map_or(0.0, MacroF1::points);
            if points.abs() > MAX_F1_POINTS {
                failures.push(format!(
                    "{name}: macro-F1 differs by {points:+.2} points, more than {MAX_F1_POINTS}"
                ));
            }
        }
        failures
    }

    /// Whether so many documents were compared that passing says something.
    pub fn is_evidence(&self) -> bool {
        self.tasks.iter().all(|task| task.documents >= ENOUGH_DOCUMENTS)
    }
}

/// The counts of a precision.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    max_delta: f32,
    sum_of_deltas: f64,
    logits: u64,
    documents: u64,
    tasks: Vec<TaskTally>,
}

#[derive(Clone, Debug)]
struct TaskTally {
    multi_label: bool,
    differing: u64,
    reference: Gold,
    found: Gold,
}

impl Tally {
    pub(super) fn new(tasks: &[Task]) -> Self {
        let task = |task: &Task| {
            let labels = task.labels.len();
            let gold = Gold { confusion: vec![vec![0; labels]; labels], ..Gold::default() };
            let multi_label = task.multi_label;
            TaskTally { multi_label, differing: 0, reference: gold.clone(), found: gold }
        };
        let tasks = tasks.iter().map(task).collect();
        Self { max_delta: 0.0, sum_of_deltas: 0.0, logits: 0, documents: 0, tasks }
    }

    /// Counts a document by the logits of each task, and its true labels.
    pub(super) fn count(
        &mut self,
        reference: &[Vec<f32>],
        found: &[Vec<f32>],
        gold: &[Option<usize>],
    ) {
        self.documents += 1;
        let logits = reference.iter().zip(found);
        for (index, (tally, (reference, found))) in self.tasks.iter_mut().zip(logits).enumerate() {
            for (reference, found) in reference.iter().zip(found) {
                let delta = (reference - found).abs();
                self.max_delta = self.max_delta.max(delta);
                self.sum_of_deltas += f64::from(delta);
                self.logits += 1;
            }
            // A label of several has a score of its own, and 0 is where it passes one half.
            let across = |(reference, found): (&f32, &f32)| (*reference > 0.0) != (*found > 0.0);
            let several = tally.multi_label && reference.iter().zip(found).any(across);
            let (reference, found) = (best(reference), best(found));
            tally.differing += u64::from(several || reference != found);
            if let Some(truth) = gold.get(index).copied().flatten() {
                for (gold, label) in [(&mut tally.reference, reference), (&mut tally.found, found)]
                {
                    let row = gold.confusion.get_mut(truth);
                    if let Some(count) = row.and_then(|row| row.get_mut(label)) {
                        *count += 1;
                    }
                }
            }
        }
    }

    pub(super) fn agreement(
        &self,
        precision: Precision,
        kernels: String,
        tasks: &[Task],
    ) -> Agreement {
        let documents = self.documents;
        let task = |(tally, task): (&TaskTally, &Task)| TaskAgreement {
            task: task.name.clone(),
            documents,
            differing: tally.differing,
            agreement: 1.0 - tally.differing as f64 / documents.max(1) as f64,
            macro_f1: tally.macro_f1(task),
        };
        Agreement {
            precision,
            kernels,
            max_delta: self.max_delta,
            mean_delta: self.sum_of_deltas / self.logits.max(1) as f64,
            tasks: self.tasks.iter().zip(tasks).map(task).collect(),
        }
    }
}

impl TaskTally {
    fn macro_f1(&self, task: &Task) -> Option<MacroF1> {
        let reference = Evaluation::new(task, &self.reference);
        let found = Evaluation::new(task, &self.found).macro_f1_frequent?;
        Some(MacroF1 {
            rows: reference.rows,
            classes: reference.frequent_classes,
            reference: reference.macro_f1_frequent?,
            found,
        })
    }
}

/// The label of the largest logit, the first of equal ones.
fn best(logits: &[f32]) -> usize {
    let larger = |best: (usize, f32), next: (usize, f32)| if next.1 > best.1 { next } else { best };
    logits.iter().copied().enumerate().reduce(larger).map_or(0, |(label, _)| label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{HeadKind, Label, Pooling};

    fn task() -> Task {
        let label = |id: &str| Label {
            id: id.to_owned(),
            name_ar: String::new(),
            name_en: String::new(),
            code: String::new(),
        };
        Task {
            name: "topic".into(),
            multi_label: false,
            pooling: Pooling::Mean,
            head: HeadKind::Linear,
            temperature: 1.0,
            abstain_below: 0.0,
            labels: ["a", "b"].map(label).into(),
        }
    }

    fn of(flips: usize, of: usize, precision: Precision) -> Agreement {
        let mut tally = Tally::new(&[task()]);
        for index in 0..of {
            let truth = index % 2;
            let reference = if truth == 0 { vec![1.0, 0.5] } else { vec![0.5, 1.0] };
            let mut found = reference.clone();
            if index / 2 < flips {
                found.reverse();
            }
            tally.count(&[reference], &[found], &[Some(truth)]);
        }
        tally.agreement(precision, "test".to_owned(), &[task()])
    }

    #[test]
    fn the_same_logits_pass() {
        for precision in Precision::ALL {
            let same = of(0, 20, precision);
            assert_eq!((same.max_delta, same.mean_delta), (0.0, 0.0));
            assert_eq!(same.failures(), [] as [&str; 0]);
        }
    }

    #[test]
    fn labels_that_differ_and_what_they_cost_are_told() {
        // Two flips of each class in 20 rows: F1 of either is 2 * 8 / (10 + 10).
        let int8 = of(2, 20, Precision::Int8);
        let f1 = int8.tasks[0].macro_f1.clone().unwrap();
        assert_eq!((f1.rows, f1.classes, f1.reference, f1.found), (20, 2, 1.0, 0.8));
        assert_eq!(int8.tasks[0].agreement, 0.8);
        assert_eq!(
            int8.failures(),
            [
                "topic: the label differs for 4 of 20 documents, more than 0.7 %",
                "topic: macro-F1 differs by -20.00 points, more than 0.3"
            ]
        );
        assert_eq!(
            of(1, 20, Precision::F32).failures(),
            ["a logit differs by 5.0e-1, more than 1e-4"]
        );
        assert_eq!(of(1, 600, Precision::Bf16).tasks[0].differing, 2);
        assert_eq!(of(1, 2_000, Precision::Bf16).failures(), [] as [&str; 0]);
        // The label of one may always differ, but of a class of enough rows it is seen in F1.
        let one = of(1, 1, Precision::Int8);
        assert_eq!((one.tasks[0].differing, one.failures()), (1, Vec::new()));
        assert!(!one.is_evidence());
    }

    #[test]
    fn a_label_of_several_differs_where_it_passes_one_half() {
        let mut one = task();
        one.multi_label = true;
        one.labels.truncate(1);
        let mut tally = Tally::new(&[one.clone()]);
        for (reference, found) in [(0.1, -0.1), (-0.1, -0.2), (2.0, 1.0)] {
            tally.count(&[vec![reference]], &[vec![found]], &[None]);
        }
        let int8 = tally.agreement(Precision::Int8, "test".to_owned(), &[one]);
        assert_eq!((int8.tasks[0].differing, int8.tasks[0].documents), (1, 3));
    }

    #[test]
    fn few_documents_are_no_evidence() {
        assert!(!of(0, 142, Precision::Int8).is_evidence());
        assert!(of(0, 143, Precision::Int8).is_evidence());
        assert!(MAX_DIFFERING * ENOUGH_DOCUMENTS as f64 >= 1.0);
    }

    #[test]
    fn classes_of_few_rows_do_not_count() {
        assert_eq!(of(0, 9, Precision::Int8).tasks[0].macro_f1.as_ref().unwrap().classes, 1);
        assert_eq!(of(0, 8, Precision::Int8).tasks[0].macro_f1, None);
    }
}
