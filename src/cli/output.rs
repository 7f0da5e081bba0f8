//! Writes data to stdout. Messages go to stderr, through `report`, which also cleans both for a
//! terminal.

use serde::Serialize;

use crate::{
    failure::Failure,
    log,
    report::{ColorChoice, Style, stdio},
};

use super::Global;

/// Whether to colour what goes to stderr. `NO_COLOR` (no-color.org) counts unless overridden.
fn color(choice: ColorChoice) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => stdio::stderr_is_terminal() && colors_are_wanted(),
    }
}

/// Whether the environment allows colours.
pub(super) fn colors_are_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && is_capable()
}

/// Whether `TERM` names a terminal that understands escape sequences.
fn is_capable() -> bool {
    std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

pub(super) fn style(global: &Global) -> Style {
    Style {
        json: global.json,
        quiet: global.quiet,
        // Lines of the log would go through a live display.
        live: !global.plain
            && global.verbose < 2
            && std::env::var_os(log::VARIABLE).is_none()
            && stdio::stderr_is_terminal()
            && is_capable(),
        color: color(global.color),
        verbose: global.verbose > 0,
        dated: false,
    }
}

/// Writes text to stdout.
pub(super) fn data(text: &str) -> Result<(), Failure> {
    stdio::data(text).map_err(|error| writing(&error))
}

fn writing(error: &std::io::Error) -> Failure {
    Failure::io("write to standard output", error)
}

/// Writes bytes to stdout unchanged. Returns whether the reader is still there.
pub(super) fn raw(bytes: &[u8]) -> Result<bool, Failure> {
    stdio::raw(bytes).map_err(|error| writing(&error))
}

/// Writes a JSON document to stdout.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    write_json(serde_json::to_string_pretty(value)).map(drop)
}

/// Writes a JSON document on one line to stdout. Returns whether the reader is still there.
pub(super) fn json_line(value: &impl Serialize) -> Result<bool, Failure> {
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
