//! Strings and comments.

use std::ops::Range;

use super::{
    DEEPEST,
    chars::{clipped, closing_quote, is_forbidden, is_newline, is_space},
    scan::{Halt, Scan, Scanner},
};

/// How to write text of several lines.
pub(super) const SEVERAL_LINES: &str = "text of several lines begins after `#\"\"\"` at the end of a line, and ends before `\"\"\"#` on a line of its own";

/// Begins and ends a string of several lines.
const LINES: &str = "\"\"\"";

impl Scanner<'_> {
    /// Reads `/* … */`, which may contain others.
    pub(super) fn comment(&mut self) -> Scan {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let (mut at, mut depth) = (start, 0);
        loop {
            let Some(found) = memchr::memchr2(b'/', b'*', &bytes[at..]) else {
                let touches = self.text[..start].chars().next_back();
                let help = match touches {
                    Some(c) if !is_space(c) && !is_newline(c) => {
                        "write `*/` where it ends; where `/*` is part of a text, write the text in quotes"
                    }
                    _ => "write `*/` where it ends",
                };
                return Err(self.lost(
                    start..start + 2,
                    "this comment is not closed",
                    "no `*/` for this one",
                    help,
                ));
            };
            at += found;
            if bytes[at..].starts_with(b"/*") {
                depth += 1;
                if depth > DEEPEST {
                    return Err(self.lost(
                        at..at + 1,
                        format!("this nests more than {DEEPEST} levels deep"),
                        "one level too many",
                        "comment the lines out by `//`",
                    ));
                }
                at += 2;
            } else if bytes[at..].starts_with(b"*/") {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    break;
                }
            } else {
                at += 1;
            }
        }
        let inside = start + 2..at - 2;
        self.at = at;
        // A comment is read twice where the scanner went back.
        if (self.comments.last()).is_none_or(|last| last.end < inside.start) {
            self.comments.push(inside);
        }
        Ok(())
    }

    /// Reads a string that begins with `"`.
    pub(super) fn quoted(&mut self) -> Scan<Range<usize>> {
        let start = self.at;
        if self.starts(LINES) {
            return self.lines(start, "");
        }
        self.at += 1;
        let mut halt = None;
        loop {
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    return halt.map_or(Ok(start..self.at), Err);
                }
                None => return Err(self.unclosed_string(start)),
                Some(c) if is_newline(c) => return Err(self.unclosed_string(start)),
                Some('\\') => {
                    let escaped = self.escape(halt.is_none(), false);
                    halt = halt.or(escaped);
                }
                Some(c) => {
                    let at = self.at;
                    self.at += c.len_utf8();
                    if is_forbidden(c) && halt.is_none() {
                        halt = Some(self.forbidden(at, c));
                    }
                }
            }
        }
    }

    /// Reads `\` and what belongs to it in a string, of several lines if `is_lines`. Records a mistake in it if
    /// `is_reported`.
    fn escape(&mut self, is_reported: bool, is_lines: bool) -> Option<Halt> {
        let start = self.at;
        self.at += 1;
        let c = self.peek()?;
        if is_space(c) || is_newline(c) {
            self.skip_while(|c| is_space(c) || is_newline(c));
            return None;
        }
        self.at += c.len_utf8();
        match c {
            '\\' | '"' | 'b' | 'f' | 'n' | 'r' | 't' | 's' => return None,
            'u' if self.starts("{") => {
                let inside = &self.rest()[1..];
                let digits = inside.bytes().take_while(u8::is_ascii_hexdigit);
                let digits = &inside[..digits.take(6).count()];
                let code = u32::from_str_radix(digits, 16)
                    .ok()
                    .and_then(char::from_u32);
                if inside[digits.len()..].starts_with('}') && code.is_some() {
                    self.at += digits.len() + 2;
                    return None;
                }
            }
            _ => {}
        }
        if !is_reported {
            return None;
        }
        let (message, help) = match c {
            'u' => (
                "`\\u` needs the number of a character".to_string(),
                "write it in hexadecimal between braces, as in \"\\u{e9}\"".to_string(),
            ),
            c if is_lines => (
                format!("`\\{c}` has no meaning in a string"),
                format!(
                    "begin the text with `#{LINES}` and end it with `{LINES}#`, where a backslash is a backslash, or write `\\\\{c}` here"
                ),
            ),
            c => (
                format!("`\\{c}` has no meaning in a string"),
                format!(
                    "write the text as #\"…\"#, where a backslash is a backslash, or write `\\\\{c}` here"
                ),
            ),
        };
        Some(self.wrong(start..start + 1 + c.len_utf8(), message, "here", help))
    }

    pub(super) fn forbidden(&mut self, at: usize, c: char) -> Halt {
        let what = match c {
            '\u{feff}' => "a byte order mark",
            '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                "a character that turns the direction of text"
            }
            _ => "a control character",
        };
        // It may be there in place of anything.
        self.lost(
            at..at + c.len_utf8(),
            format!("{what} (U+{:04X}) must not be in the file", u32::from(c)),
            "here, and not to be seen",
            "delete it; `\\u{…}` in a string stands for any character",
        )
    }

    fn unclosed_string(&mut self, start: usize) -> Halt {
        let line = self.text[start..self.at].trim_end();
        let inside = &line[1..];
        let help = match inside.chars().next_back() {
            None => format!("write `\"` at its end; {SEVERAL_LINES}"),
            Some(c) if c != '\'' && closing_quote(c).is_some() => {
                format!("end it with `\"`, not with `{c}`")
            }
            Some(_) => format!("write `\"` where the text ends; {SEVERAL_LINES}"),
        };
        self.lost(
            start..start + line.len(),
            "this text has no closing `\"`",
            "begins here",
            help,
        )
    }

    /// Returns the `#` before a raw string, if one comes next.
    pub(super) fn raw_hashes(&self) -> Option<&str> {
        let rest = self.rest();
        let hashes = &rest[..rest.len() - rest.trim_start_matches('#').len()];
        (!hashes.is_empty() && rest[hashes.len()..].starts_with('"')).then_some(hashes)
    }

    /// Reads a string that begins with `#"`.
    pub(super) fn raw(&mut self) -> Scan<Range<usize>> {
        let start = self.at;
        let hashes = self.raw_hashes().unwrap_or_default().to_string();
        self.at += hashes.len();
        let is_lines =
            (self.rest().strip_prefix(LINES)).is_some_and(|rest| rest.starts_with(is_newline));
        if is_lines {
            return self.lines(start, &hashes);
        }
        self.at += 1;
        let inside = self.at;
        let end = format!("\"{hashes}");
        loop {
            self.skip_while(|c| c != '"' && !is_newline(c));
            if self.starts(&end) {
                break;
            }
            if !self.starts("\"") {
                let line = self.text[start..self.at].trim_end().len();
                return Err(self.lost(
                    start..start + line,
                    format!("this text has no closing `{end}`"),
                    "begins here",
                    format!("write `{end}` where the text ends; text of several lines begins after `{hashes}{LINES}` at the end of a line, and ends before `{LINES}{hashes}` on a line of its own"),
                ));
            }
            self.at += 1;
        }
        let text = &self.text[inside..self.at];
        self.at += end.len();
        if text == "\"" {
            return Err(self.wrong(
                start..self.at,
                "this could be the start of a text of several lines",
                "here",
                "write a single quote as \"\\\"\"",
            ));
        }
        if let Some((at, c)) = text.char_indices().find(|(_, c)| is_forbidden(*c)) {
            return Err(self.forbidden(inside + at, c));
        }
        Ok(start..self.at)
    }

    /// Reads a string of several lines, from its `"""` on. A raw one has `hashes` before that.
    fn lines(&mut self, start: usize, hashes: &str) -> Scan<Range<usize>> {
        let opening = start..self.at + LINES.len();
        let end = format!("{LINES}{hashes}");
        self.at = opening.end;
        if !self.rest().starts_with(is_newline) {
            return Err(self.lines_on_one(opening, &end));
        }
        // The lines, without their newlines.
        let mut lines: Vec<Range<usize>> = Vec::new();
        let mut halt = None;
        let closing = loop {
            self.at += self.peek().map_or(0, char::len_utf8);
            if self.text[..self.at].ends_with('\r') && self.starts("\n") {
                self.at += 1;
            }
            let line = self.at;
            match self.body_line(&end, hashes.is_empty(), &mut halt) {
                None if halt.is_some() => return Err(Halt::All),
                None => {
                    return Err(self.lost(
                        opening,
                        format!("this text has no closing `{end}`"),
                        "begins here",
                        format!("write `{end}` on a line of its own where the text ends"),
                    ));
                }
                Some(true) => break line,
                Some(false) => lines.push(line..self.at),
            }
        };
        let before = &self.text[closing..self.at];
        self.at += end.len();
        if let Some(halt) = halt {
            return Err(halt);
        }
        let is_blank = |text: &str| text.chars().all(is_space);
        // Newlines after a `\` are not part of the text.
        let is_empty = |text: &str| {
            is_blank(text)
                || (hashes.is_empty()
                    && text
                        .chars()
                        .all(|c| c == '\\' || is_space(c) || is_newline(c)))
        };
        let escaped = hashes.is_empty() && before.contains('\\');
        if !escaped && !is_blank(before) {
            let at = self.at - end.len();
            return Err(self.wrong(
                at..self.at,
                format!("a closing `{end}` must be on a line of its own"),
                "has text before it",
                format!("begin a new line before `{end}`"),
            ));
        }
        let indentation = before.split('\\').next().unwrap_or_default();
        let odd = lines.into_iter().find(|line| {
            let text = &self.text[line.clone()];
            !text.starts_with(indentation) && !is_empty(text)
        });
        match odd {
            Some(_) if escaped => Ok(start..self.at),
            Some(line) => {
                let text = self.text[line.clone()].trim_start_matches(is_space);
                let text = line.end - text.len()..line.end;
                Err(self.wrong(
                    text,
                    format!("this line is not indented as the `{end}` that ends the text"),
                    "here",
                    format!(
                        "begin each line of the text with the spaces that are before the closing `{end}`; they are no part of it, so a here-document that is indented with them ends as it should"
                    ),
                ))
            }
            None => Ok(start..self.at),
        }
    }

    /// Reads a line of a string. Returns `Some(true)` in front of the closing `end`, `Some(false)` in front of a newline,
    /// `None` at the end of the text.
    fn body_line(&mut self, end: &str, has_escapes: bool, halt: &mut Option<Halt>) -> Option<bool> {
        loop {
            let c = self.peek()?;
            match c {
                _ if is_newline(c) => return Some(false),
                '"' if self.starts(end) => return Some(true),
                '\\' if has_escapes => {
                    let escaped = self.escape(halt.is_none(), true);
                    if halt.is_none() {
                        *halt = escaped;
                    }
                }
                _ => {
                    let at = self.at;
                    self.at += c.len_utf8();
                    if is_forbidden(c) && halt.is_none() {
                        *halt = Some(self.forbidden(at, c));
                    }
                }
            }
        }
    }

    /// Reports a `"""` with text after it on the same line.
    fn lines_on_one(&mut self, opening: Range<usize>, end: &str) -> Halt {
        let rest = self.rest();
        let line = &rest[..rest.find(is_newline).unwrap_or(rest.len())];
        let message = format!("a new line must follow `{LINES}`");
        match line.find(end) {
            Some(length) => {
                let text = clipped(&line[..length]);
                self.at += length + end.len();
                self.wrong(
                    opening.start..self.at,
                    message,
                    "on one line",
                    format!("write \"{text}\", or the text on lines of its own"),
                )
            }
            None => self.lost(
                opening,
                message,
                "has text after it",
                format!(
                    "begin the text on the next line, and end it with `{end}` on a line of its own"
                ),
            ),
        }
    }
}
