//! Paths: shown, extended, compared.

use std::path::{Path, PathBuf};

/// Where something is, for messages.
pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// `path` with `suffix` after its whole name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// `path` without links and detours; what of it is not there stays as it is.
pub(super) fn real(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let known = whole.ancestors().find_map(|known| {
        let rest = whole.strip_prefix(known).ok()?;
        Some(known.canonicalize().ok()?.join(rest))
    });
    known.unwrap_or(whole)
}
