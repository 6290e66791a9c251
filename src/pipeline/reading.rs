//! From a document to the windows that a model reads.

use std::ops::Range;

use unicode_normalization::UnicodeNormalization;

use super::settings::DocumentLimits;
use super::types::{ClassifyError, Document, LongText};
use crate::bundle::{TextConfig, Tokenizer, Tokens};
use crate::text::{Normalized, windows};

/// Times that a text may be as long as sent once its characters are written out: U+FDFA alone stands
/// for 18, and a tokenizer takes half a kilobyte for each of its tokens. What people write stays
/// far below.
const MAX_GROWTH: usize = 2;

/// Bytes of a piece of a long text whose tokens are counted by themselves.
const PIECE_BYTES: usize = 32 * 1024;
/// Tokens by which a text may have more once it is cut in two, at most: those of the word at the
/// cut, which as a whole may be one unknown token.
const MAX_TOKENS_OF_A_CUT: usize = 256;

/// A document in tokens, before it is cut into windows.
#[derive(Debug)]
pub(crate) struct Reading {
    title: Vec<u32>,
    /// Whether the title lost tokens.
    title_cut: bool,
    text: Tokens,
    /// The text that `text`'s offsets are bytes of.
    normalized: Normalized,
}

/// The windows of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Windows {
    /// Token ids of each, special tokens included.
    pub(crate) sequences: Vec<Vec<u32>>,
    /// Whether a part of the document is in none of them.
    pub(crate) truncated: bool,
}

impl Windows {
    /// Tokens over all of them.
    pub(crate) fn tokens(&self) -> usize {
        self.sequences.iter().map(Vec::len).sum()
    }
}

impl Reading {
    /// Checks, normalises and tokenises `document`.
    pub(crate) fn new(
        document: &Document,
        config: &TextConfig,
        tokenizer: &Tokenizer,
        limits: &DocumentLimits,
    ) -> Result<Self, ClassifyError> {
        check(document, limits)?;
        let encode = |text: &str| tokenizer.encode(text).map_err(ClassifyError::Tokenizer);
        let normalized = config.profile.normalize(&document.text);
        // However the profile and the tokenizer write a character out, it is no longer than this.
        let composed = normalized.text().nfkc().count();
        let limit = limits.max_text_chars.saturating_mul(MAX_GROWTH);
        check_length("document.text", "characters once written out", composed, limit)?;
        let bytes = normalized.text().len();
        if bytes > PIECE_BYTES && bytes.max(composed) > limits.max_text_tokens {
            check_tokens(normalized.text(), tokenizer, limits.max_text_tokens)?;
        }
        let text = encode(normalized.text())?;
        if text.ids.is_empty() {
            return Err(ClassifyError::Empty);
        }
        check_length("document.text", "tokens", text.ids.len(), limits.max_text_tokens)?;
        let mut title = encode(config.profile.normalize(&document.title).text())?.ids;
        let title_cut = title.len() > config.max_title_tokens;
        title.truncate(config.max_title_tokens);
        Ok(Self { title, title_cut, text, normalized })
    }

    /// The windows that are to be read.
    pub(crate) fn windows(
        &self,
        config: &TextConfig,
        tokenizer: &Tokenizer,
        long_text: LongText,
        limits: &DocumentLimits,
    ) -> Result<Windows, ClassifyError> {
        let opening = self.opening(config, tokenizer);
        let around = opening.len() + tokenizer.suffix().len();
        let capacity = capacity(config, around);
        let tokens = self.text.ids.len();
        let plan = windows(tokens, capacity, config.stride);
        let count = plan.len();
        if count > 1 && long_text == LongText::Reject {
            return Err(ClassifyError::TooLong { limit: config.window, actual: around + tokens });
        }
        let read = if long_text == LongText::Head { 1 } else { count };
        if read > limits.max_windows {
            return Err(ClassifyError::TooManyWindows { limit: limits.max_windows, actual: read });
        }
        let sequence = |range: Range<usize>| {
            let text = self.text.ids.get(range).unwrap_or_default();
            [opening.as_slice(), text, tokenizer.suffix()].concat()
        };
        Ok(Windows {
            sequences: plan.take(read).map(sequence).collect(),
            truncated: read < count || self.title_cut,
        })
    }

