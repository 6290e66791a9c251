//! Token ids and logits equal those of Hugging Face transformers in f32, as
//! `tests/goldens/make.py` wrote them down.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod support;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;
use tasnif::bundle::Bundle;
use tasnif::nn::{self, Encoder, PackedTokens, Precision, PrecisionChoice};

/// Largest difference allowed between a logit and Python's.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    #[serde(default)]
    lower_case_ids: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    title: String,
    text: String,
    ids: Vec<u32>,
    logits: Vec<f32>,
}

#[test]
fn a_bert_classifier_equals_transformers() {
    compare(&goldens("tiny-bert"), &goldens("tiny-bert/golden.json"));
}

#[test]
fn a_roberta_classifier_with_byte_level_tokens_equals_transformers() {
    compare(&goldens("tiny-roberta"), &goldens("tiny-roberta/golden.json"));
}

#[test]
fn an_xlm_roberta_classifier_with_unigram_tokens_equals_transformers() {
    compare(&goldens("tiny-xlm-roberta"), &goldens("tiny-xlm-roberta/golden.json"));
}

#[test]
fn an_electra_classifier_equals_transformers() {
    compare(&goldens("tiny-electra"), &goldens("tiny-electra/golden.json"));
}

#[test]
fn the_shipped_models_equal_transformers() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    for name in ["tasnif-base", "tasnif-mini"] {
        compare(&models.join(name), &goldens(&format!("{name}.json")));
    }
}

#[test]
fn the_problem_type_chooses_between_softmax_and_sigmoid() {
    let load = |name: &str| Bundle::load(&goldens(name)).expect("the checkpoint loads");
    assert!(load("tiny-roberta").tasks[0].multi_label);
    assert!(!load("tiny-bert").tasks[0].multi_label);
}

#[test]
fn windows_of_plain_checkpoints_fit_their_positions() {
    for name in ["tiny-bert", "tiny-roberta", "tiny-xlm-roberta"] {
        let bundle = Bundle::load(&goldens(name)).expect("the checkpoint loads");
        // 64 rows of BERT; 66 of RoBERTa, of which two come before the first token's.
        assert_eq!(bundle.config.max_sequence_tokens(), 64, "{name}");
        assert_eq!((bundle.text.window, bundle.text.stride), (64, 48), "{name}");
        assert_eq!(bundle.text.max_title_tokens, 8, "{name}");
    }
}

#[test]
fn a_word_piece_built_from_vocab_txt_gives_the_ids_of_transformers() {
    let directory = tempfile::tempdir().expect("a directory");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(goldens("tiny-bert").join(file), directory.path().join(file)).expect(file);
    }
    let tokenizer: serde_json::Value = read(&goldens("tiny-bert/tokenizer.json"));
    let entries = tokenizer["model"]["vocab"].as_object().expect("a vocabulary");
    let mut entries: Vec<(&String, u64)> =
        entries.iter().map(|(token, id)| (token, id.as_u64().expect("an id"))).collect();
    entries.sort_by_key(|(_, id)| *id);
    let lines: String = entries.iter().map(|(token, _)| format!("{token}\n")).collect();
    std::fs::write(directory.path().join("vocab.txt"), lines).expect("vocab.txt");

    let golden: Golden = read(&goldens("tiny-bert/golden.json"));
    let load = |lower_case: bool| {
        let config = json!({"do_lower_case": lower_case, "model_max_length": 64});
        support::tiny::write_json(&directory.path().join("tokenizer_config.json"), &config);
        Bundle::load(directory.path()).expect("the checkpoint loads")
    };
    let (cased, lower) = (load(false), load(true));
    for (case, lower_case_ids) in golden.cases.iter().zip(&golden.lower_case_ids) {
        assert_eq!(window(&cased, "", &case.text), case.ids, "{:?}", case.text);
        assert_eq!(&window(&lower, "", &case.text), lower_case_ids, "{:?}", case.text);
    }
    assert_eq!(golden.cases.len(), golden.lower_case_ids.len());
}

/// Compares ids, and logits both of a packed batch of all cases and of each alone, of the
/// reference and of the kernels of f32.
fn compare(model: &Path, golden: &Path) {
    for choice in [PrecisionChoice::Reference, PrecisionChoice::Exactly(Precision::F32)] {
        compare_one(model, golden, choice);
    }
}

fn compare_one(model: &Path, golden: &Path, choice: PrecisionChoice) {
    let golden: Golden = read(golden);
    assert!(golden.cases.len() >= 12, "only {} cases", golden.cases.len());
    let bundle = Bundle::load(model).unwrap_or_else(|error| panic!("{error}"));
    let encoder = nn::load(&bundle, choice).unwrap_or_else(|error| panic!("{error}"));
    let mut batch = PackedTokens::new();
    for case in &golden.cases {
        let ids = window(&bundle, &case.title, &case.text);
        assert_eq!(ids, case.ids, "{:?}", case.text);
        batch.push(&ids);
    }
    let rows = encoder.encode(&batch, &mut || ()).expect("the batch runs");
    assert_eq!(rows.len(), golden.cases.len());
    let mut largest = 0.0_f32;
    for (case, row) in golden.cases.iter().zip(rows.iter()) {
        let mut alone = PackedTokens::new();
        alone.push(&case.ids);
        let single = encoder.encode(&alone, &mut || ()).expect("the sequence runs");
        for found in [row, single.as_slice()] {
            assert_eq!(found.len(), case.logits.len());
            for (found, expected) in found.iter().zip(&case.logits) {
                let difference = (found - expected).abs();
                assert!(difference <= TOLERANCE, "{found} for {expected} in {:?}", case.text);
                largest = largest.max(difference);
            }
        }
    }
    println!("{}, {choice}: largest difference {largest:e}", model.display());
}

/// The first window: `prefix title suffix text suffix`, the text cut to fit.
fn window(bundle: &Bundle, title: &str, text: &str) -> Vec<u32> {
    let tokenizer = &bundle.tokenizer;
    let encode = |text: &str| tokenizer.encode(text).expect("the text is encoded").ids;
    let mut ids = tokenizer.prefix().to_vec();
    if !title.is_empty() {
        ids.extend(encode(title));
        ids.extend(tokenizer.suffix());
    }
    ids.extend(encode(text));
    ids.truncate(bundle.text.window - tokenizer.suffix().len());
    ids.extend(tokenizer.suffix());
    ids
}

fn goldens(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(path)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
