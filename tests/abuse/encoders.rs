//! An encoder that panics, fails and answers nonsense at random: each document is answered once,
//! with its answer or with what went wrong, and afterwards all is as before.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tasnif::bundle::Bundle;
use tasnif::engine::EngineConfig;
use tasnif::nn::{self, EncodeError, Encoder, PackedTokens, PrecisionChoice, Rows};
use tasnif::pipeline::{Classifier, DocumentLimits, Models};
use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::item_result::Outcome;
use tasnif::server::proto::{
    Classification, ClassifyBatchRequest, ClassifyStreamRequest, ItemResult,
};
use tasnif::server::{Listen, ServerConfig, bind, serve};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::process::{PATIENCE, bundle};
use crate::random::Random;
use crate::steady::{assert_same, document, request};
use crate::support::wrapped::wrapped;
use crate::wire::reason;

const CALLS: usize = 300;
const BATCHES: usize = 20;
const STREAMS: usize = 8;
/// Documents of a stream.
const LONG: usize = 60;
/// Documents that differ; the others are the same again.
const DIFFERENT: usize = 20;

struct Faults {
    on: AtomicBool,
    random: Mutex<Random>,
    panics: AtomicU64,
}

impl Faults {
    /// What `encoder` makes of `batch`, or something worse.
    fn encode<E: Encoder>(
        &self,
        encoder: &E,
        batch: &PackedTokens,
        pause: &mut dyn FnMut(),
    ) -> Result<Rows, EncodeError> {
        let on = self.on.load(Ordering::Relaxed);
        let draw = if on { self.random.lock().unwrap().below(8) } else { usize::MAX };
        let width = encoder.width();
        let rows = |count: usize, value| Ok(Rows::new(vec![value; count * width], width).unwrap());
        match draw {
            0 => {
                self.panics.fetch_add(1, Ordering::Relaxed);
                panic!("the test asked for this");
            }
            1 => Err(EncodeError::Backend("the test asked for this".into())),
            2 => rows(batch.sequences(), f32::NAN),
            3 => rows(batch.sequences() - 1, 0.0),
            _ => encoder.encode(batch, pause),
        }
    }
}

/// The outcome of each document, `true` if it is an answer.
type Outcomes = Vec<bool>;

async fn one(mut client: ClassifierClient<Channel>, index: usize) -> Result<Outcomes, Status> {
    Ok(match client.classify(request(index % DIFFERENT)).await {
        Ok(_) => vec![true],
        Err(status) => {
            assert_eq!(status.code(), Code::Internal, "{status:?}");
            let reason = reason(&status);
            assert!(["ENCODER_FAILED", "WORKER_PANICKED"].contains(&reason.as_str()), "{status:?}");
            vec![false]
        }
    })
}

async fn batch(mut client: ClassifierClient<Channel>, first: usize) -> Result<Outcomes, Status> {
    let documents: Vec<_> = (first..first + 8).map(|index| document(index % DIFFERENT)).collect();
    let ids: Vec<String> = documents.iter().map(|document| document.id.clone()).collect();
    let request = ClassifyBatchRequest { documents, options: None };
    let items = client.classify_batch(request).await?.into_inner().results;
    assert_eq!(items.iter().map(|item| item.id.clone()).collect::<Vec<_>>(), ids);
    Ok(items.iter().map(is_answer).collect())
}

async fn stream(mut client: ClassifierClient<Channel>) -> Result<Outcomes, Status> {
    let requests = (0..LONG).map(|index| {
        let document = Some(document(index % DIFFERENT));
        ClassifyStreamRequest { document, options: None }
    });
    let requests: Vec<_> = requests.collect();
    let mut responses = client.classify_stream(tokio_stream::iter(requests)).await?.into_inner();
    let mut outcomes = Vec::new();
    while let Some(response) = responses.message().await? {
        let item = response.result.unwrap();
        assert_eq!(item.id, (outcomes.len() % DIFFERENT).to_string(), "in order, each once");
        outcomes.push(is_answer(&item));
    }
    assert_eq!(outcomes.len(), LONG);
    Ok(outcomes)
}

