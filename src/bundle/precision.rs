//! In what an encoder computes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// In what the products with an encoder's weights are computed. All else is f32, but for
/// attention's products, which are bf16 on some machines unless this is f32.
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
