//! `tasnif bench serve`: calls of gRPC, to a server that is started in this process or to any.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Extensions, Request};

use super::args::{EngineArgs, LoadArgs, TextArgs};
use super::lines::Numbered;
use super::load::Target;
use super::model::{Loaded, batch_tokens, engine_config, refusal};
use super::report;
use super::sweep::{self, Setting, Subject};
use super::tally::{Done, Outcome};
use super::work::Work;
use crate::bundle::Bundle;
use crate::cli::client::{self, ServerArgs};
use crate::cli::exit::Failure;
use crate::nn::cpu::measure;
use crate::pipeline::{Classifier, Document, DocumentLimits, LoadError, Models};
use crate::server::proto::classifier_client::ClassifierClient;
use crate::server::proto::{self, ClassifyRequest, ListModelsRequest};
use crate::server::{Listen, ServeError, ServeReport, ServerConfig, bind, serve};

/// How long a server of this process may take until it serves.
const START: Duration = Duration::from_secs(120);
const START_POLL: Duration = Duration::from_millis(10);

/// Measure a server over gRPC
///
/// By default a server is started in this process and called over loopback: it and its clients
/// share the cores. With --server it is another's, which knows best how it is set up.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    texts: TextArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Connections that the calls take in turn
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=128), help_heading = "Load")]
    connections: u16,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten, next_help_heading = "Server")]
    server: ServerArgs,
}

/// A server and what is sent to it.
#[derive(Clone)]
struct Remote(Arc<Calls>);

struct Calls {
    clients: Vec<ClassifierClient<Channel>>,
    next_client: AtomicUsize,
    /// The deadline and the token.
    metadata: MetadataMap,
    documents: Arc<[Document]>,
    /// Of each document; empty if they are not known.
    operations: Arc<[f64]>,
}

/// A server of this process.
struct Local {
    url: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<ServeReport, ServeError>>,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    args.load.loads()?;
    let batches = batch_tokens(&args.engine)?;
    if args.server.server.is_some() {
        refuse_engine_flags(&args.engine)?;
    }
    args.load.check_outputs()?;
    let texts = args.texts.read()?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime does not start")?;
    match &args.server.server {
        Some(url) => runtime.block_on(measure_other(args, url, texts)),
        None => runtime.block_on(measure_own(args, &batches, texts)),
    }
}

fn refuse_engine_flags(args: &EngineArgs) -> Result<(), Failure> {
    let given = [
        ("--model", args.model.is_some()),
        ("--threads", args.threads.is_some()),
        ("--precision", args.precision.is_some()),
        ("--batch-tokens", !args.batch_tokens.is_empty()),
    ];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((flag, _)) => {
            Err(Failure::Usage(format!("{flag} is for a server of this process, not for --server")))
        }
    }
}

async fn measure_other(
    args: &ServeArgs,
    url: &str,
    texts: Vec<Numbered<Document>>,
) -> anyhow::Result<()> {
    let work = Work::of_texts(args.texts.source(), &texts);
    let documents = documents(texts);
    let remote = Remote::connect(args, url, documents, Arc::default()).await?;
    let model = remote.model(args).await?;
    remote.first(Duration::ZERO).await?;
    let subject = Subject {
        name: "serve",
        server: Some(url.to_owned()),
        connections: Some(args.connections),
        precision: model.precision.clone(),
        model: describe(model),
        threads: None,
        peak_operations_per_s: None,
        work,
        known_operations: false,
    };
    sweep::run(subject, &[(None, remote)], &args.load, args.texts.seed).await
}

async fn measure_own(
    args: &ServeArgs,
    batches: &[usize],
    texts: Vec<Numbered<Document>>,
) -> anyhow::Result<()> {
    let loaded = Loaded::load(&args.engine)?;
    let windows = loaded.windows(&args.texts.name(), &texts)?;
    let work = Work::of_ids(args.texts.source(), &windows);
    let operations: Arc<[f64]> = loaded.operations(&windows).into();
    let documents = documents(texts);
    let mut settings: Vec<Setting<Remote>> = Vec::new();
    let mut servers = Vec::new();
    for &tokens in batches {
        let local = Local::start(&loaded, tokens).await?;
        let (documents, operations) = (Arc::clone(&documents), Arc::clone(&operations));
        let remote = Remote::connect(args, &local.url, documents, operations).await?;
        remote.first(START).await?;
        settings.push((Some(tokens), remote));
        servers.push(local);
    }
    let subject = Subject {
        name: "serve",
        server: None,
        connections: Some(args.connections),
        model: loaded.describe(),
        precision: loaded.compute.precision.to_string(),
        threads: Some(loaded.threads),
        peak_operations_per_s: Some(measure::peak(loaded.compute.precision, loaded.threads)),
        work,
        known_operations: true,
    };
    let result = sweep::run(subject, &settings, &args.load, args.texts.seed).await;
    for local in servers {
        local.stop().await?;
    }
    result
}

