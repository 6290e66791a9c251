//! The way of one document: limits checked, text normalised and tokenised, cut
//! into windows, run through the engine, aggregated, calibrated, answered.
//!
//! The server, the command line and tests all classify through [`Classifier`].

mod cache;
mod classifier;
mod decision;
mod evidence;
mod guess;
mod model;
mod models;
mod options;
mod reader;
mod reading;
mod reload;
mod settings;
mod shares;
mod together;
mod types;
mod watch;

pub use cache::{Cache, CacheConfig, CacheStats};
pub use classifier::Classifier;
pub use model::{LoadError, ModelInfo};
pub use models::{Models, ModelsError, WarmUpError};
pub use reload::{
    Build, ReloadConfig, ReloadConfigError, ReloadError, ReloadOutcome, ReloadReport, ReloadStats,
    Reloader, Source,
};
pub(crate) use settings::check_times;
pub use settings::{DocumentLimits, SettingError};
pub use together::Prepared;
pub use types::{
    Classification, ClassifyError, Document, Evidence, LabelScore, LongText, Options, Submission,
    TaskResult, TextToken, Timing, Tokenization, Usage,
};

use crate::bundle::{Task, TextConfig, Tokenizer};
use crate::nn::{EncodeError, Encoder, PackedTokens};

/// The token windows in which a model reads `document`, special tokens included.
///
/// # Errors
/// If the document is empty or over a limit.
pub fn token_windows(
    document: &Document,
    config: &TextConfig,
    tokenizer: &Tokenizer,
    long_text: LongText,
    limits: &DocumentLimits,
) -> Result<Vec<Vec<u32>>, ClassifyError> {
    let reading = reading::Reading::new(document, config, tokenizer, limits)?;
    Ok(reading.windows(config, tokenizer, long_text, limits)?.sequences)
}

/// The logits of each document for each of `tasks`, `[documents][tasks][labels]`, as a
/// [`Classifier`] gives them, but of one run of `encoder` on the calling thread. A document is its
/// token windows.
///
/// # Errors
/// The encoder's.
pub fn document_logits(
    encoder: &dyn Encoder,
    documents: &[Vec<Vec<u32>>],
    tasks: &[Task],
) -> Result<Vec<Vec<Vec<f32>>>, EncodeError> {
    let mut batch = PackedTokens::new();
    documents.iter().flatten().for_each(|window| batch.push(window));
    let rows = encoder.encode(&batch, &mut || ())?;
    let mut rows = rows.iter();
    let aggregate = |windows: &Vec<Vec<u32>>| {
        let lengths: Vec<usize> = windows.iter().map(Vec::len).collect();
        decision::aggregate(rows.by_ref().take(lengths.len()), &lengths, tasks)
    };
    Ok(documents.iter().map(aggregate).collect())
}
