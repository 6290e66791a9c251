//! Plain directories of Hugging Face sequence classifiers, without a `tasnif.json`.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::Tiny;
use tasnif::bundle::{Architecture, Bundle, HeadKind};
use tasnif::nn::{self, PrecisionChoice};
use tasnif::text::Profile;

#[test]
fn a_bert_directory_gives_one_task_from_its_labels() {
    let bundle = load(&Tiny::bert(&["سلبي", "إيجابي"])).expect("it loads");
    assert_eq!((bundle.config.architecture, bundle.tasks.len()), (Architecture::Bert, 1));
    let task = &bundle.tasks[0];
    assert_eq!((task.name.as_str(), task.head), ("label", HeadKind::BertPooler));
    let ids: Vec<&str> = task.labels.iter().map(|label| label.id.as_str()).collect();
    assert_eq!(ids, ["سلبي", "إيجابي"]);
    assert_eq!((task.labels[0].name_ar.as_str(), task.labels[0].code.as_str()), ("سلبي", ""));
    assert_eq!(bundle.text.profile, Profile::None);
    assert!(!bundle.text.title_separator);
    assert_eq!(bundle.revision, bundle.digest[..12]);
    nn::load(&bundle, PrecisionChoice::default()).expect("it can run");
}

#[test]
fn an_xlm_roberta_directory_has_the_roberta_head() {
    let bundle = load(&Tiny::xlm_roberta(&["a", "b", "c"])).expect("it loads");
    assert_eq!(bundle.config.architecture, Architecture::XlmRoberta);
    assert_eq!(bundle.tasks[0].head, HeadKind::Roberta);
    nn::load(&bundle, PrecisionChoice::default()).expect("it can run");
}

#[test]
fn an_electra_directory_has_a_head_of_its_own_and_no_projection() {
    let mut tiny = Tiny::electra(&["a", "b", "c"]);
    let bundle = load(&tiny).expect("it loads");
    assert_eq!(bundle.config.architecture, Architecture::Electra);
    assert_eq!(bundle.tasks[0].head, HeadKind::Electra);
    nn::load(&bundle, PrecisionChoice::default()).expect("it can run");
    // ELECTRA small projects narrower embeddings, which is the default too.
    tiny.config["embedding_size"] = json!(16);
    let expected = "config.json: embedding_size: expected hidden_size, 32 (as base and large have)";
    assert_eq!(refusal(&tiny), format!("{expected}; found 16"));
    tiny.config.as_object_mut().expect("an object").remove("embedding_size");
    assert_eq!(refusal(&tiny), format!("{expected}; found 128"));
}

#[test]
fn a_roberta_directory_loads_too() {
    let mut tiny = Tiny::xlm_roberta(&["a", "b"]);
    tiny.config["model_type"] = json!("roberta");
    tiny.config["architectures"] = json!(["RobertaForSequenceClassification"]);
    assert_eq!(load(&tiny).expect("it loads").config.architecture, Architecture::Roberta);
}

#[test]
fn the_task_is_named_by_the_task_it_was_tuned_for() {
    let mut tiny = Tiny::bert(&["no", "yes"]);
    tiny.config["finetuning_task"] = json!("spam");
    assert_eq!(load(&tiny).expect("it loads").tasks[0].name, "spam");
}

#[test]
fn labels_without_names_are_numbered_as_many_as_the_head_has() {
    let mut tiny = Tiny::bert(&["a", "b", "c"]);
    remove(&mut tiny.config, "id2label");
    let bundle = load(&tiny).expect("it loads");
    let ids: Vec<&str> = bundle.tasks[0].labels.iter().map(|label| label.id.as_str()).collect();
    assert_eq!(ids, ["LABEL_0", "LABEL_1", "LABEL_2"]);
    tiny.config["num_labels"] = json!(2);
    assert_eq!(
        refusal(&tiny),
        "model.safetensors: tensor classifier.weight: expected [2, 32] of F32, F16 or BF16; \
         found [3, 32] of F32"
    );
}

#[test]
fn labels_that_cannot_be_told_apart_or_ordered_are_refused() {
    for (labels, expected) in [
        (json!({"0": "a", "2": "b"}), "expected the keys \"0\" to \"1\"; found [\"0\", \"2\"]"),
        (json!({"0": "a", "01": "b"}), "expected the keys \"0\" to \"1\"; found [\"0\", \"01\"]"),
        (
            json!({"0": "a", "1": "a"}),
            "expected labels that differ and are not empty; found \"a\" as label 1",
        ),
        (
            json!({"0": "", "1": "a"}),
            "expected labels that differ and are not empty; found \"\" as label 0",
        ),
        (json!({}), "expected at least one label; found none"),
    ] {
        let mut tiny = Tiny::bert(&["a", "b"]);
        tiny.config["id2label"] = labels;
        assert_eq!(refusal(&tiny), format!("config.json: id2label: {expected}"));
    }
}

