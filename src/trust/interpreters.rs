//! Recognises scripts, and the programs that run them.

use std::{fs::File, io::Read, os::unix::fs::PermissionsExt, path::Path};

/// Returns the last part of a path.
pub(super) fn last(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// The names of shells.
pub(super) const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "fish"];

/// How the names of other interpreters begin, and the extensions of their scripts.
pub(super) const ENDINGS: [(&str, &[&str]); 7] = [
    ("python", &["py"]),
    ("perl", &["pl", "pm"]),
    ("ruby", &["rb"]),
    ("node", &["js", "mjs", "cjs"]),
    ("deno", &["ts", "js"]),
    ("php", &["php"]),
    ("lua", &["lua"]),
];

/// Returns the extensions of the modules that the named interpreter loads.
pub(super) fn language(word: &str) -> Option<&'static [&'static str]> {
    (ENDINGS.iter())
        .find(|(name, _)| last(word).starts_with(name))
        .map(|(_, endings)| *endings)
}

pub(super) fn has_ending(path: &Path, endings: &[&str]) -> bool {
    (path.extension()).is_some_and(|end| endings.iter().any(|it| end == *it))
}

/// Words after which a file is run.
const RUNS: [&str; 13] = [
    ".", "source", "exec", "eval", "sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "<", "-f",
];

/// How the names of other interpreters begin, for words after which a file is run.
const INTERPRETERS: [&str; 8] = [
    "python", "perl", "ruby", "node", "php", "lua", "deno", "pwsh",
];

/// The extensions of scripts.
const SCRIPTS: [&str; 14] = [
    "sh", "bash", "zsh", "ksh", "fish", "py", "pl", "rb", "js", "mjs", "ts", "lua", "mk", "so",
];

/// Whether a file is run that is named after this word.
pub(super) fn is_runner(word: &str) -> bool {
    RUNS.contains(&word) || INTERPRETERS.iter().any(|name| word.starts_with(name))
}

/// Whether a file is a script, by its name, its mode or its first line.
pub(super) fn is_script(path: &Path) -> bool {
    let by_name = path
        .extension()
        .is_some_and(|end| SCRIPTS.iter().any(|it| end == *it));
    let by_mode = || {
        path.metadata()
            .is_ok_and(|it| it.permissions().mode() & 0o111 != 0)
    };
    let by_first_line = || {
        let mut start = [0; 2];
        File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok())
            && start == *b"#!"
    };
    by_name || by_mode() || by_first_line()
}
