//! stdout is data, stderr is talk; what of it a terminal may get is `report`'s business.

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
