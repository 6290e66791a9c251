//! `tasnif serve`: the gRPC server until Ctrl-C or SIGTERM.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use serde_json::Value as Json;
use tokio::net::TcpListener;

use super::exit::Failure;
use super::local::{self, ModelArg};
use super::reload::{Hangup, reload};
use super::settings::{Flag, Layers, Settings, environment};
use super::signals::Signals;
use super::start_logging;
use crate::pipeline::{Cache, Models};
use crate::server::telemetry::Tracing;
use crate::server::{self, Listen, Observability, ServeReport, ServerConfig};

/// Serve models over gRPC
///
/// Every setting has a place in the configuration file, a variable of the environment
/// (server.max_connections: TASNIF_SERVER_MAX_CONNECTIONS) and a flag (--set
/// server.max_connections=100); a flag goes before a variable, and a variable before the file.
/// tasnif.example.toml lists them all.
///
/// Ctrl-C or SIGTERM drains: no new calls, those accepted are answered. A second
/// signal ends the process at once. SIGHUP reads the model directories again, and
/// replaces the models that have changed while the others go on.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// A configuration file
    #[arg(long, value_name = "FILE", env = "TASNIF_CONFIG")]
    config: Option<PathBuf>,
    /// Check everything that can be checked without serving, print the effective configuration,
    /// and end
    #[arg(long)]
    check: bool,
    /// Set any setting; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pairs: Vec<String>,
    /// Where to listen: IP:PORT, or unix:PATH for a socket. 127.0.0.1:50051 by default
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// A model directory, with a name if wished; may be repeated, the first is the default.
    /// The shipped model by default
    #[arg(long = "model", value_name = "[NAME=]PATH")]
    models: Vec<ModelArg>,
    /// Threads that compute. As many cores as the process may use by default
    #[arg(long, value_name = "N")]
    threads: Option<String>,
    /// In what to compute: auto, f32, bf16, int8, or reference, which is f32 in candle. The
    /// fastest that is known to be accurate enough for the model by default
    #[arg(long, value_name = "PRECISION")]
    precision: Option<String>,
    /// Tokens in a batch, at most
    #[arg(long, value_name = "TOKENS")]
    max_batch_tokens: Option<String>,
    /// Tokens waiting for a model, at most; calls over it are refused as RESOURCE_EXHAUSTED
    #[arg(long, value_name = "TOKENS")]
    max_queued_tokens: Option<String>,
    /// How long a shutdown may take, such as 30s
    #[arg(long, value_name = "TIME")]
    drain_timeout: Option<String>,
    /// The server's certificate in PEM, for TLS; read again when it changes
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// Its private key
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Certificate authorities whose clients may connect, for mutual TLS
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<String>,
    /// Bearer tokens, one of which each call must show; read again when it changes
    #[arg(long, value_name = "FILE")]
    tokens_file: Option<String>,
    /// Bytes for answers to documents that come again, over all models. 0 keeps none
    #[arg(long, value_name = "BYTES")]
    cache_bytes: Option<String>,
    /// Replace a model when its files change, without waiting for SIGHUP
    #[arg(long)]
    watch: bool,
    /// Where to answer /metrics, /healthz and /readyz. Nowhere by default
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<String>,
    /// The collector that spans are sent to by OTLP over gRPC, such as http://127.0.0.1:4317.
    /// There are no spans by default
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// The share of calls to trace, from 0 to 1, unless the caller says
    #[arg(long, value_name = "RATIO")]
    trace_sample_ratio: Option<String>,
    /// Log each document with its text, at the level debug
    #[arg(long)]
    log_documents: bool,
    /// Let other machines connect without TLS
    #[arg(long)]
    allow_plaintext: bool,
}

