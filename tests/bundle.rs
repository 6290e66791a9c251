//! Loading model directories: what loads, and the message with which the rest is refused.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::path::Path;

use safetensors::Dtype;
use serde_json::{Value, json};
use support::tiny::{write_json, write_safetensors};
use support::{Tiny, load, tiny_bundle, written};
use tasnif::bundle::{Architecture, Bundle, HeadKind, Pooling, TextConfig};
use tasnif::text::Profile;
use tempfile::TempDir;

#[test]
fn a_bundle_loads_with_all_that_it_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("news-model");
    tiny_bundle(&path);
    let bundle = load(&path);
    assert_eq!((bundle.name.as_str(), bundle.revision.as_str()), ("news-model", "tiny-1"));
    assert_eq!(bundle.languages, ["ar"]);
    assert_eq!(bundle.config.architecture, Architecture::Bert);
    let text = TextConfig {
        profile: Profile::News,
        window: 64,
        stride: 40,
        max_title_tokens: 16,
        title_separator: true,
    };
    assert_eq!(bundle.text, text);
    let names: Vec<&str> = bundle.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["topic", "sentiment"]);
    let sport = &bundle.tasks[0].labels[2];
    assert_eq!((sport.id.as_str(), sport.name_ar.as_str()), ("sport", "رياضة"));
    assert_eq!((sport.name_en.as_str(), sport.code.as_str()), ("Sport", "medtop:15000000"));
    assert_eq!(bundle.tasks[1].head, HeadKind::Linear);
    assert!(bundle.warnings.is_empty());
}

#[test]
fn the_digest_is_the_sha256_of_the_weights() {
    use sha2::Digest as _;
    let directory = written(&Tiny::bundle());
    let bytes = std::fs::read(directory.path().join("model.safetensors")).expect("the weights");
    let expected: String =
        sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(load(directory.path()).digest, expected);
}

#[test]
fn keys_of_a_task_that_have_a_usual_value_may_be_left_out() {
    let tiny = with_tasnif(|tasnif| {
        let task = tasnif["tasks"][0].as_object_mut().expect("a task");
        for key in ["multi_label", "pooling", "temperature", "abstain_below"] {
            task.remove(key);
        }
    });
    let task = &load(written(&tiny).path()).tasks[0];
    assert!(!task.multi_label);
    assert_eq!((task.pooling, task.temperature, task.abstain_below), (Pooling::Mean, 1.0, 0.0));
}

#[test]
fn values_of_tasnif_json_that_do_not_work_are_refused_by_key() {
    let cases: [(&str, Value, &str); 14] = [
        ("/revision", json!(""), "revision: expected a name; found an empty one"),
        ("/tasks", json!([]), "tasks: expected at least one; found none"),
        (
            "/text/window",
            json!(129),
            "text.window: expected at most the model's 128 positions; found 129",
        ),
        (
            "/text/window",
            json!(19),
            "text.window: expected more than the 3 special tokens and the 16 of a title; found 19",
        ),
        (
            "/text/stride",
            json!(0),
            "text.stride: expected 1 to 45, the tokens of text in a window with the longest \
             title; found 0",
        ),
        (
            "/text/stride",
            json!(46),
            "text.stride: expected 1 to 45, the tokens of text in a window with the longest \
             title; found 46",
        ),
        (
            "/tasks/1/name",
            json!("topic"),
            "tasks[1].name: expected a name that no other task has; found \"topic\"",
        ),
        (
            "/tasks/0/labels/1/id",
            json!("politics"),
            "tasks[0].labels[1].id: expected an id that no other label of the task has; found \
             \"politics\"",
        ),
        ("/tasks/0/labels", json!([]), "tasks[0].labels: expected at least one; found none"),
        (
            "/tasks/0/labels",
            json!([{"id": "a", "name_ar": "", "name_en": "", "code": ""}]),
            "tasks[0].labels: expected at least two, of which one is chosen, or multi_label; \
             found 1",
        ),
        (
            "/tasks/0/temperature",
            json!(0),
            "tasks[0].temperature: expected a number above 0; found 0",
        ),
        (
            "/tasks/0/temperature",
            json!(1e300),
            "tasks[0].temperature: expected a number above 0; found inf",
        ),
        (
            "/tasks/0/abstain_below",
            json!(1.5),
            "tasks[0].abstain_below: expected 0 to 1; found 1.5",
        ),
        (
            "/tasks/0/abstain_below",
            json!(-0.5),
            "tasks[0].abstain_below: expected 0 to 1; found -0.5",
        ),
    ];
    for (pointer, value, expected) in cases {
        let tiny = with_tasnif(|tasnif| {
            *tasnif.pointer_mut(pointer).expect("a key") = value.clone();
        });
        assert_eq!(refusal(written(&tiny)), format!("tasnif.json: {expected}"));
    }
}

