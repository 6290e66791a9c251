//! Model directories that are damaged: each is refused with a documented code and a message, or
//! loads; none of them ends `tasnif` in another way.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{bundle, run};
use crate::random::Random;
use crate::support::{Tiny, written};

const WEIGHTS: &str = "model.safetensors";
const JSON_FILES: [&str; 3] = ["config.json", "tokenizer.json", "tasnif.json"];
const TEXT: &str = "ارتفعت أسعار النفط في الأسواق العالمية اليوم.";

/// Asserts that `tasnif` ended as it says that it does.
fn assert_documented(what: &str, output: &Output) -> i32 {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    let code = code.unwrap_or_else(|| panic!("{what}: {}: {stderr}", output.status));
    assert!([0, 1, 3].contains(&code), "{what}: {code}: {stderr}");
    assert!(code == 0 || stderr.contains("tasnif: "), "{what}: {code} without a message");
    code
}

/// What becomes of the model in `directory`, checked by a server and used by hand.
fn outcome(what: &str, directory: &Path) -> (i32, i32) {
    let model = directory.to_str().unwrap();
    let check = run(&["serve", "--check", "--model", model], Vec::new());
    let checked = assert_documented(what, &check);
    let classify = run(&["classify", "--text", TEXT, "--model", model], Vec::new());
    let classified = assert_documented(what, &classify);
    assert!(checked == 0 || classified == 3, "{what}: {checked}, and then {classified}");
    (checked, classified)
}

/// A good bundle, in which one file at a time is damaged.
struct Damaged {
    directory: TempDir,
    file: &'static str,
    good: Vec<u8>,
    loaded: usize,
    refused: usize,
}

impl Damaged {
    fn new(file: &'static str) -> Self {
        let directory = bundle();
        assert_eq!(outcome("undamaged", directory.path()), (0, 0));
        let good = std::fs::read(directory.path().join(file)).unwrap();
        Self { directory, file, good, loaded: 0, refused: 0 }
    }

    fn try_with(&mut self, what: &str, bytes: &[u8]) -> (i32, i32) {
        std::fs::write(self.directory.path().join(self.file), bytes).unwrap();
        let outcome = outcome(&format!("{}: {what}", self.file), self.directory.path());
        let count = if outcome.0 == 0 { &mut self.loaded } else { &mut self.refused };
        *count += 1;
        outcome
    }

    fn cut(&mut self, length: usize) {
        let bytes = self.good[..length].to_vec();
        let outcome = self.try_with(&format!("cut to {length} bytes"), &bytes);
        assert_eq!(outcome, (3, 3), "{} cut to {length} bytes", self.file);
    }

    fn flip(&mut self, at: usize, random: &mut Random) {
        let mut bytes = self.good.clone();
        bytes[at] ^= 1 << random.below(8);
        self.try_with(&format!("a bit at {at} flipped"), &bytes);
    }
}

impl Drop for Damaged {
    fn drop(&mut self) {
        eprintln!("{}: {} refused, {} loaded", self.file, self.refused, self.loaded);
    }
}

#[test]
fn damaged_weights_are_refused_or_load() {
    let mut random = Random::of(WEIGHTS);
    let mut damaged = Damaged::new(WEIGHTS);
    let length = damaged.good.len();
    let header = u64::from_le_bytes(damaged.good[..8].try_into().unwrap()) as usize;
    for cut in [0, 1, 7, 8, 9, 8 + header / 2, 8 + header, 9 + header, length - 1] {
        damaged.cut(cut);
    }
    for _ in 0..4 {
        damaged.cut(random.below(length));
    }
    // The length of the header, the header, and what follows it.
    for at in 0..8 {
        damaged.flip(at, &mut random);
        let mut bytes = damaged.good.clone();
        bytes[at] = 0xff;
        damaged.try_with(&format!("byte {at} is 255"), &bytes);
    }
    for _ in 0..100 {
        let at = 8 + random.below(header);
        damaged.flip(at, &mut random);
    }
    for _ in 0..20 {
        let at = 8 + header + random.below(length - header - 8);
        damaged.flip(at, &mut random);
    }
    let longer = [damaged.good.as_slice(), b"more"].concat();
    assert_eq!(damaged.try_with("followed by more", &longer), (3, 3));
    let noise = random.bytes(length);
    assert_eq!(damaged.try_with("noise", &noise), (3, 3));
}

