//! Which precision is asked for, and which it comes to on this machine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cpu;
use crate::bundle::{Bundle, Precision};

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
            Self::Auto => {
                let accurate = |precision| bundle.precisions.contains(&precision);
                let fast = [Precision::Int8, Precision::Bf16];
                let choice = fast.into_iter().find(|&fast| accurate(fast) && cpu::speeds_up(fast));
                Some(choice.unwrap_or(Precision::F32))
            }
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
