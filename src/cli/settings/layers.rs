//! Puts the layers of the settings together, and says what is wrong in the words of its layer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Value};
use serde_json::Value as Json;

use super::Settings;

/// What the names of variables begin with.
const PREFIX: &str = "TASNIF_";
/// The variable that names the file.
const CONFIG_VARIABLE: &str = "TASNIF_CONFIG";
/// Variables that every command reads, and what they set. An empty one counts as not set.
const LOG_VARIABLES: [(&str, &str); 2] =
    [("TASNIF_LOG", "log.filter"), ("TASNIF_LOG_FORMAT", "log.format")];
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
    #[error("{origin}: {message}")]
    Invalid {
        /// The file, variable or flag.
        origin: String,
        /// Which setting, and why not.
        message: String,
    },
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
    /// Flags that are each of one setting.
    pub(crate) flags: Vec<Flag>,
    /// `KEY=VALUE`, from `--set`. They go over the other flags, since they are the most exact.
    pub(crate) pairs: Vec<String>,
}

/// A flag that is of one setting.
pub(crate) struct Flag {
    /// What it is called, `--` included.
    pub(crate) name: &'static str,
    /// The setting.
    pub(crate) key: &'static str,
    /// What it is set to.
    pub(crate) value: Json,
}

/// What the layers set: by key where, and to what.
type Given = BTreeMap<String, (String, Value)>;

impl Layers<'_> {
    /// The settings, and warnings for people to read.
    ///
    /// # Errors
    /// [`SettingsError`], naming the file, variable or flag at fault.
    pub(crate) fn settle(&self) -> Result<(Settings, Vec<String>), SettingsError> {
        let known = defaults();
        let mut given = Given::new();
        if let Some(path) = self.file {
            add_file(path, &known, &mut given)?;
        }
        let warnings = self.add_variables(&known, &mut given);
        for Flag { name, key, value } in &self.flags {
            given.insert((*key).to_owned(), ((*name).to_owned(), in_words(value)));
        }
        for pair in &self.pairs {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(SettingsError::NotAPair(pair.clone()));
            };
            let Some((_, default)) = known.iter().find(|(known, _)| known == key) else {
                return Err(unknown("--set".to_owned(), key, &known));
            };
            given.insert(key.to_owned(), (format!("--set {key}"), typed(default, value)));
        }
        let settings = build(&given).map_err(|error| SettingsError::Invalid {
            origin: origin(&error, &given).unwrap_or("the settings").to_owned(),
            message: error.to_string(),
        })?;
        Ok((settings, warnings))
    }

    /// Adds what the environment sets, and returns warnings about it.
    fn add_variables(&self, known: &[(String, Json)], given: &mut Given) -> Vec<String> {
        // First, since TASNIF_LOG_FILTER is more exact than TASNIF_LOG.
        for (variable, key) in LOG_VARIABLES {
            let found = self.environment.iter().find(|(name, _)| name == variable);
            if let Some((_, value)) = found.filter(|(_, value)| !value.is_empty()) {
                given.insert(key.to_owned(), (variable.to_owned(), value.as_str().into()));
            }
        }
        let mut warnings = Vec::new();
        for (variable, value) in &self.environment {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            if variable == CONFIG_VARIABLE || is_of_log(variable) {
                continue;
            }
            match known.iter().find(|(key, _)| variable_of(key) == name) {
                Some((key, default)) => {
                    given.insert(key.clone(), (variable.clone(), typed(default, value)));
                }
                // Not an error: Kubernetes sets TASNIF_SERVICE_HOST and others by itself.
                None => warnings.extend(near_variable(variable, name, known)),
            }
        }
        warnings
    }
}

/// The names and values of the environment. What is not Unicode is not a setting's.
pub(crate) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Whether every command reads this variable.
pub(crate) fn is_of_log(variable: &str) -> bool {
    LOG_VARIABLES.iter().any(|&(name, _)| name == variable)
}

/// The settings that have what is given, and the defaults otherwise.
fn build(given: &Given) -> Result<Settings, ConfigError> {
    let mut builder = Config::builder();
    for (key, (_, value)) in given {
        builder = builder.set_override(key, value.clone())?;
    }
    builder.build()?.try_deserialize()
}

/// Where the setting that `error` is about was set.
fn origin<'a>(error: &ConfigError, given: &'a Given) -> Option<&'a str> {
    let (ConfigError::Type { key, .. } | ConfigError::At { key, .. }) = error else {
        return None;
    };
    // Of an entry of a list the key is `models[1]`.
    let key = key.as_deref()?.split('[').next()?;
    given.get(key).map(|(origin, _)| origin.as_str())
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

/// Adds what the file at `path` sets.
fn add_file(path: &Path, known: &[(String, Json)], given: &mut Given) -> Result<(), SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Unreadable { file: path.to_owned(), source })?;
    let table: Json = toml::from_str(&text).map_err(|error| SettingsError::Malformed {
        file: path.to_owned(),
        message: error.to_string(),
    })?;
    let mut found = Vec::new();
    flatten(String::new(), &table, &mut found);
    // A table without entries has no place in the list, and is no harm.
    for (key, value) in found {
        let origin = path.display().to_string();
        if !known.iter().any(|(known, _)| *known == key) {
            return Err(unknown(origin, &key, known));
        }
        given.insert(key, (origin, in_words(&value)));
    }
    Ok(())
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

/// A value in words, as variables have theirs, so that all layers are read alike: of the number
/// 2.7 `config` would make the whole number 3.
fn in_words(value: &Json) -> Value {
    match value {
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => items.iter().map(in_words).collect::<Vec<Value>>().into(),
        other => other.to_string().into(),
    }
}

/// What a value in words is for a setting with this default: a list has commas between.
fn typed(default: &Json, text: &str) -> Value {
    if !default.is_array() {
        return text.into();
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.collect::<Vec<_>>().into()
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
