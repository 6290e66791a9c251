//! Replacing served models by what their directories hold now, while they serve.
//!
//! A new model is loaded beside the old one, on a thread of its own, and has to answer a document
//! of full length before it takes the old one's name. One that fails, in whatever way, leaves the
//! old one serving. A document that has begun on the old model ends on it; when the last has, its
//! memory is free. The next model is not loaded before that, so there are never more than one new
//! and one old beside those that serve.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;

use super::classifier::Classifier;
use super::model::{LoadError, ModelInfo};
use super::models::Models;
use super::settings::{SettingError, check_times};
use super::types::ClassifyError;
use crate::bundle::Bundle;

/// Makes a model of a bundle, under the name given.
pub type Build = dyn Fn(Bundle, &str) -> Result<Classifier, LoadError> + Send + Sync;

/// Where a served model is loaded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name that it is served by, whatever its directory is called.
    pub model: String,
    /// Its directory, or a link to it.
    pub path: PathBuf,
}

/// Settings of a [`Reloader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct ReloadConfig {
    /// Whether a server should call [`Reloader::watch`].
    pub watch: bool,
    /// How long a new model may take to answer its first document.
    #[serde(with = "humantime_serde")]
    pub warm_up_timeout: Duration,
    /// How long a replaced model may go on with the documents that it has; those left are then
    /// refused as if the server shut down.
    #[serde(with = "humantime_serde")]
    pub retire_timeout: Duration,
    /// How often [`Reloader::watch`] looks at the files. A change counts once they have stayed the
    /// same from one look to the next.
    #[serde(with = "humantime_serde")]
    pub watch_interval: Duration,
}

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadConfigError {
    /// A time is too short or too long.
    #[error(transparent)]
    Time(#[from] SettingError),
    /// A source is of a model that is not served.
    #[error("{0:?} is to be reloaded; it must be the name of a served model")]
    UnknownModel(String),
}

/// What became of a reload.
#[derive(Debug, Default)]
pub struct ReloadReport {
    /// The outcome for each model, in the order of the sources.
    pub models: Vec<(String, ReloadOutcome)>,
}

/// What became of the reload of one model.
#[derive(Debug)]
pub enum ReloadOutcome {
    /// The new model serves.
    Replaced {
        /// The one that served before.
        old: Box<ModelInfo>,
        /// The one that serves now.
        new: Box<ModelInfo>,
    },
    /// The directory holds the model that serves.
    Unchanged,
    /// The new model is not usable; the one before serves.
    Failed(ReloadError),
}

/// Why a new model does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// It cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Loading it panicked.
    #[error("{}: loading it panicked", .0.display())]
    Panicked(PathBuf),
    /// The system gave no thread to load it on.
    #[error("cannot start a thread to load it on: {0}")]
    Thread(#[source] std::io::Error),
    /// It loads but does not run.
    #[error("it fails on its first document: {0}")]
    WarmUp(#[from] ClassifyError),
    /// It loads but does not answer.
    #[error("it did not answer its first document within {} s", .0.as_secs_f64())]
    TooSlow(Duration),
}

/// A snapshot of a reloader's counters: models since the start, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReloadStats {
    /// Those that were replaced.
    pub replaced: u64,
    /// Those that were found to be as before.
    pub unchanged: u64,
    /// Those whose successor was not usable.
    pub failed: u64,
}

/// Replaces served models. Clones share one.
#[derive(Clone)]
pub struct Reloader {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) models: Models,
    pub(super) sources: Vec<Source>,
    pub(super) config: ReloadConfig,
    build: Box<Build>,
    /// Reloads asked for so far.
    asked: AtomicU64,
    /// Held by the one that runs.
    last: Mutex<Last>,
    replaced: AtomicU64,
    unchanged: AtomicU64,
    failed: AtomicU64,
    observer: OnceLock<Box<Observe>>,
}

type Observe = dyn Fn(&ReloadOutcome) + Send + Sync;

/// The last reload.
#[derive(Default)]
struct Last {
    /// Reloads that had been asked for when it began, so that it answers.
    answers: u64,
    report: Arc<ReloadReport>,
    /// The model that was replaced last, until it is gone.
    retiring: Option<JoinHandle<()>>,
}