#[test]
fn keys_of_tasnif_json_that_are_unknown_missing_or_of_another_type_are_refused_by_name() {
    for (change, expected) in [
        (json!({"text": {"windows": 64}}), "unknown field `windows`, expected one of `profile`"),
        (json!({"text": {"aggregation": "max"}}), "text.aggregation: unknown variant `max`"),
        (json!({"tasks": [{"labels": [{"title": "x"}]}]}), "unknown field `title`"),
        (json!({"version": 1}), "unknown field `version`"),
        (json!({"text": {"profile": "press"}}), "unknown variant `press`, expected one of `none`"),
        (json!({"tasks": [{"pooling": "max"}]}), "unknown variant `max`, expected `mean` or `cls`"),
        (
            json!({"text": {"window": "64"}}),
            "text.window: invalid type: string \"64\", expected usize",
        ),
        (json!({"revision": null}), "invalid type: null, expected a string"),
    ] {
        let tiny = with_tasnif(|tasnif| merge(tasnif, &change));
        let message = refusal(written(&tiny));
        assert!(message.starts_with("tasnif.json: "), "{message}");
        assert!(message.contains(expected), "{message}");
        assert!(message.contains(" at line "), "{message}");
    }
    let tiny = with_tasnif(|tasnif| {
        tasnif["text"].as_object_mut().expect("an object").remove("profile");
    });
    let message = refusal(written(&tiny));
    assert!(message.starts_with("tasnif.json: text: missing field `profile` at line"), "{message}");
}

#[test]
fn values_of_config_json_that_do_not_work_are_refused_by_key() {
    let cases: [(&str, Value, &str); 13] = [
        (
            "model_type",
            json!("deberta-v2"),
            "expected \"bert\", \"roberta\", \"xlm-roberta\" or \"electra\"; found \"deberta-v2\"",
        ),
        (
            "hidden_act",
            json!("gelu_new"),
            "expected \"gelu\" (the exact one, by erf); found \"gelu_new\"",
        ),
        (
            "position_embedding_type",
            json!("relative_key"),
            "expected \"absolute\"; found \"relative_key\"",
        ),
        ("is_decoder", json!(true), "expected false; found true"),
        ("num_attention_heads", json!(5), "expected a divisor of hidden_size, 32; found 5"),
        ("num_attention_heads", json!(0), "expected a number from 1 to 256; found 0"),
        (
            "vocab_size",
            json!(1_u64 << 60),
            "expected a number from 1 to 10000000; found 1152921504606846976",
        ),
        ("hidden_size", json!(1_000_000), "expected a number from 1 to 16384; found 1000000"),
        ("num_hidden_layers", json!(257), "expected a number from 1 to 256; found 257"),
        ("intermediate_size", json!(0), "expected a number from 1 to 65536; found 0"),
        ("max_position_embeddings", json!(0), "expected a number from 1 to 65536; found 0"),
        ("type_vocab_size", json!(0), "expected a number from 1 to 1024; found 0"),
        ("layer_norm_eps", json!(0.0), "expected a number between 0 and 1; found 0"),
    ];
    for (key, value, expected) in cases {
        let mut tiny = Tiny::bundle();
        tiny.config[key] = value;
        assert_eq!(refusal(written(&tiny)), format!("config.json: {key}: {expected}"));
    }
    for pad in [127, -1, i64::MAX] {
        let mut tiny = Tiny::xlm_roberta(&["no", "yes"]);
        tiny.config["pad_token_id"] = json!(pad);
        let expected = format!("expected 0 to max_position_embeddings - 2, 126; found {pad}");
        assert_eq!(refusal(written(&tiny)), format!("config.json: pad_token_id: {expected}"));
    }
    let mut tiny = Tiny::bundle();
    tiny.config["pad_token_id"] = json!(-1);
    load(written(&tiny).path());
    let mut tiny = Tiny::bundle();
    tiny.config.as_object_mut().expect("an object").remove("hidden_size");
    assert!(refusal(written(&tiny)).starts_with("config.json: missing field `hidden_size`"));
}

