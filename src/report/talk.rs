//! Lines for people, beside the events of work: to stderr.

use std::io::IsTerminal;

use super::{Style, clean::words, stdio};

/// Text to stderr.
pub fn talk(text: &str) {
    stdio::talk(text);
}

/// A line to stderr, unless `--quiet` or `--json`.
pub fn say(style: Style, line: &str) {
    if !style.quiet && !style.json {
        talk(&format!("{line}\n"));
    }
}

/// What is amiss without being an error: to stderr, whatever stdout is for.
pub fn warn(line: &str) {
    talk(&format!("warning: {}\n", words(line)));
}

/// Asks a yes-or-no question on the terminal; `None` where there is no one to ask.
pub fn ask(question: &str) -> Option<bool> {
    // One line, whatever names are in it: nothing else passes for what is asked.
    let answer = self::question(&format!("{} [y/N] ", words(question)))?;
    Some(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// What is typed on the terminal; `None` where there is no one to ask.
pub fn question(text: &str) -> Option<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return None;
    }
    talk(text);
    let mut answer = String::new();
    stdin.read_line(&mut answer).ok()?;
    Some(answer.trim().to_string())
}
