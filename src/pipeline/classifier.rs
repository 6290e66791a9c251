//! One loaded model and the way of a document through it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::decision::{self, TaskLogits};
use super::evidence;
use super::reader::{Reading, Windows};
use super::types::{
    Classification, ClassifyError, Document, DocumentLimits, LongText, Options, TaskResult,
    TextToken, Timing, Tokenization, Usage,
};
use crate::bundle::{Bundle, BundleError, Task, TextConfig, Tokenizer};
use crate::engine::{
    Admission, DrainReport, Engine, EngineConfig, EngineError, EngineStats, Job, JobTiming, Lane,
    Output, StartError,
};
use crate::nn::{self, Encoder, NnError};

/// Task names in a request, at most, repeated ones included.
const MAX_TASK_NAMES: usize = 64;

/// When to try again while a model has as many documents in hand as it may.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a model could not be made ready to serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The model directory is not usable.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The encoder could not be built.
    #[error(transparent)]
    Encoder(#[from] NnError),
    /// The engine did not start.
    #[error(transparent)]
    Engine(#[from] StartError),
}

/// What a loaded model is.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// The name that requests call it by.
    pub name: String,
    /// The bundle's revision.
    pub revision: String,
    /// SHA-256 of the weights, in hexadecimal.
    pub digest: String,
    /// `bert`, `roberta` or `xlm-roberta`.
    pub architecture: String,
    /// Effective precision: `f32`.
    pub precision: String,
    /// Effective device: `cpu`.
    pub device: String,
    /// Tokens of a window, special ones included.
    pub max_window_tokens: usize,
    /// What it answers.
    pub tasks: Vec<Task>,
    /// What works less well than it could, for people to read.
    pub warnings: Vec<String>,
}

/// A loaded model: it reads documents, and its engine runs them.
pub struct Classifier {
    info: ModelInfo,
    reader: Arc<Reader>,
    /// Kilobytes of documents that may still be taken in hand.
    room: Semaphore,
    engine: Engine,
}

