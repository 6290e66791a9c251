//! Models are replaced while they serve, by good ones only.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::json;
use tasnif::engine::EngineConfig;
use tasnif::pipeline::{
    ReloadConfig, ReloadConfigError, ReloadError, ReloadOutcome, ReloadReport, ReloadStats,
    Reloader, Source,
};
use tasnif::server::ServerConfig;
use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{Classification, ClassifyStreamRequest};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::ServingStatus;

use crate::harness::{PATIENCE, answer, assert_status, document, plain, says_when_to_retry};
use crate::replaceable::{Replaceable, point, set_revision, successor};
use crate::scrape::scrape;
use crate::support::Tiny;

async fn classify(client: &mut ClassifierClient<Channel>, index: usize) -> Classification {
    client.classify(plain(document(index))).await.unwrap().into_inner().classification.unwrap()
}

/// A call whose document is at the server's model and stays there until the gate is opened.
async fn stuck_call(replaceable: &Replaceable) -> JoinHandle<Result<(), Status>> {
    let gate = &replaceable.server.gate;
    gate.shut();
    let before = gate.entered();
    let mut client = replaceable.server.client().await;
    let call = async move { client.classify(plain(document(0))).await.map(drop) };
    let stuck = tokio::spawn(call);
    gate.until_entered_after(before).await;
    stuck
}

fn outcome(report: &ReloadReport) -> &ReloadOutcome {
    let [(model, outcome)] = report.models.as_slice() else { panic!("{report:?}") };
    assert_eq!(model, "tiny");
    outcome
}

/// Whether two answers are one model's to one document. A score may differ in its last digits with
/// what else is in the batch.
fn is_like(one: &Classification, other: &Classification) -> bool {
    one.tasks
        .iter()
        .zip(&other.tasks)
        .all(|(one, other)| one.label == other.label && (one.score - other.score).abs() < 1e-4)
}

