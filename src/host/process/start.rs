//! Starts programs, whose command lines get into the log. The log never has a program's environment or input, which
//! may be secret.

use std::{
    ffi::OsStr,
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
};

use crate::{host::shell::shell_quote, report::secrets};

/// The longest word in the log, in characters. A longer one is a script, whose beginning is enough.
const LONGEST_WORD: usize = 200;

/// Starts a program whose command line gets into the log. clippy.toml refuses other ways.
pub trait Start {
    type Child;

    /// Starts the program.
    fn start(&mut self) -> io::Result<Self::Child> {
        self.start_in_private(0)
    }

    /// Starts the program. Its last `private` arguments stay out of the log: they are a command that the user typed, which
    /// may have a password in it.
    fn start_in_private(&mut self, private: usize) -> io::Result<Self::Child>;
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the function to use instead"
)]
impl Start for Command {
    type Child = Child;

    fn start_in_private(&mut self, private: usize) -> io::Result<Child> {
        log(self, private);
        self.spawn()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the function to use instead"
)]
impl Start for tokio::process::Command {
    type Child = tokio::process::Child;

    fn start_in_private(&mut self, private: usize) -> io::Result<tokio::process::Child> {
        log(self.as_std(), private);
        self.spawn()
    }
}

/// Replaces this process by a program. Its last `private` arguments stay out of the log, as for
/// [`Start::start_in_private`]. Returns only if that failed.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the function to use instead"
)]
pub fn become_program(command: &mut Command, private: usize) -> io::Error {
    log(command, private);
    command.exec()
}

fn log(command: &Command, private: usize) {
    tracing::debug!("run: {}", public_line(command, private));
}

fn public_line(command: &Command, private: usize) -> String {
    let public = command.get_args().len().saturating_sub(private);
    let line = line(command.get_program(), command.get_args().take(public));
    match private {
        0 => line,
        _ => format!("{line} …"),
    }
}

pub(super) fn line<'a>(program: &OsStr, arguments: impl Iterator<Item = &'a OsStr>) -> String {
    let mut line = word(program);
    for argument in arguments {
        line.push(' ');
        line.push_str(&word(argument));
    }
    line
}

fn word(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    // Before it is cut: a part of a secret would not be found.
    let word = secrets::without(&word);
    match word.char_indices().nth(LONGEST_WORD) {
        None => shell_quote(&word).replace('\n', "\\n"),
        Some((end, _)) => format!("{}…", shell_quote(&word[..end]).replace('\n', "\\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_one_line() {
        let mut command = Command::new("ssh");
        command
            .args(["-T", "--", "web", "cd /srv\nls 'a b'"])
            .env("TOKEN", "not-shown");
        assert_eq!(
            line(command.get_program(), command.get_args()),
            "ssh -T -- web 'cd /srv\\nls '\\''a b'\\'''"
        );
        assert_eq!(public_line(&command, 1), "ssh -T -- web …");
        assert_eq!(public_line(&command, 9), "ssh …");
        let long = "é".repeat(300);
        assert_eq!(
            word(OsStr::new(&long)),
            format!("'{}'…", "é".repeat(LONGEST_WORD))
        );
    }
}
