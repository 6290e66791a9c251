//! Where log lines go and what they look like.

use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// What is logged to standard error, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `tasnif=debug,h2=warn`.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
    /// Whether documents are logged with their texts, at the level debug.
    pub documents: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text, documents: false }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors of logs.
    Json,
}

/// Why logging does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The filter cannot be read.
    #[error("the log filter is {filter:?}: {source}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else in the process logs already.
    #[error("logging is set up already: {0}")]
    Already(#[from] tracing_subscriber::util::TryInitError),
}

impl TryFrom<String> for LogFormat {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json".to_owned()),
        }
    }
}

impl LogConfig {
    /// Logs as this says from now on, in the whole process.
    ///
    /// # Errors
    /// The filter cannot be read, or logging was started before.
    pub fn start(&self) -> Result<(), LogError> {
        use tracing_subscriber::util::SubscriberInitExt;

        let filter = EnvFilter::try_new(&self.filter)
            .map_err(|source| LogError::Filter { filter: self.filter.clone(), source })?;
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        match self.format {
            LogFormat::Text => lines.finish().try_init()?,
            LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
        }
        Ok(())
    }
}
