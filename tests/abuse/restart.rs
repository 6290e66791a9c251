//! SIGKILL and restart under load: a client that tries again gets every answer once, and the same
//! as if nothing had happened.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tasnif::server::proto::Classification;
use tasnif::server::proto::classifier_client::ClassifierClient;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::process::{PATIENCE, Server, bundle};
use crate::steady::{assert_same, request};

/// Documents of the client, and how many it asks for at a time.
const DOCUMENTS: usize = 600;
const AT_A_TIME: usize = 16;
/// Answers between one SIGKILL and the next.
const ANSWERS: usize = 150;
/// Wait before another try, unless the server says how long.
const BACKOFF: Duration = Duration::from_millis(50);

/// A client with documents to classify, which does not give up.
struct Persistent {
    address: SocketAddr,
    waiting: Mutex<VecDeque<usize>>,
    answers: watch::Sender<Vec<(usize, Classification)>>,
    retries: watch::Sender<usize>,
}

impl Persistent {
    fn start(address: SocketAddr) -> Arc<Self> {
        let client = Arc::new(Self {
            address,
            waiting: Mutex::new((0..DOCUMENTS).collect()),
            answers: watch::Sender::default(),
            retries: watch::Sender::default(),
        });
        for _ in 0..AT_A_TIME {
            tokio::spawn(Arc::clone(&client).work());
        }
        client
    }

    async fn work(self: Arc<Self>) {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let mut client = ClassifierClient::new(endpoint.connect_lazy());
        loop {
            let Some(index) = self.waiting.lock().unwrap().pop_front() else { return };
            let answer = loop {
                match client.classify(request(index)).await {
                    Ok(answer) => break answer.into_inner().classification.unwrap(),
                    Err(status) => tokio::time::sleep(retry_after(&status)).await,
                }
                self.retries.send_modify(|retries| *retries += 1);
            };
            self.answers.send_modify(|answers| answers.push((index, answer)));
        }
    }

    /// Waits for this many answers, and returns those there are.
    async fn until(&self, count: usize) -> Vec<(usize, Classification)> {
        let mut answers = self.answers.subscribe();
        let enough = answers.wait_for(|answers| answers.len() >= count);
        timeout(PATIENCE, enough).await.expect("answers go on").unwrap().clone()
    }
}

/// When to try again after `status`, which has to be one that asks for it.
fn retry_after(status: &Status) -> Duration {
    // A connection that breaks, or is refused: whoever retries cannot know more than that.
    let is_transport = std::error::Error::source(status).is_some();
    assert!(status.code() == Code::Unavailable || is_transport, "{status:?}");
    let asked = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
    asked.unwrap_or(BACKOFF)
}

async fn undisturbed(model: &Path) -> Vec<(usize, Classification)> {
    let server = Server::start(model, &[]);
    let client = Persistent::start(server.address);
    let answers = client.until(DOCUMENTS).await;
    assert_eq!(*client.retries.borrow(), 0);
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_retries_loses_nothing_to_kills_and_restarts() {
    let bundle = bundle();
    let mut expected = undisturbed(bundle.path()).await;

    let mut server = Server::start(bundle.path(), &[]);
    let address = server.address;
    let client = Persistent::start(address);
    for kill in 1..DOCUMENTS / ANSWERS {
        client.until(kill * ANSWERS).await;
        server.kill();
        server = Server::start_at(&address.to_string(), bundle.path(), &[]);
    }
    let mut answers = client.until(DOCUMENTS).await;
    let retries = *client.retries.borrow();
    eprintln!("{retries} calls were tried again");
    assert!(retries > 0, "the kills were noticed");

    answers.sort_by_key(|(index, _)| *index);
    expected.sort_by_key(|(index, _)| *index);
    let asked: Vec<usize> = answers.iter().map(|(index, _)| *index).collect();
    assert_eq!(asked, (0..DOCUMENTS).collect::<Vec<_>>(), "each once");
    for ((_, answer), (_, expected)) in answers.iter().zip(&expected) {
        assert_same(answer, expected);
    }
    assert_eq!(server.terminate().await.code(), Some(0));
}
