//! The output tensors of a model: of each task `<task>.label`, `<task>.scores` and
//! `<task>.abstained`, with a row a document.

use std::collections::BTreeMap;

use super::proto::ModelInferResponse;
use super::proto::model_infer_request::InferRequestedOutputTensor;
use super::proto::model_infer_response::InferOutputTensor;
use super::values::Values;
use super::{invalid, parameters};
use crate::bundle::Task;
use crate::pipeline::{Classification, TaskResult};
use crate::server::status::CallError;

/// An output of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Output<'a> {
    task: &'a Task,
    /// The task's place among those of the model.
    index: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// BYTES `[n]`: the best label's id, also where the model abstains.
    Label,
    /// FP32 `[n, labels]`: the calibrated probability of every label, in the model's order.
    Scores,
    /// BYTES `[n, k]`: the `k` best labels, each as `score:index:label`.
    Classes(usize),
    /// BOOL `[n]`: whether the best label's score is under the task's threshold.
    Abstained,
}

impl<'a> Output<'a> {
    /// Every output of a model that answers `tasks`.
    pub(super) fn every(tasks: &'a [Task]) -> impl Iterator<Item = Self> {
        let kinds = [Kind::Label, Kind::Scores, Kind::Abstained];
        let of_task = move |(index, task)| kinds.map(|kind| Self { task, index, kind });
        tasks.iter().enumerate().flat_map(of_task)
    }

    /// The outputs that a request asks for: every one, unless it names some.
    ///
    /// # Errors
    /// Names the first that there is not, that is named twice, or that cannot be as asked.
    pub(super) fn requested(
        tasks: &'a [Task],
        requested: &[InferRequestedOutputTensor],
    ) -> Result<Vec<Self>, CallError> {
        if requested.is_empty() {
            return Ok(Self::every(tasks).collect());
        }
        let mut chosen = Vec::<Self>::new();
        for (place, asked) in requested.iter().enumerate() {
            let tensor = format!("outputs[{place}]");
            let output = Self::every(tasks).find(|output| output.name() == asked.name);
            let Some(output) = output else {
                let names: Vec<_> = Self::every(tasks).map(|output| output.name()).collect();
                let expected = format!("one of {}", names.join(", "));
                return Err(invalid(
                    format!("{tensor}.name"),
                    format!("{:?}", asked.name),
                    expected,
                ));
            };
            if chosen.iter().any(|other| other.name() == asked.name) {
                let value = format!("{:?} a second time", asked.name);
                return Err(invalid(format!("{tensor}.name"), value, "that of no other output"));
            }
            parameters::refuse_shared_memory(&asked.parameters, &tensor)?;
            chosen.push(match parameters::class_count(&asked.parameters, &tensor)? {
                None | Some(0) => output,
                Some(count) => output.best(count, &tensor)?,
            });
        }
        Ok(chosen)
    }

    /// Its name.
    pub(super) fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Label => "label",
            Kind::Scores | Kind::Classes(_) => "scores",
            Kind::Abstained => "abstained",
        };
        format!("{}.{kind}", self.task.name)
    }

    /// Its shape, of which the first dimension is `rows`.
    pub(super) fn shape(&self, rows: i64) -> Vec<i64> {
        let columns = match self.kind {
            Kind::Label | Kind::Abstained => return vec![rows],
            Kind::Scores => self.task.labels.len(),
            Kind::Classes(count) => count,
        };
        vec![rows, i64::try_from(columns).unwrap_or(i64::MAX)]
    }

    /// Its datatype.
    pub(super) fn datatype(&self) -> &'static str {
        self.values(&[]).datatype()
    }

    /// Its elements for `answers`.
    fn values(&self, answers: &[Classification]) -> Values {
        let results = answers.iter().filter_map(|answer| answer.tasks.get(self.index));
        match self.kind {
            Kind::Label => {
                Values::Bytes(results.map(|result| result.label.clone().into()).collect())
            }
            Kind::Scores => {
                let places = self.places();
                Values::Fp32(results.flat_map(|result| in_order(result, &places)).collect())
            }
            Kind::Classes(count) => {
                let places = self.places();
                Values::Bytes(results.flat_map(|result| classes(result, count, &places)).collect())
            }
            Kind::Abstained => Values::Bool(results.map(|result| result.abstained).collect()),
        }
    }

    /// The same scores, of the `count` best labels with their names.
    fn best(self, count: u64, tensor: &str) -> Result<Self, CallError> {
        if self.kind != Kind::Scores {
            let field = format!("{tensor}.parameters.classification");
            return Err(invalid(field, count.to_string(), "absent, except of scores"));
        }
        let labels = self.task.labels.len();
        let count = usize::try_from(count).map_or(labels, |count| count.min(labels));
        Ok(Self { kind: Kind::Classes(count), ..self })
    }

    /// The place of each label in the model's order.
    fn places(&self) -> BTreeMap<&'a str, usize> {
        let labels = self.task.labels.iter();
        labels.enumerate().map(|(place, label)| (label.id.as_str(), place)).collect()
    }
}

/// The scores of all labels in the model's order. `result` has them best first.
fn in_order(result: &TaskResult, places: &BTreeMap<&str, usize>) -> Vec<f32> {
    let mut scores = vec![0.0; places.len()];
    for label in &result.labels {
        let place = places.get(label.label.as_str());
        if let Some(score) = place.and_then(|&place| scores.get_mut(place)) {
            *score = label.score;
        }
    }
    scores
}

/// The best labels as Triton's classification extension writes them.
fn classes<'r>(
    result: &'r TaskResult,
    count: usize,
    places: &'r BTreeMap<&str, usize>,
) -> impl Iterator<Item = Vec<u8>> + 'r {
    result.labels.iter().take(count).map(|label| {
        let place = places.get(label.label.as_str()).copied().unwrap_or_default();
        format!("{}:{place}:{}", label.score, label.label).into_bytes()
    })
}

/// Puts the `outputs` for `answers` into `response`, raw or typed.
pub(super) fn fill(
    response: &mut ModelInferResponse,
    outputs: &[Output<'_>],
    answers: &[Classification],
    raw: bool,
) {
    let rows = i64::try_from(answers.len()).unwrap_or(i64::MAX);
    for output in outputs {
        let values = output.values(answers);
        let mut tensor = InferOutputTensor {
            name: output.name(),
            datatype: values.datatype().to_owned(),
            shape: output.shape(rows),
            ..InferOutputTensor::default()
        };
        if raw {
            response.raw_output_contents.push(values.into_raw());
        } else {
            tensor.contents = Some(values.into_contents());
        }
        response.outputs.push(tensor);
    }
}
