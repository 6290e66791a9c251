//! The builder of tiny checkpoints: change a field of [`Tiny`], then write it.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

/// Values in a row of the encoder.
pub const HIDDEN: usize = 32;
/// Layers of the encoder.
pub const LAYERS: usize = 2;
/// Rows of the position table.
pub const POSITIONS: usize = 128;

const INTERMEDIATE: usize = 64;
const SEED: u64 = 0x7a5_41f;

/// A task of a tiny bundle: its entry of `tasnif.json` follows from these.
#[derive(Clone, Debug)]
pub struct TinyTask {
    /// The task's name.
    pub name: &'static str,
    /// `(id, name_ar, name_en, code)` a label.
    pub labels: &'static [(&'static str, &'static str, &'static str, &'static str)],
    /// Sigmoid instead of softmax.
    pub multi_label: bool,
    /// `mean` or `cls`.
    pub pooling: &'static str,
}

/// Topics of the tiny bundle.
pub const TOPIC: TinyTask = TinyTask {
    name: "topic",
    labels: &[
        ("politics", "سياسة", "Politics", "medtop:11000000"),
        ("economy", "اقتصاد", "Economy", "medtop:04000000"),
        ("sport", "رياضة", "Sport", "medtop:15000000"),
        ("health", "صحة", "Health", "medtop:07000000"),
        ("weather", "طقس", "Weather", "medtop:17000000"),
    ],
    multi_label: false,
    pooling: "mean",
};

/// Sentiment of the tiny bundle.
pub const SENTIMENT: TinyTask = TinyTask {
    name: "sentiment",
    labels: &[
        ("negative", "سلبي", "Negative", ""),
        ("neutral", "محايد", "Neutral", ""),
        ("positive", "إيجابي", "Positive", ""),
    ],
    multi_label: false,
    pooling: "mean",
};

/// A tiny checkpoint in memory: the JSON files as values and the tensors by name.
#[derive(Clone, Debug)]
pub struct Tiny {
    /// `config.json`.
    pub config: Value,
    /// `tokenizer.json`.
    pub tokenizer: Value,
    /// `tokenizer_config.json`, if it has one.
    pub tokenizer_config: Option<Value>,
    /// `tasnif.json`, if it has one.
    pub tasnif: Option<Value>,
    /// Shape and row-major values of each tensor.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// How the tensors are stored: F32, F16 or BF16.
    pub dtype: Dtype,
}

impl Tiny {
    /// A bundle with the tasks [`TOPIC`] and [`SENTIMENT`].
    pub fn bundle() -> Self {
        Self::with_tasks(&[TOPIC, SENTIMENT])
    }

    /// A bundle with the given tasks, each a linear head on the pooled rows.
    pub fn with_tasks(tasks: &[TinyTask]) -> Self {
        let mut tiny = Self::encoder("bert", "");
        for task in tasks {
            let head = format!("heads.{}", task.name);
            // Large weights, so that different texts get different labels.
            tiny.add(&format!("{head}.weight"), &[task.labels.len(), HIDDEN], 0.0, 1.0);
            tiny.add(&format!("{head}.bias"), &[task.labels.len()], 0.0, 0.1);
        }
        let tasks: Vec<Value> = tasks.iter().map(task_json).collect();
        tiny.tasnif = Some(json!({
            "revision": "tiny-1",
            "languages": ["ar"],
            "text": {"profile": "news", "window": 64, "stride": 40, "max_title_tokens": 16, "title_separator": true},
            "tasks": tasks,
        }));
        tiny
    }

    /// A `BertForSequenceClassification` directory as Hugging Face writes it.
    pub fn bert(labels: &[&str]) -> Self {
        let mut tiny = Self::encoder("bert", "bert.");
        tiny.config["architectures"] = json!(["BertForSequenceClassification"]);
        tiny.config["id2label"] = id2label(labels);
        tiny.add("bert.pooler.dense.weight", &[HIDDEN, HIDDEN], 0.0, 0.3);
        tiny.add("bert.pooler.dense.bias", &[HIDDEN], 0.0, 0.1);
        tiny.add("classifier.weight", &[labels.len(), HIDDEN], 0.0, 0.5);
        tiny.add("classifier.bias", &[labels.len()], 0.0, 0.1);
        tiny
    }

    /// An `XLMRobertaForSequenceClassification` directory as Hugging Face writes it.
    pub fn xlm_roberta(labels: &[&str]) -> Self {
        let mut tiny = Self::encoder("xlm-roberta", "roberta.");
        tiny.config["architectures"] = json!(["XLMRobertaForSequenceClassification"]);
        tiny.with_two_layers(labels)
    }

