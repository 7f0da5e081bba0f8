//! What a command of the user's in a guest takes: the scripts that run it, and what they say of it.
//!
//! Without a terminal, a script of stead's beside the command ends it when its caller goes. It says how the command
//! ended, in lines of output that begin with a mark. With a terminal, the guest's kernel ends the command with that.

use std::{
    ffi::{OsStr, OsString},
    io,
};

use memchr::memmem;

use crate::host::shell::{shell_quote, shell_quote_any};

use super::{ending::END_SCRIPT, output::SSH_FAILED};

/// provisioners/guest/stead-exec.
const EXEC_SCRIPT: &str = include_str!("../../provisioners/guest/stead-exec");

/// The exit code of a command whose own is that of ssh's failure.
const NOT_SSH_FAILED: u8 = 254;

/// A command of the user's.
#[derive(Clone, Copy, Debug)]
pub enum UserCommand<'a> {
    /// A program and its arguments.
    Words(&'a [OsString]),
    /// A line for the login user's shell.
    Line(&'a OsStr),
}

impl UserCommand<'_> {
    /// Returns the words of `set` in the guest.
    pub(super) fn words(self) -> String {
        match self {
            UserCommand::Words(words) => {
                let words: Vec<String> = words.iter().map(|word| shell_quote_any(word)).collect();
                words.join(" ")
            }
            UserCommand::Line(line) => format!("\"${{SHELL:-sh}}\" -c {}", shell_quote_any(line)),
        }
    }
}

/// Returns the script that runs a command without a terminal. What it says begins with `mark`.
pub fn exec_script(command: UserCommand<'_>, mark: &str, has_input: bool) -> String {
    let (end, words) = (shell_quote(END_SCRIPT), command.words());
    let input = if has_input { "stream" } else { "none" };
    format!(
        "stead_mark={mark}\nstead_input={input}\nstead_end={end}\nset -- {words}\n{EXEC_SCRIPT}"
    )
}

/// Returns the command for the login shell that runs a command at a terminal, which is the command's standard input.
/// So that every shell takes it for the same words, it has nothing that means anything between single quotes to any.
pub fn terminal_command(command: UserCommand<'_>) -> String {
    let words = command.words();
    let script = format!(
        "set -- {words}\n( \"$@\" )\nstead=$?\n[ $stead != {SSH_FAILED} ] || stead={NOT_SSH_FAILED}\nexit $stead\n"
    );
    let mut coded = String::new();
    for byte in script.bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() || b" -_./=:@+,".contains(&b) => coded.push(b.into()),
            b => coded.push_str(&format!("${{stead}}0{b:03o}")),
        }
    }
    // `tr` makes a backslash of the character after `[`.
    format!(r#"exec sh -c 'stead=$(echo b | tr abc "[-]"); eval "$(printf %b "{coded}")"'"#)
}

/// What the script says of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It has ended, with this code on stderr.
    Ended(Option<u8>),
    /// So many bytes of the input have not been read.
    Left(u64),
}

/// Separates what the script says from the command's output, which it does not change otherwise.
pub struct Listener {
    mark: Vec<u8>,
    /// The start of a mark, or of a line behind it, which may go on in the next piece.
    held: Vec<u8>,
    /// The command has ended. What comes after that is not its output.
    is_over: bool,
}

impl Listener {
    pub fn new(mark: &str) -> Self {
        Listener {
            mark: mark.as_bytes().to_vec(),
            held: Vec::new(),
            is_over: false,
        }
    }

