//! Ansible's programs on the host: found, started in a group of their own, read, ended as a whole.

use std::{ffi::OsString, path::Path, process::ExitStatus};

use crate::host::process::{Command, Environment, Limits, ProgramError};

pub use crate::host::process::find;

use super::error::AnsibleError;

/// One of Ansible's programs, or its Python, to be run with the user's settings.
pub fn command(program: impl Into<OsString>) -> Command {
    Command::new(program, "ansible-core").environment(Environment::Whole)
}

/// Runs a program to its end and hands each line that it prints to `each` (whether it came on
/// stderr, and the line without its end). Given up, it ends with all that it started: its workers, and
/// the ssh that each has. Its own folder for decrypted files is removed by whoever made it.
pub async fn run(
    program: &'static str,
    command: Command,
    at: &str,
    each: &mut (dyn FnMut(bool, &str) + Send),
) -> Result<ExitStatus, AnsibleError> {
    // A playbook takes as long as it takes, and Ansible has time-outs of its own.
    let command = command.limits(Limits::WORK);
    (command.lines(each).await).map_err(|error| match error {
        ProgramError::NotInstalled { .. } => AnsibleError::Missing {
            at: at.to_string(),
            program,
        },
        error => AnsibleError::Run(error),
    })
}

/// The words of a script's first line: `#!/usr/bin/env python3`.
pub fn interpreter(program: &Path) -> Option<Vec<String>> {
    use std::io::{BufRead, BufReader, Read};
    let file = std::fs::File::open(program).ok()?;
    let mut line = Vec::new();
    // Binaries have no line ends; 4096 is more than the kernel reads of one.
    BufReader::new(file.take(4096))
        .read_until(b'\n', &mut line)
        .ok()?;
    let line = String::from_utf8(line).ok()?;
    let words: Vec<String> = line
        .strip_prefix("#!")?
        .split_whitespace()
        .map(ToString::to_string)
        .collect();
    (!words.is_empty()).then_some(words)
}