impl Default for ReloadConfig {
    fn default() -> Self {
        Self {
            watch: false,
            warm_up_timeout: Duration::from_secs(120),
            retire_timeout: Duration::from_secs(300),
            watch_interval: Duration::from_secs(2),
        }
    }
}

impl ReloadConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// Names the first that cannot work.
    pub fn validate(&self) -> Result<(), ReloadConfigError> {
        Ok(check_times([
            ("reload.warm_up_timeout", self.warm_up_timeout),
            ("reload.retire_timeout", self.retire_timeout),
            ("reload.watch_interval", self.watch_interval),
        ])?)
    }
}

impl Reloader {
    /// Replaces those of `models` that `sources` name by what `build` makes of their directories.
    ///
    /// # Errors
    /// A setting cannot work, or a source is of a model that is not served.
    pub fn new(
        models: Models,
        sources: Vec<Source>,
        build: Box<Build>,
        config: ReloadConfig,
    ) -> Result<Self, ReloadConfigError> {
        config.validate()?;
        let served = |name: &str| models.iter().any(|model| model.info().name == name);
        if let Some(stranger) = sources.iter().find(|source| !served(&source.model)) {
            return Err(ReloadConfigError::UnknownModel(stranger.model.clone()));
        }
        let shared = Shared {
            models,
            sources,
            config,
            build,
            asked: AtomicU64::new(0),
            last: Mutex::default(),
            replaced: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            observer: OnceLock::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Reads every directory and replaces the models that are not what it holds. Returns when the
    /// new ones serve; the old ones may still be at their last documents.
    ///
    /// One reload runs at a time; all that are asked for meanwhile are answered by one more.
    /// It is under way when this returns the future, and dropping that does not stop it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn reload(&self) -> impl Future<Output = Arc<ReloadReport>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        let ticket = shared.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let reload = tokio::spawn(shared.reload(ticket));
        // It ends early only with its runtime.
        async move { reload.await.unwrap_or_default() }
    }

    /// Tells `observe` the outcome for each model from now on. Only the first observer is told.
    pub fn observe(&self, observe: impl Fn(&ReloadOutcome) + Send + Sync + 'static) {
        drop(self.shared.observer.set(Box::new(observe)));
    }

    /// The counters now.
    pub fn stats(&self) -> ReloadStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReloadStats {
            replaced: count(&self.shared.replaced),
            unchanged: count(&self.shared.unchanged),
            failed: count(&self.shared.failed),
        }
    }

    /// Waits until the model that was replaced last has answered its documents and is freed.
    pub async fn retired(&self) {
        self.shared.last.lock().await.until_retired().await;
    }
}

impl Shared {
    async fn reload(self: Arc<Self>, ticket: u64) -> Arc<ReloadReport> {
        let mut last = self.last.lock().await;
        if last.answers >= ticket {
            return Arc::clone(&last.report);
        }
        last.answers = self.asked.load(Ordering::SeqCst);
        let mut report = ReloadReport::default();
        for source in &self.sources {
            last.until_retired().await;
            let outcome = match self.successor(source).await {
                Ok(Some(new)) => self.replace(new, &mut last),
                Ok(None) => ReloadOutcome::Unchanged,
                Err(error) => ReloadOutcome::Failed(error),
            };
            self.tell(source, &outcome);
            report.models.push((source.model.clone(), outcome));
        }
        last.report = Arc::new(report);
        Arc::clone(&last.report)
    }

    /// The model that `source` holds, ready to serve; `None` if it is the one that serves.
    async fn successor(
        self: &Arc<Self>,
        source: &Source,
    ) -> Result<Option<Classifier>, ReloadError> {
        let (reply, loaded) = oneshot::channel();
        let (shared, to_load, runtime) = (Arc::clone(self), source.clone(), Handle::current());
        // Not a blocking task of the runtime, which would have to wait for it to shut down.
        let load = move || {
            let _clock = runtime.enter();
            drop(reply.send(shared.load(&to_load)));
        };
        thread::Builder::new()
            .name("tasnif-reload".to_owned())
            .spawn(load)
            .map_err(ReloadError::Thread)?;
        let panicked = |_| ReloadError::Panicked(source.path.clone());
        let Some(new) = loaded.await.map_err(panicked)?? else { return Ok(None) };
        let limit = self.config.warm_up_timeout;
        tokio::time::timeout(limit, new.warm_up())
            .await
            .map_err(|_| ReloadError::TooSlow(limit))??;
        Ok(Some(new))
    }

