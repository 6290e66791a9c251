//! Documents that come again: answered as the first time, without running.

use std::sync::Arc;

use tasnif::bundle::Bundle;
use tasnif::engine::EngineConfig;
use tasnif::pipeline::{self, Cache, CacheConfig, ClassifyError, DocumentLimits, ReloadConfig};
use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{
    Classification, ClassifyBatchRequest, ClassifyRequest, ClassifyResponse, Document, LongText,
    Options, Priority,
};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Channel;

use crate::deadline::{self, within};
use crate::harness::{
    Gate, PATIENCE, TestServer, answer, assert_status, document, gated_within, plain,
    says_when_to_retry, text,
};
use crate::replaceable::{Replaceable, set_revision};
use crate::support::Tiny;

const MANY_BYTES: u64 = 1 << 20;

async fn ask(client: &mut ClassifierClient<Channel>, request: ClassifyRequest) -> ClassifyResponse {
    client.classify(request).await.unwrap().into_inner()
}

fn is_cached(response: &ClassifyResponse) -> bool {
    response.classification.as_ref().unwrap().usage.unwrap().cached
}

/// The answer, without what tells whether it was cached.
fn bare(response: ClassifyResponse) -> Classification {
    let mut answer = response.classification.unwrap();
    answer.usage.as_mut().unwrap().cached = false;
    answer
}

#[tokio::test]
async fn a_cached_answer_is_the_answer_whatever_the_options() {
    let fresh = TestServer::start().await;
    let cached = Replaceable::start(MANY_BYTES).await;
    let (mut fresh, mut cached_client) = (fresh.client().await, cached.server.client().await);
    let sent = Document { title: "أخبار".to_owned(), text: text(9), ..document(0) };
    let default = Options::default;
    let all = [
        default(),
        Options { tasks: vec!["sentiment".to_owned(), "topic".to_owned()], ..default() },
        Options { top_k: 2, ..default() },
        Options { min_score: 0.3, ..default() },
        Options { with_logits: true, ..default() },
        Options { evidence: 3, ..default() },
        Options { evidence: 1, tasks: vec!["topic".to_owned()], ..default() },
        Options { priority: Priority::Bulk as i32, ..default() },
        Options { long_text: LongText::Windows as i32, ..default() },
    ];
    for (index, options) in all.into_iter().enumerate() {
        let request =
            ClassifyRequest { document: Some(sent.clone()), options: Some(options.clone()) };
        let expected = ask(&mut fresh, request.clone()).await;
        assert!(!is_cached(&expected));
        let got = ask(&mut cached_client, request).await;
        assert_eq!(is_cached(&got), index > 0, "{options:?}");
        assert_eq!(bare(got), bare(expected), "{options:?}");
    }
    // The head alone is another reading.
    let options = Some(Options { long_text: LongText::Head as i32, ..default() });
    let head = ClassifyRequest { document: Some(sent), options };
    let expected = ask(&mut fresh, head.clone()).await;
    let got = ask(&mut cached_client, head.clone()).await;
    assert!(!is_cached(&got));
    assert_eq!(bare(got), bare(expected.clone()));
    let again = ask(&mut cached_client, head).await;
    assert!(is_cached(&again));
    assert_eq!(bare(again), bare(expected));
    let stats = cached.cached();
    assert_eq!((stats.misses, stats.hits, stats.entries), (2, 9, 2));
}

#[tokio::test]
async fn a_cached_answer_took_no_time_but_its_own_and_has_the_callers_id() {
    let replaceable = Replaceable::start(MANY_BYTES).await;
    let client = &mut replaceable.server.client().await;
    let first = ask(client, plain(document(0))).await;
    let before = replaceable.server.gate.entered();
    let again = ask(client, plain(Document { id: "another".to_owned(), ..document(0) })).await;
    assert_eq!(replaceable.server.gate.entered(), before, "it ran");
    let timing = again.timing.unwrap();
    assert_eq!((timing.tokenize_us, timing.queue_us, timing.inference_us), (0, 0, 0));
    assert_eq!(timing.batch_tokens, 0);
    let (first, again) = (bare(first), bare(again));
    assert_eq!((again.id.as_str(), &again.usage), ("another", &first.usage));
    assert_eq!(again.tasks, first.tasks);

    // What is wrong with a document is so the second time.
    let long_id = Document { id: "7".repeat(2_000), ..document(0) };
    let status = client.classify(plain(long_id)).await.unwrap_err();
    assert_status(&status, Code::InvalidArgument, "FIELD_TOO_LONG");
}

