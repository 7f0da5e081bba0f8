//! Writes data to stdout. Messages go to stderr, through `report`, which also cleans both for a
//! terminal.

use serde::Serialize;

use crate::{failure::Failure, report::stdio};

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
