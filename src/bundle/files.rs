//! Reading small files with a bound on their size.

use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

use serde::de::{DeserializeOwned, Error as _};

use super::BundleError;

/// Bytes that a text file of a model may have. The largest tokenizers in use
/// take 20 MB; a hostile or mistaken path must not fill the memory.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// Reads the whole of a file of at most 256 MiB.
///
/// # Errors
/// [`BundleError::Read`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>, BundleError> {
    read_bounded(path).map_err(|source| BundleError::Read { file: path.to_owned(), source })
}

/// Reads a JSON file.
///
/// # Errors
/// [`BundleError::Read`] or [`BundleError::Json`].
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, BundleError> {
    let bytes = read(path)?;
    let mut reader = serde_json::Deserializer::from_slice(&bytes);
    // The path to the value that is wrong, and what is wrong with it.
    let value = serde_path_to_error::deserialize(&mut reader).map_err(serde_json::Error::custom);
    let whole = value.and_then(|value| reader.end().map(|()| value));
    whole.map_err(|source| BundleError::Json { file: path.to_owned(), source })
}

/// Reads a JSON file, or nothing if there is no such file.
///
/// # Errors
/// [`BundleError::Read`] or [`BundleError::Json`].
pub(super) fn read_json_if_present<T: DeserializeOwned>(
    path: &Path,
) -> Result<Option<T>, BundleError> {
    if path.exists() { read_json(path).map(Some) } else { Ok(None) }
}

/// Opens a file, and nothing else: to open a named pipe would wait for its other end.
pub(super) fn open(path: &Path) -> std::io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a plain file"));
    }
    File::open(path)
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        let message = format!("it has more than the {MAX_TEXT_BYTES} bytes allowed");
        return Err(Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}