/// What is needed to cut documents into windows.
struct Reader {
    config: TextConfig,
    tokenizer: Tokenizer,
    limits: DocumentLimits,
    /// Normalising and tokenising takes a core, so no more of it runs at a time.
    cores: Arc<Semaphore>,
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
        engine: EngineConfig,
        limits: DocumentLimits,
    ) -> Result<Self, LoadError> {
        let bundle = Bundle::load(path)?;
        let encoder = nn::load(&bundle)?;
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
        let info = ModelInfo {
            name: name.map_or(bundle.name, str::to_owned),
            revision: bundle.revision,
            digest: bundle.digest,
            architecture: bundle.config.architecture.to_string(),
            precision: "f32".to_owned(),
            device: "cpu".to_owned(),
            max_window_tokens: bundle.text.window,
            tasks: bundle.tasks,
            warnings: bundle.warnings,
        };
        let reader = Reader {
            config: bundle.text,
            tokenizer: bundle.tokenizer,
            limits,
            cores: Arc::new(Semaphore::new(nn::default_threads())),
        };
        let room = Semaphore::new(kilobytes(limits.max_open_bytes) as usize);
        Ok(Self { info, reader: Arc::new(reader), room, engine: Engine::start(encoder, engine)? })
    }

    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The engine's counters.
    pub fn stats(&self) -> EngineStats {
        self.engine.stats()
    }

    /// Classifies `document`. Dropping the future cancels what has not run.
    ///
    /// # Errors
    /// [`ClassifyError`]: a fault of the document or the options, or the engine's.
    pub async fn classify(
        &self,
        document: &Document,
        options: &Options,
        admission: Admission,
        deadline: Option<Instant>,
    ) -> Result<Classification, ClassifyError> {
        let started = Instant::now();
        let tasks = self.select(options)?;
        if deadline.is_some_and(|deadline| deadline <= started) {
            return Err(EngineError::DeadlineExceeded.into());
        }
        let _held = self.take_in_hand(document, admission, deadline).await?;
        let windows = self.read(document.clone(), options.long_text).await?;
        let tokenize = started.elapsed();

        let usage = Usage {
            tokens: windows.tokens(),
            windows: windows.sequences.len(),
            truncated: windows.truncated,
        };
        let (logits, timing) = self.run(vec![windows], options.lane, admission, deadline).await?;
        let logits = logits.first().map(Vec::as_slice).unwrap_or_default();

        let chosen = tasks
            .iter()
            .filter_map(|&index| Some((self.info.tasks.get(index)?, logits.get(index)?)));
        let mut results: Vec<TaskResult> =
            chosen.map(|(task, logits)| decision::decide(task, logits, options)).collect();
        if options.evidence > 0 {
            let tokens = usage.tokens;
            let run = evidence::Run { classifier: self, document, options, tokens, deadline };
            run.explain(&tasks, &mut results).await?;
        }
        Ok(Classification {
            id: document.id.clone(),
            model: self.info.name.clone(),
            tasks: results,
            usage,
            timing: Timing {
                tokenize,
                queue: timing.queue,
                inference: timing.inference,
                total: started.elapsed(),
                batch_tokens: timing.batch_tokens,
            },
        })
    }

    /// The tokens of `document`'s text and the windows it takes, without inference.
    ///
    /// # Errors
    /// As [`classify`](Self::classify), the engine's aside.
    pub async fn tokenize(&self, document: &Document) -> Result<Tokenization, ClassifyError> {
        let document = document.clone();
        self.on_a_core(move |reader| {
            let reading = reader.read(&document)?;
            let tokens = reading.text_tokens().map(|(id, range)| TextToken {
                id,
                text: reader.tokenizer.token(id).unwrap_or_default(),
                start: range.start,
                end: range.end,
            });
            let windows = reader.windows(&reading, LongText::Windows)?.sequences.len();
            Ok(Tokenization { tokens: tokens.collect(), windows })
        })
        .await
    }

    /// Runs one window of full length, so that the first caller finds memory and
    /// caches in place, and a model that gives nonsense is found before it serves.
    ///
    /// # Errors
    /// The engine's.
    pub async fn warm_up(&self) -> Result<(), ClassifyError> {
        let tokenizer = &self.reader.tokenizer;
        let mut sequence = tokenizer.prefix().to_vec();
        let special = sequence.len() + tokenizer.suffix().len();
        let filler = tokenizer.suffix().first().copied().unwrap_or_default();
        let text = self.info.max_window_tokens.saturating_sub(special);
        sequence.extend(std::iter::repeat_n(filler, text));
        sequence.extend_from_slice(tokenizer.suffix());
        let sequences = vec![sequence];
        let (lane, admission, deadline) = (Lane::Interactive, Admission::Wait, None);
        self.engine.submit(Job { sequences, lane, admission, deadline }).await?;
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

    /// Room for `document`, until the permit is dropped.
    async fn take_in_hand(
        &self,
        document: &Document,
        admission: Admission,
        deadline: Option<Instant>,
    ) -> Result<SemaphorePermit<'_>, ClassifyError> {
        let limit = self.limits().max_open_bytes;
        let bytes = document.id.len() + document.title.len() + document.text.len();
        if bytes > limit {
            let (field, unit) = ("document", "bytes");
            return Err(ClassifyError::FieldTooLong { field, unit, limit, actual: bytes });
        }
        let size = kilobytes(bytes);
        let busy = ClassifyError::Busy { limit, retry_after: BUSY_RETRY_AFTER };
        match (admission, deadline) {
            (Admission::Reject, _) => self.room.try_acquire_many(size).map_err(|_| busy),
            // The semaphore is never closed.
            (Admission::Wait, None) => self.room.acquire_many(size).await.map_err(|_| busy),
            (Admission::Wait, Some(deadline)) => {
                let permit = tokio::time::timeout_at(deadline, self.room.acquire_many(size)).await;
                permit.map_err(|_| EngineError::DeadlineExceeded)?.map_err(|_| busy)
            }
        }
    }

    /// Checks `options` and returns the indices of the tasks to report.
    pub(super) fn select(&self, options: &Options) -> Result<Vec<usize>, ClassifyError> {
        if !(0.0..=1.0).contains(&options.min_score) {
            return Err(ClassifyError::InvalidOption {
                field: "options.min_score",
                value: options.min_score.to_string(),
                expected: "a number from 0 to 1".to_owned(),
            });
        }
        let limit = self.limits().max_evidence_sentences;
        if options.evidence > limit {
            return Err(ClassifyError::InvalidOption {
                field: "options.evidence",
                value: options.evidence.to_string(),
                expected: format!("from 0 to {limit}"),
            });
        }
        let tasks = &self.info.tasks;
        if options.tasks.len() > MAX_TASK_NAMES {
            return Err(ClassifyError::FieldTooLong {
                field: "options.tasks",
                unit: "names",
                limit: MAX_TASK_NAMES,
                actual: options.tasks.len(),
            });
        }
        if options.tasks.is_empty() {
            return Ok((0..tasks.len()).collect());
        }
        let mut selected = Vec::with_capacity(tasks.len());
        for name in &options.tasks {
            let Some(index) = tasks.iter().position(|task| task.name == *name) else {
                return Err(ClassifyError::UnknownTask {
                    task: name.clone(),
                    model: self.info.name.clone(),
                    known: tasks.iter().map(|task| task.name.clone()).collect(),
                });
            };
            // Asking twice is answered once, so that a request cannot grow its answer.
            if !selected.contains(&index) {
                selected.push(index);
            }
        }
        Ok(selected)
    }

    /// The windows of `document`.
    pub(super) async fn read(
        &self,
        document: Document,
        long_text: LongText,
    ) -> Result<Windows, ClassifyError> {
        self.on_a_core(move |reader| {
            let reading = reader.read(&document)?;
            reader.windows(&reading, long_text)
        })
        .await
    }

    /// The same, on the calling thread.
    pub(super) fn read_here(
        &self,
        document: &Document,
        long_text: LongText,
    ) -> Result<Windows, ClassifyError> {
        let reading = self.reader.read(document)?;
        self.reader.windows(&reading, long_text)
    }

    /// The logits of every task for each document, given as its windows, in one job.
    pub(super) async fn run(
        &self,
        documents: Vec<Windows>,
        lane: Lane,
        admission: Admission,
        deadline: Option<Instant>,
    ) -> Result<(Vec<Vec<TaskLogits>>, JobTiming), EngineError> {
        let lengths: Vec<Vec<usize>> = documents
            .iter()
            .map(|windows| windows.sequences.iter().map(Vec::len).collect())
            .collect();
        let sequences = documents.into_iter().flat_map(|windows| windows.sequences).collect();
        let job = Job { sequences, lane, admission, deadline };
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

    /// The bounds on one document.
    pub(super) fn limits(&self) -> &DocumentLimits {
        &self.reader.limits
    }

    /// Runs `work`, which takes a core for a while, beside the runtime's threads.
    async fn on_a_core<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> Result<T, ClassifyError> + Send + 'static,
    ) -> Result<T, ClassifyError> {
        let reader = Arc::clone(&self.reader);
        // The semaphore is never closed. The permit goes with the work, which a caller
        // who leaves does not stop.
        let permit = Arc::clone(&self.reader.cores).acquire_owned().await;
        let work = move || {
            let _permit = permit;
            work(&reader)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|error| Err(ClassifyError::Tokenizer(error.to_string())))
    }
}

/// `bytes` in whole kilobytes, at least one.
fn kilobytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX)
}

impl Reader {
    fn read(&self, document: &Document) -> Result<Reading, ClassifyError> {
        Reading::new(document, &self.config, &self.tokenizer, &self.limits)
    }

    fn windows(&self, reading: &Reading, long_text: LongText) -> Result<Windows, ClassifyError> {
        reading.windows(&self.config, &self.tokenizer, long_text, &self.limits)
    }
}
