//! Encoders and heads.
//!
//! [`Encoder`] is the one view of a model that the layers above have. Two encoders
//! are behind it: [`cpu`], which serves, and [`BertEncoder`] in candle and f32, the
//! reference that every other is compared with. Batches are packed, so there is no
//! padding anywhere that could change a result or cost time.

use thiserror::Error;

use crate::bundle::{Bundle, BundleError};

mod bert;
pub mod cpu;
mod encoder;
mod heads;
mod precision;
mod threads;
mod weights;

pub use bert::BertEncoder;
pub use encoder::{Compute, EncodeError, Encoder, PackedTokens, Rows};
pub use heads::MultiHead;
pub use precision::PrecisionChoice;
pub use threads::{batches, configure_threads, default_threads};

pub use crate::bundle::Precision;

/// Why a model could not be made ready to run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NnError {
    /// A tensor is missing or has another shape, or the tensor library failed.
    #[error("{0}")]
    Load(#[from] candle_core::Error),
    /// A tensor is missing or has another shape.
    #[error("{0}")]
    Bundle(#[from] BundleError),
    /// An encoder's rows are not those that the heads read.
    #[error("the encoder gives rows of {found}; the poolings of the heads are {expected}")]
    Width {
        /// Values in a row.
        found: usize,
        /// Values that the heads read.
        expected: usize,
    },
    /// The worker threads could not be set up.
    #[error("{threads} worker threads cannot be set up: {source}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// Why not.
        source: rayon::ThreadPoolBuildError,
    },
}

/// Loads the encoder and every head of `bundle` for the CPU.
///
/// The weights are copied, so the bundle, and with it the files, may go.
///
/// # Errors
/// [`NnError::Load`] or [`NnError::Bundle`], naming the file and the tensor.
pub fn load(bundle: &Bundle, choice: PrecisionChoice) -> Result<MultiHead, NnError> {
    let poolings = bundle.poolings();
    let prefix = bundle.weights.encoder_prefix()?;
    let encoder = match choice.resolve(bundle) {
        None => {
            let vb = weights::var_builder(&bundle.weights);
            let vb = prefix.strip_suffix('.').map_or_else(|| vb.clone(), |name| vb.pp(name));
            Box::new(BertEncoder::load(vb, &bundle.config, &poolings)?)
        }
        Some(precision) => {
            let (weights, config, poolings) = (&bundle.weights, &bundle.config, &poolings);
            let source = cpu::Source { weights, prefix, config, poolings };
            cpu::load(&source, precision)?
        }
    };
    MultiHead::load(bundle, encoder, &poolings)
}