impl ServeArgs {
    /// What the flags set that are of one setting.
    fn flags(&self) -> impl Iterator<Item = Flag> {
        let text = |text: &Option<String>| text.clone().map(Json::from);
        let switch = |on: bool| on.then_some(Json::Bool(true));
        let models: Json = self.models.iter().cloned().map(String::from).collect();
        let flags = [
            ("--model", "models", (!self.models.is_empty()).then_some(models)),
            ("--threads", "threads", text(&self.threads)),
            ("--precision", "precision", text(&self.precision)),
            ("--max-batch-tokens", "engine.max_batch_tokens", text(&self.max_batch_tokens)),
            ("--max-queued-tokens", "engine.max_queued_tokens", text(&self.max_queued_tokens)),
            ("--listen", "server.listen", text(&self.listen)),
            ("--drain-timeout", "server.drain_timeout", text(&self.drain_timeout)),
            ("--tls-cert", "server.tls.cert", text(&self.tls_cert)),
            ("--tls-key", "server.tls.key", text(&self.tls_key)),
            ("--tls-client-ca", "server.tls.client_ca", text(&self.tls_client_ca)),
            ("--tokens-file", "server.auth.tokens_file", text(&self.tokens_file)),
            ("--allow-plaintext", "server.allow_plaintext", switch(self.allow_plaintext)),
            ("--cache-bytes", "cache.max_bytes", text(&self.cache_bytes)),
            ("--watch", "reload.watch", switch(self.watch)),
            ("--metrics-listen", "monitoring.listen", text(&self.metrics_listen)),
            ("--otlp-endpoint", "tracing.otlp_endpoint", text(&self.otlp_endpoint)),
            ("--trace-sample-ratio", "tracing.sample_ratio", text(&self.trace_sample_ratio)),
            ("--log-documents", "log.documents", switch(self.log_documents)),
        ];
        flags.into_iter().filter_map(|(name, key, value)| Some(Flag { name, key, value: value? }))
    }

    /// The settings, and warnings about them for people to read.
    fn settings(&self, log_flags: Vec<Flag>) -> Result<(Settings, Vec<String>), Failure> {
        let layers = Layers {
            file: self.config.as_deref(),
            environment: environment(),
            flags: log_flags.into_iter().chain(self.flags()).collect(),
            pairs: self.pairs.clone(),
        };
        layers.settle().map_err(|error| Failure::Usage(error.to_string()))
    }
}

/// Serves. `log_flags` are those of all commands.
pub(super) fn run(args: &ServeArgs, log_flags: Vec<Flag>) -> anyhow::Result<ExitCode> {
    let (settings, warnings) = args.settings(log_flags)?;
    start_logging(&settings.log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    validate(&settings)?;
    if args.check {
        return check(settings);
    }
    let runtime = tokio::runtime::Runtime::new().context("the runtime does not start")?;
    let report = runtime.block_on(async {
        // A signal during the load ends the server as soon as it is up.
        let shutdown = signal()?;
        let hangup = Hangup::listen()?;
        let local::Reloadable { models, reloader, cache } = local::load_reloadable(&settings)?;
        let observability = observe(&settings, &models, cache).await?;
        // Stops with the signal: what is loaded after it would serve nobody.
        let metrics = Arc::clone(&observability.metrics);
        reloader.observe(move |outcome| metrics.reloaded(outcome));
        let reloads = tokio::spawn(reload(reloader, hangup, settings.reload.watch));
        let shutdown = async move {
            shutdown.await;
            reloads.abort();
        };
        let listener = server::bind(&settings.server.listen).await?;
        announce(&settings.server, listener.address());
        let config = settings.server;
        anyhow::Ok(server::serve_observed(models, listener, config, observability, shutdown).await?)
    })?;
    Ok(conclude(&report))
}

/// Threads that may compute, at most.
const MAX_THREADS: u16 = 1_024;

/// Checks the settings that can be wrong by themselves.
fn validate(settings: &Settings) -> Result<(), Failure> {
    let usage = |error: &dyn ToString| Failure::Usage(error.to_string());
    if let Some(threads) = settings.threads
        && !(1..=MAX_THREADS).contains(&threads)
    {
        return Err(usage(&format!("threads is {threads}; it must be from 1 to {MAX_THREADS}")));
    }
    settings.server.validate().map_err(|error| usage(&format!("server.{error}")))?;
    settings.engine(1).validate().map_err(|error| usage(&error))?;
    settings.documents.validate().map_err(|error| usage(&error))?;
    settings.reload.validate().map_err(|error| usage(&error))?;
    settings.monitoring.validate().map_err(|error| usage(&error))?;
    settings.tracing.validate().map_err(|error| usage(&error))
}

/// Begins to count what happens to `models`, and to tell it where the settings say.
async fn observe(
    settings: &Settings,
    models: &Models,
    cache: Option<Arc<Cache>>,
) -> anyhow::Result<Observability> {
    let mut observability = Observability::new(models);
    if let Some(cache) = cache {
        observability.metrics.set_cache(move || cache.stats());
    }
    if let Some(address) = settings.monitoring.listen {
        let bound = TcpListener::bind(address).await;
        let listen = Listen::Tcp(address);
        let listener =
            bound.map_err(|source| server::ServeError::Bind { address: listen, source })?;
        let address = listener.local_addr().context("the address cannot be read")?;
        tracing::info!(%address, "monitoring: /metrics, /healthz and /readyz");
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "other machines can read the metrics");
        }
        observability.monitoring = Some((listener, settings.monitoring));
    }
    observability.tracing = Tracing::start(&settings.tracing)?;
    observability.log_documents = settings.log.documents;
    Ok(observability)
}

