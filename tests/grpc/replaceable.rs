//! A server of one model, `tiny`, that can be replaced, with a cache if wished.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tasnif::bundle::Bundle;
use tasnif::engine::EngineConfig;
use tasnif::pipeline::{
    Build, Cache, CacheConfig, CacheStats, Models, ReloadConfig, ReloadStats, Reloader, Source,
};
use tasnif::server::ServerConfig;
use tasnif::server::proto::{ListModelsRequest, Model};
use tonic_health::ServingStatus;

use crate::harness::{Gate, PATIENCE, TestServer, gated};
use crate::support::Tiny;

pub(crate) struct Replaceable {
    pub(crate) server: TestServer,
    pub(crate) reloader: Reloader,
    /// The gate of every model but the first, which has the server's.
    pub(crate) next_gate: Arc<Gate>,
    /// The model's directory: a link, so that another can be put in its place at once.
    pub(crate) link: PathBuf,
    cache: Option<Arc<Cache>>,
}

impl Replaceable {
    /// A server that is ready and caches in `max_bytes`.
    pub(crate) async fn start(max_bytes: u64) -> Self {
        Self::start_with(max_bytes, EngineConfig::default(), ReloadConfig::default()).await
    }

    /// As [`start`](Self::start), with these settings.
    pub(crate) async fn start_with(
        max_bytes: u64,
        engine: EngineConfig,
        config: ReloadConfig,
    ) -> Self {
        Self::served_with(ServerConfig::default(), max_bytes, engine, config).await
    }

    /// The same, on a server with these settings.
    pub(crate) async fn served_with(
        server: ServerConfig,
        max_bytes: u64,
        engine: EngineConfig,
        config: ReloadConfig,
    ) -> Self {
        let files = tempfile::tempdir().unwrap();
        let link = files.path().join("serving");
        install(&Tiny::bundle(), &link);
        let (gate, next_gate) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
        let cache = Cache::new(CacheConfig { max_bytes });
        let behind = |gate: &Arc<Gate>| -> Box<Build> {
            let (gate, cache) = (Arc::clone(gate), cache.clone());
            Box::new(move |bundle, name| {
                Ok(gated(bundle, name, engine, &gate)?.with_cache(cache.clone()))
            })
        };
        let first = behind(&gate)(Bundle::load(&link).unwrap(), "tiny").unwrap();
        let models = Models::new(vec![Arc::new(first)]).unwrap();
        let sources = vec![Source { model: "tiny".to_owned(), path: link.clone() }];
        let reloader = Reloader::new(models.clone(), sources, behind(&next_gate), config).unwrap();
        let server = TestServer::serving(models, server, gate, files).await;
        server.until("", ServingStatus::Serving).await;
        Self { server, reloader, next_gate, link, cache }
    }

    /// Waits until the reloader's counters are as `reached` says.
    pub(crate) async fn until_reloaded(&self, reached: impl Fn(ReloadStats) -> bool) {
        let waiting = async {
            while !reached(self.reloader.stats()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the reloader gets there");
    }

    /// Puts `tiny` where the model is loaded from.
    pub(crate) fn install(&self, tiny: &Tiny) {
        install(tiny, &self.link);
    }

    /// The cache's counters.
    pub(crate) fn cached(&self) -> CacheStats {
        self.cache.as_ref().unwrap().stats()
    }

    /// Waits until the cache's counters are as `reached` says.
    pub(crate) async fn until_cached(&self, reached: impl Fn(CacheStats) -> bool) {
        let waiting = async {
            while !reached(self.cached()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the cache gets there");
    }

    /// What the server says of its model.
    pub(crate) async fn model(&self) -> Model {
        let reply = self.server.client().await.list_models(ListModelsRequest {}).await;
        reply.unwrap().into_inner().models.remove(0)
    }
}

/// The tiny bundle as a later revision with other weights.
pub(crate) fn successor() -> Tiny {
    let mut tiny = Tiny::bundle();
    set_revision(&mut tiny, "tiny-2");
    let (_, bias) = tiny.tensors.get_mut("heads.topic.bias").unwrap();
    bias.rotate_left(1);
    bias[0] += 4.0;
    tiny
}

/// Gives a bundle another revision.
pub(crate) fn set_revision(tiny: &mut Tiny, revision: &str) {
    tiny.tasnif.as_mut().unwrap()["revision"] = revision.into();
}

/// Writes `tiny` to a directory of its own beside `link`, and lets `link` lead to it.
fn install(tiny: &Tiny, link: &Path) {
    let beside = link.parent().unwrap();
    let version = std::fs::read_dir(beside).unwrap().count();
    let directory = beside.join(format!("v{version}"));
    tiny.write(&directory);
    point(&directory, link);
}

/// Lets `link` lead to `directory`, from one moment to the next.
#[cfg(unix)]
pub(crate) fn point(directory: &Path, link: &Path) {
    let fresh = link.with_extension("new");
    std::os::unix::fs::symlink(directory, &fresh).unwrap();
    std::fs::rename(&fresh, link).unwrap();
}

/// Where links are for few, the files are renamed over those that are there.
#[cfg(not(unix))]
pub(crate) fn point(directory: &Path, link: &Path) {
    std::fs::create_dir_all(link).unwrap();
    for file in std::fs::read_dir(directory).unwrap() {
        let file = file.unwrap();
        std::fs::rename(file.path(), link.join(file.file_name())).unwrap();
    }
}