#[test]
fn missing_files_are_named() {
    for (file, expected) in [
        ("config.json", "config.json: cannot be read: No such file or directory"),
        ("tokenizer.json", ".: expected tokenizer.json or vocab.txt; found no such file"),
        (
            "model.safetensors",
            ".: expected model.safetensors or model.safetensors.index.json; found no such file",
        ),
    ] {
        let directory = written(&Tiny::bundle());
        std::fs::remove_file(directory.path().join(file)).expect("the file can go");
        let message = refusal(directory);
        assert!(message.starts_with(expected), "{message}");
    }
    // Without tasnif.json the directory is read as a plain classifier.
    let directory = written(&Tiny::bundle());
    std::fs::remove_file(directory.path().join("tasnif.json")).expect("the file can go");
    let message = refusal(directory);
    assert!(message.starts_with("config.json: architectures: expected one of Bert"), "{message}");
    assert!(message.contains("or a tasnif.json"), "{message}");
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let directory = written(&Tiny::bundle());
    let file = Bundle::load(&directory.path().join("config.json")).expect_err("a file");
    assert!(file.to_string().ends_with("expected a model directory; found a file"), "{file}");
    let nothing = Bundle::load(&directory.path().join("nothing")).expect_err("nothing");
    assert!(nothing.to_string().contains("expected a model directory; found No such"), "{nothing}");
}

#[test]
fn weights_of_pytorch_are_refused_with_the_way_to_convert_them() {
    let directory = written(&Tiny::bundle());
    std::fs::rename(
        directory.path().join("model.safetensors"),
        directory.path().join("pytorch_model.bin"),
    )
    .expect("the file can be renamed");
    assert!(refusal(directory).contains("safe_serialization=True"));
}

#[test]
fn a_truncated_or_corrupt_weights_file_is_refused_wherever_it_is_cut() {
    let directory = written(&Tiny::bundle());
    let path = directory.path().join("model.safetensors");
    let whole = std::fs::read(&path).expect("the weights");
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().expect("eight bytes")) as usize;
    for length in [0, 1, 7, 8, 100, header - 1, header, header + 5, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).expect("the file can be written");
        let message = message_of(directory.path());
        let expected = "model.safetensors: not a whole safetensors file: ";
        assert!(message.starts_with(expected), "{length} bytes: {message}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    let mut huge_header = whole.clone();
    huge_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut broken_header = whole;
    broken_header[20] = 0xff;
    for bytes in [longer, huge_header, broken_header] {
        std::fs::write(&path, bytes).expect("the file can be written");
        let message = message_of(directory.path());
        assert!(message.starts_with("model.safetensors: not a whole"), "{message}");
    }
}

#[test]
fn a_git_lfs_pointer_is_recognised() {
    let directory = written(&Tiny::bundle());
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    std::fs::write(directory.path().join("model.safetensors"), pointer).expect("a pointer");
    assert!(refusal(directory).contains("a Git LFS pointer; `git lfs pull` fetches"));
}