fn documents(texts: Vec<Numbered<Document>>) -> Arc<[Document]> {
    texts.into_iter().map(|(_, document)| document).collect()
}

fn describe(model: proto::Model) -> report::Model {
    let proto::Model { name, revision, digest, architecture, device, kernels, .. } = model;
    report::Model { name, revision, digest, architecture, device, kernels }
}

impl Local {
    /// Serves `loaded` on a free port, set up as `tasnif serve` is by default.
    async fn start(loaded: &Loaded, batch_tokens: usize) -> anyhow::Result<Self> {
        let path = &loaded.bundle.path;
        let limits = DocumentLimits::default();
        let classifier = Bundle::load(path).map_err(LoadError::from).and_then(|bundle| {
            let encoder = Arc::clone(&loaded.encoder);
            Classifier::new(
                bundle,
                None,
                encoder,
                engine_config(batch_tokens, loaded.workers),
                limits,
            )
        });
        let classifier = classifier.map_err(|source| refusal(path.clone(), source))?;
        let models = Models::new(vec![Arc::new(classifier)])?;
        let listen = Listen::Tcp((std::net::Ipv4Addr::LOCALHOST, 0).into());
        let listener = bind(&listen).await?;
        let url = format!("http://{}", listener.address());
        let config = ServerConfig { listen, ..ServerConfig::default() };
        let (stop, stopped) = oneshot::channel();
        let serving = serve(models, listener, config, async { drop(stopped.await) });
        Ok(Self { url, stop, serving: tokio::spawn(serving) })
    }

    async fn stop(self) -> anyhow::Result<()> {
        // Whether it still listens to that shows in how it has ended.
        let _ = self.stop.send(());
        self.serving.await.context("the server panicked")??;
        Ok(())
    }
}

impl Remote {
    async fn connect(
        args: &ServeArgs,
        url: &str,
        documents: Arc<[Document]>,
        operations: Arc<[f64]>,
    ) -> Result<Self, Failure> {
        let mut clients = Vec::new();
        for _ in 0..args.connections {
            clients.push(args.server.connect(url).await?);
        }
        let metadata = args.server.request(())?.metadata().clone();
        let next_client = AtomicUsize::new(0);
        Ok(Self(Arc::new(Calls { clients, next_client, metadata, documents, operations })))
    }

    fn client(&self) -> Option<ClassifierClient<Channel>> {
        let clients = &self.0.clients;
        let turn = self.0.next_client.fetch_add(1, Ordering::Relaxed);
        clients.get(turn % clients.len().max(1)).cloned()
    }

    /// The server's default model.
    async fn model(&self, args: &ServeArgs) -> anyhow::Result<proto::Model> {
        let mut client = self.client().context("there is no connection")?;
        let reply = client.list_models(args.server.request(ListModelsRequest {})?).await;
        let models = reply.map_err(|status| client::refusal(&status))?.into_inner().models;
        models.into_iter().next().context("the server has no model")
    }

    /// Sends the first document, so that what every call would fail with is told at once. A
    /// server that is not there yet has `patience` to come.
    async fn first(&self, patience: Duration) -> Result<(), Failure> {
        let patient = Instant::now() + patience;
        loop {
            match self.classify(0).await {
                Err(status) if status.code() == Code::Unavailable && Instant::now() < patient => {
                    tokio::time::sleep(START_POLL).await;
                }
                Err(status) => return Err(client::refusal(&status)),
                Ok(_) => return Ok(()),
            }
        }
    }

    async fn classify(&self, index: usize) -> Result<proto::ClassifyResponse, tonic::Status> {
        let missing = || tonic::Status::internal("there is no such document, or no connection");
        let Document { id, title, text } =
            self.0.documents.get(index).cloned().ok_or_else(missing)?;
        let document = Some(proto::Document { id, title, text });
        let message = ClassifyRequest { document, options: None };
        let metadata = self.0.metadata.clone();
        let request = Request::from_parts(metadata, Extensions::default(), message);
        let mut client = self.client().ok_or_else(missing)?;
        Ok(client.classify(request).await?.into_inner())
    }
}

impl Target for Remote {
    async fn call(&self, index: usize) -> Outcome {
        let answer = self.classify(index).await;
        let answer = answer.map_err(|status| format!("{:?}", client::code(&status)))?;
        let usage = answer.classification.and_then(|answer| answer.usage).unwrap_or_default();
        let operations = self.0.operations.get(index).copied().unwrap_or_default();
        Ok(Done { tokens: usage.tokens.into(), operations, cached: usage.cached })
    }
}
