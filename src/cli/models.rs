//! `tasnif models`: what is loaded, here or on a server.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::client::{self, ServerArgs};
use super::exit::Failure;
use super::local::{self, ModelArg};
use super::render;
use crate::nn::PrecisionChoice;
use crate::server::{self, proto};

/// Show models: tasks, labels, precision, device, digest
#[derive(Debug, Args)]
pub(super) struct ModelsArgs {
    /// A model directory, with a name if wished; may be repeated. The shipped model by default
    #[arg(long = "model", value_name = "[NAME=]PATH", conflicts_with = "server")]
    models: Vec<ModelArg>,
    /// In what to compute: auto, f32, bf16, int8, or reference, which is f32 in candle
    #[arg(long, value_name = "PRECISION", default_value_t, conflicts_with = "server")]
    precision: PrecisionChoice,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON also on a terminal
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ModelsArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("the runtime does not start")?;
    let models = match &args.server.server {
        Some(url) => runtime.block_on(ask(&args.server, url))?,
        None => {
            let models = local::load(&args.models, args.precision)?;
            models.iter().map(|model| server::model(model.info())).collect()
        }
    };
    let mut out = std::io::stdout().lock();
    if args.json || !std::io::stdout().is_terminal() {
        render::json(&mut out, &models)
    } else {
        render::models(&mut out, &models)
    }
    .map_err(Failure::print)?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(server: &ServerArgs, url: &str) -> anyhow::Result<Vec<proto::Model>> {
    let request = server.request(proto::ListModelsRequest {})?;
    let reply = server.connect(url).await?.list_models(request).await;
    Ok(reply.map_err(|status| client::refusal(&status))?.into_inner().models)
}
