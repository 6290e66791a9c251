//! Whether a model directory is still the one that was loaded.

use std::ffi::OsString;
use std::path::Path;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::BundleError;
use super::config::CONFIG_FILE;
use super::files::read;
use super::manifest::MANIFEST_FILE;
use super::tokenizer::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, VOCAB_FILE};
use super::weights::hexadecimal;
use crate::text::Profile;

/// The files, the weights aside, that decide what a model answers.
const SETTINGS_FILES: [&str; 5] =
    [CONFIG_FILE, MANIFEST_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, VOCAB_FILE];
/// What the names of weights and of their index contain.
const WEIGHTS_INFIX: &str = ".safetensors";
/// Entries of a directory that are looked at.
const MAX_ENTRIES: usize = 4_096;

/// What the file system says of the files of a model directory, links followed.
///
/// Two stamps differ if a file came, went, was replaced or was written to in between. Taking one
/// reads no contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<FileStamp>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileStamp {
    name: OsString,
    /// Device and number of the file on it, where there is such a thing.
    node: (u64, u64),
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    /// The stamp of the model directory at `path`; that of a missing one is empty.
    pub fn of(path: &Path) -> Self {
        let Ok(entries) = std::fs::read_dir(path) else { return Self::default() };
        let names = entries.take(MAX_ENTRIES).flatten().map(|entry| entry.file_name());
        let of_the_model = names.filter(|name| {
            let name = name.to_string_lossy();
            SETTINGS_FILES.contains(&&*name) || name.contains(WEIGHTS_INFIX)
        });
        let mut files: Vec<FileStamp> = of_the_model
            .filter_map(|name| {
                let metadata = std::fs::metadata(path.join(&name)).ok()?;
                let (node, bytes) = (node(&metadata), metadata.len());
                Some(FileStamp { name, node, bytes, modified: metadata.modified().ok() })
            })
            .collect();
        files.sort_unstable();
        Self(files)
    }
}

/// SHA-256, in hexadecimal, of all that decides what the model at `directory` answers: the files
/// beside the weights, the digest of these, and the profile, which a plain directory's name decides.
///
/// # Errors
/// [`BundleError::Read`].
pub(super) fn fingerprint(
    directory: &Path,
    weights: &str,
    profile: Profile,
) -> Result<String, BundleError> {
    let mut hash = Sha256::new();
    hash.update(weights);
    hash.update(profile.name());
    for name in SETTINGS_FILES {
        let file = directory.join(name);
        // What is absent and what is empty are not the same, and no contents run into the next.
        if file.exists() {
            let bytes = read(&file)?;
            hash.update([1]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        } else {
            hash.update([0]);
        }
    }
    Ok(hexadecimal(&hash.finalize()))
}

#[cfg(unix)]
fn node(metadata: &std::fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn node(_: &std::fs::Metadata) -> (u64, u64) {
    (0, 0)
}
