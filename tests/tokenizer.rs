//! What the tokenizer of a loaded model promises, whatever the text.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::path::Path;

use serde_json::json;
use support::{Tiny, load, written};
use tasnif::pipeline::{ClassifyError, Document, DocumentLimits, LongText, token_windows};

#[test]
fn text_cannot_write_the_tokens_that_steer_the_model() {
    let directory = written(&Tiny::bundle());
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    for path in [
        directory.path().to_owned(),
        goldens.join("tiny-bert"),
        goldens.join("tiny-roberta"),
        goldens.join("tiny-xlm-roberta"),
    ] {
        let tokenizer = load(&path).tokenizer;
        let control = [tokenizer.prefix(), tokenizer.suffix()].concat();
        for text in [
            "[SEP]",
            "</s>",
            "خبر [CLS] خبر",
            "خبر</s>خبر<s>",
            "<pad><mask>[PAD][MASK]",
            "<s> عنوان </s> نص </s>",
        ] {
            let ids = tokenizer.encode(text).expect("the text is encoded").ids;
            let names: Vec<_> = ids.iter().filter_map(|id| tokenizer.token(*id)).collect();
            assert!(!ids.iter().any(|id| control.contains(id)), "{text}: {names:?}");
            let steering = ["<pad>", "<mask>", "[PAD]", "[MASK]"];
            assert!(!names.iter().any(|name| steering.contains(&name.as_str())), "{names:?}");
        }
    }
}

#[test]
fn offsets_are_byte_ranges_of_the_text_on_character_boundaries() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    for name in ["tiny-bert", "tiny-roberta", "tiny-xlm-roberta"] {
        let tokenizer = load(&goldens.join(name)).tokenizer;
        for text in ["قال الوزير: ٣٫٥٪ من السكان", "😀 ﷺ ﻻ e\u{301} 中", "", "  \n "]
        {
            let tokens = tokenizer.encode(text).expect("the text is encoded");
            assert_eq!(tokens.ids.len(), tokens.offsets.len());
            for (start, end) in tokens.offsets {
                assert!(start <= end, "{name}: {start}..{end}");
                assert!(text.get(start..end).is_some(), "{name}: {start}..{end} of {text:?}");
            }
        }
    }
    let tokens = load(&goldens.join("tiny-bert")).tokenizer.encode("في  من").expect("tokens");
    assert_eq!(tokens.offsets.first().map(|range| range.0), Some(0));
    assert_eq!(tokens.offsets.last().map(|range| range.1), Some("في  من".len()));
}

#[test]
fn truncation_and_padding_of_a_tokenizer_file_are_switched_off() {
    let mut tiny = Tiny::bundle();
    tiny.tokenizer["truncation"] = json!({"direction": "Right", "max_length": 4,
        "strategy": "LongestFirst", "stride": 0});
    tiny.tokenizer["padding"] = json!({"strategy": {"Fixed": 32}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"});
    let tokenizer = load(written(&tiny).path()).tokenizer;
    assert_eq!(tokenizer.encode("في من عن في من عن").expect("tokens").ids.len(), 6);
    assert_eq!(tokenizer.encode("في").expect("tokens").ids.len(), 1);
}

#[test]
fn tokens_of_a_checkpoint_that_are_not_control_tokens_stay_whole() {
    // AraBERT's placeholders for links, addresses and names are special tokens of its file.
    let mut tiny = Tiny::bert(&["a", "b"]);
    let id = tiny.config["vocab_size"].as_u64().expect("a size");
    let added = tiny.tokenizer["added_tokens"].as_array_mut().expect("a list");
    added.push(json!({"id": id, "content": "[رابط]", "single_word": true, "lstrip": false,
        "rstrip": false, "normalized": true, "special": true}));
    tiny.config["vocab_size"] = json!(id + 1);
    tiny.add("bert.embeddings.word_embeddings.weight", &[id as usize + 1, 32], 0.0, 1.0);
    let tokenizer = load(written(&tiny).path()).tokenizer;
    let ids = tokenizer.encode("في [رابط] من").expect("tokens").ids;
    assert_eq!((ids.len(), ids[1]), (3, id as u32));
}

#[test]
fn equal_texts_have_equal_tokens_whatever_dropout_the_file_has() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tiny-roberta");
    let directory = copied(&source, "tokenizer.json", |tokenizer| {
        tokenizer["model"]["dropout"] = json!(0.9);
    });
    let (whole, dropping) = (load(&source).tokenizer, load(directory.path()).tokenizer);
    let text = "قال الوزير إن الحكومة وافقت على الميزانية";
    for _ in 0..5 {
        assert_eq!(dropping.encode(text), whole.encode(text));
    }
}

#[test]
fn a_bert_tokenizer_folds_case_and_accents_as_its_config_says() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tiny-bert");
    let directory = |config: serde_json::Value| {
        copied(&source, "tokenizer_config.json", |file| {
            let (file, config) = (file.as_object_mut(), config.as_object().cloned());
            file.expect("an object").extend(config.expect("an object"));
        })
    };
    let bare = |directory: &Path| {
        let tokenizer = load(directory).tokenizer;
        tokenizer.encode("أحمد") == tokenizer.encode("احمد")
    };
    assert!(!bare(&source));
    for (config, expected) in [
        (json!({"tokenizer_class": "BertTokenizer", "do_lower_case": true}), true),
        (json!({"tokenizer_class": "BertTokenizerFast"}), true),
        (json!({"tokenizer_class": "BertTokenizer", "do_lower_case": false}), false),
        (json!({"tokenizer_class": "BertTokenizer", "strip_accents": false}), false),
        // That of the file says nothing of case, and none at all stands for that of the model's family.
        (json!({"do_lower_case": true}), false),
        (json!({"tokenizer_class": null, "do_lower_case": true}), true),
        (json!({"tokenizer_class": null}), true),
        (json!({"tokenizer_class": null, "do_lower_case": false}), false),
    ] {
        assert_eq!(bare(directory(config.clone()).path()), expected, "{config}");
    }
}

