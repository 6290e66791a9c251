//! What a good request is answered: `Classify`, `Tokenize`, `ListModels`.

use tasnif::server::proto::{self, ListModelsRequest, LongText, Options, TokenizeRequest};

use crate::harness::{TestServer, document, plain, request, text};

async fn classify(
    client: &mut proto::classifier_client::ClassifierClient<tonic::transport::Channel>,
    request: proto::ClassifyRequest,
) -> proto::Classification {
    client.classify(request).await.unwrap().into_inner().classification.unwrap()
}

#[tokio::test]
async fn a_document_gets_every_task_of_the_default_model() {
    let server = TestServer::start().await;
    let reply = server.client().await.classify(plain(document(7))).await.unwrap().into_inner();

    let answer = reply.classification.unwrap();
    assert_eq!((answer.id.as_str(), answer.model.as_str()), ("7", "tiny"));
    let tasks: Vec<_> = answer.tasks.iter().map(|task| task.task.as_str()).collect();
    assert_eq!(tasks, ["topic", "sentiment"]);
    for task in &answer.tasks {
        let best = &task.labels[0];
        assert_eq!((&task.label, task.score), (&best.label, best.score));
        assert!(!best.name_ar.is_empty() && !best.name_en.is_empty());
        assert!(task.labels.is_sorted_by(|a, b| a.score >= b.score));
        let sum: f32 = task.labels.iter().map(|label| label.score).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert!(task.labels.iter().all(|label| label.logit.is_none()));
        assert!(task.evidence.is_empty());
    }
    assert_eq!(answer.tasks[0].labels.len(), 5);
    assert!(answer.tasks[0].labels[0].code.starts_with("medtop:"));

    let usage = answer.usage.unwrap();
    assert!(usage.tokens > 2 && usage.windows == 1 && !usage.truncated && !usage.cached);
    let timing = reply.timing.unwrap();
    assert!(timing.batch_tokens >= usage.tokens);
    assert!(timing.total_us >= timing.inference_us && timing.inference_us > 0);
    server.stop().await;
}

#[tokio::test]
async fn a_model_is_chosen_by_its_name() {
    let server = TestServer::start().await;
    let options = Options { model: "other".to_owned(), ..Options::default() };
    let answer = classify(&mut server.client().await, request(options)).await;
    assert_eq!(answer.model, "other");
}

#[tokio::test]
async fn options_select_what_is_listed() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let all = classify(client, request(Options::default())).await;

    let tasks = vec!["sentiment".to_owned()];
    let one = classify(client, request(Options { tasks, ..Options::default() })).await;
    assert_eq!(one.tasks, [all.tasks[1].clone()]);

    let top = classify(client, request(Options { top_k: 2, ..Options::default() })).await;
    for (task, full) in top.tasks.iter().zip(&all.tasks) {
        assert_eq!(task.labels, full.labels[..2]);
    }

    let min_score = all.tasks[0].labels[1].score;
    let likely = classify(client, request(Options { min_score, ..Options::default() })).await;
    assert_eq!(likely.tasks[0].labels, all.tasks[0].labels[..2]);

    // Even where no label is listed, the best one is named.
    let certain = Options { min_score: 1.0, ..Options::default() };
    let none = classify(client, request(certain)).await;
    assert!(none.tasks[0].labels.is_empty());
    assert_eq!(none.tasks[0].label, all.tasks[0].label);
}

#[tokio::test]
async fn logits_are_what_the_scores_are_made_of() {
    let server = TestServer::start().await;
    let options = Options { with_logits: true, ..Options::default() };
    let answer = classify(&mut server.client().await, request(options)).await;
    let labels = &answer.tasks[0].labels;
    let logits: Vec<f64> = labels.iter().map(|label| f64::from(label.logit.unwrap())).collect();
    let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
    for (label, logit) in labels.iter().zip(&logits) {
        // The bundle's temperature is 1.
        assert!((f64::from(label.score) - logit.exp() / sum).abs() < 1e-5, "{label:?}");
    }
}

#[tokio::test]
async fn evidence_points_at_sentences_of_the_text() {
    let server = TestServer::start().await;
    let document = proto::Document { text: text(4), ..document(0) };
    let count = document.text.chars().count();
    let options = Some(Options { evidence: 2, ..Options::default() });
    let request = proto::ClassifyRequest { document: Some(document), options };
    let answer = classify(&mut server.client().await, request).await;
    let listed: usize = answer.tasks.iter().map(|task| task.evidence.len()).sum();
    assert!(listed > 0, "no task has evidence");
    for task in &answer.tasks {
        assert!(task.evidence.len() <= 2);
        assert!(task.evidence.is_sorted_by(|a, b| a.weight >= b.weight));
        for evidence in &task.evidence {
            assert!(evidence.start < evidence.end && evidence.end as usize <= count);
        }
    }
}