#[test]
fn a_class_that_is_not_supported_is_refused_with_those_that_are() {
    for classes in [json!(["BertForMaskedLM"]), json!(["RobertaForSequenceClassification"])] {
        let mut tiny = Tiny::bert(&["a", "b"]);
        tiny.config["architectures"] = classes;
        let message = refusal(&tiny);
        let expected = "config.json: architectures: expected one of \
                        BertForSequenceClassification, RobertaForSequenceClassification, \
                        XLMRobertaForSequenceClassification, ElectraForSequenceClassification that \
                        matches model_type \"bert\"";
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn the_problem_type_says_whether_labels_exclude_each_other() {
    let with = |labels: &[&str], problem_type: Value| {
        let mut tiny = Tiny::bert(labels);
        tiny.config["problem_type"] = problem_type;
        tiny
    };
    let single = "single_label_classification";
    let multiple = "multi_label_classification";
    for (labels, problem_type, multi_label) in [
        (["a", "b"].as_slice(), Value::Null, false),
        (["a", "b"].as_slice(), json!(single), false),
        (["a", "b"].as_slice(), json!(multiple), true),
        (["a"].as_slice(), json!(multiple), true),
    ] {
        let bundle = load(&with(labels, problem_type)).expect("it loads");
        assert_eq!(bundle.tasks[0].multi_label, multi_label);
    }
    for (labels, problem_type) in
        [(["a", "b"].as_slice(), json!("regression")), (["a"].as_slice(), Value::Null)]
    {
        let message = refusal(&with(labels, problem_type));
        assert!(message.starts_with("config.json: problem_type: expected \""), "{message}");
    }
}

#[test]
fn a_missing_part_of_the_head_is_named() {
    let mut tiny = Tiny::bert(&["a", "b"]);
    tiny.tensors.remove("bert.pooler.dense.weight");
    let bundle = load(&tiny).expect("the bundle itself is whole");
    let error =
        nn::load(&bundle, PrecisionChoice::default()).err().expect("the head is not").to_string();
    assert!(
        error.ends_with(
            "tensor bert.pooler.dense.weight: expected [32, 32] of F32, F16 or BF16; found no such \
             tensor"
        ),
        "{error}"
    );
}

#[test]
fn the_window_is_what_the_tokenizer_allows_and_the_positions_hold() {
    for (max_length, window) in
        [(json!(40), 40), (json!(1000), 128), (json!(1e30), 128), (Value::Null, 128)]
    {
        let mut tiny = Tiny::bert(&["a", "b"]);
        tiny.tokenizer_config = Some(json!({"model_max_length": max_length}));
        let text = load(&tiny).expect("it loads").text;
        assert_eq!((text.window, text.stride), (window, window * 3 / 4));
        assert_eq!(text.max_title_tokens, window / 8);
    }
    let mut tiny = Tiny::bert(&["a", "b"]);
    tiny.tokenizer_config = Some(json!({"model_max_length": 2}));
    let message = refusal(&tiny);
    assert!(message.ends_with("room for the special tokens and text; found a window of 2 tokens"));
}

#[test]
fn the_name_of_an_arabic_checkpoint_chooses_its_normalisation() {
    for (name, profile, warned) in [
        ("aubmindlab/bert-base-arabertv02", Profile::Arabert, false),
        ("aubmindlab/bert-base-arabertv2", Profile::Arabert, true),
        ("CAMeL-Lab/bert-base-arabic-camelbert-mix", Profile::Camelbert, false),
        ("UBC-NLP/MARBERT", Profile::None, false),
    ] {
        let mut tiny = Tiny::bert(&["a", "b"]);
        tiny.config["_name_or_path"] = json!(name);
        let bundle = load(&tiny).expect("it loads");
        assert_eq!(bundle.text.profile, profile, "{name}");
        let warning = bundle.warnings.first().map(String::as_str).unwrap_or_default();
        assert_eq!(warning.contains("Farasa"), warned, "{name}: {warning}");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("bert-base-arabertv02-sentiment");
    Tiny::bert(&["a", "b"]).write(&path);
    assert_eq!(Bundle::load(&path).expect("it loads").text.profile, Profile::Arabert);
}

fn load(tiny: &Tiny) -> Result<Bundle, String> {
    let directory = tempfile::tempdir().expect("a directory");
    tiny.write(directory.path());
    Bundle::load(directory.path()).map_err(|error| {
        error.to_string().replace(&format!("{}/", Path::display(directory.path())), "")
    })
}

/// The message with which the directory is refused, its path left out.
fn refusal(tiny: &Tiny) -> String {
    load(tiny).expect_err("it is refused")
}

fn remove(object: &mut Value, key: &str) {
    object.as_object_mut().expect("an object").remove(key);
}
