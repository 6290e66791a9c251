//! Which precision is measured: the one place that knows what this build has.

use clap::ValueEnum;

use crate::cli::exit::Failure;

/// A precision as the command line names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum PrecisionArg {
    /// The fastest that the model allows
    #[default]
    Auto,
    /// 32-bit floating point
    F32,
    /// bfloat16 products, summed in 32 bits
    Bf16,
    /// 8-bit integer products, summed in 32 bits
    Int8,
}

impl PrecisionArg {
    /// The precision that will run.
    ///
    /// # Errors
    /// If this build does not have it.
    pub(super) fn effective(self) -> Result<&'static str, Failure> {
        let asked = match self {
            Self::Auto | Self::F32 => return Ok("f32"),
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        };
        Err(Failure::Usage(format!("--precision {asked}: this build has f32 only")))
    }
}