    /// Takes a piece of output. The command's own goes to `pass`. Returns what the script says in it.
    ///
    /// # Errors
    /// Those of `pass`.
    pub fn take(
        &mut self,
        piece: &[u8],
        mut pass: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Vec<Word>> {
        let joined;
        let mut rest = match self.held.is_empty() {
            true => piece,
            false => {
                self.held.extend_from_slice(piece);
                joined = std::mem::take(&mut self.held);
                &joined
            }
        };
        let mut said = Vec::new();
        while let Some(at) = memmem::find(rest, &self.mark) {
            let line = &rest[at + self.mark.len()..];
            let Some(end) = memchr::memchr(b'\n', line) else {
                break;
            };
            self.give(&rest[..at], &mut pass)?;
            let word = word(&line[..end]);
            self.is_over |= matches!(word, Some(Word::Ended(_)));
            said.extend(word);
            rest = &line[end + 1..];
        }
        let whole = rest.len() - self.begun(rest);
        self.give(&rest[..whole], &mut pass)?;
        self.held = rest[whole..].to_vec();
        Ok(said)
    }

    /// Passes on what was held, at the end of the output.
    pub fn end(&mut self, mut pass: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        self.give(&held, &mut pass)
    }

    fn give(&self, bytes: &[u8], pass: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match bytes.is_empty() || self.is_over {
            true => Ok(()),
            false => pass(bytes),
        }
    }

    /// How many bytes at the end are a mark with the start of its line, or the start of a mark.
    fn begun(&self, bytes: &[u8]) -> usize {
        if let Some(at) = memmem::find(bytes, &self.mark) {
            return bytes.len() - at;
        }
        let longest = self.mark.len().min(bytes.len() + 1);
        (1..longest)
            .rev()
            .find(|&length| bytes.ends_with(&self.mark[..length]))
            .unwrap_or(0)
    }
}

/// Reads the exit code of a command in a guest.
pub(super) fn code_of_guest(text: &str) -> u8 {
    let code = text.parse().ok();
    let code = code.filter(|code| i32::from(*code) != SSH_FAILED);
    code.unwrap_or(NOT_SSH_FAILED)
}

fn word(line: &[u8]) -> Option<Word> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    match (words.next()?, words.next()) {
        ("ended", None) => Some(Word::Ended(None)),
        ("ended", Some(code)) => Some(Word::Ended(Some(code_of_guest(code)))),
        ("left", Some(bytes)) => bytes.parse().ok().map(Word::Left),
        // That the caller can still be written to.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "stead-0123";

    fn heard(pieces: &[&[u8]]) -> (Vec<u8>, Vec<Word>) {
        let mut listener = Listener::new(MARK);
        let (mut passed, mut said) = (Vec::new(), Vec::new());
        let mut pass = |bytes: &[u8]| {
            passed.extend_from_slice(bytes);
            Ok(())
        };
        for piece in pieces {
            said.extend(listener.take(piece, &mut pass).unwrap());
        }
        listener.end(&mut pass).unwrap();
        (passed, said)
    }

    #[test]
    fn output_is_told_from_what_is_said_of_it() {
        let whole =
            b"a\0stead-01\nstead-0123 here\nbstead-0123 ended 3\nKilled\nstead-0123 left 12\nstead-";
        let wanted = (
            b"a\0stead-01\nb".to_vec(),
            vec![Word::Ended(Some(3)), Word::Left(12)],
        );
        assert_eq!(heard(&[whole]), wanted);
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(heard(&bytes), wanted);
        for at in 1..whole.len() {
            assert_eq!(heard(&[&whole[..at], &whole[at..]]), wanted, "{at}");
        }
        // What has begun like a line of the script's, and never ended.
        assert_eq!(heard(&[b"xstead-0123 en"]).0, b"xstead-0123 en");
    }

    #[test]
    fn a_code_of_255_is_not_the_guests() {
        assert_eq!(word(b" ended 255"), Some(Word::Ended(Some(254))));
        assert_eq!(word(b" ended 137"), Some(Word::Ended(Some(137))));
        assert_eq!(word(b" ended"), Some(Word::Ended(None)));
        assert_eq!(word(b" here"), None);
    }

    /// Between single quotes, `!` is special to tcsh, a backslash to fish, a newline to tcsh.
    #[test]
    fn every_login_shell_reads_the_same_words() {
        let words = [
            "printf",
            "%s|",
            "it's",
            "a\\b",
            "!!",
            "$x `y` \"z\"",
            "\n",
            "é",
        ]
        .map(OsString::from);
        let command = terminal_command(UserCommand::Words(&words));
        let quoted = command.strip_prefix("exec sh -c '").unwrap();
        let quoted = quoted.strip_suffix('\'').unwrap();
        assert!(
            !quoted.contains(['\'', '\\', '!', '\n']) && quoted.is_ascii(),
            "{quoted}"
        );
        let said = |command: &str| {
            let output = std::process::Command::new("sh")
                .args(["-c", command])
                .output()
                .unwrap();
            (
                output.status.code(),
                String::from_utf8(output.stdout).unwrap(),
            )
        };
        assert_eq!(
            said(&command),
            (Some(0), "it's|a\\b|!!|$x `y` \"z\"|\n|é|".to_string())
        );
        let exits = |code: &str| said(&terminal_command(UserCommand::Line(OsStr::new(code)))).0;
        assert_eq!(exits("exit 255"), Some(254));
        assert_eq!(exits("kill -9 $$"), Some(137));
    }
}
