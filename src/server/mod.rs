//! The gRPC server: `tasnif.v1.Classifier`, health and reflection over HTTP/2.
//!
//! | file | what it does |
//! |---|---|
//! | `serve` | listening, warming up, draining, within a bound |
//! | `config` | settings, with a limit on everything |
//! | `service` | the five RPCs; `batch` and `stream` for the two with many documents |
//! | `work` | what the documents of a call have in common, and each as it runs |
//! | `convert` | messages to the pipeline's types and back |
//! | `status` | the one place where a status code is chosen |
//! | `call`, `call_log` | what surrounds each call: deadline, panics, one log line |
//! | `telemetry` | metrics, traces, logs, and the port where they are asked for |
//! | `deadline` | the `grpc-timeout` header |
//! | `lifecycle` | the server's phase and its open calls |
//! | `incoming` | connections, which end when the server does |

mod batch;
mod call;
mod call_log;
mod config;
mod convert;
mod deadline;
mod incoming;
mod lifecycle;
pub mod proto;
mod serve;
mod service;
mod status;
mod stream;
pub mod telemetry;
mod work;

pub(crate) use convert::{classification, model, timing};

pub use config::{ConfigError, ServerConfig};
pub use serve::{ServeError, ServeReport, bind, serve, serve_observed};
pub use telemetry::{LogConfig, LogFormat, Observability};