#[test]
fn damaged_json_files_are_refused_or_load() {
    for file in JSON_FILES {
        let mut random = Random::of(file);
        let mut damaged = Damaged::new(file);
        let length = damaged.good.len();
        for cut in [0, 1, length / 2, length - 1] {
            damaged.cut(cut);
        }
        for _ in 0..80 {
            let at = random.below(length);
            damaged.flip(at, &mut random);
        }
        let deep = [b"{\"a\":".repeat(100_000), b"1".to_vec(), b"}".repeat(100_000)].concat();
        for noise in [deep.as_slice(), b"null", b"[]", b"\xff\xfe{}", b"{\"a\":\"\\ud800\"}"] {
            assert_eq!(damaged.try_with("another file", noise), (3, 3), "{noise:.20?}");
        }
    }
}

#[test]
fn values_that_no_model_has_are_refused_or_load() {
    let values = [
        Value::Null,
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(4_294_967_297_u64),
        json!("x"),
        json!([]),
        json!({}),
    ];
    let mut random = Random::of("values");
    for file in JSON_FILES {
        let mut damaged = Damaged::new(file);
        let good: Value = serde_json::from_slice(&damaged.good).unwrap();
        let mut places = Vec::new();
        pointers(&good, String::new(), &mut places);
        for place in &places {
            // All of them would be thousands: for each place some.
            for _ in 0..1 + 40 / places.len() {
                let value = random.pick(&values).clone();
                let mut bad = good.clone();
                *bad.pointer_mut(place).unwrap() = value.clone();
                damaged.try_with(&format!("{place} is {value}"), bad.to_string().as_bytes());
            }
        }
    }
}

/// The places of `value` to some depth: every key, and the first two of a long list or map.
fn pointers(value: &Value, at: String, places: &mut Vec<String>) {
    let short = |key: &str| key.replace('~', "~0").replace('/', "~1");
    let inside: Vec<(String, &Value)> = match value {
        Value::Object(map) => {
            let most = if map.len() > 40 { 2 } else { map.len() };
            map.iter().take(most).map(|(key, value)| (short(key), value)).collect()
        }
        Value::Array(list) => {
            list.iter().take(1).enumerate().map(|(i, value)| (i.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    for (key, value) in inside {
        let place = format!("{at}/{key}");
        pointers(value, place.clone(), places);
        places.push(place);
    }
}

#[test]
fn a_model_that_answers_nonsense_is_not_served() {
    for (tensor, value) in [
        ("embeddings.LayerNorm.weight", f32::NAN),
        ("encoder.layer.1.attention.self.query.weight", f32::NAN),
        ("encoder.layer.0.output.dense.bias", f32::INFINITY),
        ("heads.topic.bias", f32::NEG_INFINITY),
        ("heads.sentiment.weight", f32::NAN),
    ] {
        let mut tiny = Tiny::bundle();
        let (_, values) = tiny.tensors.get_mut(tensor).unwrap_or_else(|| panic!("no {tensor}"));
        values.fill(value);
        let directory = written(&tiny);
        let model = directory.path().to_str().unwrap();
        let what = format!("{tensor} is {value}");
        let args = ["serve", "--listen", "127.0.0.1:0", "--model", model];
        let served = run(&args, Vec::new());
        assert_eq!(assert_documented(&what, &served), 3, "{what}");
        let stderr = String::from_utf8_lossy(&served.stderr);
        assert!(stderr.contains("finite"), "{what}: {stderr}");
        let classified = run(&["classify", "--text", TEXT, "--model", model], Vec::new());
        assert_ne!(assert_documented(&what, &classified), 0, "{what}");
    }
}
