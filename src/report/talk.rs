//! Lines for people on stderr, in addition to events.

use std::io::IsTerminal;

use super::{Style, clean::words, secrets, stdio};

/// Writes text to stderr, without secrets.
pub fn talk(text: &str) {
    stdio::talk(&secrets::without(text));
}

/// Writes a line to stderr, unless `--quiet` or `--json` was given.
pub fn say(style: Style, line: &str) {
    if !style.quiet && !style.json {
        talk(&format!("{line}\n"));
    }
}

/// Writes a warning to stderr, in every style.
pub fn warn(line: &str) {
    talk(&format!("warning: {}\n", words(line)));
}

/// Whether there is a terminal to ask on.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal()
}

/// Asks a yes-or-no question on the terminal. `None`: there is no terminal to ask on.
pub fn ask(question: &str) -> Option<bool> {
    // Cleaned to one line, so that no foreign name in it can pass for another question.
    let answer = self::question(&format!("{} [y/N] ", words(question)))?;
    Some(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Asks on the terminal, and returns the answer. `None`: there is no terminal to ask on.
pub fn question(text: &str) -> Option<String> {
    if !can_ask() {
        return None;
    }
    talk(text);
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).ok()?;
    Some(answer.trim().to_string())
}
