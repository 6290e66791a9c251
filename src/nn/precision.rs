//! In what an encoder computes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;

/// In what the matrix products of an encoder are computed. All else is f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// Weights and activations of 16 bits with the exponent of f32, sums in f32.
    Bf16,
    /// Weights and activations of 8 bits, scaled by output and by token; exact sums.
    Int8,
}

impl Precision {
    /// Every precision, the most exact first.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which precision, or implementation, is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum PrecisionChoice {
    /// The fastest on this machine of those that the bundle says are accurate enough.
    #[default]
    Auto,
    /// This one.
    Exactly(Precision),
    /// The implementation in candle that all others are compared with, in f32.
    Reference,
}

impl PrecisionChoice {
    /// The precision to load `bundle` in, or `None` for the reference.
    pub(super) fn resolve(self, bundle: &Bundle) -> Option<Precision> {
        match self {
            Self::Auto => Some(Precision::F32),
            Self::Exactly(precision) => Some(precision),
            Self::Reference => None,
        }
    }
}

impl fmt::Display for PrecisionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Exactly(precision) => precision.name(),
            Self::Reference => "reference",
        })
    }
}

impl FromStr for PrecisionChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Precision::ALL.into_iter().find(|precision| precision.name() == text);
        match (text, named) {
            (_, Some(precision)) => Ok(Self::Exactly(precision)),
            ("auto", _) => Ok(Self::Auto),
            ("reference", _) => Ok(Self::Reference),
            _ => Err(format!("{text:?} is not a precision: auto, f32, bf16, int8 or reference")),
        }
    }
}

impl TryFrom<String> for PrecisionChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PrecisionChoice> for String {
    fn from(choice: PrecisionChoice) -> Self {
        choice.to_string()
    }
}
