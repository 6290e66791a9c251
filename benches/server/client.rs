//! A client of the server, and the documents that it sends.

use std::time::{Duration, Instant};

use tasnif::server::proto::classifier_client::ClassifierClient;
use tasnif::server::proto::{
    ClassifyRequest, ClassifyStreamRequest, ClassifyStreamResponse, Document,
};
use tokio::runtime::Handle;
use tokio::task::{JoinSet, spawn_blocking};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Streaming};

use crate::latency::{ENOUGH, Latencies};

/// Names and tokens of the clients.
pub(crate) const TOKENS: [(&str, &str); 2] =
    [("news", "token-of-the-newsroom"), ("archive", "token-of-the-archive")];
/// From one interactive call to the next. Calls that come closer could take half of the engine,
/// which is their client's share beside one flood, and what takes its share waits its turn.
const EVERY: Duration = Duration::from_millis(75);

const SENTENCES: [&str; 5] = [
    "قال الوزير إن الحكومة وافقت على المشروع الجديد بعد نقاش طويل في البرلمان.",
    "ارتفعت أسعار النفط في الأسواق العالمية اليوم مع تراجع المخزونات الأمريكية.",
    "فاز الفريق بالمباراة بعد أداء قوي في الشوط الثاني أمام جمهور كبير.",
    "حذرت هيئة الأرصاد من أمطار غزيرة على الساحل ودعت السكان إلى الحذر.",
    "افتتحت الجامعة معرضا للكتاب تشارك فيه دور نشر من عشرين دولة.",
];

#[derive(Clone)]
pub(crate) struct Client {
    client: ClassifierClient<Channel>,
    token: usize,
}

impl Client {
    /// With the `token`th of [`TOKENS`].
    pub(crate) async fn connect(url: &str, token: usize) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
        Self { client: ClassifierClient::new(endpoint.connect().await.unwrap()), token }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = format!("Bearer {}", TOKENS[self.token].1);
        request.metadata_mut().insert("authorization", value.parse().unwrap());
        request
    }

    pub(crate) async fn call(
        &self,
        index: usize,
        sentences: usize,
        timeout: Option<Duration>,
    ) -> Result<(), Code> {
        let document = Some(document(index, sentences));
        let mut request = self.request(ClassifyRequest { document, options: None });
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let answer = self.client.clone().classify(request).await;
        answer.map(drop).map_err(|status| status.code())
    }

    /// The answers to a stream of `documents`.
    pub(crate) async fn stream(
        &self,
        documents: impl Iterator<Item = Document> + Send + 'static,
    ) -> Streaming<ClassifyStreamResponse> {
        let requests = documents
            .map(|document| ClassifyStreamRequest { document: Some(document), options: None });
        let request = self.request(tokio_stream::iter(requests));
        self.client.clone().classify_stream(request).await.unwrap().into_inner()
    }

    /// Latencies of calls in an open loop, [`EVERY`] apart, for `time` and of [`ENOUGH`] at least.
    /// None waits for those before it, and each counts from when it was due.
    pub(crate) async fn interactive(&self, time: Duration) -> Latencies {
        let count = (time.div_duration_f64(EVERY) as u32).max(ENOUGH);
        let (client, callers) = (self.clone(), Handle::current());
        // On a thread of its own, since the runtime's timer is only as fine as a millisecond.
        let calling = spawn_blocking(move || {
            let start = Instant::now();
            let mut calls = JoinSet::new();
            for index in 0..count {
                let due = start + EVERY * index;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let client = client.clone();
                let call = async move {
                    let answer = client.call(index as usize, 2, None).await;
                    answer.expect("an interactive call is answered");
                    due.elapsed()
                };
                calls.spawn_on(call, &callers);
            }
            calls
        });
        let mut latencies = Latencies::default();
        for taken in calling.await.unwrap().join_all().await {
            latencies.record(taken);
        }
        latencies
    }
}

/// A text of `sentences`, different for each `index`.
pub(crate) fn text(index: usize, sentences: usize) -> String {
    let chosen = (0..sentences).map(|i| SENTENCES[(index + i) % SENTENCES.len()]);
    format!("{index} {}", chosen.collect::<Vec<_>>().join(" "))
}

pub(crate) fn document(index: usize, sentences: usize) -> Document {
    Document { text: text(index, sentences), ..Document::default() }
}
