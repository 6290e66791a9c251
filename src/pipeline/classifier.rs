//! One loaded model and the way of a document through it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use super::cache::{Answer, Cache, Key, ModelCache};
use super::decision::{self, TaskLogits};
use super::evidence;
use super::guess::TokenGuess;
use super::model::{LoadError, ModelInfo};
use super::options;
use super::reader::Reader;
use super::reading::{self, Windows};
use super::settings::DocumentLimits;
use super::shares::{Held, Line, Shares};
use super::types::{
    Classification, ClassifyError, Document, LongText, Options, Submission, TaskResult, Timing,
    Tokenization, Usage,
};
use crate::bundle::{Bundle, Stamp, Task};
use crate::engine::{
    Admission, BatchHistograms, ClientId, DrainReport, Engine, EngineConfig, EngineError,
    EngineStats, Job, JobTiming, Lane, Output,
};
use crate::nn::{self, Compute, Encoder, PrecisionChoice};

/// When to try again while a model has as many documents in hand as it may.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A loaded model: it reads documents, and its engine runs them.
pub struct Classifier {
    info: ModelInfo,
    reader: Arc<Reader>,
    guess: TokenGuess,
    /// Kilobytes of documents that may still be taken in hand.
    room: Shares,
    cache: Option<ModelCache>,
    /// The bundle's files as they were when they were read.
    stamp: Stamp,
    engine: Engine,
    /// Carries nothing: its end is the model's, so it is the last to go.
    alive: watch::Sender<()>,
}

impl Classifier {
    /// Loads the model directory at `path` under `name`, or its own name, and starts
    /// its engine.
    ///
    /// # Errors
    /// [`LoadError`], naming the file and key, or the setting, at fault.
    pub fn load(
        path: &Path,
        name: Option<&str>,
        precision: PrecisionChoice,
        engine: EngineConfig,
        limits: DocumentLimits,
    ) -> Result<Self, LoadError> {
        Self::from_bundle(Bundle::load(path)?, name, precision, engine, limits)
    }

