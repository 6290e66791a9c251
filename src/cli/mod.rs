//! cli
pub mod prepare;
