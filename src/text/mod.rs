//! Arabic text as pure functions: normalisation with a map back to the
//! original, sentences, and the windows of a long document.
//!
//! A model reads text in the form that it was trained on. Each [`Profile`] is
//! one such form, given as a table of steps.

mod bylines;
mod chars;
mod entities;
mod mapped;
mod profile;
mod sentences;
mod steps;
mod tags;
mod windows;

pub use mapped::Normalized;
pub use profile::{Profile, UnknownProfile};
pub use sentences::sentences;
pub use windows::windows;
