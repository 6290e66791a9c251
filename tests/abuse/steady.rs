//! The good client on the side: what it asks is answered, and always the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{Classification, ClassifyRequest, Document, LabelScore};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::process::{PATIENCE, Server};

const SENTENCES: [&str; 4] = [
    "قال الوزير إن الحكومة وافقت على المشروع الجديد.",
    "ارتفعت أسعار النفط في الأسواق العالمية اليوم.",
    "فاز الفريق بالمباراة بعد أداء قوي في الشوط الثاني.",
    "حذرت هيئة الأرصاد من أمطار غزيرة على الساحل!",
];
/// Documents that the good client asks for, over and over.
const DOCUMENTS: usize = 8;

/// The document at `index`, of one to nine sentences.
pub(crate) fn document(index: usize) -> Document {
    let sentences = SENTENCES.iter().cycle().skip(index).take(1 + index % 9);
    let sentences: Vec<&str> = sentences.copied().collect();
    Document {
        id: index.to_string(),
        title: if index.is_multiple_of(2) { String::new() } else { "عاجل".to_owned() },
        text: format!("{index} {}", sentences.join(" ")),
    }
}

/// A request for the document at `index`.
pub(crate) fn request(index: usize) -> ClassifyRequest {
    ClassifyRequest { document: Some(document(index)), options: None }
}

/// A good client, and what it was answered before anything happened.
pub(crate) struct Steady {
    client: ClassifierClient<Channel>,
    expected: Arc<Vec<Classification>>,
}

/// The good client at work.
pub(crate) struct Working {
    stop: Arc<AtomicBool>,
    task: JoinHandle<usize>,
}

impl Steady {
    /// Asks for everything once.
    pub(crate) async fn start(server: &Server) -> Self {
        let mut client = server.client().await;
        let mut expected = Vec::new();
        for index in 0..DOCUMENTS {
            expected.push(answer(&mut client, index).await);
        }
        Self { client, expected: Arc::new(expected) }
    }

    /// Asks for everything while nobody else does: bit by bit the same as before.
    pub(crate) async fn ask(&mut self) {
        for (index, expected) in self.expected.iter().enumerate() {
            assert_eq!(&answer(&mut self.client, index).await, expected);
        }
    }

    /// Asks for everything beside others, whose batches may round otherwise.
    async fn ask_in_company(&mut self) {
        for (index, expected) in self.expected.iter().enumerate() {
            assert_same(&answer(&mut self.client, index).await, expected);
        }
    }

    /// Asks for everything over and over, until told to stop.
    pub(crate) fn work(&self) -> Working {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let mut steady = Self { client: self.client.clone(), expected: Arc::clone(&self.expected) };
        let task = tokio::spawn(async move {
            let mut rounds = 0;
            loop {
                steady.ask_in_company().await;
                rounds += 1;
                if until.load(Ordering::Relaxed) {
                    return rounds;
                }
            }
        });
        Working { stop, task }
    }
}

impl Working {
    /// Waits for the round under way; panics if an answer was missing or another one.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let rounds = self.task.await.unwrap();
        eprintln!("meanwhile a good client had {} right answers", rounds * DOCUMENTS);
    }
}

/// Asserts that two answers are the same but for the rounding of their scores.
pub(crate) fn assert_same(answer: &Classification, expected: &Classification) {
    let scores = |answer: &Classification| -> Vec<(String, String, f32)> {
        let labels = answer.tasks.iter().flat_map(|task| {
            let of_task =
                |label: &LabelScore| (task.task.clone(), label.label.clone(), label.score);
            task.labels.iter().map(of_task).collect::<Vec<_>>()
        });
        labels.collect()
    };
    assert_eq!((&answer.id, &answer.usage), (&expected.id, &expected.usage));
    let (scores, expected) = (scores(answer), scores(expected));
    assert_eq!(scores.len(), expected.len());
    for (score, expected) in scores.iter().zip(&expected) {
        assert_eq!((&score.0, &score.1), (&expected.0, &expected.1));
        assert!((score.2 - expected.2).abs() < 1e-4, "{score:?} is not {expected:?}");
    }
}

async fn answer(client: &mut ClassifierClient<Channel>, index: usize) -> Classification {
    let answer = timeout(PATIENCE, client.classify(request(index))).await.expect("an answer");
    answer.unwrap().into_inner().classification.unwrap()
}
