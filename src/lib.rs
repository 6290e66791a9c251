//! Tasnif (تصنيف) classifies Arabic news by topic and sentiment.
//!
//! Each module is a layer and uses only those above it in this list:
//!
//! | module | what it does |
//! |---|---|
//! | [`text`] | Arabic text, pure functions: normalisation, sentences, offsets back to the original |
//! | [`bundle`] | a model directory on disk, validated: config, tokenizer, labels, weights |
//! | [`nn`] | encoders and heads: the reference in candle, and [`nn::cpu`], which serves |
//! | [`engine`] | the batching core: admission, lanes, batches, workers, deadlines |
//! | [`pipeline`] | the way of one document, from text to calibrated labels |
//! | [`archive`] | files of documents: read, scored, written in parts, resumed, reported |
//! | [`server`] | the gRPC services |
//! | [`cli`] | one file a subcommand |

pub mod archive;
pub mod bundle;
pub mod cli;
pub mod engine;
pub mod nn;
pub mod pipeline;
pub mod server;
pub mod text;
