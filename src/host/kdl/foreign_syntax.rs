//! Syntax of other languages, of KDL v1 and of word processors in a KDL text: reports it, with what to write instead.

use std::ops::Range;

use super::{
    chars::{as_values, clipped, in_quotes, is_newline, is_space},
    scan::{Halt, Scanner},
    text::SEVERAL_LINES,
    token::Token,
};

/// How far to search for the end of a text in other quotes, in characters.
const NEAR: usize = 1_000;

impl Scanner<'_> {
    /// Reports `# …`, and skips the lines after it that repeat the mistake.
    pub(super) fn foreign_comment(&mut self, start: usize) -> Halt {
        self.at = start;
        self.skip_line();
        let line = self.text[start..self.at].trim_end();
        let end = start + line.len();
        loop {
            let rest = self.rest();
            let next = rest.trim_start_matches(|c| is_newline(c) || is_space(c));
            if !next.starts_with('#') {
                break;
            }
            let at = std::mem::replace(&mut self.at, self.text.len() - next.len());
            if self.raw_hashes().is_some() {
                self.at = at;
                break;
            }
            self.skip_line();
        }
        let comment = clipped(line.trim_start_matches('#').trim());
        if comment.is_empty() {
            // It may be half of a keyword or of a string.
            return self.lost(
                start..end,
                "a comment begins with `//`, not with `#`",
                "here",
                "write `//`, or delete it",
            );
        }
        self.wrong(
            start..end,
            "a comment begins with `//`, not with `#`",
            "here",
            format!("write `// {comment}`"),
        )
    }

    pub(super) fn quote_after_word(&mut self, word: Range<usize>) -> Halt {
        let at = self.at;
        let text = self.slice(&word);
        if text.len() > 1 && text.ends_with(':') {
            return self.property_with_colon(word.start..word.end - 1);
        }
        let after = self.rest()[1..].chars().next();
        if after.is_none_or(|c| is_space(c) || is_newline(c) || matches!(c, ';' | '}')) {
            let help = match in_quotes(text) {
                Some(quoted) => format!("write {quoted}"),
                None => "write `\"` where the text begins".into(),
            };
            return self.lost(
                at..at + 1,
                "this `\"` closes no text",
                "no `\"` before it",
                help,
            );
        }
        self.wrong(
            at..at + 1,
            "a space is missing before the quote",
            "here",
            format!("write `{} \"…`, with a space", clipped(text)),
        )
    }

    pub(super) fn comma(&mut self, at: usize) -> Halt {
        self.at = at + 1;
        self.wrong(
            at..at + 1,
            "values are separated by spaces, not by `,`",
            "no `,` here",
            "remove the `,`",
        )
    }

    /// Reports a name and a value that are joined by a sign at `at`. The value begins after `after`.
    pub(super) fn glued(
        &mut self,
        name: Range<usize>,
        at: usize,
        sign: char,
        after: usize,
    ) -> Halt {
        let shown = clipped(self.slice(&name));
        let written = self.written_after(at + 1);
        let help = match as_values(written) {
            Some(values) => format!("write `{shown} {values}`"),
            None if written.is_empty() => {
                format!("write `{shown} \"value\"`, or `{shown} {{ … }}` for what is in it")
            }
            None if written.starts_with('{') => format!("write `{shown} {{ … }}`"),
            None => format!("write `{shown}`, a space, and its value in quotes"),
        };
        self.at = self.at.max(after);
        self.wrong(
            at..at + 1,
            format!("`{shown}` takes its value without `{sign}`"),
            format!("no `{sign}` here"),
            help,
        )
    }

    /// Reports a property that is written as `name: value`.
    pub(super) fn property_with_colon(&mut self, name: Range<usize>) -> Halt {
        let shown = clipped(self.slice(&name));
        let value = self.written_after(name.end + 1);
        let help = match as_values(value).filter(|values| !values.contains(' ')) {
            Some(value) => format!("write {shown}={value}"),
            None => format!("write {shown}=\"…\""),
        };
        self.wrong(
            name.end..name.end + 1,
            "a property is written with `=`, not with `:`",
            "no `:` here",
            help,
        )
    }

    /// Reports a word with characters that need quotes. `span` is its start.
    pub(super) fn needs_quotes(&mut self, span: Range<usize>) -> Halt {
        let rough = self.word_at(span.end);
        // A closing bracket that the word does not open belongs to what is around it.
        let around: &[char] =
            match self.text[span.start..span.end + rough.len()].contains(['(', '[']) {
                true => &[','],
                false => &[',', ')', ']'],
            };
        let mut end = span.end + rough.trim_end_matches(around).len();
        if end == span.start {
            end += self.text[end..].chars().next().map_or(0, char::len_utf8);
        }
        let span = span.start..end;
        self.at = self.at.max(span.end);
        let whole = self.slice(&span);
        if whole == "*/" {
            return self.wrong(
                span,
                "this `*/` ends no comment",
                "no `/*` before it",
                "remove it",
            );
        }
        let help = match in_quotes(whole) {
            Some(quoted) => format!("write {quoted}"),
            None => "write it in quotes".into(),
        };
        self.wrong(
            span,
            format!("`{}` needs quotes", clipped(whole)),
            "text without quotes",
            help,
        )
    }

    /// Reports `'…'`, `“…”` and the like.
    pub(super) fn other_quotes(&mut self, close: char) -> Halt {
        let start = self.at;
        let open = self.peek().unwrap_or(close);
        let inside = start + open.len_utf8();
        let near: String = self.text[inside..]
            .chars()
            .take_while(|c| !is_newline(*c))
            .take(NEAR)
            .collect();
        // Word processors use the same mark on both sides, or another one.
        let found = near
            .char_indices()
            .find(|(_, c)| *c == close || *c == open || (open != '\'' && *c == '"'));
        let (text, end) = match found {
            Some((length, c)) => (&near[..length], inside + length + c.len_utf8()),
            None => {
                let word = self.word_at(inside).len();
                (near.get(..word).unwrap_or_default(), inside + word)
            }
        };
        let help = match in_quotes(text) {
            Some(quoted) if !text.is_empty() => format!("write {quoted}"),
            _ => "write `\"` before and after the text".into(),
        };
        let quotes = match open {
            '\'' => "single quotes",
            '`' => "backticks",
            _ => "typographic quotes",
        };
        self.at = end;
        self.wrong(
            start..end,
            format!("text is written in double quotes, not in {quotes}"),
            "here",
            help,
        )
    }

    /// Whether `r"` or `r#"` comes next, with which KDL v1 begins a raw string.
    pub(super) fn is_old_raw(&self) -> bool {
        self.rest()[1..].trim_start_matches('#').starts_with('"')
    }

    pub(super) fn old_raw(&mut self) -> Halt {
        let start = self.at;
        self.at += 1;
        let hashes = self.rest().len() - self.rest().trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        self.at += hashes + 1;
        let message = "raw text is written without `r`";
        let Some(length) = self.rest().find(&end) else {
            return self.lost(start..self.at, message, "here", "write #\"…\"#");
        };
        let text = &self.rest()[..length];
        self.at += length + end.len();
        let help = match in_quotes(text) {
            Some(_) if text.contains('"') && hashes > 0 => {
                let hashes = "#".repeat(hashes);
                format!("write {hashes}\"{text}\"{hashes}")
            }
            Some(_) => format!("write #\"{text}\"#"),
            None if text.contains(is_newline) => {
                "write the text on lines of its own between #\"\"\" and \"\"\"#".into()
            }
            None => "write #\"…\"#".into(),
        };
        let line = self.text[start..self.at].find(is_newline);
        let shown = line.map_or(self.at, |length| start + length);
        self.wrong(start..shown, message, "here", help)
    }

    /// Reports `<<EOF`, with which shells, Ruby and Terraform begin a text.
    pub(super) fn here_document(&mut self, token: &Token) -> Halt {
        let word = self.slice(&token.span);
        let end = word
            .trim_start_matches('<')
            .trim_start_matches(['-', '~'])
            .trim_matches(['\'', '"']);
        let help = SEVERAL_LINES;
        let message = format!("`{}` begins no text", clipped(word));
        let rest = self.rest();
        let mut length = 0;
        for line in rest.split_inclusive('\n') {
            length += line.len();
            if line.trim() == end && !end.is_empty() {
                self.at += length - (line.len() - line.trim_end().len());
                return self.wrong(token.span.clone(), message, "here", help);
            }
        }
        self.lost(token.span.clone(), message, "here", help)
    }
}