    /// Unicode scalars of the text as sent that the first window ends after.
    pub(crate) fn head_chars(&self, config: &TextConfig, tokenizer: &Tokenizer) -> usize {
        let around = self.opening(config, tokenizer).len() + tokenizer.suffix().len();
        let last = self.text.offsets.iter().take(capacity(config, around)).next_back();
        last.map_or(0, |&(start, end)| self.normalized.original_range(start..end).end)
    }

    /// What each window begins with.
    fn opening(&self, config: &TextConfig, tokenizer: &Tokenizer) -> Vec<u32> {
        let mut opening = tokenizer.prefix().to_vec();
        if !self.title.is_empty() {
            opening.extend_from_slice(&self.title);
            if config.title_separator {
                opening.extend_from_slice(tokenizer.suffix());
            }
        }
        opening
    }

    /// Each token of the text, with its Unicode scalars in the text as sent. The space
    /// that a tokenizer counts to the word after it is left out.
    pub(crate) fn text_tokens(&self) -> impl Iterator<Item = (u32, Range<usize>)> + '_ {
        let range = |&(start, end): &(usize, usize)| {
            let piece = self.normalized.text().get(start..end).unwrap_or_default();
            let word = piece.trim_start();
            let skipped = if word.is_empty() { 0 } else { piece.len() - word.len() };
            self.normalized.original_range(start + skipped..end)
        };
        self.text.ids.iter().copied().zip(self.text.offsets.iter().map(range))
    }
}

/// Tokens of text in a window that has `around` others.
fn capacity(config: &TextConfig, around: usize) -> usize {
    config.window.saturating_sub(around).max(1)
}

/// Checks the lengths of `document`'s fields.
pub(super) fn check(document: &Document, limits: &DocumentLimits) -> Result<(), ClassifyError> {
    check_length("document.id", "bytes", document.id.len(), limits.max_id_bytes)?;
    let chars = |text: &str| text.chars().count();
    let unit = "characters";
    check_length("document.title", unit, chars(&document.title), limits.max_title_chars)?;
    check_length("document.text", unit, chars(&document.text), limits.max_text_chars)
}

/// Refuses a text that has far more than `limit` tokens, before all of them are in memory at a
/// time. Its pieces have the tokens of the whole, but for those at the cuts; so whatever passes is
/// to be counted again.
fn check_tokens(text: &str, tokenizer: &Tokenizer, limit: usize) -> Result<(), ClassifyError> {
    let (mut rest, mut actual, mut allowed) = (text, 0, limit);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at_checked(piece_end(rest)).unwrap_or((rest, ""));
        rest = after;
        actual += tokenizer.encode(piece).map_err(ClassifyError::Tokenizer)?.ids.len();
        if actual > allowed {
            let (field, unit) = ("document.text", "tokens or more");
            return Err(ClassifyError::FieldTooLong { field, unit, limit, actual });
        }
        allowed += MAX_TOKENS_OF_A_CUT;
    }
    Ok(())
}

/// Where the first piece of `text` ends: before a space if there is one, and always between two
/// characters.
fn piece_end(text: &str) -> usize {
    if text.len() <= PIECE_BYTES {
        return text.len();
    }
    let most = (1..=PIECE_BYTES).rev().find(|&end| text.is_char_boundary(end));
    let most = most.unwrap_or(text.len());
    let piece = text.get(..most).unwrap_or_default();
    piece.rfind(char::is_whitespace).filter(|&space| space > 0).unwrap_or(most)
}

fn check_length(
    field: &'static str,
    unit: &'static str,
    actual: usize,
    limit: usize,
) -> Result<(), ClassifyError> {
    if actual <= limit {
        return Ok(());
    }
    Err(ClassifyError::FieldTooLong { field, unit, limit, actual })
}
