//! `tasnif models`: what is loaded, here or on a server.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::local::{self, ModelArg};
use super::{client, render};
use crate::engine::EngineConfig;
use crate::server::{self, proto};

/// Show models: tasks, labels, precision, device, digest
#[derive(Debug, Args)]
pub(super) struct ModelsArgs {
    /// A model directory, with a name if wished; may be repeated. The shipped model by default
    #[arg(long = "model", value_name = "[NAME=]PATH", conflicts_with = "server")]
    models: Vec<ModelArg>,
    /// Ask a running server what it serves
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Seconds to wait for the server's answer
    #[arg(long, value_name = "SECONDS", default_value_t = client::CALL_TIMEOUT_S, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Print JSON also on a terminal
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ModelsArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("the runtime does not start")?;
    let models = match &args.server {
        Some(url) => runtime.block_on(ask(url, args.timeout))?,
        None => {
            let models = local::load(&args.models, None, EngineConfig::default())?;
            models.iter().map(|model| server::model(model.info())).collect()
        }
    };
    let mut out = std::io::stdout().lock();
    if args.json || !std::io::stdout().is_terminal() {
        render::json(&mut out, &models)
    } else {
        render::models(&mut out, &models)
    }
    .context("the answer cannot be printed")?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(url: &str, timeout_s: u64) -> anyhow::Result<Vec<proto::Model>> {
    let mut client = client::connect(url).await?;
    let reply = client.list_models(client::request(proto::ListModelsRequest {}, timeout_s)).await;
    Ok(reply.map_err(|status| client::refusal(&status))?.into_inner().models)
}
