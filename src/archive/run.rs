//! An archive from its files to its results.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::thread::{self, ScopedJoinHandle};

use serde::Serialize;

use super::columns::Columns;
use super::error::ArchiveError;
use super::evaluation::Evaluation;
use super::gold;
use super::input::{InputFile, Source, discover, fingerprint};
use super::memory::{Keys, Outcomes};
use super::output::{Header, Layout, ModelIdentity, Output, Resumed, Schema};
use super::progress::Progress;
use super::report;
use super::settings::ArchiveSettings;
use super::stages::{CHANNEL, Preparer, Scorer, Writer, read};
use super::stats::Stats;
use crate::bundle::Task;
use crate::pipeline::{Classifier, ModelInfo, Options};

/// An archive whose files and columns are known, so that it can be scored.
pub struct Archive {
    settings: ArchiveSettings,
    layout: Layout,
    files: Arc<[InputFile]>,
    source: Source,
}

/// What a run has done, earlier ones that it resumed included.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The model.
    pub model: ModelIdentity,
    /// The tasks, in the order of `stats.tasks`.
    #[serde(skip)]
    pub tasks: Vec<Task>,
    /// The files.
    pub inputs: Vec<InputFile>,
    /// The columns.
    pub columns: Columns,
    /// Parts written.
    pub parts: u64,
    /// The counts.
    pub stats: Stats,
}

impl Summary {
    /// How good the answers are, for each task with true labels.
    pub fn evaluations(&self) -> Vec<Evaluation> {
        let pairs = self.tasks.iter().zip(&self.stats.tasks);
        pairs
            .filter_map(|(task, counts)| Some(Evaluation::new(task, counts.gold.as_ref()?)))
            .collect()
    }

    /// Writes a page about the archive, one file of HTML.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_report(&self, path: &Path) -> Result<(), ArchiveError> {
        report::write(self, path)
    }
}

impl Archive {
    /// Finds the files and reads them through to identify them, and their columns.
    ///
    /// # Errors
    /// If a setting is wrong, there is an output that is neither resumed nor
    /// overwritten, or a file cannot be read.
    pub fn open(settings: ArchiveSettings, stop: &AtomicBool) -> Result<Self, ArchiveError> {
        settings.check()?;
        let layout = Layout::new(&settings.output, settings.output_format)?;
        if !settings.resume
            && !settings.overwrite
            && let Some(path) = layout.occupied()
        {
            return Err(ArchiveError::Setting(format!(
                "{} exists; --resume goes on with it, --overwrite starts anew",
                path.display()
            )));
        }
        if let Some(path) = layout.foreign()? {
            return Err(ArchiveError::Setting(format!(
                "{} exists, and nothing says that score wrote it; remove it, or choose another \
                 --output",
                path.display()
            )));
        }
        let reading = settings.reading()?;
        let paths = discover(&settings.inputs, settings.input_format, &layout.own())?;
        let files: Arc<[InputFile]> = fingerprint(&paths, stop)?.into();
        if settings.resume && files.iter().any(InputFile::is_stdin) {
            let message = "standard input cannot be read again, so not resumed";
            return Err(ArchiveError::Setting(message.to_owned()));
        }
        let source = Source::open(Arc::clone(&files), reading, &settings.column_names())?;
        Ok(Self { settings, layout, files, source })
    }

    /// The files.
    pub fn files(&self) -> &[InputFile] {
        &self.files
    }

    /// The columns that will be read.
    pub fn columns(&self) -> &Columns {
        self.source.columns()
    }