#[tokio::test]
async fn where_the_title_ends_matters() {
    let replaceable = Replaceable::start(MANY_BYTES).await;
    let client = &mut replaceable.server.client().await;
    let of = |title: &str, text: &str| {
        plain(Document { id: String::new(), title: title.to_owned(), text: text.to_owned() })
    };
    let one = ask(client, of("خبر عن", "الطقس اليوم")).await;
    let other = ask(client, of("خبر", " عنالطقس اليوم")).await;
    let none = ask(client, of("", "خبر عنالطقس اليوم")).await;
    assert!(!is_cached(&one) && !is_cached(&other) && !is_cached(&none));
    assert_ne!(bare(one).tasks, bare(none).tasks);
    assert_eq!(replaceable.cached().entries, 3);
}

#[tokio::test]
async fn identical_documents_at_the_same_time_run_once() {
    let replaceable = Replaceable::start(MANY_BYTES).await;
    let gate = Arc::clone(&replaceable.server.gate);
    gate.shut();
    let before = gate.entered();
    let documents: Vec<_> =
        (0..40).map(|id| Document { id: id.to_string(), ..document(0) }).collect();
    let mut client = replaceable.server.client().await;
    let options = Options { priority: Priority::Interactive as i32, ..Options::default() };
    let batch = ClassifyBatchRequest { documents, options: Some(options) };
    let batch = tokio::spawn(async move { client.classify_batch(batch).await });
    let mut client = replaceable.server.client().await;
    let single = tokio::spawn(async move { ask(&mut client, plain(document(0))).await });
    replaceable.until_cached(|stats| stats.waiting == 40).await;
    gate.open();
    let reply = batch.await.unwrap().unwrap().into_inner();
    let single = single.await.unwrap();
    assert_eq!(gate.entered(), before + 1, "more than one ran");
    let mut cached = usize::from(is_cached(&single));
    let expected = bare(single);
    for (index, item) in reply.results.iter().enumerate() {
        let item = answer(item);
        assert_eq!((item.id.clone(), &item.tasks), (index.to_string(), &expected.tasks));
        cached += usize::from(item.usage.unwrap().cached);
    }
    assert_eq!(cached, 40);
    let stats = replaceable.cached();
    assert_eq!((stats.misses, stats.coalesced, stats.waiting), (1, 40, 0));
}

type Reply = Result<tonic::Response<ClassifyResponse>, tonic::Status>;

/// Starts on a document that comes to the shut gate, and then on the same once more, which waits.
async fn first_and_second(
    replaceable: &Replaceable,
    first: impl Future<Output = Reply> + Send + 'static,
) -> [JoinHandle<Reply>; 2] {
    let gate = &replaceable.server.gate;
    gate.shut();
    let before = gate.entered();
    let first = tokio::spawn(first);
    gate.until_entered_after(before).await;
    let mut client = replaceable.server.client().await;
    let second = tokio::spawn(async move { client.classify(plain(document(0))).await });
    replaceable.until_cached(|stats| stats.waiting == 1).await;
    [first, second]
}

/// Whether the answer that a call is about to get was cached.
async fn gets_cached(call: JoinHandle<Reply>) -> bool {
    let reply = tokio::time::timeout(PATIENCE, call).await.expect("it is answered");
    is_cached(&reply.unwrap().unwrap().into_inner())
}

#[tokio::test]
async fn one_who_waits_runs_if_the_first_caller_leaves() {
    let replaceable = Replaceable::start(MANY_BYTES).await;
    let mut client = replaceable.server.client().await;
    let call = async move { client.classify(plain(document(0))).await };
    let [first, second] = first_and_second(&replaceable, call).await;
    first.abort();
    replaceable.until_cached(|stats| stats.misses == 2).await;
    replaceable.server.gate.open();
    assert!(!gets_cached(second).await);
}