    /// An `ElectraForSequenceClassification` directory as Hugging Face writes it.
    pub fn electra(labels: &[&str]) -> Self {
        let mut tiny = Self::encoder("electra", "electra.");
        tiny.config["architectures"] = json!(["ElectraForSequenceClassification"]);
        tiny.config["embedding_size"] = json!(HIDDEN);
        tiny.with_two_layers(labels)
    }

    /// With the head that RoBERTa and ELECTRA have.
    fn with_two_layers(mut self, labels: &[&str]) -> Self {
        let tiny = &mut self;
        tiny.config["id2label"] = id2label(labels);
        tiny.add("classifier.dense.weight", &[HIDDEN, HIDDEN], 0.0, 0.3);
        tiny.add("classifier.dense.bias", &[HIDDEN], 0.0, 0.1);
        tiny.add("classifier.out_proj.weight", &[labels.len(), HIDDEN], 0.0, 0.5);
        tiny.add("classifier.out_proj.bias", &[labels.len()], 0.0, 0.1);
        self
    }

    /// Draws a tensor from a normal law; the draw depends on the name alone.
    pub fn add(&mut self, name: &str, shape: &[usize], mean: f32, deviation: f32) {
        let mut random = Random::named(name);
        let size = shape.iter().product();
        let values = (0..size).map(|_| mean + deviation * random.normal()).collect();
        self.tensors.insert(name.to_owned(), (shape.to_vec(), values));
    }

    /// Draws every tensor again with `hidden` for [`HIDDEN`] and `intermediate` values between
    /// the two layers of a feed-forward network; around 1 if it is the weight of a norm. The
    /// configuration stays.
    pub fn resize(&mut self, hidden: usize, intermediate: usize) {
        let resized = |size: &usize| match *size {
            HIDDEN => hidden,
            INTERMEDIATE => intermediate,
            other => other,
        };
        let shapes: Vec<(String, Vec<usize>)> = self
            .tensors
            .iter()
            .map(|(name, (shape, _))| (name.clone(), shape.iter().map(resized).collect()))
            .collect();
        for (name, shape) in shapes {
            let mean = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
            self.add(&name, &shape, mean, 0.3);
        }
    }

    /// Writes the files into `dir`, which is created if need be.
    pub fn write(&self, dir: &Path) {
        std::fs::create_dir_all(dir).expect("the directory can be created");
        write_json(&dir.join("config.json"), &self.config);
        write_json(&dir.join("tokenizer.json"), &self.tokenizer);
        if let Some(value) = &self.tokenizer_config {
            write_json(&dir.join("tokenizer_config.json"), value);
        }
        if let Some(value) = &self.tasnif {
            write_json(&dir.join("tasnif.json"), value);
        }
        write_safetensors(&dir.join("model.safetensors"), &self.tensors, self.dtype);
    }

    fn encoder(model_type: &str, prefix: &str) -> Self {
        let vocabulary = vocabulary();
        let rows = vocabulary.len();
        let mut tiny = Self {
            config: config(model_type, rows),
            tokenizer: tokenizer(&vocabulary),
            tokenizer_config: None,
            tasnif: None,
            tensors: BTreeMap::new(),
            dtype: Dtype::F32,
        };
        let types = if model_type == "bert" { 2 } else { 1 };
        let embeddings = format!("{prefix}embeddings");
        tiny.add(&format!("{embeddings}.word_embeddings.weight"), &[rows, HIDDEN], 0.0, 0.5);
        tiny.add(
            &format!("{embeddings}.position_embeddings.weight"),
            &[POSITIONS, HIDDEN],
            0.0,
            0.2,
        );
        tiny.add(&format!("{embeddings}.token_type_embeddings.weight"), &[types, HIDDEN], 0.0, 0.1);
        tiny.add_norm(&format!("{embeddings}.LayerNorm"));
        for layer in 0..LAYERS {
            let layer = format!("{prefix}encoder.layer.{layer}");
            for name in ["query", "key", "value"] {
                tiny.add_linear(&format!("{layer}.attention.self.{name}"), HIDDEN, HIDDEN);
            }
            tiny.add_linear(&format!("{layer}.attention.output.dense"), HIDDEN, HIDDEN);
            tiny.add_norm(&format!("{layer}.attention.output.LayerNorm"));
            tiny.add_linear(&format!("{layer}.intermediate.dense"), INTERMEDIATE, HIDDEN);
            tiny.add_linear(&format!("{layer}.output.dense"), HIDDEN, INTERMEDIATE);
            tiny.add_norm(&format!("{layer}.output.LayerNorm"));
        }
        tiny
    }

