//! Finds the files of the project that a word may name.

use std::path::{Component, Path, PathBuf};

/// Returns the paths that a word may mean. What is before a slash may be a variable or a command, so the rest is a path
/// too.
pub(super) fn meanings(word: &str) -> Vec<&str> {
    let word = word.trim_end_matches(':');
    let mut all = vec![word];
    all.extend(word.split_once('/').map(|(_, rest)| rest));
    all.extend(
        [")/", "}/"]
            .iter()
            .filter_map(|end| Some(word.rsplit_once(end)?.1)),
    );
    // As in `X=lib.sh`.
    all.extend(word.split_once('=').map(|(_, rest)| rest));
    // The rest of `${0%/*}` is not a pattern of files.
    all.retain(|it| !it.is_empty() && !it.trim_end_matches('}').trim_start_matches('*').is_empty());
    all
}

/// Returns files that a word may mean in one of these folders.
pub(super) fn files_of(word: &str, folders: &[PathBuf], root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = folders
        .iter()
        .flat_map(|place| meanings(word).into_iter().map(move |word| (place, word)))
        .flat_map(|(place, word)| files(place, word, root))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Returns the file of the project that a word names. If the last part of the word is a pattern, all files of the folder
/// are returned.
fn files(place: &Path, word: &str, root: &Path) -> Vec<PathBuf> {
    // Linux has no longer paths (PATH_MAX).
    if word.is_empty() || word.len() > 4096 || word.contains('\0') {
        return Vec::new();
    }
    let path = plain(&place.join(word));
    if !path.starts_with(root) {
        return Vec::new();
    }
    let pattern = (path.file_name()).is_some_and(|name| {
        name.as_encoded_bytes()
            .iter()
            .any(|byte| b"*?[".contains(byte))
    });
    if !pattern {
        return Vec::from_iter(path.is_file().then_some(path));
    }
    let Some(folder) = path.parent() else {
        return Vec::new();
    };
    let entries = folder.read_dir().into_iter().flatten().flatten();
    (entries.map(|entry| entry.path()))
        .filter(|path| path.is_file())
        .collect()
}

/// Returns the path without `.` and `..`, from its text only.
pub(super) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}