    fn load(&self, source: &Source) -> Result<Option<Classifier>, LoadError> {
        let bundle = Bundle::load(&source.path)?;
        let serving = self.models.get(&source.model).map(|model| model.info().fingerprint.clone());
        if serving.is_some_and(|serving| serving == bundle.fingerprint) {
            return Ok(None);
        }
        (self.build)(bundle, &source.model).map(Some)
    }

    fn replace(&self, new: Classifier, last: &mut Last) -> ReloadOutcome {
        let new = Arc::new(new);
        let info = Box::new(new.info().clone());
        // The names of the sources are served, which does not change.
        let Some(old) = self.models.replace(new) else { return ReloadOutcome::Unchanged };
        let old_info = Box::new(old.info().clone());
        last.retiring = Some(tokio::spawn(retire(old, self.config.retire_timeout)));
        ReloadOutcome::Replaced { old: old_info, new: info }
    }

    fn tell(&self, source: &Source, outcome: &ReloadOutcome) {
        let Source { model, path } = source;
        let counter = match outcome {
            ReloadOutcome::Replaced { old, new } => {
                for warning in new.warnings.iter().cloned().chain(losses(old, new)) {
                    tracing::warn!(model, "{warning}");
                }
                tracing::info!(
                    model,
                    revision = new.revision,
                    digest = new.digest,
                    old_revision = old.revision,
                    old_digest = old.digest,
                    "model replaced"
                );
                &self.replaced
            }
            ReloadOutcome::Unchanged => {
                tracing::info!(model, path = %path.display(), "model unchanged");
                &self.unchanged
            }
            ReloadOutcome::Failed(error) => {
                tracing::error!(
                    model,
                    path = %path.display(),
                    %error,
                    "model not replaced: the one before goes on serving"
                );
                &self.failed
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(observe) = self.observer.get() {
            observe(outcome);
        }
    }
}

impl Last {
    async fn until_retired(&mut self) {
        if let Some(retiring) = self.retiring.as_mut() {
            // It fails only if it panics, and then there is nothing left to wait for.
            drop(retiring.await);
            self.retiring = None;
        }
    }
}

/// Lets go of `old` and waits until everybody has.
async fn retire(old: Arc<Classifier>, timeout: Duration) {
    let (model, revision) = (old.info().name.clone(), old.info().revision.clone());
    let gone = old.gone();
    tokio::pin!(gone);
    let stuck = Arc::downgrade(&old);
    drop(old);
    if tokio::time::timeout(timeout, &mut gone).await.is_err() {
        if let Some(stuck) = stuck.upgrade() {
            let abandoned = stuck.drain(Duration::ZERO).await.abandoned;
            tracing::warn!(model, revision, abandoned, "the replaced model took too long to end");
        }
        gone.await;
    }
    tracing::info!(model, revision, "the replaced model is freed");
}

/// What callers of `old` may ask for or wait for, and `new` does not have.
fn losses(old: &ModelInfo, new: &ModelInfo) -> Vec<String> {
    let mut losses = Vec::new();
    for task in &old.tasks {
        let Some(kept) = new.tasks.iter().find(|kept| kept.name == task.name) else {
            losses.push(format!("the new model has no task {:?}", task.name));
            continue;
        };
        let ids = task.labels.iter().map(|label| label.id.as_str());
        let gone: Vec<&str> =
            ids.filter(|id| !kept.labels.iter().any(|label| label.id == *id)).collect();
        if !gone.is_empty() {
            let (task, gone) = (&task.name, gone.join(", "));
            losses.push(format!("task {task:?} of the new model has no label {gone}"));
        }
    }
    losses
}
