//! Runs Ansible's programs on the host.

use std::{ffi::OsString, path::Path, process::ExitStatus};

use crate::host::process::{Answers, Command, Environment, Limits, ProgramError};

pub(super) use crate::host::process::find;

use super::error::AnsibleError;

/// Returns a command for one of Ansible's programs, or its Python, with the user's environment.
pub(super) fn command(program: impl Into<OsString>) -> Command {
    Command::new(program, "ansible-core").environment(Environment::Whole)
}

/// Runs a program to its end and passes each line of its output to `each` (whether it is from stderr, and
/// the line without its end). If the future is dropped, the program is killed with everything that it
/// started: its workers, and their ssh. What it asks on the terminal that `command` gives it, `answers` answers.
pub(super) async fn run(
    program: &'static str,
    command: Command,
    at: &str,
    each: &mut (dyn FnMut(bool, &str) + Send),
    answers: &dyn Answers,
) -> Result<ExitStatus, AnsibleError> {
    // A playbook takes as long as it takes, and Ansible has time-outs of its own.
    let command = command.limits(Limits::WORK);
    (command.conversation(each, answers).await).map_err(|error| match error {
        ProgramError::NotInstalled { .. } => AnsibleError::Missing {
            at: at.to_string(),
            program,
        },
        ProgramError::Unanswered { asked, .. } => AnsibleError::Unanswered(asked),
        error => AnsibleError::Run(error),
    })
}

/// Returns the words of a script's first line, such as `#!/usr/bin/env python3`.
pub(super) fn interpreter(program: &Path) -> Option<Vec<String>> {
    use std::io::{BufRead, BufReader, Read};
    let file = std::fs::File::open(program).ok()?;
    let mut line = Vec::new();
    // A binary may have no line ends. The limit of 4096 bytes is more than the kernel reads of a first line.
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
