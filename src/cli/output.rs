//! Writes data to stdout. Messages go to stderr, through `report`, which also cleans both for a
//! terminal.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{
    failure::Failure,
    report::{Table, clean::Shown, line_within, stdio},
    session::{invocation::Invocation, locate::start_folder, pack::folder_of},
};

/// Writes text to stdout.
pub(super) fn data(text: &str) -> Result<(), Failure> {
    stdio::data(text).map_err(|error| writing(&error))
}

/// Returns a table as it fits on standard output.
pub(super) fn fitted(table: &Table) -> String {
    table.fitted(width())
}

/// Returns how many characters a line of standard output has; `None`: as many as there are.
pub(super) fn width() -> Option<usize> {
    stdio::stdout_width()
}

/// Returns a line as it fits on standard output.
pub(super) fn fitted_line(line: &str) -> String {
    line_within(line, width())
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

/// Returns the path of a file that a command writes whole, in a folder that exists. `option` is how its name was given.
///
/// # Errors
/// If something that is no file has that name: a complete file would take the place of a pipe or a device.
pub(super) fn file(invocation: &Invocation, file: &Path, option: &str) -> Result<PathBuf, Failure> {
    let out = start_folder(invocation)?.join(file);
    if out.is_dir() || out.file_name().is_none() {
        return Err(Failure::usage(
            format!("{} is a folder", out.shown()),
            format!("{option} takes the name of a file to write"),
        ));
    }
    if out.metadata().is_ok_and(|it| !it.is_file()) {
        return Err(Failure::usage(
            format!("{} is a pipe or a device", out.shown()),
            format!("{option} takes the name of a file, which is written whole"),
        ));
    }
    if !folder_of(&out).is_dir() {
        return Err(Failure::usage(
            format!("there is no folder {}", folder_of(&out).shown()),
            "create it first, or choose another file",
        ));
    }
    Ok(out)
}