#[test]
fn heads_and_embeddings_of_another_shape_or_type_are_refused_by_name() {
    let mut tiny = Tiny::bundle();
    tiny.add("heads.topic.weight", &[4, 32], 0.0, 1.0);
    assert_eq!(
        refusal(written(&tiny)),
        "model.safetensors: tensor heads.topic.weight: expected [5, 32] of F32, F16 or BF16; \
         found [4, 32] of F32"
    );
    let mut tiny = Tiny::bundle();
    tiny.tensors.remove("heads.sentiment.weight");
    assert_eq!(
        refusal(written(&tiny)),
        "model.safetensors: tensor heads.sentiment.weight: expected [3, 32] of F32, F16 or BF16; \
         found no such tensor"
    );
    let mut tiny = Tiny::bundle();
    tiny.tensors.remove("embeddings.word_embeddings.weight");
    assert_eq!(
        refusal(written(&tiny)),
        "model.safetensors: tensor embeddings.word_embeddings.weight: expected it, alone or after \
         `bert.`, `roberta.` or `electra.`; found no such tensor"
    );
    let directory = written(&Tiny::bundle());
    let path = directory.path().join("model.safetensors");
    let doubles = Tiny::bundle().tensors;
    write_safetensors(&path, &doubles, Dtype::F64);
    let message = refusal(directory);
    assert!(message.contains("tensor embeddings.word_embeddings.weight"), "{message}");
    assert!(message.ends_with(", 32] of F64"), "{message}");
}

#[test]
fn a_vocabulary_larger_than_the_embeddings_is_refused() {
    let mut tiny = Tiny::bundle();
    tiny.tokenizer["model"]["vocab"]["زائد"] = json!(200);
    let rows = tiny.config["vocab_size"].as_u64().expect("a size");
    assert_eq!(
        refusal(written(&tiny)),
        format!(
            "tokenizer.json: model.vocab: expected ids below {rows}, the rows of \
             embeddings.word_embeddings.weight; found ids up to 200"
        )
    );
}

#[test]
fn a_special_token_without_a_row_is_refused() {
    let mut tiny = Tiny::bundle();
    let rows = tiny.config["vocab_size"].as_u64().expect("a size");
    let specials = tiny.tokenizer["post_processor"]["special_tokens"].as_object_mut();
    for token in specials.expect("an object").values_mut() {
        token["ids"] = json!([rows]);
    }
    let message = refusal(written(&tiny));
    let expected = format!("tokenizer.json: post_processor: expected ids below {rows}, the rows");
    assert!(message.starts_with(&expected), "{message}");
}

#[test]
fn a_layer_that_the_config_leaves_out_is_refused() {
    let mut tiny = Tiny::bundle();
    tiny.config["num_hidden_layers"] = json!(1);
    assert_eq!(
        refusal(written(&tiny)),
        "config.json: num_hidden_layers: expected more than 1, since there is a tensor \
         encoder.layer.1.attention.self.query.weight; found 1"
    );
}

#[cfg(unix)]
#[test]
fn a_named_pipe_among_the_files_is_refused_and_not_waited_for() {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let directory = written(&Tiny::bundle());
        let path = directory.path().join(file);
        std::fs::remove_file(&path).expect("the file can go");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo runs").success());
        let message = refusal(directory);
        assert!(message.ends_with("it is not a plain file"), "{message}");
    }
}

#[test]
fn what_a_directory_s_name_says_of_its_text_is_part_of_what_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let plain = directory.path().join("plain");
    Tiny::bert(&["a", "b"]).write(&plain);
    let named = directory.path().join("plain-arabert");
    Tiny::bert(&["a", "b"]).write(&named);
    let (of_plain, of_named) = (load(&plain), load(&named));
    assert_eq!(of_plain.digest, of_named.digest);
    assert_ne!(of_plain.fingerprint, of_named.fingerprint);
    #[cfg(unix)]
    {
        let link = directory.path().join("my-arabert");
        std::os::unix::fs::symlink(&plain, &link).expect("a link");
        assert_eq!(load(&link).text.profile, Profile::Arabert);
    }
    // What `tasnif prepare` reads.
    let (text, _) = TextConfig::load(&named).expect("a plain directory");
    assert_eq!(text.profile, Profile::Arabert);
}