#[tokio::test]
async fn one_who_waits_runs_if_the_deadline_of_the_first_passes() {
    let replaceable = Replaceable::start(MANY_BYTES).await;
    let mut client = deadline::client(&replaceable.server);
    let call = async move { client.classify(within("3S", plain(document(0)))).await };
    let [first, second] = first_and_second(&replaceable, call).await;
    let status = first.await.unwrap().unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    replaceable.until_cached(|stats| stats.misses == 2).await;
    replaceable.server.gate.open();
    assert!(!gets_cached(second).await);
}

#[tokio::test]
async fn one_who_waits_keeps_its_own_deadline() {
    let replaceable = Replaceable::start(MANY_BYTES).await;
    let mut client = replaceable.server.client().await;
    let call = async move { client.classify(plain(document(0))).await };
    let [first, second] = first_and_second(&replaceable, call).await;
    let mut hasty = deadline::client(&replaceable.server);
    let status = hasty.classify(within("50m", plain(document(0)))).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    replaceable.server.gate.open();
    assert!(!gets_cached(first).await);
    assert!(gets_cached(second).await);
}

#[tokio::test]
async fn a_failure_is_not_cached() {
    let replaceable = Replaceable::start(MANY_BYTES).await;
    let client = &mut replaceable.server.client().await;
    replaceable.server.gate.panic_next();
    let status = client.classify(plain(document(0))).await.unwrap_err();
    assert_status(&status, Code::Internal, "WORKER_PANICKED");
    assert_eq!(replaceable.cached().entries, 0);
    assert!(!is_cached(&ask(client, plain(document(0))).await));
    assert!(is_cached(&ask(client, plain(document(0))).await));
}

#[tokio::test]
async fn a_cached_answer_needs_no_room_in_the_queue() {
    let engine =
        EngineConfig { max_batch_tokens: 64, max_queued_tokens: 88, ..EngineConfig::default() };
    let replaceable = Replaceable::start_with(MANY_BYTES, engine, ReloadConfig::default()).await;
    let server = &replaceable.server;
    let long = |index: usize| {
        plain(Document { text: text(3).chars().take(68).collect(), ..document(index) })
    };
    let different = move |index: usize| {
        let mut request = long(index);
        request.document.as_mut().unwrap().title = index.to_string();
        request
    };
    let client = &mut server.client().await;
    ask(client, long(0)).await;
    server.gate.shut();
    let before = server.gate.entered();
    let (mut first, mut second) = (server.client().await, server.client().await);
    let running = tokio::spawn(async move { ask(&mut first, different(1)).await });
    server.gate.until_entered_after(before).await;
    let queued = tokio::spawn(async move { ask(&mut second, different(2)).await });
    server.until_stats(|stats| stats.queued_tokens > 0).await;

    let status = client.classify(different(3)).await.unwrap_err();
    assert_status(&status, Code::ResourceExhausted, "OVERLOADED");
    assert!(says_when_to_retry(&status));
    assert!(is_cached(&ask(client, long(4)).await));
    server.gate.open();
    running.await.unwrap();
    queued.await.unwrap();
}

