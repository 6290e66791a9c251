//! What reads a model's documents: its text settings and tokenizer, and the cores to do it on.

use std::sync::Arc;

use super::reading::{Reading, Windows};
use super::settings::DocumentLimits;
use super::shares::{Line, Shares};
use super::types::{ClassifyError, Document, LongText, TextToken, Tokenization};
use crate::bundle::{TextConfig, Tokenizer};

/// Cuts documents into windows.
pub(super) struct Reader {
    config: TextConfig,
    tokenizer: Tokenizer,
    limits: DocumentLimits,
    /// Normalising and tokenising takes a core, so no more of it runs at a time.
    cores: Shares,
}

impl Reader {
    /// A reader that has `cores`.
    pub(super) fn new(
        config: TextConfig,
        tokenizer: Tokenizer,
        limits: DocumentLimits,
        cores: usize,
    ) -> Self {
        let cores = Shares::new(u32::try_from(cores).unwrap_or(u32::MAX));
        Self { config, tokenizer, limits, cores }
    }

    /// The bounds on one document.
    pub(super) fn limits(&self) -> &DocumentLimits {
        &self.limits
    }

    /// The tokenizer.
    pub(super) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The windows of `document`.
    ///
    /// # Errors
    /// A fault of the document.
    pub(super) fn windows(
        &self,
        document: &Document,
        long_text: LongText,
    ) -> Result<Windows, ClassifyError> {
        self.cut(&self.read(document)?, long_text)
    }

    /// `document` with as much of its text as its first window reads.
    ///
    /// # Errors
    /// A fault of the document.
    pub(super) fn head(&self, document: Document) -> Result<Document, ClassifyError> {
        let chars = self.read(&document)?.head_chars(&self.config, &self.tokenizer);
        let text = document.text.chars().take(chars).collect();
        Ok(Document { text, ..document })
    }

    /// The tokens of `document`'s text, and how many windows it takes.
    ///
    /// # Errors
    /// A fault of the document.
    pub(super) fn tokenization(&self, document: &Document) -> Result<Tokenization, ClassifyError> {
        let reading = self.read(document)?;
        let tokens = reading.text_tokens().map(|(id, range)| TextToken {
            id,
            text: self.tokenizer.token(id).unwrap_or_default(),
            start: range.start,
            end: range.end,
        });
        let windows = self.cut(&reading, LongText::Windows)?.sequences.len();
        Ok(Tokenization { tokens: tokens.collect(), windows })
    }

    /// Runs `work`, which takes a core for a while, beside the runtime's threads.
    pub(super) async fn on_a_core<T: Send + 'static>(
        self: &Arc<Self>,
        line: &Line,
        work: impl FnOnce(&Self) -> Result<T, ClassifyError> + Send + 'static,
    ) -> Result<T, ClassifyError> {
        let reader = Arc::clone(self);
        // It goes with the work, which a caller who leaves does not stop.
        let permit = self.cores.acquire(line, 1).await;
        let work = move || {
            let _permit = permit;
            work(&reader)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|error| Err(ClassifyError::Tokenizer(error.to_string())))
    }

    fn read(&self, document: &Document) -> Result<Reading, ClassifyError> {
        Reading::new(document, &self.config, &self.tokenizer, &self.limits)
    }

    fn cut(&self, reading: &Reading, long_text: LongText) -> Result<Windows, ClassifyError> {
        reading.windows(&self.config, &self.tokenizer, long_text, &self.limits)
    }
}
