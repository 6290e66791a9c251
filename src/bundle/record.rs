//! Writing down in `tasnif.json` in which precisions a model was found to answer as it should.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::files::read;
use super::manifest::MANIFEST_FILE;
use super::{Bundle, BundleError, Precision};

/// The key, and those that it stands after, the first choice first.
const KEY: &str = "precisions";
const AFTER: [&str; 2] = ["languages", "revision"];

impl Bundle {
    /// Sets `precisions` in the `tasnif.json` of the bundle at `directory`. All else stays as it
    /// is, to the byte, and the file is replaced at once, so that no reader finds half of it.
    ///
    /// # Errors
    /// [`BundleError::Read`], [`BundleError::Json`] or [`BundleError::Write`].
    pub fn record_precisions(
        directory: &Path,
        precisions: &[Precision],
    ) -> Result<(), BundleError> {
        let path = directory.join(MANIFEST_FILE);
        let invalid = |source| BundleError::Json { file: path.clone(), source };
        let text = String::from_utf8_lossy(&read(&path)?).into_owned();
        let changed = with_precisions(&text, precisions).map_err(invalid)?;
        // What a link points to is replaced, not the link.
        let target = path.canonicalize();
        let written = target.and_then(|target| replace(&target, changed.as_bytes()));
        written.map_err(|source| BundleError::Write { file: path, source })
    }
}

/// `manifest` with another list of precisions.
fn with_precisions(manifest: &str, precisions: &[Precision]) -> serde_json::Result<String> {
    let names: Vec<String> =
        precisions.iter().map(|precision| format!("\"{precision}\"")).collect();
    let list = format!("[{}]", names.join(", "));
    let entries = serde_json::Deserializer::from_str(manifest).deserialize_map(Entries)?;
    let value = |key: &str| {
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| span(manifest, value))
    };
    if let Some((start, end)) = value(KEY) {
        return Ok(spliced(manifest, start, end, &list));
    }
    let Some((_, end)) = AFTER.into_iter().find_map(value) else { return Ok(manifest.to_owned()) };
    // As far in as the first key.
    let space = manifest.split_once('{').and_then(|(_, rest)| Some(rest.split_once('"')?.0));
    let entry = format!(",{}\"{KEY}\": {list}", space.unwrap_or_default());
    Ok(spliced(manifest, end, end, &entry))
}

/// Where in `text` the value is that was read from it.
fn span(text: &str, value: &RawValue) -> (usize, usize) {
    let start = (value.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    (start, start + value.get().len())
}

fn spliced(text: &str, start: usize, end: usize, new: &str) -> String {
    let (before, after) = (text.get(..start), text.get(end..));
    [before.unwrap_or_default(), new, after.unwrap_or_default()].concat()
}

/// Puts `content` in the place of the file at `path`, if there is one: whoever reads it finds the
/// old one or the new one, and either whole.
pub(crate) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    // What is there by this name is another's.
    name.push(format!(".{}.new", std::process::id()));
    let mut file = File::create_new(&name)?;
    let mut write = || {
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&name, path)
    };
    // What went wrong is worth more than why its leftover could not be removed.
    write().inspect_err(|_| drop(fs::remove_file(&name)))
}

/// Reads an object as its keys and the text of their values.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_set_and_nothing_else_changes() {
        let both = [Precision::Int8, Precision::Bf16];
        for (before, precisions, after) in [
            (
                "{\n  \"revision\": \"1\",\n  \"languages\": [\n    \"ar\"\n  ],\n  \"t\": 0.50\n}\n",
                both.as_slice(),
                "{\n  \"revision\": \"1\",\n  \"languages\": [\n    \"ar\"\n  ],\n  \"precisions\": [\"int8\", \"bf16\"],\n  \"t\": 0.50\n}\n",
            ),
            (
                r#"{"t":{"precisions":1},"revision":"1"}"#,
                &both[1..],
                r#"{"t":{"precisions":1},"revision":"1","precisions": ["bf16"]}"#,
            ),
            (
                "{\"precisions\": [\"int8\",\n \"bf16\" ], \"revision\": \"ب\"}",
                &[],
                "{\"precisions\": [], \"revision\": \"ب\"}",
            ),
        ] {
            assert_eq!(with_precisions(before, precisions).unwrap(), after);
            assert_eq!(with_precisions(after, precisions).unwrap(), after);
        }
        assert!(with_precisions("[]", &both).is_err());
    }
}
