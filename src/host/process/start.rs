//! Starts programs, whose command lines get into the log. The log never has a program's environment or input, which
//! may be secret.
//!
//! No program gets the repository of a git hook that runs stead: [`OF_A_REPOSITORY`].

use std::{
    ffi::OsStr,
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
};

use crate::{host::shell::shell_quote, report::secrets};

/// The longest word in the log, in characters. A longer one is a script, whose beginning is enough.
const LONGEST_WORD: usize = 200;

/// Variables that choose a repository, its index and its objects (git(1), githooks(5), git-receive-pack(1)). git sets
/// them for hooks. With them, each git that a program of stead's runs would read and write the hook's repository,
/// whatever folder it is in: `ansible-galaxy` would check out a role's tag there.
const OF_A_REPOSITORY: [&str; 13] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

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
        ready(self, private);
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
        ready(self.as_std_mut(), private);
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
    ready(command, private);
    command.exec()
}

fn ready(command: &mut Command, private: usize) {
    for name in OF_A_REPOSITORY {
        command.env_remove(name);
    }
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

/// Returns a script as the log has it.
pub fn shown_script(script: &str) -> String {
    word(OsStr::new(script))
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
    fn no_program_gets_the_repository_of_a_hook() {
        let mut command = Command::new("sh");
        command.args(["-c", "env; git rev-parse --local-env-vars"]);
        for name in OF_A_REPOSITORY {
            command.env(name, "x");
        }
        command.env("GIT_CONFIG_COUNT", "0");
        let output = command.stdout(std::process::Stdio::piped());
        let output = output.start().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let has = |name: &str| said.lines().any(|line| line == format!("{name}=x"));
        assert!(!OF_A_REPOSITORY.iter().any(|name| has(name)), "{said}");
        // A setting of the user's own stays.
        assert!(said.lines().any(|line| line == "GIT_CONFIG_COUNT=0"));
        // What git has beside settings and replaced objects is in the list.
        let names = said.lines().filter(|line| line.starts_with("GIT_"));
        for name in names.filter(|line| !line.contains('=')) {
            let kept = name.starts_with("GIT_CONFIG") || name.contains("REPLACE");
            assert!(kept || OF_A_REPOSITORY.contains(&name), "{name}");
        }
    }

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