#[test]
fn a_tokenizer_without_special_tokens_or_that_cannot_be_read_is_refused() {
    let mut tiny = Tiny::bundle();
    tiny.tokenizer["post_processor"] = Value::Null;
    let message = refusal(written(&tiny));
    let expected = "tokenizer.json: post_processor: expected special tokens before and after";
    assert!(message.starts_with(expected), "{message}");
    let mut tiny = Tiny::bundle();
    tiny.tokenizer = json!({"version": "1.0"});
    let message = refusal(written(&tiny));
    assert!(message.starts_with("tokenizer.json: not a usable tokenizer: "), "{message}");
}

#[test]
fn sharded_weights_load_like_a_single_file() {
    let directory = written(&Tiny::bundle());
    shard(directory.path(), |_| {});
    let (sharded, single) = (load(directory.path()), load(written(&Tiny::bundle()).path()));
    assert_ne!(sharded.digest, single.digest);
    for (name, (shape, values)) in Tiny::bundle().tensors {
        assert_eq!(sharded.weights.to_f32(&name, &shape).expect(&name), values);
    }
}

#[test]
fn an_index_that_does_not_match_its_shards_is_refused() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 3] = [
        (
            |map| map["pooler.dense.weight"] = json!("model-1.safetensors"),
            "model-1.safetensors: tensor pooler.dense.weight: expected it here, since \
             model.safetensors.index.json says so; found no such tensor",
        ),
        (
            |map| map["heads.topic.bias"] = json!("../model-1.safetensors"),
            "model.safetensors.index.json: weight_map: expected names of files in the same \
             directory; found \"../model-1.safetensors\"",
        ),
        (
            |map| map["heads.topic.bias"] = json!("model-3.safetensors"),
            "model-3.safetensors: cannot be read: No such file or directory (os error 2)",
        ),
    ];
    for (change, expected) in cases {
        let directory = written(&Tiny::bundle());
        shard(directory.path(), change);
        assert_eq!(refusal(directory), expected);
    }
}

fn with_tasnif(change: impl FnOnce(&mut Value)) -> Tiny {
    let mut tiny = Tiny::bundle();
    change(tiny.tasnif.as_mut().expect("a bundle has one"));
    tiny
}

/// Sets in `target` the keys of `change`; lists are followed element by element.
fn merge(target: &mut Value, change: &Value) {
    match (target, change) {
        (Value::Object(target), Value::Object(change)) => {
            for (key, value) in change {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(target), Value::Array(change)) => {
            target.iter_mut().zip(change).for_each(|(target, change)| merge(target, change));
        }
        (target, change) => *target = change.clone(),
    }
}

/// Splits the weights in two files with an index, whose map `change` may alter.
fn shard(directory: &Path, change: impl FnOnce(&mut Value)) {
    std::fs::remove_file(directory.join("model.safetensors")).expect("the file can go");
    let mut second = Tiny::bundle().tensors;
    let first = second.split_off("encoder.layer.1");
    let mut map = json!({});
    for (file, tensors) in [("model-1.safetensors", first), ("model-2.safetensors", second)] {
        write_safetensors(&directory.join(file), &tensors, Dtype::F32);
        for name in tensors.keys() {
            map[name] = json!(file);
        }
    }
    change(&mut map);
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    write_json(&directory.join("model.safetensors.index.json"), &index);
}

/// The message with which the directory is refused; its own path becomes `.` or goes.
fn refusal(directory: TempDir) -> String {
    message_of(directory.path())
}

fn message_of(directory: &Path) -> String {
    let error = Bundle::load(directory).expect_err("it is refused").to_string();
    let path = directory.display().to_string();
    error.replace(&format!("{path}/"), "").replace(&path, ".")
}
