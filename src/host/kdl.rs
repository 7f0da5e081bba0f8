//! Parses KDL v2, with a limit on nesting.

use std::sync::Arc;

use kdl::{KdlDiagnostic, KdlDocument, KdlError};
use miette::Severity;

/// How deep nodes and comments may nest. The parser is recursive, and hundreds of levels overflow its stack.
/// No file that stead reads nests ten deep.
const DEEPEST: usize = 32;

/// Parses KDL v2.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the function to use instead"
)]
pub fn parse(text: &str) -> Result<KdlDocument, KdlError> {
    match too_deep(text) {
        None => KdlDocument::parse_v2(text),
        Some(offset) => {
            let input = Arc::new(text.to_string());
            Err(KdlError {
                input: Arc::clone(&input),
                diagnostics: vec![KdlDiagnostic {
                    input,
                    span: (offset, 1).into(),
                    message: Some(format!("this nests more than {DEEPEST} levels deep")),
                    label: Some("one level too many".into()),
                    help: None,
                    severity: Severity::Error,
                }],
            })
        }
    }
}

/// Returns where a text nests too deep. Other errors are left to the parser.
fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth, mut hashes) = (0, 0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        let rest = &bytes[at..];
        match byte {
            b'#' => {
                hashes += 1;
                at += 1;
                continue;
            }
            b'"' => at += string(rest, hashes),
            b'/' if rest.starts_with(b"//") => {
                at += rest
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .unwrap_or(rest.len());
            }
            b'/' if rest.starts_with(b"/*") => match comment(rest) {
                Ok(length) => at += length,
                Err(offset) => return Some(at + offset),
            },
            b'{' => {
                depth += 1;
                if depth > DEEPEST {
                    return Some(at);
                }
                at += 1;
            }
            b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
        hashes = 0;
    }
    None
}

/// Returns the length of a string with that many `#` before it. If it has no end, it goes to the end of the
/// text.
fn string(bytes: &[u8], hashes: usize) -> usize {
    let quotes = if bytes.starts_with(b"\"\"\"") { 3 } else { 1 };
    let end: Vec<u8> = [vec![b'"'; quotes], vec![b'#'; hashes]].concat();
    let mut at = quotes;
    while at < bytes.len() {
        if bytes[at..].starts_with(&end) {
            return at + end.len();
        }
        // A raw string has no escapes.
        at += if hashes == 0 && bytes[at] == b'\\' {
            2
        } else {
            1
        };
    }
    bytes.len()
}

/// Returns the length of a comment, which may contain others; `Err`: where it nests too deep.
fn comment(bytes: &[u8]) -> Result<usize, usize> {
    let (mut at, mut depth) = (0, 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            if depth > DEEPEST {
                return Err(at);
            }
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Ok(at);
            }
        } else {
            at += 1;
        }
    }
    Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nests_without_end_is_an_error_and_no_overflow() {
        for text in [
            "a { ".repeat(100_000),
            format!("{}{}", "a { ".repeat(40), "}".repeat(40)),
            "/*".repeat(100_000),
            format!("{}{}", "/*".repeat(40), "*/".repeat(40)),
            format!("a #\"{{{{\"# {{{}", "b {".repeat(40)),
        ] {
            let error = parse(&text).unwrap_err();
            let message = error.diagnostics[0].message.as_deref();
            assert_eq!(message, Some("this nests more than 32 levels deep"));
        }
    }

    #[test]
    fn braces_in_strings_and_comments_nest_nothing() {
        let many = "{".repeat(100);
        for text in [
            format!("a \"{many}\""),
            format!("a \"\\\"{many}\""),
            format!("a #\"{many}\"\"#"),
            format!("a ##\"\"\"\n{many}\"#\n\"\"\"##"),
            format!("a \"\"\"\n{many} \\\"\"\" {many}\n\"\"\""),
            format!("a // {many}\nb"),
            format!("/* {many} /* */ {many} */ a"),
            "a { b }; ".repeat(100),
        ] {
            assert!(parse(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_has_no_end_is_left_to_the_parser() {
        for text in ["a \"{", "a #\"{", "a \"\\", "/* {", "a #", "\"", "}"] {
            assert_eq!(too_deep(text), None, "{text}");
        }
    }
}
