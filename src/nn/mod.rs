//! Encoders.
mod encoder;
pub use encoder::{EncodeError, Encoder, PackedTokens, Rows};
/// temp
pub struct MultiHead;