#[tokio::test]
async fn a_known_answer_comes_without_evidence_where_there_is_no_room_for_it() {
    let files = tempfile::tempdir().unwrap();
    Tiny::bundle().write(files.path());
    let (bundle, engine) = (Bundle::load(files.path()).unwrap(), EngineConfig::default());
    let limits = DocumentLimits { max_open_bytes: 4_096, ..DocumentLimits::default() };
    let gate = Arc::new(Gate::default());
    let model = gated_within(bundle, "tiny", engine, &gate, limits).unwrap();
    let model = model.with_cache(Cache::new(CacheConfig { max_bytes: MANY_BYTES }));
    let model = Arc::new(model);
    let explained = pipeline::Options { evidence: 1, ..pipeline::Options::default() };
    let ask = async |text: String, options: &pipeline::Options| {
        let document = pipeline::Document { text, ..pipeline::Document::default() };
        model.classify(&document, options, &pipeline::Submission::default()).await
    };
    let known = text(4);
    assert!(!ask(known.clone(), &explained).await.unwrap().usage.cached);
    let explanation = ask(known.clone(), &explained).await.unwrap();
    assert!(explanation.usage.cached && !explanation.tasks[0].evidence.is_empty());

    gate.shut();
    let before = gate.entered();
    let (other, large) = (Arc::clone(&model), text(20).chars().take(1_800).collect());
    let running = tokio::spawn(async move {
        let document = pipeline::Document { text: large, ..pipeline::Document::default() };
        let options = pipeline::Options::default();
        other.classify(&document, &options, &pipeline::Submission::default()).await
    });
    gate.until_entered_after(before).await;
    assert!(matches!(ask(text(5), &explained).await, Err(ClassifyError::Busy { .. })));
    let answer = ask(known, &explained).await.unwrap();
    assert!(answer.usage.cached && answer.tasks[0].evidence.is_empty());
    gate.open();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_that_is_there_does_not_wait_for_its_evidence() {
    let replaceable = Replaceable::start(MANY_BYTES).await;
    let server = &replaceable.server;
    let sent = Document { text: text(9), ..document(0) };
    ask(&mut server.client().await, plain(sent.clone())).await;
    server.gate.shut();
    let options = Some(Options { evidence: 3, ..Options::default() });
    let request = ClassifyRequest { document: Some(sent), options };
    let answer = deadline::client(server).classify(within("1S", request)).await;
    let answer = answer.expect("an answer").into_inner();
    assert!(is_cached(&answer));
    let tasks = answer.classification.expect("a classification").tasks;
    assert!(tasks.iter().all(|task| task.evidence.is_empty()), "{tasks:?}");
    server.gate.open();
}

#[tokio::test]
async fn the_oldest_answers_go_when_the_bytes_are_used_up() {
    let replaceable = Replaceable::start(4_096).await;
    let client = &mut replaceable.server.client().await;
    for index in 0..50 {
        ask(client, plain(document(index))).await;
    }
    let stats = replaceable.cached();
    assert!(stats.entries >= 4 && stats.bytes <= 4_096, "{stats:?}");
    assert_eq!(stats.evictions, 50 - stats.entries, "{stats:?}");
    assert!(is_cached(&ask(client, plain(document(49))).await));
    assert!(!is_cached(&ask(client, plain(document(0))).await));
}

#[tokio::test]
async fn the_answers_of_a_replaced_model_are_not_served() {
    let replaceable = Replaceable::start(MANY_BYTES).await;
    let client = &mut replaceable.server.client().await;
    let old = ask(client, plain(document(0))).await;
    // The same weights: only what is made of them differs.
    let mut next = Tiny::bundle();
    set_revision(&mut next, "tiny-2");
    next.tasnif.as_mut().unwrap()["text"]["profile"] = "none".into();
    next.tasnif.as_mut().unwrap()["tasks"][0]["temperature"] = 3.0.into();
    replaceable.install(&next);
    replaceable.reloader.reload().await;
    let new = ask(client, plain(document(0))).await;
    assert!(!is_cached(&new));
    assert_ne!(bare(new).tasks[0].score, bare(old).tasks[0].score);
    assert!(is_cached(&ask(client, plain(document(0))).await));
}

#[tokio::test]
async fn a_cached_answer_does_not_count_as_a_step_that_took_no_time() {
    let cached = Replaceable::start(MANY_BYTES).await;
    let mut client = cached.server.client().await;
    for _ in 0..3 {
        ask(&mut client, plain(document(0))).await;
    }
    let scrape = crate::scrape::scrape(cached.server.monitoring).await;
    let model = cached.server.models.get("").unwrap().info().name.clone();
    let labels = [("model", model.as_str()), ("lane", "interactive")];
    assert_eq!(scrape.value("tasnif_documents_total", &labels), 3.0);
    for step in ["tokenize", "queue", "inference"] {
        let count = format!("tasnif_document_{step}_seconds_count");
        assert_eq!(scrape.value(&count, &labels), 1.0, "{step}");
    }
}
