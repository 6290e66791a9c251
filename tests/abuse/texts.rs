//! Texts that are no texts: bytes that are not UTF-8, and Unicode at its worst. Each is answered or
//! refused by name.

use prost::Message;
use tasnif::server::oip::proto::ModelInferRequest;
use tasnif::server::oip::proto::model_infer_request::InferInputTensor;
use tasnif::server::proto::{ClassifyRequest, Document, Options, TokenizeRequest};
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::messages::{
    CLASSIFY, CLASSIFY_BATCH, CLASSIFY_STREAM, HEALTH_CHECK, HEALTH_WATCH, MODEL_INFER,
    MODEL_METADATA, MODEL_READY, REFLECTION, REFLECTION_ALPHA, TOKENIZE,
};
use crate::process::{PATIENCE, Server, bundle, run};
use crate::random::Random;
use crate::steady::Steady;
use crate::wire::{Call, End, Wire, framed, reason};

/// Not UTF-8: a stray byte, a lone surrogate (CESU-8), an overlong NUL, a number over the last, and
/// half a letter.
const NOT_UTF8: [&[u8]; 6] =
    [b"\xff", b"\xed\xa0\x80", b"\xed\xb0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"ab\xd8"];

/// A field of a message, of any bytes.
fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(number < 16 && bytes.len() < 128);
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// Every string field that a request has: its path, and the numbers on the way to it.
const STRINGS: [(&str, &[u8]); 22] = [
    (CLASSIFY, &[1, 1]),
    (CLASSIFY, &[1, 2]),
    (CLASSIFY, &[1, 3]),
    (CLASSIFY, &[2, 1]),
    (CLASSIFY, &[2, 2]),
    (CLASSIFY_BATCH, &[1, 1]),
    (CLASSIFY_BATCH, &[1, 3]),
    (CLASSIFY_BATCH, &[2, 2]),
    (CLASSIFY_STREAM, &[1, 2]),
    (CLASSIFY_STREAM, &[2, 1]),
    (TOKENIZE, &[1, 3]),
    (TOKENIZE, &[2]),
    (MODEL_READY, &[1]),
    (MODEL_READY, &[2]),
    (MODEL_METADATA, &[1]),
    (MODEL_INFER, &[1]),
    (MODEL_INFER, &[3]),
    (MODEL_INFER, &[4, 1]),
    (MODEL_INFER, &[5, 1]),
    (MODEL_INFER, &[6, 1]),
    (HEALTH_CHECK, &[1]),
    (HEALTH_WATCH, &[1]),
];

#[tokio::test]
async fn strings_that_are_not_utf8_are_refused_in_every_field() {
    let bundle = bundle();
    let mut server = Server::start(bundle.path(), &[]);
    let mut wire = Wire::new(server.address);
    for (path, numbers) in STRINGS {
        for noise in NOT_UTF8 {
            let field = |message: Vec<u8>, number: &u8| bytes_field(*number, &message);
            let message = numbers.iter().rev().fold(noise.to_vec(), field);
            match wire.call(&Call::new(path, framed(&message))).await {
                End::Status(status, _) => {
                    let refused = (status.code(), reason(&status));
                    let expected = (Code::InvalidArgument, "MALFORMED_MESSAGE".to_owned());
                    assert_eq!(refused, expected, "{path} {numbers:?} {noise:?}: {status:?}");
                }
                other => panic!("{path} {numbers:?} {noise:?}: {other:?}"),
            }
        }
    }
    // The reflection service ends its stream without an answer.
    for path in [REFLECTION, REFLECTION_ALPHA] {
        for noise in NOT_UTF8 {
            match wire.call(&Call::new(path, framed(&bytes_field(4, noise)))).await {
                End::Status(_, body) => assert!(body.is_empty(), "{path} {noise:?}: {body:?}"),
                other => panic!("{path} {noise:?}: {other:?}"),
            }
        }
    }
    // The elements of a tensor are bytes, and have to be text all the same.
    for noise in NOT_UTF8 {
        let request = ModelInferRequest {
            inputs: vec![InferInputTensor {
                name: "text".to_owned(),
                datatype: "BYTES".to_owned(),
                shape: vec![1],
                ..InferInputTensor::default()
            }],
            raw_input_contents: vec![[&(noise.len() as u32).to_le_bytes(), noise].concat()],
            ..ModelInferRequest::default()
        };
        match wire.call(&Call::new(MODEL_INFER, framed(&request.encode_to_vec()))).await {
            End::Status(status, _) => assert_eq!(reason(&status), "INVALID_TENSOR", "{status:?}"),
            other => panic!("{noise:?}: {other:?}"),
        }
    }
    server.assert_unharmed();
}

/// Texts of one kind each, none over the characters that a text may have by default.
fn texts() -> Vec<(&'static str, String)> {
    let mut random = Random::of("texts");
    let scalars = (0..100_000).filter_map(|_| char::from_u32(random.below(0x11_0000) as u32));
    let scalars: String = scalars.collect();
    let marks = "\u{64b}\u{64e}\u{651}\u{670}\u{6d6}\u{300}\u{489}";
    let invisible = "\u{200b}\u{200c}\u{200d}\u{200e}\u{202e}\u{2066}\u{feff}\u{61c}\u{ad}";
    vec![
        ("one token repeated", "قال ".repeat(80_000)),
        ("no space", "ب".repeat(400_000)),
        ("no space, letters and digits", "ب1a".repeat(130_000)),
        ("stretched letters", "ســـــــلام ".repeat(30_000)),
        ("a tower of marks", format!("ب{}", marks.repeat(50_000))),
        ("marks on nothing", marks.repeat(50_000)),
        ("invisible", invisible.repeat(40_000)),
        ("invisible between letters", format!("ب{invisible}").repeat(30_000)),
        ("tags in tags", "<b>".repeat(130_000)),
        ("tags never closed", "<".repeat(400_000)),
        ("attributes never closed", "<a href=\"".repeat(40_000)),
        ("comments never closed", "<!--".repeat(100_000)),
        ("scripts never closed", "<script>".repeat(50_000)),
        ("entities of entities", format!("&{}lt;", "amp;".repeat(90_000))),
        ("entities never closed", "&#x".repeat(130_000)),
        ("entities out of range", "&#1114112;&#xd800;&#0;&#99999999999;".repeat(10_000)),
        ("ends of sentences", ".؟!".repeat(130_000)),
        ("new lines", "\r\n\u{2028}\u{85}".repeat(90_000)),
        ("a byline without end", "كتب - ".repeat(60_000)),
        ("addresses", "http://a@b.c/?d=e#".repeat(20_000)),
        ("NUL", "\0".repeat(400_000)),
        ("what grows when it is composed", "\u{fdfa}".repeat(100_000)),
        ("what is decomposed", "\u{1d160}\u{fb2c}\u{390}".repeat(60_000)),
        ("Hangul", "\u{1100}\u{1161}\u{11a8}".repeat(60_000)),
        ("noncharacters", "\u{ffff}\u{10ffff}\u{fdd0}".repeat(60_000)),
        ("any scalar at all", scalars),
    ]
}

/// Asserts that a call ended with an answer, or with a refusal that names its reason.
fn assert_named<T>(what: &str, outcome: Result<T, Status>) -> String {
    match outcome {
        Ok(_) => "answered".to_owned(),
        Err(status) => {
            let reason = reason(&status);
            assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
            assert!(!reason.is_empty(), "{what}: {status:?}");
            reason
        }
    }
}

#[tokio::test]
async fn hostile_texts_are_answered_or_refused_by_name() {
    let bundle = bundle();
    let mut server = Server::start(bundle.path(), &[]);
    let mut steady = Steady::start(&server).await;
    let client = server.client().await;
    let mut client = client.max_decoding_message_size(64 * 1024 * 1024);
    for (what, text) in texts() {
        let begun = std::time::Instant::now();
        let document = Document { text: text.clone(), ..Document::default() };
        let options = Options { evidence: 64, ..Options::default() };
        let whole = ClassifyRequest { document: Some(document.clone()), options: Some(options) };
        let outcome = timeout(PATIENCE, client.classify(whole)).await.expect(what);
        let whole = assert_named(what, outcome);
        // The first window is within every limit of tokens.
        let options = Options { long_text: 2, ..Options::default() };
        let head = ClassifyRequest { document: Some(document.clone()), options: Some(options) };
        let outcome = timeout(PATIENCE, client.classify(head)).await.expect(what);
        let head = assert_named(what, outcome);
        let tokens = TokenizeRequest { document: Some(document), model: String::new() };
        let outcome = timeout(PATIENCE, client.tokenize(tokens)).await.expect(what);
        let tokens = assert_named(what, outcome);
        let title: String = text.chars().take(2_000).collect();
        let titled = Document { title, text: "نص".to_owned(), ..Document::default() };
        let titled = ClassifyRequest { document: Some(titled), options: None };
        let outcome = timeout(PATIENCE, client.classify(titled)).await.expect(what);
        let title = assert_named(what, outcome);
        eprintln!(
            "{:?} {what}: {whole}; its head: {head}; its tokens: {tokens}; as a title: {title}",
            begun.elapsed()
        );
    }
    server.assert_unharmed();
    steady.ask().await;
}

#[tokio::test]
async fn a_character_that_stands_for_many_counts_as_many() {
    let bundle = bundle();
    let mut server = Server::start(bundle.path(), &[]);
    let mut client = server.client().await;
    let document = Document { text: "\u{fdfa}".repeat(400_000), ..Document::default() };
    let request = ClassifyRequest { document: Some(document), options: None };
    let refused = timeout(PATIENCE, client.classify(request)).await.expect("an answer");
    let figures = refused.unwrap_err().get_details_error_info().unwrap().metadata;
    // Refused before it becomes millions of tokens.
    assert_eq!(figures["unit"], "characters once written out");
    assert_eq!((&*figures["limit"], &*figures["field"]), ("800000", "document.text"));
    server.assert_unharmed();
}

#[tokio::test]
async fn a_text_of_too_many_tokens_is_refused_before_all_are_in_memory() {
    let bundle = bundle();
    let mut server = Server::start(bundle.path(), &["--set", "documents.max_text_tokens=1000"]);
    let mut client = server.client().await;
    let document = Document { text: "!؟.،".repeat(100_000), ..Document::default() };
    let request = ClassifyRequest { document: Some(document), options: None };
    let refused = timeout(PATIENCE, client.classify(request)).await.expect("an answer");
    let figures = refused.unwrap_err().get_details_error_info().unwrap().metadata;
    assert_eq!((&*figures["unit"], &*figures["limit"]), ("tokens or more", "1000"));
    let counted: usize = figures["actual"].parse().unwrap();
    assert!((1_001..100_000).contains(&counted), "{counted}");
    server.assert_unharmed();
}

#[tokio::test]
async fn ten_megabytes_of_tatweel_are_nothing() {
    let bundle = bundle();
    let args =
        ["--set", "documents.max_text_chars=6000000", "--set", "server.max_message_bytes=16000000"];
    let mut server = Server::start(bundle.path(), &args);
    let mut steady = Steady::start(&server).await;
    let mut client = server.client().await;
    let stretch = "\u{640}".repeat(5_000_000);
    let request = |text: &str| ClassifyRequest {
        document: Some(Document { text: text.to_owned(), ..Document::default() }),
        options: None,
    };
    let refused = timeout(PATIENCE, client.classify(request(&stretch))).await.expect("an answer");
    assert_eq!(reason(&refused.unwrap_err()), "EMPTY_TEXT");
    // Stretched or not, it is the same word.
    let stretched = format!("س{stretch}لام");
    let mut answers = Vec::new();
    for text in [stretched.as_str(), "سلام"] {
        let answer = timeout(PATIENCE, client.classify(request(text))).await.expect("an answer");
        answers.push(answer.unwrap().into_inner().classification);
    }
    assert_eq!(answers[0], answers[1]);
    server.assert_unharmed();
    steady.ask().await;
}

#[test]
fn lines_of_prepare_are_answered_or_refused_each_for_itself() {
    let bundle = bundle();
    let model = bundle.path().to_str().unwrap();
    let deep = format!(r#"{{"text":"نص","id":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let long = format!(r#"{{"text":"{}"}}"#, "ا".repeat(5_000_000));
    let refused: [&[u8]; 14] = [
        br#"{"text":"\ud800"}"#,
        br#"{"text":"\udc00\ud800"}"#,
        br#"{"text":"\ud83d "}"#,
        br#"{"id":"\udfff","text":"x"}"#,
        b"{\"text\":\"\xff\"}",
        b"{\"text\":\"\xed\xa0\x80\"}",
        b"\xff\xfe",
        br#"{"text":"\u0000"}"#,
        br#"{"text":null}"#,
        br#"{"text":"x","text":"y"}"#,
        br#"{"text":1e999}"#,
        b"",
        deep.as_bytes(),
        long.as_bytes(),
    ];
    let good = r#"{"id":"good","text":"ارتفعت أسعار النفط"}"#.as_bytes();
    let lines: Vec<&[u8]> = refused.iter().flat_map(|line| [line, good]).collect();
    let output = run(&["prepare", "--model", model], lines.join(&b'\n'));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let prepared: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(prepared.len(), lines.len(), "a line for a line");
    for (index, pair) in prepared.chunks(2).enumerate() {
        assert!(pair[0]["error"].as_str().is_some_and(|error| !error.is_empty()), "{index}");
        assert_eq!(
            (&pair[1]["id"], &pair[1]["windows"]),
            (&"good".into(), &prepared[1]["windows"])
        );
    }
}
