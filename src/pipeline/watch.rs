//! Reloading when the files of a model change.
//!
//! The files are looked at every few seconds: their directory entries, not their contents. That
//! sees what notification misses, such as links that are switched (Kubernetes' mounts) and network
//! file systems, and costs next to nothing.

use tokio::task::spawn_blocking;

use super::reload::Reloader;
use crate::bundle::Stamp;

impl Reloader {
    /// Reloads when the files of a model are not those that were loaded, and have stayed the same
    /// from one look to the next. A model that could not be loaded is not tried again before its
    /// files change. Runs until it is dropped.
    pub async fn watch(&self) {
        let mut seen = self.stamps().await;
        let mut tried = Vec::new();
        loop {
            tokio::time::sleep(self.shared.config.watch_interval).await;
            let before = std::mem::replace(&mut seen, self.stamps().await);
            let loaded = self.shared.sources.iter().map(|source| {
                let model = self.shared.models.get(&source.model);
                model.map(|model| model.stamp().clone()).unwrap_or_default()
            });
            let changed = loaded.zip(&seen).any(|(loaded, seen)| loaded != *seen);
            if changed && seen == before && seen != tried {
                tracing::info!("the files of a model have changed");
                tried.clone_from(&seen);
                self.reload().await;
            }
        }
    }

    /// The stamp of each source.
    async fn stamps(&self) -> Vec<Stamp> {
        let paths: Vec<_> = self.shared.sources.iter().map(|source| source.path.clone()).collect();
        let stamps = spawn_blocking(move || paths.iter().map(|path| Stamp::of(path)).collect());
        stamps.await.unwrap_or_default()
    }
}
