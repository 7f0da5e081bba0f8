//! Reads words, strings, numbers and keywords, and checks what touches them.

use std::ops::Range;

use super::{
    chars::{
        as_values, begins_number, clipped, closing_quote, in_quotes, is_forbidden, is_invisible,
        is_keyword, is_newline, is_number, is_space, is_word, meant_keyword,
    },
    scan::{Halt, Scan, Scanner},
    text::SEVERAL_LINES,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string without quotes.
    Word,
    Text,
    Number,
    Keyword,
}

pub(super) struct Token {
    pub kind: Kind,
    pub span: Range<usize>,
}

/// The first line of a conflict that git leaves in a file (git-merge(1)).
const CONFLICT: &str = "<<<<<<< ";

impl<'a> Scanner<'a> {
    pub(super) fn slice(&self, span: &Range<usize>) -> &'a str {
        &self.text[span.clone()]
    }

    /// Reads the name of a node.
    pub(super) fn name(&mut self) -> Scan<Range<usize>> {
        let at = self.at;
        if self.starts("=") {
            self.at += 1;
            return Err(self.wrong(
                at..at + 1,
                "`=` has no name before it",
                "here",
                "write a name, a space and a value, or `name=value` after a node's name",
            ));
        }
        let word = &self.rest()[..self
            .rest()
            .find(|c| !is_word(c))
            .unwrap_or(self.rest().len())];
        let is_url = self.rest()[word.len()..].starts_with("//");
        if let (Some(colon), false) = (word.find(':'), is_url || begins_number(word)) {
            self.at += word.len();
            return Err(self.glued(at..at + colon, at + colon, ':', self.at));
        }
        let token = self.token()?;
        let shown = clipped(self.slice(&token.span));
        match token.kind {
            Kind::Number => Err(self.wrong(
                token.span,
                "a line begins with the name of a node, not with a number",
                "a number",
                format!("write the name before it, as in `name {shown}`"),
            )),
            Kind::Keyword => Err(self.wrong(
                token.span,
                format!("a line begins with the name of a node, not with {shown}"),
                "not a name",
                format!("write the name before it, as in `name {shown}`"),
            )),
            Kind::Word if shown == "-" => Err(self.wrong(
                token.span,
                "a list is written without `-`",
                "no `-` here",
                "write the values on one line, with spaces between them: `name \"one\" \"two\"`",
            )),
            Kind::Word | Kind::Text => Ok(token.span),
        }
    }

    /// Reads an argument or a property.
    pub(super) fn entry(&mut self) -> Scan {
        let has_type = self.starts("(");
        self.annotation()?;
        let token = self.token()?;
        if has_type {
            return Ok(());
        }
        if matches!(token.kind, Kind::Word | Kind::Text) {
            let end = self.at;
            self.spaces()?;
            if self.starts("=") {
                return self.property(&token.span);
            }
            self.at = end;
        }
        if token.kind == Kind::Word {
            self.argument(&token)?;
        }
        Ok(())
    }

    /// Refuses words that KDL takes for text, although nobody means them so.
    fn argument(&mut self, token: &Token) -> Scan {
        let word = self.slice(&token.span);
        let end = token.span.end;
        if word.len() > 1 && word.ends_with(':') {
            let name = token.span.start..end - 1;
            return Err(self.property_with_colon(name));
        }
        if word.ends_with(',') {
            return Err(self.comma(end - 1));
        }
        if word.starts_with("<<") && word.len() > 2 {
            return Err(self.here_document(token));
        }
        Ok(())
    }

    /// Reads `=` and the value after the name of a property.
    fn property(&mut self, name: &Range<usize>) -> Scan {
        let equals = self.at;
        self.at += 1;
        let shown = clipped(self.slice(name));
        match self.peek() {
            Some(second @ ('=' | '>')) => {
                self.at += 1;
                return Err(self.wrong(
                    equals..equals + 2,
                    format!("a property is written with one `=`, not with `={second}`"),
                    "here",
                    format!("write `{shown}=` and the value"),
                ));
            }
            _ => self.spaces()?,
        }
        self.annotation()?;
        match self.peek() {
            Some(c) if !is_newline(c) && !matches!(c, ';' | '{' | '}') && !self.starts("//") => {
                let token = self.token()?;
                let value = self.slice(&token.span);
                if token.kind != Kind::Word {
                    return Ok(());
                }
                if matches!(value, "|" | "|-" | ">" | ">-") {
                    return Err(self.lost(
                        token.span.clone(),
                        format!("`{value}` begins no text"),
                        "here",
                        SEVERAL_LINES,
                    ));
                }
                self.argument(&token)
            }
            next => {
                let halt = self.wrong(
                    name.start..equals + 1,
                    format!("`{shown}=` has no value"),
                    "nothing after it",
                    format!("write the value after the `=`, as in {shown}=\"…\""),
                );
                // The value may be on the next line.
                Err(if next.is_none_or(is_newline) {
                    Halt::All
                } else {
                    halt
                })
            }
        }
    }

    /// Reads `(type)`, which KDL allows before names and values.
    pub(super) fn annotation(&mut self) -> Scan {
        if !self.starts("(") {
            return Ok(());
        }
        let start = self.at;
        self.at += 1;
        self.spaces()?;
        let known = self.mistakes.len();
        let named = match self.peek() {
            Some('"') => self.quoted().map(|_| ()),
            Some('#') if self.raw_hashes().is_some() => self.raw().map(|_| ()),
            Some(c) if is_word(c) => {
                let at = self.at;
                self.skip_while(is_word);
                let word = &self.text[at..self.at];
                match is_keyword(word) || begins_number(word) {
                    true => Err(Halt::Node),
                    false => Ok(()),
                }
            }
            _ => Err(Halt::Node),
        };
        if let Err(Halt::All) = named {
            return Err(Halt::All);
        }
        let named = named.is_ok();
        self.mistakes.truncate(known);
        if named {
            self.spaces()?;
            if self.starts(")") {
                self.at += 1;
                self.spaces()?;
                let next = self.peek();
                if next.is_some_and(|c| !is_newline(c) && !matches!(c, ';' | '{' | '}')) {
                    return Ok(());
                }
            }
        }
        Err(self.wrong(
            start..start + 1,
            "text with `(` needs quotes",
            "here",
            "write the whole text in quotes: \"(…)\"",
        ))
    }

    /// Reads a word, a string, a number or a keyword, and checks what touches it.
    pub(super) fn token(&mut self) -> Scan<Token> {
        let start = self.at;
        let Some(c) = self.peek() else {
            return Err(Halt::All);
        };
        if self.starts(CONFLICT) && !self.text[..start].ends_with(|c| !is_newline(c)) {
            self.skip_line();
            return Err(self.lost(
                start..self.at,
                "this file has an unresolved merge conflict",
                "begins here",
                "keep the lines of one side or join both, and delete the lines of `<<<<<<<`, `=======` and `>>>>>>>`",
            ));
        }
        match c {
            '"' => {
                let span = self.quoted()?;
                self.ends(Token {
                    kind: Kind::Text,
                    span,
                })
            }
            '#' if self.raw_hashes().is_some() => {
                let span = self.raw()?;
                self.ends(Token {
                    kind: Kind::Text,
                    span,
                })
            }
            '#' => self.keyword(),
            'r' if self.is_old_raw() => Err(self.old_raw()),
            _ if is_word(c) => self.word(),
            _ if is_forbidden(c) => {
                self.at += c.len_utf8();
                Err(self.forbidden(start, c))
            }
            ')' | ']' => {
                self.at += 1;
                Err(self.stray(start, c))
            }
            '[' => {
                self.at += 1;
                let help = match as_values(self.written_after(start)) {
                    Some(values) => format!("write {values}"),
                    None => "write the values with spaces between them: \"one\" \"two\"".into(),
                };
                Err(self.wrong(
                    start..start + 1,
                    "a list is written without brackets",
                    "no `[` here",
                    help,
                ))
            }
            '/' if self.rest()[1..].starts_with(is_space) => {
                self.skip_line();
                let comment = clipped(self.text[start + 1..self.at].trim());
                Err(self.wrong(
                    start..start + 1,
                    "a comment begins with `//`, not with `/`",
                    "here",
                    format!("write `// {comment}`"),
                ))
            }
            '/' if self.rest()[1..].chars().next().is_none_or(is_newline) => Err(self.lost(
                start..start + 1,
                "`/` has no meaning alone",
                "here",
                "write `//` for a comment, or delete it",
            )),
            // `/` or `\`.
            _ => Err(self.needs_quotes(start..start)),
        }
    }

    fn word(&mut self) -> Scan<Token> {
        let start = self.at;
        if let Some(close) = self.peek().and_then(closing_quote) {
            return Err(self.other_quotes(close));
        }
        self.skip_while(is_word);
        let span = start..self.at;
        let word = self.slice(&span);
        if let Some((at, c)) = word.char_indices().find(|(_, c)| is_invisible(*c)) {
            let at = start + at;
            return Err(self.wrong(
                at..at + c.len_utf8(),
                format!(
                    "an invisible character (U+{:04X}) is in this word",
                    u32::from(c)
                ),
                "here, and not to be seen",
                "delete it, or write the word again",
            ));
        }
        if begins_number(word) {
            return self.number(span);
        }
        if word.ends_with('$') && self.starts("{") {
            let rest = self.rest();
            let near = rest.find(|c| c == '}' || is_newline(c));
            self.at += near
                .filter(|at| rest[*at..].starts_with('}'))
                .map_or(0, |at| at + 1);
            let end = self.at;
            return Err(self.needs_quotes(start..end));
        }
        let token = self.ends(Token {
            kind: Kind::Word,
            span,
        })?;
        if is_keyword(word) && word != "-inf" {
            return Err(self.wrong(
                token.span,
                format!("`{word}` needs a `#` before it"),
                "here",
                format!(
                    "write #{}, or \"{word}\" for text",
                    word.trim_start_matches('#')
                ),
            ));
        }
        Ok(token)
    }

    fn number(&mut self, mut span: Range<usize>) -> Scan<Token> {
        let word = self.slice(&span);
        let digits = word.trim_end_matches(',');
        if digits.len() < word.len() && is_number(digits) {
            return Err(self.comma(span.start + digits.len()));
        }
        if is_number(word) {
            return self.ends(Token {
                kind: Kind::Number,
                span,
            });
        }
        // `10.0.0.0/24`
        let rough = self.word_at(span.start);
        span.end = span.start + rough.len().max(word.len());
        self.at = span.end;
        let whole = self.slice(&span);
        let shown = clipped(whole);
        let all_digits = whole.chars().all(|c| c.is_ascii_digit() || c == '_');
        let (message, help) = match in_quotes(whole) {
            _ if is_number(&format!("0{whole}")) => (
                format!("`{shown}` is not a number"),
                format!("write 0{whole}"),
            ),
            _ if all_digits => (
                format!("the number {shown} is too large"),
                "write a smaller one, or text in quotes".into(),
            ),
            Some(quoted) => (
                format!("`{shown}` is not a number"),
                format!("write {quoted}"),
            ),
            None => (
                format!("`{shown}` is not a number"),
                "write it in quotes".into(),
            ),
        };
        Err(self.wrong(span, message, "here", help))
    }

    /// Reads what begins with a `#` and is not a raw string.
    pub(super) fn keyword(&mut self) -> Scan<Token> {
        let start = self.at;
        self.at += 1;
        let word = self.at;
        self.skip_while(is_word);
        let span = start..self.at;
        let word = &self.text[word..self.at];
        if is_keyword(word) {
            return self.ends(Token {
                kind: Kind::Keyword,
                span,
            });
        }
        let is_last = {
            let rest = self.rest().trim_start_matches(is_space);
            rest.chars()
                .next()
                .is_none_or(|c| is_newline(c) || matches!(c, ';' | '}' | '{'))
        };
        let is_value = self.text[..start].ends_with('=');
        if let (Some(keyword), true) = (meant_keyword(word), is_last || is_value) {
            return Err(self.wrong(
                span,
                format!("`#{word}` is not a value"),
                "here",
                format!("write {keyword}"),
            ));
        }
        if is_value {
            let quoted = in_quotes(&format!("#{word}")).unwrap_or("\"#…\"".into());
            // The rest of the word may be on the next line.
            return Err(self.lost(
                span,
                format!("`#{}` is not a value", clipped(word)),
                "here",
                format!("write {quoted} for text, #true or #false"),
            ));
        }
        Err(self.foreign_comment(start))
    }

    /// Checks the character after a token.
    fn ends(&mut self, token: Token) -> Scan<Token> {
        let at = self.at;
        let Some(c) = self.peek() else {
            return Ok(token);
        };
        let is_word_token = token.kind == Kind::Word;
        if is_space(c) || is_newline(c) || matches!(c, ';' | '{' | '}' | '=') {
            return Ok(token);
        }
        if self.starts("//") || self.starts("/*") {
            if !is_word_token {
                return Ok(token);
            }
            let after = self.rest()[2..].chars().next();
            if self.starts("//") && after.is_none_or(|c| is_space(c) || is_newline(c)) {
                return Err(self.wrong(
                    at..at + 2,
                    "a space is missing before the comment",
                    "here",
                    "write a space before `//`",
                ));
            }
            return Err(self.needs_quotes(token.span));
        }
        if self.continued_line().is_some() {
            return Ok(token);
        }
        if is_forbidden(c) {
            self.at += c.len_utf8();
            return Err(self.forbidden(at, c));
        }
        match (token.kind, c) {
            (Kind::Word, '"') => Err(self.quote_after_word(token.span)),
            (_, ',') => Err(self.comma(at)),
            (Kind::Text, ':') => {
                self.at += 1;
                Err(self.glued(token.span, at, ':', at + 1))
            }
            (Kind::Word | Kind::Number, '/' | '\\' | '[' | '(' | '#') => {
                Err(self.needs_quotes(token.span))
            }
            (_, ')' | ']') => {
                self.at += 1;
                Err(self.stray(at, c))
            }
            (Kind::Text, _) => Err(self.wrong(
                at..at + c.len_utf8(),
                "a space is missing after the closing quote",
                "here",
                "write a space before this; if the quote is part of the text, write `\\\"`",
            )),
            _ => Err(self.wrong(
                at..at + c.len_utf8(),
                "a space is missing between two values",
                "here",
                "write a space before this",
            )),
        }
    }

    /// Reports a node that is written as `name = value`.
    pub(super) fn assigned(&mut self, name: Range<usize>, arguments: usize) -> Halt {
        let at = self.at;
        self.at += 1;
        if arguments > 0 {
            return self.wrong(
                at..at + 1,
                "`=` has no name before it",
                "here",
                "write `name=value` for a property",
            );
        }
        self.glued(name, at, '=', at + 1)
    }
}
