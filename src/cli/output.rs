//! stdout is data, stderr is talk; a reader that went away is no error.

use std::io::{IsTerminal, Write, stderr, stdout};

use serde::Serialize;

use crate::report::Style;

use super::{ColorChoice, Failure, Global};

/// Whether to colour what goes to stderr. `NO_COLOR` (no-color.org) counts unless overridden.
pub fn color(global: &Global) -> bool {
    match global.color {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
        }
    }
}

pub fn style(global: &Global) -> Style {
    Style {
        json: global.json,
        quiet: global.quiet,
        live: !global.plain
            && stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
        color: color(global),
        verbose: global.verbose,
    }
}

/// Text to stderr, as it is.
pub fn talk(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

/// A line to stderr, unless `--quiet` or `--json`.
pub fn say(global: &Global, line: &str) {
    if !global.quiet && !global.json {
        talk(&format!("{line}\n"));
    }
}

/// What is amiss without being an error: to stderr, whatever stdout is for.
pub fn warn(line: &str) {
    talk(&format!("warning: {line}\n"));
}

/// Text to stdout, as it is.
pub fn data(text: &str) -> Result<(), Failure> {
    match stdout()
        .write_all(text.as_bytes())
        .and_then(|()| stdout().flush())
    {
        // `stead list | head -1`: what was wanted has been read.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Failure::io("write to standard output", &error)),
    }
}

/// A JSON document to stdout.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => data(&format!("{text}\n")),
        Err(error) => Err(Failure::error(
            format!("cannot write JSON: {error}"),
            "this is a bug; please report it",
        )),
    }
}

/// Asks a yes-or-no question on the terminal; `None` where there is no one to ask.
pub fn ask(question: &str) -> Option<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return None;
    }
    talk(&format!("{question} [y/N] "));
    let mut answer = String::new();
    stdin.read_line(&mut answer).ok()?;
    Some(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}