fn failure(report: &ReloadReport) -> &ReloadError {
    match outcome(report) {
        ReloadOutcome::Failed(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_changed_bundle_replaces_the_model() {
    let replaceable = Replaceable::start(0).await;
    let client = &mut replaceable.server.client().await;
    let (old, old_answer) = (replaceable.model().await, classify(client, 0).await);
    assert!(old.loaded_at_ms > 0);

    let started = SystemTime::now();
    replaceable.install(&successor());
    let report = replaceable.reloader.reload().await;
    let ReloadOutcome::Replaced { old: before, new: after } = outcome(&report) else {
        panic!("{report:?}")
    };
    assert_eq!((before.revision.as_str(), after.revision.as_str()), ("tiny-1", "tiny-2"));
    assert!(after.loaded_at >= started);
    let new = replaceable.model().await;
    assert_eq!((new.name.as_str(), new.revision.as_str()), ("tiny", "tiny-2"));
    assert_eq!((&new.digest, &old.digest), (&after.digest, &before.digest));
    assert!(new.digest != old.digest && new.loaded_at_ms >= old.loaded_at_ms);
    assert_ne!(classify(client, 0).await.tasks, old_answer.tasks);
    replaceable.reloader.retired().await;
    replaceable.server.until("", ServingStatus::Serving).await;

    // What is there now is what serves.
    let report = replaceable.reloader.reload().await;
    assert!(matches!(outcome(&report), ReloadOutcome::Unchanged), "{report:?}");
    assert_eq!(replaceable.model().await, new);
    let stats = replaceable.reloader.stats();
    assert_eq!(stats, ReloadStats { replaced: 1, unchanged: 1, failed: 0 });
}

#[tokio::test]
async fn a_bundle_of_the_same_weights_may_be_another_model() {
    let replaceable = Replaceable::start(0).await;
    let old = replaceable.model().await;
    let mut next = Tiny::bundle();
    set_revision(&mut next, "tiny-1.1");
    next.tasnif.as_mut().unwrap()["tasks"][1]["abstain_below"] = 1.0.into();
    replaceable.install(&next);
    replaceable.reloader.reload().await;
    let new = replaceable.model().await;
    assert_eq!((new.digest, new.revision.as_str()), (old.digest, "tiny-1.1"));
    assert!(classify(&mut replaceable.server.client().await, 0).await.tasks[1].abstained);
}

#[tokio::test]
async fn documents_end_on_the_model_on_which_they_began() {
    let replaceable = Replaceable::start(0).await;
    let client = &mut replaceable.server.client().await;
    let old = classify(client, 0).await;

    let gate = Arc::clone(&replaceable.server.gate);
    gate.shut();
    let before = gate.entered();
    let mut other = replaceable.server.client().await;
    let running = tokio::spawn(async move { classify(&mut other, 0).await });
    gate.until_entered_after(before).await;
    let (sender, requests) = mpsc::channel(1);
    let mut streaming = replaceable.server.client().await;
    let reply = streaming.classify_stream(ReceiverStream::new(requests)).await;
    let mut responses = reply.unwrap().into_inner();
    let request = || ClassifyStreamRequest { document: Some(document(0)), options: None };
    sender.send(request()).await.unwrap();
    replaceable.server.until_stats(|stats| stats.open_jobs == 2).await;

    replaceable.install(&successor());
    let report = replaceable.reloader.reload().await;
    assert!(matches!(outcome(&report), ReloadOutcome::Replaced { .. }), "{report:?}");
    // The new model answers while the old one is still held up, also on the stream that is open.
    let new = classify(client, 0).await;
    assert_ne!(new.tasks, old.tasks);
    sender.send(request()).await.unwrap();
    drop(sender);
    gate.open();
    assert_eq!(running.await.unwrap(), old);
    let mut streamed = Vec::new();
    while let Some(response) = responses.message().await.unwrap() {
        streamed.push(answer(&response.result.unwrap()).clone());
    }
    assert_eq!(streamed, [old, new]);
    replaceable.reloader.retired().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_answered_by_one_of_the_two_models() {
    const DOCUMENTS: usize = 4;
    let replaceable = Replaceable::start(0).await;
    let mut answers = Vec::new();
    for tiny in [Tiny::bundle(), successor()] {
        replaceable.install(&tiny);
        replaceable.reloader.reload().await;
        let client = &mut replaceable.server.client().await;
        for index in 0..DOCUMENTS {
            answers.push(classify(client, index).await);
        }
    }
    let (answers, stop) = (Arc::new(answers), Arc::new(AtomicBool::new(false)));
    let mut calls = Vec::new();
    for index in 0..DOCUMENTS {
        let mut client = replaceable.server.client().await;
        let (answers, stop) = (Arc::clone(&answers), Arc::clone(&stop));
        calls.push(tokio::spawn(async move {
            let mut by = [0; 2];
            while !stop.load(Ordering::Relaxed) {
                let answer = classify(&mut client, index).await;
                let model =
                    [0, 1].map(|model| is_like(&answers[model * DOCUMENTS + index], &answer));
                assert_ne!(model[0], model[1], "answered by neither, or both are the same");
                by[usize::from(model[1])] += 1;
            }
            by
        }));
    }
    for tiny in [Tiny::bundle(), successor()].iter().cycle().take(8) {
        replaceable.install(tiny);
        let report = replaceable.reloader.reload().await;
        assert!(matches!(outcome(&report), ReloadOutcome::Replaced { .. }), "{report:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut answered = [0; 2];
    for call in calls {
        let by = call.await.unwrap();
        answered = [answered[0] + by[0], answered[1] + by[1]];
    }
    assert!(answered[0] + answered[1] > 0, "no call was made");
    assert_eq!(replaceable.reloader.stats().failed, 0);
}

/// Installs `tiny` after `spoil` has been at its files, and reloads; the message of the refusal.
/// The model that serves has to be the same before and after.
async fn refusal(replaceable: &Replaceable, tiny: &Tiny, spoil: impl Fn(&Path)) -> String {
    let client = &mut replaceable.server.client().await;
    let (model, expected) = (replaceable.model().await, classify(client, 0).await);
    let failed = replaceable.reloader.stats().failed;
    let directory = tempfile::tempdir_in(replaceable.link.parent().unwrap()).unwrap();
    tiny.write(directory.path());
    spoil(directory.path());
    point(directory.path(), &replaceable.link);
    let report = replaceable.reloader.reload().await;
    let message = failure(&report).to_string();
    assert_eq!(replaceable.reloader.stats().failed, failed + 1);
    assert_eq!(replaceable.model().await, model, "{message}");
    assert_eq!(classify(client, 0).await, expected, "{message}");
    replaceable.server.until("", ServingStatus::Serving).await;
    message
}

fn overwrite(file: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    change(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_bundle_with_bad_files_leaves_the_old_model_serving_and_is_told_by_file() {
    let replaceable = Replaceable::start(0).await;
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil); 7] = [
        ("model.safetensors", |path| std::fs::remove_file(path.join("model.safetensors")).unwrap()),
        ("model.safetensors", |path| {
            overwrite(&path.join("model.safetensors"), |bytes| bytes.truncate(bytes.len() / 2));
        }),
        ("model.safetensors", |path| {
            overwrite(&path.join("model.safetensors"), |bytes| bytes[9..40].reverse());
        }),
        ("tokenizer.json", |path| {
            overwrite(&path.join("tokenizer.json"), |bytes| bytes.truncate(99));
        }),
        ("config.json", |path| std::fs::remove_file(path.join("config.json")).unwrap()),
        ("tasnif.json", |path| std::fs::write(path.join("tasnif.json"), "{}").unwrap()),
        ("serving", |path| std::fs::remove_dir_all(path).unwrap()),
    ];
    for (file, spoil) in cases {
        let message = refusal(&replaceable, &successor(), spoil).await;
        assert!(message.contains(file), "{file} in {message}");
    }
}

#[tokio::test]
async fn a_bundle_that_does_not_fit_together_leaves_the_old_model_serving() {
    let replaceable = Replaceable::start(0).await;
    let intact = |_: &Path| {};

    let mut not_a_number = successor();
    let table = "embeddings.word_embeddings.weight";
    let (_, values) = not_a_number.tensors.get_mut(table).unwrap();
    // No token of the warm-up has this row.
    values[40 * 32] = f32::NAN;
    let message = refusal(&replaceable, &not_a_number, intact).await;
    assert!(message.contains(table) && message.contains("index 1280"), "{message}");

    let mut more_tokens = successor();
    more_tokens.tokenizer["model"]["vocab"]["##extra"] = json!(5_000);
    let message = refusal(&replaceable, &more_tokens, intact).await;
    assert!(message.contains("model.vocab"), "{message}");

    let mut same_labels = successor();
    let labels = &mut same_labels.tasnif.as_mut().unwrap()["tasks"][0]["labels"];
    labels[1]["id"] = labels[0]["id"].clone();
    let message = refusal(&replaceable, &same_labels, intact).await;
    assert!(message.contains("tasks[0].labels[1].id"), "{message}");

    let mut headless = successor();
    headless.tensors.remove("heads.topic.weight");
    let message = refusal(&replaceable, &headless, intact).await;
    assert!(message.contains("heads.topic.weight"), "{message}");

    // Finite weights whose sums are not.
    let mut overflowing = successor();
    let (_, values) = overflowing.tensors.get_mut("heads.topic.weight").unwrap();
    values.fill(f32::MAX);
    let message = refusal(&replaceable, &overflowing, intact).await;
    assert!(message.contains("first document"), "{message}");

    replaceable.next_gate.panic_next();
    let message = refusal(&replaceable, &successor(), intact).await;
    assert!(message.contains("panicked"), "{message}");
}

#[tokio::test]
async fn a_panic_while_loading_and_a_model_that_does_not_answer_are_refused() {
    let replaceable = Replaceable::start(0).await;
    let models = &replaceable.server.models;
    let source = Source { model: "tiny".to_owned(), path: replaceable.link.clone() };
    replaceable.install(&successor());
    let build = Box::new(|_, _: &str| panic!("the test asked for this"));
    let panicking =
        Reloader::new(models.clone(), vec![source.clone()], build, ReloadConfig::default());
    let report = panicking.unwrap().reload().await;
    assert!(matches!(failure(&report), ReloadError::Panicked(path) if *path == source.path));
    assert_eq!(replaceable.model().await.revision, "tiny-1");

    let config =
        ReloadConfig { warm_up_timeout: Duration::from_millis(50), ..ReloadConfig::default() };
    let replaceable = Replaceable::start_with(0, EngineConfig::default(), config).await;
    replaceable.next_gate.shut();
    replaceable.install(&successor());
    let report = replaceable.reloader.reload().await;
    assert!(matches!(failure(&report), ReloadError::TooSlow(_)), "{report:?}");
    replaceable.next_gate.open();
    assert_eq!(replaceable.model().await.revision, "tiny-1");
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    let replaceable = Replaceable::start(0).await;
    let new = |model: &str, config| {
        let source = Source { model: model.to_owned(), path: replaceable.link.clone() };
        let build = Box::new(|_, _: &str| panic!("nothing is loaded"));
        Reloader::new(replaceable.server.models.clone(), vec![source], build, config).err()
    };
    let stranger = new("strange", ReloadConfig::default());
    assert_eq!(stranger, Some(ReloadConfigError::UnknownModel("strange".to_owned())));
    let never = ReloadConfig { watch_interval: Duration::ZERO, ..ReloadConfig::default() };
    let error = new("tiny", never).unwrap().to_string();
    assert_eq!(error, "reload.watch_interval is 0ns; it must be from 1 ms to 1 year");
}

#[tokio::test]
async fn reloads_that_are_asked_for_during_one_are_one_more() {
    let replaceable = Replaceable::start(0).await;
    let gate = Arc::clone(&replaceable.next_gate);
    gate.shut();
    replaceable.install(&successor());
    let first = replaceable.reloader.reload();
    gate.until_entered_after(0).await;
    let others: Vec<_> = (0..5).map(|_| replaceable.reloader.reload()).collect();
    gate.open();
    assert!(matches!(outcome(&*first.await), ReloadOutcome::Replaced { .. }));
    for other in others {
        assert!(matches!(outcome(&*other.await), ReloadOutcome::Unchanged));
    }
    let stats = replaceable.reloader.stats();
    assert_eq!(stats, ReloadStats { replaced: 1, unchanged: 1, failed: 0 });
}

#[tokio::test]
async fn a_replaced_model_that_does_not_end_is_ended() {
    let config =
        ReloadConfig { retire_timeout: Duration::from_millis(50), ..ReloadConfig::default() };
    let replaceable = Replaceable::start_with(0, EngineConfig::default(), config).await;
    let gate = Arc::clone(&replaceable.server.gate);
    let stuck = stuck_call(&replaceable).await;
    replaceable.install(&successor());
    replaceable.reloader.reload().await;
    let status = stuck.await.unwrap().unwrap_err();
    assert_status(&status, Code::Unavailable, "DRAINING");
    assert!(says_when_to_retry(&status));
    replaceable.reloader.retired().await;
    gate.open();
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_a_reload() {
    let replaceable = Replaceable::start(0).await;
    let gate = Arc::clone(&replaceable.next_gate);
    gate.shut();
    replaceable.install(&successor());
    let reload = replaceable.reloader.reload();
    gate.until_entered_after(0).await;
    let report = replaceable.server.stop().await;
    assert!(report.closed_in_time);
    gate.open();
    reload.await;
}

#[tokio::test]
async fn a_shutdown_tells_what_it_gave_up_of_a_replaced_model() {
    let config = ServerConfig { drain_timeout: Duration::from_secs(1), ..ServerConfig::default() };
    let (engine, reload) = (EngineConfig::default(), ReloadConfig::default());
    let replaceable = Replaceable::served_with(config, 0, engine, reload).await;
    let gate = Arc::clone(&replaceable.server.gate);
    let stuck = stuck_call(&replaceable).await;
    replaceable.install(&successor());
    let report = replaceable.reloader.reload().await;
    assert!(matches!(outcome(&report), ReloadOutcome::Replaced { .. }), "{report:?}");
    let seen = scrape(replaceable.server.monitoring).await;
    assert_eq!(seen.value("tasnif_open_jobs", &[("model", "tiny")]), 1.0);
    assert_eq!(seen.value("tasnif_running_batches", &[("model", "tiny")]), 1.0);
    let report = replaceable.server.stop().await;
    let abandoned = report.models.iter().map(|(model, drained)| (&**model, drained.abandoned));
    assert_eq!(abandoned.collect::<Vec<_>>(), [("tiny", 0), ("tiny", 1)]);
    let status = stuck.await.unwrap().unwrap_err();
    assert_status(&status, Code::Unavailable, "DRAINING");
    gate.open();
}

#[tokio::test]
async fn a_watched_bundle_is_loaded_when_its_files_change() {
    let config =
        ReloadConfig { watch_interval: Duration::from_millis(10), ..ReloadConfig::default() };
    let replaceable = Replaceable::start_with(0, EngineConfig::default(), config).await;
    let watching = {
        let reloader = replaceable.reloader.clone();
        tokio::spawn(async move { reloader.watch().await })
    };
    // A link that is switched.
    replaceable.install(&successor());
    replaceable.until_reloaded(|stats| stats.replaced == 1).await;
    assert_eq!(replaceable.model().await.revision, "tiny-2");

    // A file that is renamed over another, first by a bad one.
    let manifest = replaceable.link.join("tasnif.json");
    let good = std::fs::read_to_string(&manifest).unwrap();
    let rename_over = |text: &str| {
        let fresh = replaceable.link.join("fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, &manifest).unwrap();
    };
    rename_over("{}");
    replaceable.until_reloaded(|stats| stats.failed == 1).await;
    assert_eq!(replaceable.model().await.revision, "tiny-2");
    rename_over(&good.replace("tiny-2", "tiny-3"));
    replaceable.until_reloaded(|stats| stats.replaced == 2).await;
    assert_eq!(replaceable.model().await.revision, "tiny-3");

    // The same once more, in new files.
    rename_over(&good.replace("tiny-2", "tiny-3"));
    replaceable.until_reloaded(|stats| stats.unchanged == 1).await;
    let stats = replaceable.reloader.stats();
    assert_eq!(stats, ReloadStats { replaced: 2, unchanged: 1, failed: 1 });
    watching.abort();
    assert!(tokio::time::timeout(PATIENCE, watching).await.unwrap().unwrap_err().is_cancelled());
}
