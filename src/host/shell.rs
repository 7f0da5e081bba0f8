//! Quotes words for shells.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

/// Quotes one word for a POSIX shell.
pub fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Quotes any word for a POSIX shell. The result is text, even if the word is not.
pub fn shell_quote_any(word: &OsStr) -> String {
    if let Some(word) = word.to_str() {
        return shell_quote(word);
    }
    let bytes = word.as_bytes();
    // A command substitution loses the newlines at the end (POSIX.1-2024, XCU 2.6.3).
    let kept = bytes.iter().rposition(|byte| *byte != b'\n');
    let (body, end) = bytes.split_at(kept.map_or(0, |last| last + 1));
    let mut coded = String::new();
    for byte in body {
        match byte {
            b if b.is_ascii_alphanumeric() || b"_-./=:@+,".contains(b) => {
                coded.push(char::from(*b));
            }
            b => coded.push_str(&format!("\\0{b:03o}")),
        }
    }
    let mut quoted = format!("\"$(printf %b '{coded}')\"");
    if !end.is_empty() {
        quoted.push_str(&format!("'{}'", "\n".repeat(end.len())));
    }
    quoted
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Every byte but NUL, which no argument has, in the shells that are here.
    #[test]
    fn words_that_are_no_text_reach_a_command_unchanged() {
        let all: Vec<u8> = (1..=255).chain(*b"%s\\n'\"$x\n\n").collect();
        for word in [&all[..], b"\xff", b"\xff\n", b"-n \xc3"] {
            let quoted = shell_quote_any(OsStr::from_bytes(word));
            assert!(quoted.is_ascii(), "{quoted}");
            for shell in ["sh", "bash"] {
                let output = Command::new(shell)
                    .args(["-c", &format!("printf '%s|' {quoted}")])
                    .output()
                    .unwrap();
                assert_eq!(output.stdout, [word, b"|"].concat(), "{shell}: {quoted}");
            }
        }
        assert_eq!(shell_quote_any(OsStr::new("it's")), shell_quote("it's"));
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(shell_quote("plain/path-1.0"), "plain/path-1.0");
        assert_eq!(shell_quote(""), "''");
        assert_eq!(shell_quote("it's $HOME"), "'it'\\''s $HOME'");
    }
}
