//! The one place that writes to standard output and standard error, and that cleans everything which goes to
//! a terminal. If the reader of a pipe has ended, that is not an error.

use std::{
    borrow::Cow,
    io::{self, ErrorKind, IsTerminal, Write, stderr, stdout},
};

use super::clean::{self, is_unseen};

/// Writes lines to stderr.
pub fn talk(text: &str) {
    write_talk(&clean::text(text, false));
}

/// Like [`talk`], with stead's own colours in the text. Foreign text in it must be cleaned already.
pub fn talk_in_color(text: &str, color: bool) {
    write_talk(&clean::text(text, color));
}

fn write_talk(text: &str) {
    // If stderr is closed, the work continues all the same.
    let _ = stderr().write_all(text.as_bytes());
}

/// Writes a text of stead's own to stderr from the handler of a signal: by one system call, with no lock and no memory.
pub fn talk_in_handler(text: &'static str) {
    // The process ends anyway.
    let _ = nix::unistd::write(stderr(), text.as_bytes());
}

/// Writes to stdout.
///
/// # Errors
/// If it cannot be written, except for a reader that has read enough.
pub fn data(text: &str) -> io::Result<()> {
    raw(clean::text(text, false).as_bytes()).map(drop)
}

/// Like [`data`], with stead's own colours in the text.
pub fn data_in_color(text: &str, color: bool) -> io::Result<()> {
    raw(clean::text(text, color).as_bytes()).map(drop)
}

/// Writes JSON to stdout; control characters are kept, but escaped. Returns whether there is still a reader.
pub fn json(text: &str) -> io::Result<bool> {
    raw(escaped(text).as_bytes())
}

/// Writes bytes to stdout unchanged: for data that people do not read, or that they asked for unchanged.
/// Returns whether there is still a reader.
pub fn raw(bytes: &[u8]) -> io::Result<bool> {
    let mut out = stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        // As in `stead list | head -1`: the reader has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes bytes to stderr unchanged: what a program says that the user runs by stead.
pub fn raw_talk(bytes: &[u8]) {
    // If stderr is closed, the work continues all the same.
    let _ = stderr().write_all(bytes);
}

pub fn stdout_is_terminal() -> bool {
    stdout().is_terminal()
}

/// Returns how many characters a line of standard output has; `None` if it is no terminal, or does not tell.
pub fn stdout_width() -> Option<usize> {
    let (width, _) = stdout_is_terminal().then(crossterm::terminal::size)?.ok()?;
    (width > 0).then_some(width.into())
}

pub fn stderr_is_terminal() -> bool {
    stderr().is_terminal()
}

/// Escapes all control characters. JSON must escape C0 only (RFC 8259 §7), but terminals obey others too. They
/// occur only in strings, where any character may be escaped.
fn escaped(json: &str) -> Cow<'_, str> {
    let special = |c: char| c != '\n' && is_unseen(c);
    if !json.contains(special) {
        return json.into();
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if special(c) {
            // All of them are in the basic plane.
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_what_it_says_and_shows_no_control_characters() {
        let given = "a\u{1b}]52;c;x\u{7}\u{9b}2J\u{7f}\u{202e}\n\"ü";
        let text = serde_json::to_string_pretty(&[given]).unwrap();
        let safe = escaped(&text);
        assert!(!safe.contains(|c| c != '\n' && is_unseen(c)), "{safe:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&safe).unwrap(), [given]);
        assert_eq!(escaped("{\"a\": \"b\"}\n"), "{\"a\": \"b\"}\n");
    }
}
