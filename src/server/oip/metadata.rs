//! What a model takes and gives, and what its labels are.

use std::collections::BTreeMap;

use super::inputs::{DATATYPE, TEXT, TITLE};
use super::outputs::Output;
use super::proto::ModelMetadataResponse;
use super::proto::model_metadata_response::TensorMetadata;
use crate::pipeline::ModelInfo;

/// What stands in a shape for the number of documents.
const ANY: i64 = -1;

/// What the model is.
pub(super) fn model(info: &ModelInfo) -> ModelMetadataResponse {
    let input = |name: &str| TensorMetadata {
        name: name.to_owned(),
        datatype: DATATYPE.to_owned(),
        shape: vec![ANY],
    };
    let output = |output: Output<'_>| TensorMetadata {
        name: output.name(),
        datatype: output.datatype().to_owned(),
        shape: output.shape(ANY),
    };
    ModelMetadataResponse {
        name: info.name.clone(),
        versions: vec![info.revision.clone()],
        platform: "tasnif_candle".to_owned(),
        inputs: [TEXT, TITLE].map(input).into(),
        outputs: Output::every(&info.tasks).map(output).collect(),
        properties: properties(info),
    }
}

fn properties(info: &ModelInfo) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::from([
        ("digest".to_owned(), info.digest.clone()),
        ("architecture".to_owned(), info.architecture.clone()),
        ("precision".to_owned(), info.precision.clone()),
        ("device".to_owned(), info.device.clone()),
        ("max_window_tokens".to_owned(), info.max_window_tokens.to_string()),
    ]);
    for task in &info.tasks {
        let labels: Vec<_> = task.labels.iter().map(|label| label.id.as_str()).collect();
        // An id may hold any character, so they are in JSON and not put together with commas.
        properties.insert(format!("{}.labels", task.name), serde_json::json!(labels).to_string());
        properties.insert(format!("{}.multi_label", task.name), task.multi_label.to_string());
        properties.insert(format!("{}.abstain_below", task.name), task.abstain_below.to_string());
    }
    properties
}