    /// As [`load`](Self::load), with the directory read already.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn from_bundle(
        bundle: Bundle,
        name: Option<&str>,
        precision: PrecisionChoice,
        engine: EngineConfig,
        limits: DocumentLimits,
    ) -> Result<Self, LoadError> {
        let (queued, window) = (engine.max_queued_tokens, bundle.text.window);
        let bulk = engine.lane_limit(Lane::Bulk);
        if window > bulk {
            return Err(LoadError::Queue { queued, bulk, window });
        }
        let encoder = nn::load(&bundle, precision)?;
        Self::new(bundle, name, Arc::new(encoder), engine, limits)
    }

    /// Starts an engine on `encoder`, whose rows are the logits of the tasks of
    /// `bundle`, one after the other.
    ///
    /// # Errors
    /// If a setting of the engine is out of range.
    pub fn new(
        bundle: Bundle,
        name: Option<&str>,
        encoder: Arc<dyn Encoder>,
        engine: EngineConfig,
        limits: DocumentLimits,
    ) -> Result<Self, LoadError> {
        let Compute { precision, kernels } = encoder.computes_with();
        let info = ModelInfo {
            name: name.map_or(bundle.name, str::to_owned),
            revision: bundle.revision,
            digest: bundle.digest,
            fingerprint: bundle.fingerprint,
            loaded_at: SystemTime::now(),
            architecture: bundle.config.architecture.to_string(),
            precision: precision.to_string(),
            kernels,
            device: "cpu".to_owned(),
            profile: bundle.text.profile.to_string(),
            max_window_tokens: bundle.text.window,
            tasks: bundle.tasks,
            warnings: bundle.warnings,
        };
        // A small part of what a client may queue.
        let guess =
            TokenGuess::new(bundle.text.window.min(engine.max_queued_tokens_per_client / 4));
        let reader = Reader::new(bundle.text, bundle.tokenizer, limits, nn::default_threads());
        let room = Shares::new(kilobytes(limits.max_open_bytes));
        let engine = Engine::start(encoder, engine)?;
        let (reader, stamp, alive) = (Arc::new(reader), bundle.stamp, watch::Sender::new(()));
        Ok(Self { info, reader, guess, room, cache: None, stamp, engine, alive })
    }

    /// The same model, which keeps its answers in `cache`, if there is one. Other models may keep
    /// theirs in it too.
    pub fn with_cache(mut self, cache: Option<Arc<Cache>>) -> Self {
        let ModelInfo { fingerprint, precision, device, .. } = &self.info;
        let max_windows = self.limits().max_windows;
        let identity = format!("{fingerprint} {precision} {device} {max_windows}");
        self.cache = cache.map(|cache| ModelCache::new(cache, identity));
        self
    }

    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The engine's counters.
    pub fn stats(&self) -> EngineStats {
        self.engine.stats()
    }

    /// The batches that the engine has run.
    pub fn batches(&self) -> BatchHistograms {
        self.engine.batches()
    }

    /// Classifies `document`. Dropping the future cancels what has not run.
    ///
    /// # Errors
    /// [`ClassifyError`]: a fault of the document or the options, or the engine's.
    pub async fn classify(
        &self,
        document: &Document,
        options: &Options,
        submission: &Submission,
    ) -> Result<Classification, ClassifyError> {
        let started = Instant::now();
        let tasks = self.select(options)?;
        if submission.deadline.is_some_and(|deadline| deadline <= started) {
            return Err(EngineError::DeadlineExceeded.into());
        }
        // What is too long takes no room and is not worth hashing, and an answer that is known does
        // not excuse it.
        reading::check(document, self.limits())?;
        let line = (options.lane, submission.client.clone());
        let key = self.key(document, options);
        let known = key.and_then(|(cache, key)| cache.get(key));
        // What is known takes no room, unless it is to be explained; it is not where there is none in time.
        let held = match &known {
            Some(_) if options.evidence == 0 => None,
            Some(_) => {
                let deadline = evidence::until(submission.deadline);
                let in_time = Submission { deadline, ..submission.clone() };
                self.take_in_hand(document, &line, &in_time).await.ok()
            }
            None => Some(self.take_in_hand(document, &line, submission).await?),
        };
        let mut timing = None;
        let answer = match (known, key) {
            (Some(answer), _) => answer,
            (None, None) => self.answer(document, options, submission, &mut timing).await?.into(),
            (None, Some((cache, key))) => {
                let run = self.answer(document, options, submission, &mut timing);
                within(submission.deadline, cache.join(key, line.clone(), run)).await??
            }
        };
        let usage = Usage { cached: timing.is_none(), ..answer.usage };

        let chosen = tasks
            .iter()
            .filter_map(|&index| Some((self.info.tasks.get(index)?, answer.logits.get(index)?)));
        let mut results: Vec<TaskResult> =
            chosen.map(|(task, logits)| decision::decide(task, logits, options)).collect();
        if options.evidence > 0 && held.is_some() {
            let (tokens, until) = (usage.tokens, evidence::until(submission.deadline));
            let run =
                evidence::Run { classifier: self, document, options, tokens, submission, until };
            run.explain(&tasks, &mut results).await;
        }
        Ok(Classification {
            id: document.id.clone(),
            model: self.info.name.clone(),
            tasks: results,
            usage,
            timing: Timing { total: started.elapsed(), ..timing.unwrap_or_default() },
        })
    }

    /// Runs `document`; `timing` tells where the time went.
    async fn answer(
        &self,
        document: &Document,
        options: &Options,
        submission: &Submission,
        timing: &mut Option<Timing>,
    ) -> Result<Answer, ClassifyError> {
        let started = Instant::now();
        let Submission { client, admission, deadline } = submission;
        let bytes = document.title.len() + document.text.len();
        let guess = self.guess.tokens(bytes);
        self.engine.look(client, options.lane, guess, *admission, *deadline)?;
        let line = (options.lane, client.clone());
        let windows = self.read(document.clone(), options.long_text, &line).await?;
        let tokenize = started.elapsed();
        if !windows.truncated {
            self.guess.learn(bytes, windows.sequences.iter().map(Vec::len).sum());
        }
        let usage = Usage {
            tokens: windows.tokens(),
            windows: windows.sequences.len(),
            truncated: windows.truncated,
            cached: false,
        };
        let (logits, job) = self.run(vec![windows], options.lane, submission).await?;
        *timing = Some(Timing {
            tokenize,
            queue: job.queue,
            inference: job.inference,
            total: started.elapsed(),
            batch_tokens: job.batch_tokens,
        });
        Ok(Answer { logits: logits.into_iter().next().unwrap_or_default(), usage })
    }

    /// The tokens of `document`'s text and the windows it takes, without inference.
    ///
    /// # Errors
    /// As [`classify`](Self::classify), the engine's aside.
    pub async fn tokenize(
        &self,
        document: Document,
        client: ClientId,
    ) -> Result<Tokenization, ClassifyError> {
        reading::check(&document, self.limits())?;
        let line = (Lane::Interactive, client);
        let _held = self.take_in_hand(&document, &line, &Submission::default()).await?;
        self.reader.on_a_core(&line, move |reader| reader.tokenization(&document)).await
    }

    /// Runs one window of full length, so that the first caller finds memory and
    /// caches in place, and a model that gives nonsense is found before it serves.
    ///
    /// # Errors
    /// The engine's.
    pub async fn warm_up(&self) -> Result<(), ClassifyError> {
        let tokenizer = self.reader.tokenizer();
        let mut sequence = tokenizer.prefix().to_vec();
        let special = sequence.len() + tokenizer.suffix().len();
        let filler = tokenizer.suffix().first().copied().unwrap_or_default();
        let text = self.info.max_window_tokens.saturating_sub(special);
        sequence.extend(std::iter::repeat_n(filler, text));
        sequence.extend_from_slice(tokenizer.suffix());
        let (sequences, admission) = (vec![sequence], Admission::Wait);
        self.engine.submit(Job { sequences, admission, ..Job::default() }).await?;
        Ok(())
    }

    /// Takes no more documents and waits until those accepted are answered, at most
    /// `timeout`.
    pub async fn drain(&self, timeout: Duration) -> DrainReport {
        self.engine.drain(timeout).await
    }

    /// Checks options that many documents will have.
    ///
    /// # Errors
    /// The fault that every document would be refused for.
    pub fn check(&self, options: &Options) -> Result<(), ClassifyError> {
        self.select(options).map(drop)
    }

    /// The cache and what `document` is called in it.
    fn key(&self, document: &Document, options: &Options) -> Option<(&Cache, Key)> {
        let cache = self.cache.as_ref()?;
        Some(cache.place(document, options.long_text))
    }

    /// Room for `document`, until the permit is dropped.
    async fn take_in_hand(
        &self,
        document: &Document,
        line: &Line,
        submission: &Submission,
    ) -> Result<Held, ClassifyError> {
        let limit = self.limits().max_open_bytes;
        let bytes = document.bytes();
        if bytes > limit {
            let (field, unit) = ("document", "bytes");
            return Err(ClassifyError::FieldTooLong { field, unit, limit, actual: bytes });
        }
        let size = kilobytes(bytes);
        let busy = ClassifyError::Busy { limit, retry_after: BUSY_RETRY_AFTER };
        match submission.admission {
            Admission::Reject => self.room.try_acquire(line, size).ok_or(busy),
            Admission::Wait => {
                within(submission.deadline, self.room.acquire(line, size)).await?.ok_or(busy)
            }
        }
    }

    /// Checks `options` and returns the indices of the tasks to report.
    pub(super) fn select(&self, options: &Options) -> Result<Vec<usize>, ClassifyError> {
        options::select(options, &self.info.name, &self.info.tasks, self.limits())
    }

    /// The windows of `document`.
    pub(super) async fn read(
        &self,
        document: Document,
        long_text: LongText,
        line: &Line,
    ) -> Result<Windows, ClassifyError> {
        self.reader.on_a_core(line, move |reader| reader.windows(&document, long_text)).await
    }

    /// `document` with as much of its text as its first window reads.
    pub(super) async fn head(
        &self,
        document: Document,
        line: &Line,
    ) -> Result<Document, ClassifyError> {
        self.reader.on_a_core(line, move |reader| reader.head(document)).await
    }

    /// The windows of `document`, on the calling thread.
    pub(super) fn read_here(
        &self,
        document: &Document,
        long_text: LongText,
    ) -> Result<Windows, ClassifyError> {
        self.reader.windows(document, long_text)
    }

    /// The logits of every task for each document, given as its windows, in one job.
    pub(super) async fn run(
        &self,
        documents: Vec<Windows>,
        lane: Lane,
        submission: &Submission,
    ) -> Result<(Vec<Vec<TaskLogits>>, JobTiming), EngineError> {
        let lengths: Vec<Vec<usize>> = documents
            .iter()
            .map(|windows| windows.sequences.iter().map(Vec::len).collect())
            .collect();
        let sequences = documents.into_iter().flat_map(|windows| windows.sequences).collect();
        let Submission { client, admission, deadline } = submission.clone();
        let job = Job { sequences, client, lane, admission, deadline };
        let Output { rows, timing } = self.engine.submit(job).await?;
        let mut rows = rows.iter();
        let aggregate = |lengths: &Vec<usize>| {
            decision::aggregate(rows.by_ref().take(lengths.len()), lengths, &self.info.tasks)
        };
        Ok((lengths.iter().map(aggregate).collect(), timing))
    }

    /// The tasks that the model answers.
    pub(super) fn tasks(&self) -> &[Task] {
        &self.info.tasks
    }

    /// Waits until nobody holds the model any more.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut alive = self.alive.subscribe();
        async move { while alive.changed().await.is_ok() {} }
    }

    /// The bundle's files as they were when they were read.
    pub(super) fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// The bounds on one document.
    pub(super) fn limits(&self) -> &DocumentLimits {
        self.reader.limits()
    }
}

/// What `future` gives before `deadline`.
async fn within<T>(
    deadline: Option<Instant>,
    future: impl Future<Output = T>,
) -> Result<T, EngineError> {
    match deadline {
        None => Ok(future.await),
        Some(deadline) => tokio::time::timeout_at(deadline, future)
            .await
            .map_err(|_| EngineError::DeadlineExceeded),
    }
}

/// `bytes` in whole kilobytes, at least one.
fn kilobytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX)
}
