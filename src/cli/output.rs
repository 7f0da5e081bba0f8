//! stdout is data, stderr is talk; what of it a terminal may get is `report`'s business.

use std::io::IsTerminal;

use serde::Serialize;

use crate::report::{Style, clean::words, stdio};

use super::{ColorChoice, Failure, Global};

/// Whether to colour what goes to stderr. `NO_COLOR` (no-color.org) counts unless overridden.
pub fn color(global: &Global) -> bool {
    match global.color {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => stdio::stderr_is_terminal() && colors_are_wanted(),
    }
}

/// What the environment says of a terminal.
pub fn colors_are_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && is_capable()
}

/// Whether the terminal is more than a line printer, as far as the environment says.
fn is_capable() -> bool {
    std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

pub fn style(global: &Global) -> Style {
    Style {
        json: global.json,
        quiet: global.quiet,
        live: !global.plain && stdio::stderr_is_terminal() && is_capable(),
        color: color(global),
        verbose: global.verbose,
    }
}

/// Text to stderr.
pub fn talk(text: &str) {
    stdio::talk(text);
}

/// A line to stderr, unless `--quiet` or `--json`.
pub fn say(global: &Global, line: &str) {
    if !global.quiet && !global.json {
        talk(&format!("{line}\n"));
    }
}

/// What is amiss without being an error: to stderr, whatever stdout is for.
pub fn warn(line: &str) {
    talk(&format!("warning: {}\n", words(line)));
}

/// Text to stdout.
pub fn data(text: &str) -> Result<(), Failure> {
    stdio::data(text).map_err(|error| writing(&error))
}

fn writing(error: &std::io::Error) -> Failure {
    Failure::io("write to standard output", error)
}

/// Bytes to stdout as they are. Whether the reader is still there.
pub fn raw(bytes: &[u8]) -> Result<bool, Failure> {
    stdio::raw(bytes).map_err(|error| writing(&error))
}

/// A JSON document to stdout.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    write_json(serde_json::to_string_pretty(value)).map(drop)
}

/// A JSON document on one line. Whether the reader is still there.
pub fn json_line(value: &impl Serialize) -> Result<bool, Failure> {
    write_json(serde_json::to_string(value))
}

fn write_json(text: serde_json::Result<String>) -> Result<bool, Failure> {
    match text {
        Ok(text) => stdio::json(&format!("{text}\n")).map_err(|error| writing(&error)),
        Err(error) => Err(Failure::error(
            format!("cannot write JSON: {error}"),
            crate::report::BUG,
        )),
    }
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
