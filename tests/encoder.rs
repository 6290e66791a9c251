//! What a packed batch promises: one sequence never changes another.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::path::Path;

use safetensors::Dtype;
use support::tiny::{POSITIONS, SENTIMENT, TOPIC};
use support::{Tiny, TinyTask};
use tasnif::bundle::Bundle;
use tasnif::nn::{self, EncodeError, Encoder, MultiHead, PackedTokens, PrecisionChoice, Rows};

const TEXTS: [&str; 6] = [
    "قال الوزير في القاهرة إن الأسعار سترتفع",
    "فاز الفريق",
    "",
    "أمطار على السواحل، ورياح من الشمال إلى الجنوب في المساء",
    "في",
    "عن التي قال من على إلى في من عن التي قال على إلى في من عن التي",
];

/// Batches change the shapes of the matrix products, hence the last bits.
const TOLERANCE: f32 = 1e-5;

#[test]
fn a_batch_equals_its_single_runs() {
    let (bundle, encoder) = load(&Tiny::bundle());
    let sequences = sequences(&bundle);
    let rows = encode(&encoder, &sequences);
    for (sequence, row) in sequences.iter().zip(rows.iter()) {
        assert_close(row, encode(&encoder, std::slice::from_ref(sequence)).as_slice());
    }
}

#[test]
fn the_order_of_a_batch_changes_only_the_order_of_its_rows() {
    let (bundle, encoder) = load(&Tiny::bundle());
    let mut sequences = sequences(&bundle);
    let rows = encode(&encoder, &sequences);
    sequences.reverse();
    let reversed = encode(&encoder, &sequences);
    for (index, row) in rows.iter().enumerate() {
        assert_close(row, reversed.row(rows.len() - 1 - index).expect("a row"));
    }
}

#[test]
fn a_batch_that_runs_between_the_layers_of_another_changes_neither() {
    let (bundle, encoder) = load(&Tiny::bundle());
    let sequences = sequences(&bundle);
    let (outer, inner) = (&sequences[..4], &sequences[3..]);
    let mut nested = Vec::new();
    let mut pause = || nested.push(encode(&encoder, inner));
    let rows = encoder.encode(&pack(outer), &mut pause).expect("the batch runs");
    assert_eq!(rows, encode(&encoder, outer));
    let layers = bundle.config.layers;
    assert_eq!(nested, vec![encode(&encoder, inner); layers - 1]);
    assert!(layers > 1);
}

#[test]
fn different_texts_get_different_logits() {
    let (bundle, encoder) = load(&Tiny::bundle());
    let rows = encode(&encoder, &sequences(&bundle));
    for a in 0..rows.len() {
        for b in 0..a {
            let (a, b) = (rows.row(a).expect("a row"), rows.row(b).expect("a row"));
            assert!(a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-2));
        }
    }
}

#[test]
fn the_logits_of_all_tasks_stand_in_the_order_of_the_bundle() {
    let (bundle, both) = load(&Tiny::bundle());
    let (_, topic) = load(&Tiny::with_tasks(&[TOPIC]));
    let (_, sentiment) = load(&Tiny::with_tasks(&[SENTIMENT]));
    let sequences = sequences(&bundle);
    let both = encode(&both, &sequences);
    let (topic, sentiment) = (encode(&topic, &sequences), encode(&sentiment, &sequences));
    assert_eq!(both.width(), topic.width() + sentiment.width());
    for ((both, topic), sentiment) in both.iter().zip(topic.iter()).zip(sentiment.iter()) {
        assert_close(both, &[topic, sentiment].concat());
    }
}

#[test]
fn heads_on_different_poolings_share_one_pass() {
    let on_cls = TinyTask { name: "topic", pooling: "cls", ..TOPIC };
    let (bundle, mixed) = load(&Tiny::with_tasks(&[on_cls.clone(), SENTIMENT]));
    let (_, cls) = load(&Tiny::with_tasks(&[on_cls]));
    let (_, mean) = load(&Tiny::with_tasks(&[TOPIC]));
    let (_, sentiment) = load(&Tiny::with_tasks(&[SENTIMENT]));
    let sequences = sequences(&bundle);
    let mixed = encode(&mixed, &sequences);
    let (cls, mean) = (encode(&cls, &sequences), encode(&mean, &sequences));
    let sentiment = encode(&sentiment, &sequences);
    for ((mixed, cls), sentiment) in mixed.iter().zip(cls.iter()).zip(sentiment.iter()) {
        assert_close(mixed, &[cls, sentiment].concat());
    }
    assert_ne!(cls, mean);
}

#[test]
fn weights_in_half_precision_give_nearly_the_same_logits() {
    let (bundle, full) = load(&Tiny::bundle());
    let sequences = sequences(&bundle);
    let full = encode(&full, &sequences);
    for (dtype, tolerance) in [(Dtype::F16, 0.02), (Dtype::BF16, 0.2)] {
        let half = Tiny { dtype, ..Tiny::bundle() };
        let half = encode(&load(&half).1, &sequences);
        for (full, half) in full.as_slice().iter().zip(half.as_slice()) {
            assert!((full - half).abs() < tolerance, "{dtype:?}: {half} for {full}");
        }
    }
}