    fn add_linear(&mut self, name: &str, output: usize, input: usize) {
        self.add(&format!("{name}.weight"), &[output, input], 0.0, 0.2);
        self.add(&format!("{name}.bias"), &[output], 0.0, 0.1);
    }

    fn add_norm(&mut self, name: &str) {
        self.add(&format!("{name}.weight"), &[HIDDEN], 1.0, 0.1);
        self.add(&format!("{name}.bias"), &[HIDDEN], 0.0, 0.1);
    }
}

/// Writes `value` as indented JSON.
pub fn write_json(path: &Path, value: &Value) {
    let text = serde_json::to_string_pretty(value).expect("a JSON value can be written");
    std::fs::write(path, text).expect("the file can be written");
}

/// Writes tensors to a safetensors file, converted to `dtype` (F64, F32, F16 or BF16).
pub fn write_safetensors(
    path: &Path,
    tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    dtype: Dtype,
) {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, shape, to_bytes(values, dtype)))
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(dtype, shape.to_vec(), bytes).expect("the shape fits");
        (name.as_str(), view)
    });
    let file = safetensors::serialize(views, None).expect("the tensors can be written");
    std::fs::write(path, file).expect("the file can be written");
}

fn to_bytes(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Dtype::F64 => values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        other => panic!("no tiny checkpoint is stored as {other:?}"),
    }
}

fn config(model_type: &str, vocab_size: usize) -> Value {
    json!({
        "model_type": model_type,
        "vocab_size": vocab_size,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": if model_type == "bert" { 2 } else { 1 },
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "pad_token_id": if model_type == "bert" { 0 } else { 1 },
        "position_embedding_type": "absolute",
    })
}

fn id2label(labels: &[&str]) -> Value {
    labels.iter().enumerate().map(|(index, label)| (index.to_string(), json!(label))).collect()
}

fn task_json(task: &TinyTask) -> Value {
    let labels: Vec<Value> = task
        .labels
        .iter()
        .map(|(id, name_ar, name_en, code)| {
            json!({"id": id, "name_ar": name_ar, "name_en": name_en, "code": code})
        })
        .collect();
    json!({
        "name": task.name,
        "multi_label": task.multi_label,
        "pooling": task.pooling,
        "temperature": 1.0,
        "abstain_below": 0.0,
        "labels": labels,
    })
}

/// Special tokens, then every Arabic letter, digit and Latin letter alone and as
/// a continuation, punctuation, and a few whole words.
fn vocabulary() -> Vec<String> {
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let letters: Vec<char> = ('\u{621}'..='\u{64a}')
        .filter(|c| !('\u{63b}'..='\u{640}').contains(c))
        .chain('0'..='9')
        .chain('a'..='z')
        .collect();
    let words = ["في", "من", "على", "قال", "إلى", "عن", "التي", "##ات", "##ين", "##ون", "ال"];
    let mut vocabulary: Vec<String> = specials.into();
    vocabulary.extend(letters.iter().map(char::to_string));
    vocabulary.extend(letters.iter().map(|c| format!("##{c}")));
    vocabulary.extend("،؛؟.,:;!?()[]\"'-/%«»…".chars().map(String::from));
    vocabulary.extend(words.map(str::to_owned));
    vocabulary
}

fn tokenizer(vocabulary: &[String]) -> Value {
    let id = |token: &str| vocabulary.iter().position(|entry| entry == token);
    let specials: Vec<Value> = vocabulary[..5]
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let entries: BTreeMap<&String, usize> =
        vocabulary.iter().enumerate().map(|(id, token)| (token, id)).collect();
    let special = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": specials,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": false},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, special("[SEP]")],
            "pair": [special("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, special("[SEP]"),
                     {"Sequence": {"id": "B", "type_id": 1}}, special("[SEP]")],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [id("[CLS]")], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [id("[SEP]")], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": entries},
    })
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same numbers everywhere, and no
/// dependency whose next version changes them.
struct Random(u64);

impl Random {
    fn named(name: &str) -> Self {
        // FNV-1a, so that a tensor's values do not depend on the others.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash ^ SEED)
    }

    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// Close to normal, of mean 0 and deviation 1: twelve uniforms less six.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}