fn is_answer(item: &ItemResult) -> bool {
    match item.outcome.as_ref().expect("an outcome") {
        Outcome::Classification(_) => true,
        Outcome::Error(error) => {
            assert_eq!(Code::from(error.code), Code::Internal, "{error:?}");
            false
        }
    }
}

async fn answers(client: &mut ClassifierClient<Channel>) -> Vec<Classification> {
    let mut answers = Vec::new();
    for index in 0..DIFFERENT {
        let answer = client.classify(request(index)).await.unwrap().into_inner();
        answers.push(answer.classification.unwrap());
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_document_is_answered_once_whatever_the_encoder_does() {
    let directory = bundle();
    let bundle = Bundle::load(directory.path()).unwrap();
    let faults = Arc::new(Faults {
        on: AtomicBool::new(false),
        random: Mutex::new(Random::of("faults")),
        panics: AtomicU64::new(0),
    });
    let at_random = Arc::clone(&faults);
    let faulty = wrapped(
        nn::load(&bundle, PrecisionChoice::default()).unwrap(),
        move |encoder, batch, pause| at_random.encode(encoder, batch, pause),
    );
    let faulty = Arc::new(faulty);
    // Small batches, so that there are many, and room for everything at once.
    let engine = EngineConfig {
        max_batch_tokens: 256,
        max_queued_tokens: 1 << 20,
        max_queued_tokens_per_client: 1 << 20,
        ..EngineConfig::default()
    };
    let classifier = Classifier::new(bundle, None, faulty, engine, DocumentLimits::default());
    let models = Models::new(vec![Arc::new(classifier.unwrap())]).unwrap();
    let address = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = bind(&address).await.unwrap();
    let url = format!("http://{}", listener.address());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(serve(models.clone(), listener, ServerConfig::default(), async {
        let _ = stopped.await;
    }));
    let endpoint = Endpoint::from_shared(url).unwrap();
    let mut client = ClassifierClient::new(endpoint.connect().await.unwrap());
    while let Err(status) = client.classify(request(0)).await {
        assert_eq!(reason(&status), "WARMING_UP");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let expected = answers(&mut client).await;

    faults.on.store(true, Ordering::Relaxed);
    let mut work = JoinSet::new();
    for index in 0..CALLS {
        work.spawn(one(client.clone(), index));
    }
    for index in 0..BATCHES {
        work.spawn(batch(client.clone(), index));
    }
    for _ in 0..STREAMS {
        let client = ClassifierClient::new(endpoint.connect().await.unwrap());
        work.spawn(stream(client));
    }
    let outcomes = timeout(PATIENCE, work.join_all()).await.expect("every call ends");
    faults.on.store(false, Ordering::Relaxed);
    let outcomes: Vec<bool> = outcomes.into_iter().flat_map(Result::unwrap).collect();
    let answered = outcomes.iter().filter(|is_answer| **is_answer).count();
    let panics = faults.panics.load(Ordering::Relaxed);
    eprintln!("{answered} of {} documents were answered, with {panics} panics", outcomes.len());
    assert_eq!(outcomes.len(), CALLS + 8 * BATCHES + LONG * STREAMS);
    assert!(panics > 0 && answered > 0 && answered < outcomes.len());

    for (answer, expected) in answers(&mut client).await.iter().zip(&expected) {
        assert_same(answer, expected);
    }
    let stats = models.get("").unwrap().stats();
    assert_eq!((stats.worker_restarts, stats.open_jobs), (panics, 0));
    drop(client);
    stop.send(()).unwrap();
    let report = timeout(PATIENCE, serving).await.expect("the server ends").unwrap().unwrap();
    assert!(report.closed_in_time && report.models[0].1.abandoned == 0, "{report:?}");
}