#[test]
fn a_sequence_fits_up_to_the_last_position_and_not_beyond() {
    let plain = ["no", "yes"];
    for (tiny, longest) in [
        (Tiny::bundle(), POSITIONS),
        (Tiny::bert(&plain), POSITIONS),
        // Row 0 and that of the padding, 1, are not for tokens.
        (Tiny::xlm_roberta(&plain), POSITIONS - 2),
    ] {
        let (_, encoder) = load(&tiny);
        assert_eq!(encoder.max_sequence_tokens(), longest);
        assert_eq!(encode(&encoder, &[vec![5; longest]]).len(), 1);
        let refused = encoder.encode(&pack(&[vec![5], vec![5; longest + 1]]), &mut || ());
        let Err(EncodeError::TooLong { length, max_length }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((length, max_length), (longest + 1, longest));
    }
}

#[test]
fn an_id_outside_the_vocabulary_is_named() {
    let (bundle, encoder) = load(&Tiny::bundle());
    let rows = bundle.config.vocab_size;
    let refused = encoder.encode(&pack(&[vec![2, rows as u32, 3]]), &mut || ());
    let Err(EncodeError::UnknownToken { id, vocab_size }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((id as usize, vocab_size), (rows, rows));
}

#[test]
fn an_empty_batch_has_no_rows() {
    let (_, encoder) = load(&Tiny::bundle());
    let rows = encoder.encode(&PackedTokens::new(), &mut || ()).expect("nothing to do");
    assert_eq!((rows.len(), rows.width()), (0, 8));
}

#[test]
fn a_logit_that_is_not_finite_is_an_error_and_not_an_answer() {
    let mut tiny = Tiny::bundle();
    // Token 10 alone is broken: its values are finite, or they would not load, but not their sum.
    let (_, values) = tiny.tensors.get_mut("embeddings.word_embeddings.weight").expect("a table");
    values[10 * 32..10 * 32 + 2].fill(f32::MAX);
    let (_, encoder) = load(&tiny);
    assert_eq!(encode(&encoder, &[vec![2, 11, 3]]).len(), 1);
    let refused = encoder.encode(&pack(&[vec![2, 11, 3], vec![2, 10, 3]]), &mut || ());
    assert!(matches!(refused, Err(EncodeError::NotFinite { sequence: 1 })), "{refused:?}");
}

#[test]
fn a_missing_or_misshapen_layer_is_named_with_its_file() {
    let mut tiny = Tiny::bundle();
    tiny.tensors.remove("encoder.layer.1.output.dense.bias");
    assert_eq!(
        refusal(&tiny),
        "model.safetensors: tensor encoder.layer.1.output.dense.bias: \
         expected [32] of F32, F16 or BF16; found no such tensor"
    );
    let mut tiny = Tiny::bundle();
    tiny.add("encoder.layer.0.attention.self.key.weight", &[32, 31], 0.0, 1.0);
    assert_eq!(
        refusal(&tiny),
        "model.safetensors: tensor encoder.layer.0.attention.self.key.weight: \
         expected [32, 32] of F32, F16 or BF16; found [32, 31] of F32"
    );
}

fn load(tiny: &Tiny) -> (Bundle, MultiHead) {
    let directory = tempfile::tempdir().expect("a directory");
    tiny.write(directory.path());
    let bundle = Bundle::load(directory.path()).unwrap_or_else(|error| panic!("{error}"));
    let encoder =
        nn::load(&bundle, PrecisionChoice::Reference).unwrap_or_else(|error| panic!("{error}"));
    (bundle, encoder)
}

/// The message with which the weights are refused, the directory left out.
fn refusal(tiny: &Tiny) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    tiny.write(directory.path());
    let bundle = Bundle::load(directory.path()).unwrap_or_else(|error| panic!("{error}"));
    let error =
        nn::load(&bundle, PrecisionChoice::Reference).err().expect("the weights are refused");
    error.to_string().replace(&format!("{}/", Path::display(directory.path())), "")
}

fn sequences(bundle: &Bundle) -> Vec<Vec<u32>> {
    let tokenizer = &bundle.tokenizer;
    let window = |text: &&str| {
        let text = tokenizer.encode(text).expect("the text is encoded").ids;
        [tokenizer.prefix(), &text, tokenizer.suffix()].concat()
    };
    TEXTS.iter().map(window).collect()
}

fn pack(sequences: &[Vec<u32>]) -> PackedTokens {
    let mut batch = PackedTokens::new();
    sequences.iter().for_each(|sequence| batch.push(sequence));
    batch
}

fn encode(encoder: &MultiHead, sequences: &[Vec<u32>]) -> Rows {
    encoder.encode(&pack(sequences), &mut || ()).unwrap_or_else(|error| panic!("{error}"))
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= TOLERANCE, "{found} for {expected}");
    }
}
