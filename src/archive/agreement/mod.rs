//! Whether a precision answers as the reference does: the same documents through both, logits and
//! labels compared, and, where the documents have true labels, the loss of macro-F1.
//!
//! | file | what it does |
//! |---|---|
//! | `documents` | what is read |
//! | `gate` | what is counted, and what is good enough |

mod documents;
mod gate;

use serde::Serialize;

pub use self::documents::{Documents, Labels};
pub use self::gate::{Agreement, ENOUGH_DOCUMENTS, MacroF1, TaskAgreement};

use self::documents::Labelled;
use self::gate::Tally;
use super::error::ArchiveError;
use super::input::InputFile;
use super::progress::Progress;
use crate::bundle::{Bundle, Precision};
use crate::nn::{self, Compute, EncodeError, Encoder, MultiHead, NnError, PrecisionChoice};
use crate::pipeline::{DocumentLimits, LongText, document_logits, token_windows};

/// Tokens of the documents that are encoded at a time; one more document may begin below it.
const BATCH_TOKENS: usize = 4_096;

/// A model in several precisions beside its reference.
pub struct Engines {
    bundle: Bundle,
    reference: MultiHead,
    others: Vec<(Precision, MultiHead)>,
}

/// Every precision beside the reference, on the same documents.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// What the documents are called.
    pub name: String,
    /// Their file, unless they came with this program.
    pub file: Option<InputFile>,
    /// How many were read.
    pub documents: u64,
    /// Rows that could not be: they have no text, or too much.
    pub left_out: u64,
    /// Tokens of all windows.
    pub tokens: u64,
    /// One for each precision.
    pub precisions: Vec<Agreement>,
}

/// Documents that are encoded together.
#[derive(Default)]
struct Batch {
    /// `[documents][windows][tokens]`.
    windows: Vec<Vec<Vec<u32>>>,
    /// `[documents][tasks]`.
    gold: Vec<Vec<Option<usize>>>,
    tokens: usize,
}

impl Engines {
    /// Loads the reference and `precisions` of `bundle`.
    ///
    /// # Errors
    /// [`NnError`].
    pub fn load(bundle: Bundle, precisions: &[Precision]) -> Result<Self, NnError> {
        let reference = nn::load(&bundle, PrecisionChoice::Reference)?;
        let load =
            |&precision| Ok((precision, nn::load(&bundle, PrecisionChoice::Exactly(precision))?));
        let others = precisions.iter().map(load).collect::<Result<_, NnError>>()?;
        Ok(Self { bundle, reference, others })
    }

    /// The model.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Runs `documents` through all of them. `progress` tells how far it is.
    ///
    /// # Errors
    /// If none of the documents can be read, or an encoder fails.
    pub fn compare(
        &self,
        mut documents: Documents,
        progress: &Progress,
    ) -> Result<Compared, ArchiveError> {
        let tasks = &self.bundle.tasks;
        let limits = DocumentLimits::default();
        progress.begins(documents.file.as_ref().map_or(0, |file| file.bytes), 0, 0);
        let mut tallies = vec![Tally::new(tasks); self.others.len()];
        let (mut read, mut left_out, mut tokens) = (0, 0, 0);
        let mut batch = Batch::default();
        while let Some((row, position)) = documents.next(tasks)? {
            let windows = row.and_then(|Labelled { document, gold }| {
                let Bundle { text, tokenizer, .. } = &self.bundle;
                let long_text = LongText::Windows;
                let windows = token_windows(&document, text, tokenizer, long_text, &limits).ok()?;
                Some((windows, gold))
            });
            let Some((windows, gold)) = windows else {
                left_out += 1;
                progress.rejected(position);
                continue;
            };
            let length: usize = windows.iter().map(Vec::len).sum();
            batch.push(windows, gold, length);
            if batch.tokens >= BATCH_TOKENS {
                self.run(std::mem::take(&mut batch), &mut tallies)?;
            }
            read += 1;
            tokens += length as u64;
            progress.scored(position, length as u64, false);
        }
        self.run(batch, &mut tallies)?;
        if read == 0 {
            let name = &documents.name;
            let message =
                format!("{name}: no document in it can be read ({left_out} rows are left out)");
            return Err(ArchiveError::Setting(message));
        }
        let agreement = |((precision, encoder), tally): (&(Precision, MultiHead), Tally)| {
            let Compute { kernels, .. } = encoder.computes_with();
            tally.agreement(*precision, kernels, tasks)
        };
        Ok(Compared {
            name: documents.name,
            file: documents.file,
            documents: read,
            left_out,
            tokens,
            precisions: self.others.iter().zip(tallies).map(agreement).collect(),
        })
    }

    fn run(&self, batch: Batch, tallies: &mut [Tally]) -> Result<(), ArchiveError> {
        let logits = |encoder: &MultiHead, name: &str| {
            let failed =
                |source: EncodeError| ArchiveError::Encode { encoder: name.to_owned(), source };
            document_logits(encoder, &batch.windows, &self.bundle.tasks).map_err(failed)
        };
        let expected = logits(&self.reference, "the reference")?;
        for ((precision, encoder), tally) in self.others.iter().zip(tallies) {
            let found = logits(encoder, precision.name())?;
            for ((expected, found), gold) in expected.iter().zip(&found).zip(&batch.gold) {
                tally.count(expected, found, gold);
            }
        }
        Ok(())
    }
}

impl Batch {
    fn push(&mut self, windows: Vec<Vec<u32>>, gold: Vec<Option<usize>>, tokens: usize) {
        self.windows.push(windows);
        self.gold.push(gold);
        self.tokens += tokens;
    }
}
