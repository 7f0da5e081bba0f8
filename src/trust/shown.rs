//! Words of a project as the question shows them.

use std::path::Path;

use crate::{
    host::shell::shell_quote,
    machinefile::{Secret, Variable},
    report::{clean::is_invisible, counted, secrets},
};

/// Returns the path relative to the root, or the whole path if it is elsewhere.
pub(super) fn below(path: &Path, root: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    // Two different names that are not UTF-8 stay different.
    path.to_str()
        .map_or_else(|| format!("{path:?}"), str::to_string)
}

/// Returns a folder as the question shows it.
pub(super) fn shown_folder(path: &Path, root: &Path) -> String {
    match below(path, root) {
        name if name.is_empty() => "the project's folder".into(),
        name => shown(&name),
    }
}

/// Replaces the values of variables by their names: values may be secret, and they change.
pub(super) fn masked(text: &str, variables: &[Variable]) -> String {
    /// Shorter values may occur anywhere by chance.
    const SHORTEST: usize = 4;
    let mut text = text.to_string();
    for variable in variables {
        if let Some(Secret(value)) = &variable.value
            && value.len() >= SHORTEST
        {
            text = text.replace(value.as_str(), &format!("${{env.{}}}", variable.name));
        }
    }
    text
}

/// The question shows at most this many characters of a word.
const LONGEST: usize = 500;

/// The question shows at most this many names.
const NAMES: usize = 4;

/// Replaces control characters, invisible characters, and characters that change the direction of a line.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if is_invisible(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Returns a word as one would type it in a shell. So two words cannot look like one.
pub fn shown(word: &str) -> String {
    shell_quote(&plain(&secrets::without(word)))
}

/// Like [`shown`], but cuts long words.
pub(super) fn quoted(word: &str) -> String {
    // Before it is cut: a part of a secret would not be found.
    let word = &*secrets::without(word);
    let more = word.chars().count().saturating_sub(LONGEST);
    if more == 0 {
        return shown(word);
    }
    let start: String = word.chars().take(LONGEST).collect();
    shown(&format!("{start}… ({})", counted(more, "more character")))
}

/// Joins names, but only as many as the question shows.
pub(super) fn some(names: &[String]) -> String {
    let some = names[..names.len().min(NAMES)].join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}
