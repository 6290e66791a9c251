//! The gRPC server: `tasnif.v1.Classifier`, the Open Inference Protocol, health and reflection over
//! HTTP/2.
//!
//! | file | what it does |
//! |---|---|
//! | `serve` | listening, warming up, draining, within a bound |
//! | `config` | settings, with a limit on everything |
//! | `service` | the five RPCs; `batch` and `stream` for the two with many documents |
//! | `oip` | the second service, for clients of KServe and Triton |
//! | `work` | what the documents of a call have in common, and each as it runs |
//! | `convert` | messages to the pipeline's types and back |
//! | `status` | the one place where a status code is chosen |
//! | `call`, `call_log` | what surrounds each call: deadline, panics, one log line |
//! | `telemetry` | metrics, traces, logs, and the port where they are asked for |
//! | `deadline` | the `grpc-timeout` header |
//! | `lifecycle` | the server's phase and its open calls |
//! | `listen` | TCP addresses and Unix sockets |
//! | `connections`, `connection` | which are accepted, when each closes, and who is there |
//! | `tls`, `auth` | certificates, and bearer tokens; `watched` reads both again when they change |
//! | `request`, `received`, `decompression` | what is done to a request before its service sees it |
//! | `sending` | what is done to an answer until it is sent |
//! | `codec` | a bound on what a message takes in memory |

mod auth;
mod batch;
mod call;
mod call_log;
mod codec;
mod config;
mod connection;
mod connections;
mod convert;
mod deadline;
mod decompression;
mod lifecycle;
mod listen;
pub mod oip;
pub mod proto;
mod received;
mod request;
mod sending;
mod serve;
mod service;
mod status;
mod stream;
pub mod telemetry;
mod tls;
mod watched;
mod work;

pub(crate) use convert::{classification, model, timing};

pub use auth::AuthConfig;
pub use config::ServerConfig;
pub use listen::{Listen, Listener, bind};
pub use serve::{ServeError, ServeReport, check_files, serve, serve_observed};
pub use telemetry::{LogConfig, LogFormat, Observability};
pub use tls::{TlsConfig, authorities, certificates, private_key, provider};
pub use watched::FileError;