/// Loads what serving would, and prints the settings as a file of them would be.
fn check(settings: Settings) -> anyhow::Result<ExitCode> {
    server::check_files(&settings.server).map_err(server::ServeError::File)?;
    let loaded = local::load_reloadable(&settings)?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime does not start")?;
    runtime.block_on(loaded.models.warm_up())?;
    let effective = toml::to_string(&settings).context("the settings cannot be printed")?;
    let mut out = std::io::stdout().lock();
    out.write_all(effective.as_bytes()).map_err(Failure::print)?;
    Ok(ExitCode::SUCCESS)
}

fn announce(config: &ServerConfig, address: &Listen) {
    let tls = config.tls.cert.is_some();
    let tokens = config.auth.tokens_file.is_some();
    let url = match address {
        Listen::Tcp(address) => format!("{}://{address}", if tls { "https" } else { "http" }),
        Listen::Unix(_) => address.to_string(),
    };
    tracing::info!(
        %address,
        tls,
        tokens,
        "listening; try: tasnif classify --server {url} --text 'ارتفعت أسعار النفط'"
    );
    if !address.is_local() && !tls {
        tracing::warn!(%address, "other machines can call this server without TLS");
    }
    if !address.is_local() && !tokens && config.tls.client_ca.is_none() {
        tracing::warn!(%address, "whoever reaches this server may call it: there are no tokens");
    }
}

/// Completes at the first Ctrl-C or SIGTERM; the second ends the process.
fn signal() -> anyhow::Result<impl Future<Output = ()>> {
    let (heard, first) = tokio::sync::oneshot::channel();
    let mut signals = Signals::listen()?;
    tokio::spawn(async move {
        signals.heard().await;
        // The server may have ended by itself meanwhile.
        let _ = heard.send(());
        signals.heard().await;
        tracing::warn!("second signal: ending at once");
        std::process::exit(1);
    });
    Ok(async move { drop(first.await) })
}

fn conclude(report: &ServeReport) -> ExitCode {
    let mut all_answered = true;
    for (model, drained) in &report.models {
        all_answered &= drained.abandoned == 0;
        tracing::info!(
            model,
            finished = drained.finished,
            abandoned = drained.abandoned,
            refused = drained.refused,
            "drained"
        );
    }
    if !report.closed_in_time {
        tracing::warn!("some connections did not close in time and were cut");
    }
    if all_answered { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