/// A copy of the model directory `source`, with one of its files changed.
fn copied(
    source: &Path,
    file: &str,
    change: impl FnOnce(&mut serde_json::Value),
) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(source).expect("a directory") {
        let from = entry.expect("an entry").path();
        let to = directory.path().join(from.file_name().expect("a name"));
        std::fs::copy(&from, to).expect("a copy");
    }
    let path = directory.path().join(file);
    let text = std::fs::read_to_string(&path).expect("the file");
    let mut value = serde_json::from_str(&text).expect("JSON");
    change(&mut value);
    std::fs::write(&path, value.to_string()).expect("the file");
    directory
}

/// Long texts are counted in pieces before they are tokenised, and words may be cut there.
#[test]
fn the_limit_of_tokens_is_exact_for_texts_of_any_length() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let mut early = 0;
    for name in ["tiny-bert", "tiny-roberta", "tiny-xlm-roberta"] {
        let bundle = load(&goldens.join(name));
        for text in [
            "!".repeat(100_000),
            "قال الوزير إن الحكومة وافقت ".repeat(4_000),
            "ب".repeat(100_000),
            "abcab".repeat(20_000),
            format!("{} ", "ب".repeat(99)).repeat(1_000),
            "新聞".repeat(30_000),
            "😀".repeat(30_000),
            format!("a{}", " ".repeat(70_000)),
            "a\u{301}\u{327}".repeat(20_000),
            "ﷲ ﻻ 12,5٪ … ".repeat(6_000),
        ] {
            let what = format!("{name}: {text:.20}");
            let normalized = bundle.text.profile.normalize(&text);
            let tokens = bundle.tokenizer.encode(normalized.text()).expect("tokens").ids.len();
            let document = Document { text, ..Document::default() };
            let within = |max_text_tokens: usize| {
                let limits = DocumentLimits { max_text_tokens, ..DocumentLimits::default() };
                let (config, tokenizer) = (&bundle.text, &bundle.tokenizer);
                token_windows(&document, config, tokenizer, LongText::Head, &limits)
            };
            let all = within(usize::MAX).expect(&what);
            assert_eq!(within(tokens).expect(&what), all);
            for limit in [tokens - 1, tokens / 10] {
                match within(limit) {
                    Err(ClassifyError::FieldTooLong { unit, limit: named, actual, .. }) => {
                        assert!(named == limit && actual > limit && actual <= tokens, "{what}");
                        assert!(actual == tokens || unit == "tokens or more", "{what}: {unit}");
                        early += usize::from(actual < tokens);
                    }
                    other => panic!("{what}: {other:?}"),
                }
            }
        }
    }
    assert!(early > 10, "{early} were refused before they were tokenised");
}
