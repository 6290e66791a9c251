//! Files that the server reads again when they change: certificates and bearer tokens.

use std::io;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};

/// Bytes of one file, at most.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// What a file holds is not usable.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .file.display())]
pub struct FileError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it, without quoting it: it may be a secret.
    pub problem: String,
}

impl FileError {
    /// `file` is not usable because of `problem`.
    pub(crate) fn new(file: &Path, problem: impl ToString) -> Self {
        Self { file: file.to_owned(), problem: problem.to_string() }
    }
}

type Parse<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, FileError> + Send + Sync>;

/// A value read from files, and read again when they change.
///
/// The content is compared and not the time of change: the files are small, and neither a clock
/// nor the way in which they are replaced (written over, renamed, a symbolic link that turns) can
/// then hide a change.
pub(crate) struct Watched<T> {
    files: Vec<PathBuf>,
    parse: Parse<T>,
    /// Hashes of the contents: the contents themselves may be secrets.
    seen: Mutex<Vec<[u8; 32]>>,
    current: RwLock<Arc<T>>,
}

impl<T> Watched<T> {
    /// Reads `files` and makes a value of their contents, which are in the same order.
    ///
    /// # Errors
    /// A file cannot be read, or `parse` refuses it.
    pub(crate) fn load(
        files: Vec<PathBuf>,
        parse: impl Fn(&[Vec<u8>]) -> Result<T, FileError> + Send + Sync + 'static,
    ) -> Result<Self, FileError> {
        let contents = read_all(&files)?;
        let current = RwLock::new(Arc::new(parse(&contents)?));
        Ok(Self { files, parse: Box::new(parse), seen: Mutex::new(hashes(&contents)), current })
    }

    /// The value as of the last change.
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.read())
    }

    /// Looks at the files. A change that is not usable leaves the value as it is, and is said once.
    pub(crate) fn refresh(&self) {
        let files = || {
            let names: Vec<_> = self.files.iter().map(|file| file.display().to_string()).collect();
            names.join(", ")
        };
        let contents = match read_all(&self.files) {
            Ok(contents) => contents,
            // Half of a change, perhaps: the next look will tell.
            Err(error) => {
                tracing::warn!(%error, "a file cannot be read; what it held stays in use");
                return;
            }
        };
        let found = hashes(&contents);
        let mut seen = self.seen.lock();
        if *seen == found {
            return;
        }
        match (self.parse)(&contents) {
            Ok(value) => {
                *self.current.write() = Arc::new(value);
                tracing::info!(files = files(), "files have changed and are in use");
            }
            Err(error) => {
                tracing::error!(%error, "a file has changed but is not usable; what it held before stays in use");
            }
        }
        *seen = found;
    }
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, FileError> {
    files.iter().map(|file| read(file).map_err(|error| FileError::new(file, error))).collect()
}

fn hashes(contents: &[Vec<u8>]) -> Vec<[u8; 32]> {
    contents.iter().map(|content| Sha256::digest(content).into()).collect()
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    std::fs::File::open(file)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        let message = format!("it has more than {MAX_FILE_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_taken_up_and_a_bad_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("number");
        std::fs::write(&file, "1").unwrap();
        let name = file.clone();
        let number = Watched::load(vec![file.clone()], move |contents| {
            let text = String::from_utf8_lossy(&contents[0]);
            text.parse::<u32>().map_err(|error| FileError::new(&name, error))
        })
        .unwrap();
        assert_eq!(*number.get(), 1);
        std::fs::write(&file, "2").unwrap();
        number.refresh();
        assert_eq!(*number.get(), 2);
        std::fs::write(&file, "two").unwrap();
        number.refresh();
        assert_eq!(*number.get(), 2);
        std::fs::remove_file(&file).unwrap();
        number.refresh();
        assert_eq!(*number.get(), 2);
        std::fs::write(&file, "3").unwrap();
        number.refresh();
        assert_eq!(*number.get(), 3);
    }

    #[test]
    fn a_file_without_end_is_not_read() {
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
