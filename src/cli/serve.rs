//! `tasnif serve`: the gRPC server until Ctrl-C or SIGTERM.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::local::{self, ModelArg};
use crate::engine::EngineConfig;
use crate::server::telemetry::{MonitoringConfig, Tracing, TracingConfig};
use crate::server::{self, Observability, ServeReport, ServerConfig};

/// Serve models over gRPC
///
/// Ctrl-C or SIGTERM drains: no new calls, those accepted are answered. A second
/// signal ends the process at once.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Where to listen. There is no TLS and no authentication: keep it to trusted networks
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    /// A model directory, with a name if wished; may be repeated, the first is the default.
    /// The shipped model by default
    #[arg(long = "model", value_name = "[NAME=]PATH")]
    models: Vec<ModelArg>,
    /// Threads that compute. As many cores as the process may use by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Tokens in a batch, at most
    #[arg(long, value_name = "TOKENS", default_value_t = EngineConfig::default().max_batch_tokens)]
    max_batch_tokens: usize,
    /// Tokens waiting for a model, at most; calls over it are refused as RESOURCE_EXHAUSTED
    #[arg(long, value_name = "TOKENS", default_value_t = EngineConfig::default().max_queued_tokens)]
    max_queued_tokens: usize,
    /// Where to answer /metrics, /healthz and /readyz. Nowhere by default
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// The collector that spans are sent to by OTLP over gRPC, such as http://127.0.0.1:4317.
    /// There are no spans by default
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// The share of calls to trace, from 0 to 1, unless the caller says
    #[arg(long, value_name = "RATIO", default_value_t = TracingConfig::default().sample_ratio)]
    trace_sample_ratio: f64,
    /// Log each document with its text, at the level debug
    #[arg(long)]
    log_documents: bool,
    /// How long a shutdown may take
    #[arg(long, value_name = "SECONDS", default_value_t = ServerConfig::default().drain_timeout.as_secs(), value_parser = clap::value_parser!(u64).range(1..=3600))]
    drain_timeout: u64,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let engine = EngineConfig {
        max_batch_tokens: args.max_batch_tokens,
        max_queued_tokens: args.max_queued_tokens,
        ..EngineConfig::default()
    };
    let config = ServerConfig {
        listen: args.listen,
        drain_timeout: Duration::from_secs(args.drain_timeout),
        ..ServerConfig::default()
    };
    let monitoring =
        MonitoringConfig { listen: args.metrics_listen, ..MonitoringConfig::default() };
    let tracing = TracingConfig {
        otlp_endpoint: args.otlp_endpoint.clone(),
        sample_ratio: args.trace_sample_ratio,
        ..TracingConfig::default()
    };
    let runtime = tokio::runtime::Runtime::new().context("the runtime does not start")?;
    let report = runtime.block_on(async {
        // A signal during the load ends the server as soon as it is up.
        let shutdown = signal()?;
        let models = local::load(&args.models, args.threads.map(usize::from), engine)?;
        let listener = server::bind(config.listen).await?;
        let address = listener.local_addr().context("the address cannot be read")?;
        tracing::info!(%address, "listening; try: tasnif classify --server http://{address} --text 'ارتفعت أسعار النفط'");
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "other machines can call this server, without TLS or authentication");
        }
        let mut observability = Observability::new(&models);
        observability.log_documents = args.log_documents;
        if let Some(address) = monitoring.listen {
            let listener = server::bind(address).await?;
            let address = listener.local_addr().context("the address cannot be read")?;
            tracing::info!(%address, "monitoring: /metrics, /healthz and /readyz");
            observability.monitoring = Some((listener, monitoring));
        }
        observability.tracing = Tracing::start(&tracing)?;
        anyhow::Ok(server::serve_observed(models, listener, config, observability, shutdown).await?)
    })?;
    Ok(conclude(&report))
}

/// Completes at the first Ctrl-C or SIGTERM; the second ends the process.
fn signal() -> anyhow::Result<impl Future<Output = ()>> {
    let (heard, first) = tokio::sync::oneshot::channel();
    #[cfg(unix)]
    let mut terminate = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate()).context("SIGTERM cannot be listened for")?
    };
    tokio::spawn(async move {
        let mut heard = Some(heard);
        loop {
            #[cfg(unix)]
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            #[cfg(not(unix))]
            let _ = tokio::signal::ctrl_c().await;
            match heard.take() {
                // The server may have ended by itself meanwhile.
                Some(heard) => drop(heard.send(())),
                None => {
                    tracing::warn!("second signal: ending at once");
                    std::process::exit(1);
                }
            }
        }
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