    /// Scores every row with `classifier`, which should have nothing else to do.
    /// `progress` tells how far it is; setting `stop` ends it early. To be called outside
    /// of the runtime.
    ///
    /// # Errors
    /// [`ArchiveError`]. Parts that are done stay, and can be resumed from.
    pub fn score(
        self,
        classifier: &Classifier,
        runtime: &tokio::runtime::Handle,
        progress: &Progress,
        stop: &AtomicBool,
    ) -> Result<Summary, ArchiveError> {
        let Self { settings, layout, files, source } = self;
        let columns = source.columns().clone();
        let options = Options { tasks: settings.tasks.clone(), ..Options::default() };
        let tasks = tasks(classifier, &options)?;
        let gold = gold::assign(&settings.evaluate, &tasks).map_err(ArchiveError::Setting)?;
        let schema = Schema::new(&columns.keep, tasks.clone(), settings.scores)
            .map_err(ArchiveError::Setting)?;
        let header = Header {
            tasnif: env!("CARGO_PKG_VERSION").to_owned(),
            model: identity(classifier.info()),
            options: settings.fingerprint(&columns, layout.format),
            inputs: files.to_vec(),
        };
        if settings.overwrite {
            layout.clear()?;
        }
        let memory = settings.memory_texts;
        let (mut output, resumed) =
            Output::open(layout, schema.clone(), &header, memory, settings.resume)?;
        progress.begins(files.iter().map(|file| file.bytes).sum(), resumed.rows, output.parts());
        if !resumed.complete {
            let (keys, outcomes) = remembered(&resumed, memory);
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(rayon::current_num_threads())
                .thread_name(|index| format!("tokenize-{index}"))
                .build()
                .map_err(|error| ArchiveError::Setting(error.to_string()))?;
            let preparer = Preparer {
                classifier,
                pool: &pool,
                long_text: settings.long_text,
                keys: (memory > 0).then_some(keys),
                part_rows: settings.part_rows,
                group_tokens: group_tokens(classifier.info(), settings.batch_tokens),
            };
            let scorer = Scorer { classifier, runtime, options: &options, schema: &schema, stop };
            let writer = Writer {
                output: &mut output,
                files: &files,
                schema: &schema,
                dated: columns.date.is_some(),
                gold: &gold,
                outcomes,
                strict: settings.strict,
                progress,
            };
            run_stages(source, resumed.rows, stop, preparer, &scorer, writer)?;
        }
        Ok(Summary {
            model: header.model,
            tasks,
            inputs: header.inputs,
            columns,
            parts: output.parts(),
            stats: output.stats().clone(),
        })
    }
}

fn run_stages(
    source: Source,
    skip: u64,
    stop: &AtomicBool,
    preparer: Preparer<'_>,
    scorer: &Scorer<'_>,
    writer: Writer<'_>,
) -> Result<(), ArchiveError> {
    let (to_preparer, rows) = sync_channel(CHANNEL);
    let (to_scorer, prepared) = sync_channel(CHANNEL);
    let (to_writer, scored) = sync_channel(CHANNEL);
    thread::scope(|scope| {
        // Each stage drops its ends when it returns, and so ends its neighbours.
        let reading = scope.spawn(move || read(source, skip, stop, &to_preparer));
        let preparing = scope.spawn(move || preparer.run(&rows, &to_scorer));
        let writing = scope.spawn(move || writer.run(&scored));
        scorer.run(&prepared, &to_writer);
        drop((prepared, to_writer));
        joined(reading, "reading")?;
        joined(preparing, "preparing")?;
        joined(writing, "writing")?
    })
}

fn joined<T>(stage: ScopedJoinHandle<'_, T>, name: &'static str) -> Result<T, ArchiveError> {
    stage.join().map_err(|_| ArchiveError::Broken(name))
}

/// The tasks that `options` ask for, in the order of their results.
fn tasks(classifier: &Classifier, options: &Options) -> Result<Vec<Task>, ArchiveError> {
    classifier.check(options).map_err(|error| ArchiveError::Setting(error.to_string()))?;
    let all = &classifier.info().tasks;
    if options.tasks.is_empty() {
        return Ok(all.clone());
    }
    let mut tasks: Vec<Task> = Vec::new();
    for name in &options.tasks {
        if let Some(task) = all.iter().find(|task| task.name == *name)
            && !tasks.contains(task)
        {
            tasks.push(task.clone());
        }
    }
    Ok(tasks)
}

fn identity(info: &ModelInfo) -> ModelIdentity {
    ModelIdentity {
        name: info.name.clone(),
        revision: info.revision.clone(),
        digest: info.digest.clone(),
        config_digest: info.fingerprint.clone(),
        precision: info.precision.clone(),
        device: info.device.clone(),
        kernels: info.kernels.clone(),
    }
}

/// Tokens that are given to the engine at once.
fn group_tokens(info: &ModelInfo, batch_tokens: usize) -> usize {
    if info.kernels == "candle" {
        // The last bits of a row depend on its batch, so this must be the same in every run.
        batch_tokens
    } else {
        // Batches do not all end at the same moment, and only the next group fills the gap.
        batch_tokens * 8 * rayon::current_num_threads()
    }
}

/// What the stages remember at the beginning.
fn remembered(resumed: &Resumed, capacity: usize) -> (Keys, Outcomes) {
    let mut keys = Keys::new(capacity, resumed.first_text);
    let mut outcomes = Outcomes::new(capacity, resumed.first_text);
    for (key, outcome) in &resumed.texts {
        keys.see(*key);
        outcomes.push(outcome.clone());
    }
    (keys, outcomes)
}
