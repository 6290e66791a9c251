//! Puts the layers of the settings together, and says what is wrong in the words of its layer.

use std::path::{Path, PathBuf};

use config::{Config, File, FileFormat, Value, ValueKind};
use serde_json::Value as Json;

use super::Settings;

/// What the names of variables begin with.
const PREFIX: &str = "TASNIF_";
/// Variables that are not settings, but this program's all the same.
const OTHER_VARIABLES: [&str; 2] = ["TASNIF_CONFIG", "TASNIF_LOG"];
/// How like the right name a mistyped one is, at least; 1: the same.
const MIN_LIKENESS: f64 = 0.8;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The file cannot be read.
    #[error("{}: {source}", .file.display())]
    Unreadable {
        /// Its path.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {message}", .file.display())]
    Malformed {
        /// Its path.
        file: PathBuf,
        /// Where, and why not.
        message: String,
    },
    /// There is no such setting.
    #[error("{origin}: there is no setting {key}{}", suggestion(.nearest.as_deref()))]
    Unknown {
        /// The file or flag.
        origin: String,
        /// The name.
        key: String,
        /// The setting that is named almost so.
        nearest: Option<String>,
    },
    /// A flag that is not `KEY=VALUE`.
    #[error("--set {0}: expected KEY=VALUE, such as server.max_connections=100")]
    NotAPair(String),
    /// A value that its setting cannot have.
    #[error("{0}")]
    Invalid(config::ConfigError),
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; is {nearest} meant?"))
}

/// Where settings come from, the defaults aside.
pub(crate) struct Layers<'a> {
    /// The TOML file, if there is one.
    pub(crate) file: Option<&'a Path>,
    /// Names and values of the environment.
    pub(crate) environment: Vec<(String, String)>,
    /// `KEY=VALUE`, from flags.
    pub(crate) pairs: Vec<String>,
}

impl Layers<'_> {
    /// The settings, and warnings for people to read.
    ///
    /// # Errors
    /// [`SettingsError`], naming the file, variable or flag at fault.
    pub(crate) fn settle(&self) -> Result<(Settings, Vec<String>), SettingsError> {
        let defaults = defaults();
        let mut builder = Config::builder();
        if let Some(path) = self.file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| SettingsError::Unreadable { file: path.to_owned(), source })?;
            check_file(path, &text, &defaults)?;
            builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
        }
        let mut warnings = Vec::new();
        for (variable, value) in &self.environment {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            match defaults.iter().find(|(key, _)| variable_of(key) == name) {
                Some((key, default)) => {
                    let value = typed(default, value, variable);
                    builder = builder.set_override(key, value).map_err(SettingsError::Invalid)?;
                }
                // Not an error: Kubernetes sets TASNIF_SERVICE_HOST and others by itself.
                None if OTHER_VARIABLES.contains(&variable.as_str()) => {}
                None => warnings.extend(near_variable(variable, name, &defaults)),
            }
        }
        for pair in &self.pairs {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(SettingsError::NotAPair(pair.clone()));
            };
            let Some((_, default)) = defaults.iter().find(|(known, _)| known == key) else {
                return Err(unknown("--set".to_owned(), key, &defaults));
            };
            let value = typed(default, value, &format!("--set {key}"));
            builder = builder.set_override(key, value).map_err(SettingsError::Invalid)?;
        }
        let settings = builder.build().and_then(Config::try_deserialize);
        Ok((settings.map_err(|error| self.name_file(error))?, warnings))
    }

    /// The error with the path of the file, which its text alone does not know.
    fn name_file(&self, error: config::ConfigError) -> SettingsError {
        match (&error, self.file) {
            (config::ConfigError::Type { origin: None, .. }, Some(file)) => {
                SettingsError::Malformed { file: file.to_owned(), message: error.to_string() }
            }
            _ => SettingsError::Invalid(error),
        }
    }
}

/// Every setting, as `table.key`, with its default.
fn defaults() -> Vec<(String, Json)> {
    let mut found = Vec::new();
    let settings = serde_json::to_value(Settings::default()).unwrap_or_default();
    flatten(String::new(), &settings, &mut found);
    found
}

fn flatten(path: String, value: &Json, found: &mut Vec<(String, Json)>) {
    match value {
        Json::Object(table) => {
            for (key, value) in table {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(below, value, found);
            }
        }
        other => found.push((path, other.clone())),
    }
}

/// Refuses a file with a setting that there is not.
fn check_file(file: &Path, text: &str, known: &[(String, Json)]) -> Result<(), SettingsError> {
    let malformed = |message: String| SettingsError::Malformed { file: file.to_owned(), message };
    let table: Json = toml::from_str(text).map_err(|error| malformed(error.to_string()))?;
    let mut found = Vec::new();
    flatten(String::new(), &table, &mut found);
    // A table without entries has no place in the list, and is no harm.
    match found.iter().find(|(key, _)| !known.iter().any(|(known, _)| known == key)) {
        Some((key, _)) => Err(unknown(file.display().to_string(), key, known)),
        None => Ok(()),
    }
}

fn unknown(origin: String, key: &str, known: &[(String, Json)]) -> SettingsError {
    SettingsError::Unknown { origin, key: key.to_owned(), nearest: nearest(key, known) }
}

/// The setting whose name is almost `key`, or would be in the right table.
fn nearest(key: &str, known: &[(String, Json)]) -> Option<String> {
    fn last(key: &str) -> &str {
        key.rsplit('.').next().unwrap_or_default()
    }
    most_like(key, known.iter().map(|(name, _)| name.clone())).or_else(|| {
        let found = most_like(last(key), known.iter().map(|(name, _)| last(name).to_owned()))?;
        known.iter().map(|(name, _)| name).find(|name| last(name) == found).cloned()
    })
}

fn most_like(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let rated = known.map(|known| (strsim::normalized_damerau_levenshtein(name, &known), known));
    let (likeness, known) = rated.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (likeness >= MIN_LIKENESS).then_some(known)
}

/// What a value in words is for a setting with this default: a list has commas between.
fn typed(default: &Json, text: &str, origin: &str) -> Value {
    let origin = origin.to_owned();
    let string = |text: &str| Value::new(Some(&origin), ValueKind::String(text.to_owned()));
    if !default.is_array() {
        return string(text);
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Value::new(Some(&origin), ValueKind::Array(items.map(string).collect()))
}

/// The name of a setting's variable, behind the prefix.
fn variable_of(key: &str) -> String {
    key.replace('.', "_").to_uppercase()
}

/// A warning, if a variable is named almost as a setting is.
fn near_variable(variable: &str, name: &str, known: &[(String, Json)]) -> Option<String> {
    let nearest = most_like(name, known.iter().map(|(key, _)| variable_of(key)))?;
    Some(format!("{variable} is not the variable of a setting; is {PREFIX}{nearest} meant?"))
}
