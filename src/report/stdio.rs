//! The one place that writes to standard output and standard error, so that nothing gets there which a
//! terminal would act on. A reader that went away is no error.

use std::{
    borrow::Cow,
    io::{self, ErrorKind, IsTerminal, Write, stderr, stdout},
};

use super::clean::{self, is_unseen};

/// To stderr, in lines of any number.
pub fn talk(text: &str) {
    write_talk(&clean::text(text, false));
}

/// As [`talk`], with stead's own colours in it. Foreign text has to be cleaned before it is put among
/// them.
pub fn talk_in_color(text: &str, color: bool) {
    write_talk(&clean::text(text, color));
}

fn write_talk(text: &str) {
    // Whoever does not listen is not told; the work goes on.
    let _ = stderr().write_all(text.as_bytes());
}

/// To stdout.
///
/// # Errors
/// Where it cannot be written, but for a reader that has read enough.
pub fn data(text: &str) -> io::Result<()> {
    raw(clean::text(text, false).as_bytes()).map(drop)
}

/// As [`data`], with stead's own colours in it.
pub fn data_in_color(text: &str, color: bool) -> io::Result<()> {
    raw(clean::text(text, color).as_bytes()).map(drop)
}

/// A JSON text to stdout: all that is data stays, escaped. Whether the reader is still there.
pub fn json(text: &str) -> io::Result<bool> {
    raw(escaped(text).as_bytes())
}

/// Bytes to stdout as they are, for what is not for people to read or was asked for as it is. Whether the
/// reader is still there.
pub fn raw(bytes: &[u8]) -> io::Result<bool> {
    let mut out = stdout();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        // `stead list | head -1`: what was wanted has been read.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

pub fn stdout_is_terminal() -> bool {
    stdout().is_terminal()
}

pub fn stderr_is_terminal() -> bool {
    stderr().is_terminal()
}

/// JSON has to escape C0 only (RFC 8259 §7), and terminals act on more than that. Such characters stand in
/// strings only, where each may be escaped.
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