#[tokio::test]
async fn evidence_of_a_head_is_that_of_a_text_that_ends_there() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let whole = proto::Document { text: text(12), ..document(0) };
    let request = |document: &proto::Document, long_text: LongText| {
        let long_text = long_text as i32;
        let options = Some(Options { evidence: 64, long_text, ..Options::default() });
        proto::ClassifyRequest { document: Some(document.clone()), options }
    };
    let head = classify(client, request(&whole, LongText::Head)).await;
    let usage = head.usage.unwrap();
    assert!(usage.truncated);

    let tokenize = TokenizeRequest { document: Some(whole.clone()), model: String::new() };
    let tokens = client.tokenize(tokenize).await.unwrap().into_inner().tokens;
    // Without the special tokens, one before the text and one after.
    let end = tokens[usage.tokens as usize - 3].end as usize;
    let cut = proto::Document { text: whole.text.chars().take(end).collect(), ..whole };
    let alone = classify(client, request(&cut, LongText::Windows)).await;
    let read = alone.usage.unwrap();
    assert_eq!((read.tokens, read.windows), (usage.tokens, 1));
    for (head, alone) in head.tasks.iter().zip(&alone.tasks) {
        assert!(!head.evidence.is_empty());
        let weight = |task: &proto::TaskResult, start| {
            let of_it = task.evidence.iter().find(|evidence| evidence.start == start);
            of_it.map_or(0.0, |evidence| evidence.weight)
        };
        for evidence in head.evidence.iter().chain(&alone.evidence) {
            let (one, other) = (weight(head, evidence.start), weight(alone, evidence.start));
            // A score may differ in its last digits with what else is in the batch.
            assert!((one - other).abs() < 1e-4, "{one} and {other} at {}", evidence.start);
        }
    }
}

#[tokio::test]
async fn a_long_text_is_read_in_windows_unless_only_its_head_is_asked_for() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let long = |long_text: LongText| proto::ClassifyRequest {
        document: Some(proto::Document { text: text(12), ..document(0) }),
        options: Some(Options { long_text: long_text as i32, ..Options::default() }),
    };

    let whole = classify(client, long(LongText::Windows)).await.usage.unwrap();
    assert!(whole.windows > 1 && !whole.truncated, "{whole:?}");
    let default = classify(client, long(LongText::Unspecified)).await.usage.unwrap();
    assert_eq!(default, whole);

    let head = classify(client, long(LongText::Head)).await.usage.unwrap();
    assert!(head.truncated && head.windows == 1 && head.tokens <= 64, "{head:?}");

    let short = Options { long_text: LongText::Head as i32, ..Options::default() };
    assert!(!classify(client, request(short)).await.usage.unwrap().truncated);
}

#[tokio::test]
async fn a_title_is_read_with_the_text() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    let without = classify(client, plain(document(0))).await;
    let title = "رياضة وطقس".to_owned();
    let with = classify(client, plain(proto::Document { title, ..document(0) })).await;
    assert!(with.usage.unwrap().tokens > without.usage.unwrap().tokens);
    assert_ne!(with.tasks[0].score, without.tasks[0].score);
}

#[tokio::test]
async fn tokens_point_into_the_text_as_sent() {
    let server = TestServer::start().await;
    let client = &mut server.client().await;
    // The diacritics and the tatweel are not in the normalised text that the model reads.
    let text = "قَالَ الوزيـــر في القاهرة".to_owned();
    let sent: Vec<char> = text.chars().collect();
    let document = Some(proto::Document { text, ..document(0) });
    let request = TokenizeRequest { document, model: String::new() };
    let reply = client.tokenize(request).await.unwrap().into_inner();

    assert_eq!(reply.windows, 1);
    assert!(reply.tokens.is_sorted_by(|a, b| a.end <= b.start), "{:?}", reply.tokens);
    let last = reply.tokens.last().unwrap();
    assert_eq!(last.end as usize, sent.len());
    let covered = |token: &proto::Token| -> String {
        sent[token.start as usize..token.end as usize].iter().collect()
    };
    let whole = reply.tokens.iter().find(|token| token.text == "في").unwrap();
    assert_eq!(covered(whole), "في");

    let document = Some(proto::Document { text: text_of_windows(), ..proto::Document::default() });
    let request = TokenizeRequest { document, model: "other".to_owned() };
    assert!(client.tokenize(request).await.unwrap().into_inner().windows > 1);
}

fn text_of_windows() -> String {
    text(12)
}

#[tokio::test]
async fn models_are_listed_with_their_labels() {
    let server = TestServer::start().await;
    let reply = server.client().await.list_models(ListModelsRequest {}).await.unwrap().into_inner();
    assert_eq!(reply.server_version, env!("CARGO_PKG_VERSION"));
    let names: Vec<_> = reply.models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["tiny", "other"]);

    let model = &reply.models[0];
    assert_eq!(model.revision, "tiny-1");
    assert_eq!((model.digest.len(), model.max_window_tokens), (64, 64));
    assert_eq!((model.architecture.as_str(), model.precision.as_str()), ("bert", "f32"));
    assert_eq!(model.device, "cpu");
    let tasks: Vec<_> =
        model.tasks.iter().map(|task| (task.name.as_str(), task.labels.len())).collect();
    assert_eq!(tasks, [("topic", 5), ("sentiment", 3)]);
    let politics = &model.tasks[0].labels[0];
    assert_eq!((politics.label.as_str(), politics.name_ar.as_str()), ("politics", "سياسة"));
    assert_eq!(politics.code, "medtop:11000000");
}
