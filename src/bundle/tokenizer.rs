//! The tokenizer: `tokenizer.json`, or a BERT WordPiece built from `vocab.txt`.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;

use super::BundleError;
use super::config::CONFIG_FILE;
use super::files::{read, read_json_if_present};

pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";
pub(super) const VOCAB_FILE: &str = "vocab.txt";
pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";

/// Tokens that steer a model. Text must not be able to write them.
const CONTROL_TOKENS: [&str; 10] =
    ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "<s>", "</s>", "<pad>", "<mask>", "<cls>", "<sep>"];
const UNKNOWN_TOKENS: [&str; 2] = ["[UNK]", "<unk>"];

/// Text to token ids. Truncation and padding are off: windows are cut by the
/// caller, and batches are packed.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    control: BTreeSet<u32>,
    unknown: Option<u32>,
    vocab_size: usize,
}

/// Tokens of one text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Ids in the vocabulary.
    pub ids: Vec<u32>,
    /// First byte in the text, and one past the last, of each; both on character boundaries.
    pub offsets: Vec<(usize, usize)>,
}

/// What a `tokenizer_config.json` says, of that which matters here.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenizerConfig {
    tokenizer_class: Option<String>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    model_max_length: Option<f64>,
    unk_token: Option<TokenName>,
    cls_token: Option<TokenName>,
    sep_token: Option<TokenName>,
    pad_token: Option<TokenName>,
    mask_token: Option<TokenName>,
    bos_token: Option<TokenName>,
    eos_token: Option<TokenName>,
}

/// A token is written as its text or as an object that holds it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TokenName {
    Text(String),
    Object { content: String },
}

impl TokenizerConfig {
    /// Reads `tokenizer_config.json` in `directory`; without one, every key is absent.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub(super) fn read(directory: &Path) -> Result<Self, BundleError> {
        Ok(read_json_if_present(&directory.join(TOKENIZER_CONFIG_FILE))?.unwrap_or_default())
    }

    /// The longest sequence that the tokenizer's author allows, unless it is the
    /// huge number that Hugging Face writes for "not known".
    pub(super) fn max_length(&self) -> Option<usize> {
        self.model_max_length.filter(|&n| (1.0..1e6).contains(&n)).map(|n| n as usize)
    }
}

impl Tokenizer {
    /// Loads `tokenizer.json` of `directory`, or builds a WordPiece tokenizer from its
    /// `vocab.txt` as Hugging Face's `BertTokenizer` does.
    ///
    /// # Errors
    /// If there is neither, or the file is not usable, or no special token is put
    /// before and after a text.
    pub fn load(directory: &Path) -> Result<Self, BundleError> {
        let config = TokenizerConfig::read(directory)?;
        let (json, vocab) = (directory.join(TOKENIZER_FILE), directory.join(VOCAB_FILE));
        let (file, bytes) = if json.exists() {
            let bytes = read(&json)?;
            (json, bytes)
        } else if vocab.exists() {
            let bytes = word_piece(&vocab, &config)?.to_string().into_bytes();
            (vocab, bytes)
        } else {
            return Err(BundleError::Missing {
                directory: directory.to_owned(),
                expected: "tokenizer.json or vocab.txt",
                hint: "",
            });
        };
        let refuse = |message: String| BundleError::Tokenizer { file: file.clone(), message };
        let read = contained(|| tokenizers::Tokenizer::from_bytes(bytes));
        let mut inner = read.map_err(|error| refuse(error.to_string()))?;
        inner.with_truncation(None).map_err(|error| refuse(error.to_string()))?;
        inner.with_padding(None);
        without_dropout(&mut inner);
        let class = class(directory, &config)?;
        if matches!(class.as_deref(), Some("BertTokenizer" | "BertTokenizerFast")) {
            as_configured(&mut inner, &config).map_err(|error| refuse(error.to_string()))?;
        }
        let (prefix, suffix) = special_tokens(&inner, &file)?;
        let entries = inner.get_vocab(true);
        let last = entries.values().max().copied().unwrap_or_default();
        let named = [
            &config.cls_token,
            &config.sep_token,
            &config.pad_token,
            &config.mask_token,
            &config.bos_token,
            &config.eos_token,
        ];
        let named = named.into_iter().flatten().map(TokenName::text);
        let mut control: BTreeSet<u32> =
            named.chain(CONTROL_TOKENS).filter_map(|token| inner.token_to_id(token)).collect();
        control.extend(prefix.iter().chain(&suffix));
        let unknown = config.unk_token.as_ref().map(TokenName::text).into_iter();
        let unknown = unknown.chain(UNKNOWN_TOKENS).find_map(|token| inner.token_to_id(token));
        Ok(Self { inner, prefix, suffix, control, unknown, vocab_size: last as usize + 1 })
    }

    /// The tokens of `text`, without special ones before or after.
    ///
    /// A text that spells a control token, such as `</s>` or `[SEP]`, gets the unknown
    /// token in its place, so that nobody can end a document or a title from the inside.
    ///
    /// # Errors
    /// What the tokenizer's library says, or that it panics; no text is known that makes it fail, if the file is whole.
    pub fn encode(&self, text: &str) -> Result<Tokens, String> {
        let encoding = contained(|| self.inner.encode(text, false));
        let encoding = encoding.map_err(|error| error.to_string())?;
        let mut tokens = Tokens::default();
        for (&id, &(start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            let id = if self.control.contains(&id) { self.unknown } else { Some(id) };
            // Without an unknown token (byte-level vocabularies), the control token is left out.
            if let Some(id) = id {
                tokens.ids.push(id);
                tokens.offsets.push((floor_boundary(text, start), ceil_boundary(text, end)));
            }
        }
        Ok(tokens)
    }

    /// The special tokens before a text, such as `[<s>]`; at least one.
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// The special tokens after a text, such as `[</s>]`; at least one.
    pub fn suffix(&self) -> &[u32] {
        &self.suffix
    }

    /// The vocabulary's entry of this id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The largest id of the special tokens, which need not be of the vocabulary.
    pub(super) fn largest_special_id(&self) -> u32 {
        self.prefix.iter().chain(&self.suffix).copied().max().unwrap_or_default()
    }

    /// One more than the largest id of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

impl TokenName {
    fn text(&self) -> &str {
        match self {
            Self::Text(content) | Self::Object { content } => content,
        }
    }
}

/// Makes equal texts have equal tokens: dropout of merges is for training, and may still be in the file.
fn without_dropout(tokenizer: &mut tokenizers::Tokenizer) {
    if let ModelWrapper::BPE(model) = tokenizer.get_model()
        && model.dropout.is_some()
    {
        let mut model = model.clone();
        model.dropout = None;
        tokenizer.with_model(model);
    }
}

/// Hugging Face's class for the tokenizer: as `tokenizer_config.json` says, else as `config.json` does, else that of its family.
fn class(directory: &Path, config: &TokenizerConfig) -> Result<Option<String>, BundleError> {
    #[derive(Default, Deserialize)]
    struct Family {
        model_type: Option<String>,
        tokenizer_class: Option<String>,
    }
    if config.tokenizer_class.is_some() || !directory.join(TOKENIZER_CONFIG_FILE).exists() {
        return Ok(config.tokenizer_class.clone());
    }
    let family: Family = read_json_if_present(&directory.join(CONFIG_FILE))?.unwrap_or_default();
    let is_bert = family.model_type.as_deref() == Some("bert");
    Ok(family.tokenizer_class.or_else(|| is_bert.then(|| "BertTokenizer".to_owned())))
}

/// Sets what Hugging Face's `BertTokenizer` takes from `tokenizer_config.json`, whatever `tokenizer.json` has.
fn as_configured(
    tokenizer: &mut tokenizers::Tokenizer,
    config: &TokenizerConfig,
) -> tokenizers::Result<()> {
    let Some(NormalizerWrapper::BertNormalizer(found)) = tokenizer.get_normalizer() else {
        return Ok(());
    };
    let mut normalizer = *found;
    normalizer.lowercase = config.do_lower_case.unwrap_or(true);
    normalizer.strip_accents = config.strip_accents;
    normalizer.handle_chinese_chars = config.tokenize_chinese_chars.unwrap_or(true);
    tokenizer.with_normalizer(Some(normalizer)).map(drop)
}

/// What `work` gives. The library panics at some files: a decoder of an unknown type, a
/// post-processor that names a token which is not there, a damaged table of characters.
fn contained<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    // What it worked on is dropped with the error.
    let result = catch_unwind(AssertUnwindSafe(work));
    result.unwrap_or_else(|_| Err("the tokenizers library panics at it".into()))
}

/// The ids that the tokenizer puts before and after a text.
fn special_tokens(
    tokenizer: &tokenizers::Tokenizer,
    file: &Path,
) -> Result<(Vec<u32>, Vec<u32>), BundleError> {
    let encode = |text: &str| {
        contained(|| tokenizer.encode(text, true)).map_err(|error| BundleError::Tokenizer {
            file: file.to_owned(),
            message: error.to_string(),
        })
    };
    // An empty text would not tell where the prefix ends.
    let encoding = encode("ا a 1")?;
    let (ids, mask) = (encoding.get_ids(), encoding.get_special_tokens_mask());
    let marked = ids.iter().zip(mask);
    let before = marked.clone().take_while(|&(_, &special)| special == 1).map(|(&id, _)| id);
    let after = marked.rev().take_while(|&(_, &special)| special == 1).map(|(&id, _)| id);
    let prefix: Vec<u32> = before.collect();
    let mut suffix: Vec<u32> = after.collect();
    suffix.reverse();
    let empty = encode("")?;
    let whole: Vec<u32> = prefix.iter().chain(&suffix).copied().collect();
    if prefix.is_empty() || suffix.is_empty() || empty.get_ids() != whole {
        return Err(BundleError::Invalid {
            file: file.to_owned(),
            key: "post_processor".into(),
            expected: "special tokens before and after the text".into(),
            found: format!("{prefix:?} before, {suffix:?} after, {:?} alone", empty.get_ids()),
        });
    }
    Ok((prefix, suffix))
}

/// The `tokenizer.json` that Hugging Face would write for this `vocab.txt`.
fn word_piece(file: &Path, config: &TokenizerConfig) -> Result<Value, BundleError> {
    let bytes = read(file)?;
    let text = str::from_utf8(&bytes).map_err(|error| BundleError::Tokenizer {
        file: file.to_owned(),
        message: error.to_string(),
    })?;
    let entries: BTreeMap<&str, usize> =
        text.lines().enumerate().map(|(id, token)| (token, id)).collect();
    let named = |name: &Option<TokenName>, default: &str| -> Result<(String, usize), BundleError> {
        let token = name.as_ref().map_or(default, TokenName::text);
        match entries.get(token) {
            Some(&id) => Ok((token.to_owned(), id)),
            None => Err(BundleError::Invalid {
                file: file.to_owned(),
                key: token.to_owned(),
                expected: "a line with this token".into(),
                found: format!("{} other tokens", entries.len()),
            }),
        }
    };
    let (unknown, cls, sep) = (
        named(&config.unk_token, "[UNK]")?,
        named(&config.cls_token, "[CLS]")?,
        named(&config.sep_token, "[SEP]")?,
    );
    let (pad, mask) = (named(&config.pad_token, "[PAD]")?, named(&config.mask_token, "[MASK]")?);
    let mut specials = [&pad, &unknown, &cls, &sep, &mask];
    specials.sort_by_key(|(_, id)| *id);
    let added: Vec<Value> = specials
        .iter()
        .map(|(token, id)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": config.tokenize_chinese_chars.unwrap_or(true),
            "strip_accents": config.strip_accents,
            "lowercase": config.do_lower_case.unwrap_or(true),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": sep, "cls": cls},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown.0,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": entries,
        },
    }))
}

fn floor_boundary(text: &str, index: usize) -> usize {
    let index = index.min(text.len());
    (0..=index).rev().find(|&i| text.is_char_boundary(i)).unwrap_or_default()
}

fn ceil_boundary(text: &str, index: usize) -> usize {
    (index..text.len()).find(|&i| text.is_char_boundary(i)).unwrap_or(text.len())
}
