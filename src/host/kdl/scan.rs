//! Finds the mistakes in a text that should be KDL v2, each once, in linear time.
//!
//! The grammar is that of kdl.dev/spec, as the `kdl` crate reads it. The scanner also refuses what nobody writes on
//! purpose: `name:`, a word in typographic or single quotes, a comment that touches a word. KDL takes these for text,
//! and later errors about that text would be hard to understand.

use std::ops::Range;

use super::{
    MOST_DASHES, MOST_MISTAKES, MOST_NODES, Mistake,
    chars::{is_forbidden, is_newline, is_space},
};

/// Stops reading.
pub(super) enum Halt {
    /// Skip the rest of the node, because further mistakes in it are likely caused by the first.
    Node,
    /// Skip everything, because the rest cannot be read with certainty.
    All,
}

pub(super) type Scan<T = ()> = Result<T, Halt>;

pub(super) struct Scanner<'a> {
    pub text: &'a str,
    pub at: usize,
    pub mistakes: Vec<Mistake>,
    /// The text between `/*` and `*/`, in order.
    pub comments: Vec<Range<usize>>,
    /// What is between the `}` of a node and the node's end, where that is not empty.
    pub tails: Vec<Range<usize>>,
    /// Where each line starts, and where its text starts after the indentation.
    pub lines: Vec<(usize, usize)>,
    pub open: Vec<OpenBlock>,
    /// How many nodes were read.
    count: usize,
    /// How many `/-` are around the scanner.
    dashes: usize,
    /// A `{` whose `}` is probably the missing one.
    pub suspect_open: Option<OpenBlock>,
    /// A `}` that is probably the surplus one.
    pub suspect_close: Option<usize>,
}

#[derive(Clone)]
pub(super) struct OpenBlock {
    pub brace: usize,
    /// The node with its arguments, before the brace.
    pub header: Range<usize>,
    /// Something in it is indented further than its own line.
    pub is_indented: bool,
}

/// A node that was read.
pub(super) struct Node {
    pub header: Range<usize>,
    pub has_block: bool,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut lines = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let indentation = line.len() - line.trim_start_matches([' ', '\t']).len();
            lines.push((start, start + indentation));
            start += line.len();
        }
        Scanner {
            text,
            at: 0,
            mistakes: Vec::new(),
            comments: Vec::new(),
            tails: Vec::new(),
            lines,
            open: Vec::new(),
            count: 0,
            dashes: 0,
            suspect_open: None,
            suspect_close: None,
        }
    }

    /// Reads the text, as far as it can be read with certainty.
    pub(super) fn run(&mut self) {
        if self.starts("\u{feff}") {
            self.at += '\u{feff}'.len_utf8();
        }
        let start = self.at;
        while self.nodes().is_ok() && self.at < self.text.len() {
            if self.surplus_brace().is_err() {
                break;
            }
        }
        // Only comments are left: everything else was checked above.
        let hidden = self.text[start..]
            .char_indices()
            .find(|(_, c)| is_forbidden(*c));
        if let (Some((at, c)), true) = (hidden, self.mistakes.is_empty()) {
            self.forbidden(start + at, c);
        }
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn starts(&self, with: &str) -> bool {
        self.rest().starts_with(with)
    }

    pub(super) fn skip_while(&mut self, mut of: impl FnMut(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|c| !of(c)).unwrap_or(rest.len());
    }

    /// Moves to the end of the line, in front of the newline.
    pub(super) fn skip_line(&mut self) {
        self.skip_while(|c| !is_newline(c));
    }

    /// Returns the text from `start` on, up to where values end at the latest: a newline, a comment, `;` or a block.
    pub(super) fn written_after(&self, start: usize) -> &'a str {
        let rest = self.text[start..].trim_start_matches(is_space);
        let mut is_quoted = false;
        let mut before = ' ';
        for (at, c) in rest.char_indices() {
            let ends = match c {
                _ if is_newline(c) => true,
                '"' => {
                    is_quoted = !is_quoted;
                    false
                }
                _ if is_quoted => false,
                ';' | '}' => true,
                '{' => at > 0 && before != '$',
                '/' => is_space(before) && rest[at..].starts_with("//"),
                _ => false,
            };
            if ends {
                return rest[..at].trim_end();
            }
            before = c;
        }
        rest.trim_end()
    }

    /// Records a mistake, unless its line has one already, which likely causes this one. The caller has moved to
    /// where reading can continue.
    pub(super) fn wrong(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Halt {
        let line = self.line_of(span.start);
        let known =
            (self.mistakes.last()).is_some_and(|last| self.line_of(last.span.start) == line);
        if known {
            return Halt::Node;
        }
        self.mistakes.push(Mistake {
            span,
            message: message.into(),
            label: label.into(),
            help: help.into(),
            language: None,
        });
        match self.mistakes.len() < MOST_MISTAKES && !self.may_open_text(line) {
            true => Halt::Node,
            false => Halt::All,
        }
    }

    /// Whether a string may begin or end in a line. After a mistake in that line, it is not certain whether the next
    /// lines are in a string.
    fn may_open_text(&self, line: usize) -> bool {
        let start = self.lines.get(line).map_or(0, |(start, _)| *start);
        let rest = &self.text[start..];
        let line = &rest[..rest.find(is_newline).unwrap_or(rest.len())];
        line.matches('"').count() % 2 == 1 || line.contains("\"\"")
    }

    /// Records a mistake after which nothing can be read with certainty, unless an earlier mistake may have caused it.
    pub(super) fn lost(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) -> Halt {
        if self.mistakes.is_empty() {
            self.wrong(span, message, label, help);
        }
        Halt::All
    }

    /// Reads nodes up to the end of the text or the `}` of the block around them.
    pub(super) fn nodes(&mut self) -> Scan {
        let mut previous: Option<Node> = None;
        loop {
            self.between_nodes()?;
            match self.peek() {
                None | Some('}') => return Ok(()),
                Some(';') => {
                    let at = self.at;
                    self.at += 1;
                    if let Halt::All = self.wrong(
                        at..at + 1,
                        "this `;` ends nothing",
                        "here",
                        "remove it: a `;` is only needed between two nodes on one line",
                    ) {
                        return Err(Halt::All);
                    }
                }
                Some('{') => {
                    if let Err(halt) = self.nameless_block(previous.take()) {
                        self.recover(halt)?;
                    }
                }
                Some(_) => {
                    self.count += 1;
                    if self.count > MOST_NODES {
                        let end = self.at + self.word_at(self.at).len().max(1);
                        return Err(self.lost(
                            self.at..end,
                            format!("the file has more than {MOST_NODES} nodes"),
                            "one too many",
                            "split it, or remove what is not needed",
                        ));
                    }
                    self.compare_indentation();
                    previous = self.node()?;
                }
            }
        }
    }

    /// Reads a node. If it has a mistake, skips its rest.
    fn node(&mut self) -> Scan<Option<Node>> {
        match self.node_parts() {
            Ok(node) => Ok(Some(node)),
            Err(halt) => {
                self.recover(halt)?;
                Ok(None)
            }
        }
    }

    fn recover(&mut self, halt: Halt) -> Scan {
        match halt {
            Halt::All => Err(Halt::All),
            Halt::Node => self.skip_node(),
        }
    }

    fn node_parts(&mut self) -> Scan<Node> {
        let start = self.at;
        self.annotation()?;
        let name = self.name()?;
        let mut arguments = 0;
        loop {
            let end = self.at;
            self.spaces()?;
            let is_apart = self.at > end;
            match self.peek() {
                None | Some(';' | '}') => {
                    self.end_of_node();
                    return Ok(Node {
                        header: start..end,
                        has_block: false,
                    });
                }
                Some(c) if is_newline(c) => {
                    return Ok(Node {
                        header: start..end,
                        has_block: false,
                    });
                }
                Some('/') if self.starts("//") => {
                    return Ok(Node {
                        header: start..end,
                        has_block: false,
                    });
                }
                Some('/') if self.starts("/-") => {
                    self.commented_out_part(start..end, is_apart)?;
                    arguments += 1;
                }
                Some('{') => {
                    if let Some(halt) = self.double_brace() {
                        return Err(halt);
                    }
                    self.block(start..end)?;
                    self.after_block()?;
                    return Ok(Node {
                        header: start..end,
                        has_block: true,
                    });
                }
                Some('=') => return Err(self.assigned(name, arguments)),
                Some(_) => {
                    self.entry()?;
                    arguments += 1;
                }
            }
        }
    }

    pub(super) fn end_of_node(&mut self) {
        if self.starts(";") {
            self.at += 1;
        }
    }

    pub(super) fn stray(&mut self, at: usize, c: char) -> Halt {
        self.wrong(
            at..at + c.len_utf8(),
            format!("`{c}` has no meaning here"),
            "here",
            format!("remove it, or write text with `{c}` in quotes: \"…{c}\""),
        )
    }

    /// Returns the word at `at`, whatever it means, with each `${…}` in it.
    pub(super) fn word_at(&self, at: usize) -> &'a str {
        let rest = &self.text[at..];
        let mut end = 0;
        loop {
            let ends = |c| is_space(c) || is_newline(c) || matches!(c, ';' | '{' | '}' | '"');
            end += rest[end..].find(ends).unwrap_or(rest.len() - end);
            if !rest[end..].starts_with('{') || !rest[..end].ends_with('$') {
                return &rest[..end];
            }
            let inside = &rest[end + 1..];
            match inside.find(|c| ends(c) && c != ';') {
                Some(length) if inside[length..].starts_with('}') => end += length + 2,
                _ => return &rest[..end],
            }
        }
    }

    /// Reads `/-` and the argument, property or block that it comments out.
    pub(super) fn commented_out_part(&mut self, header: Range<usize>, is_apart: bool) -> Scan {
        let at = self.at;
        if !is_apart {
            self.at += 2;
            return Err(self.wrong(
                at..at + 2,
                "`/-` needs a space before it",
                "here",
                "write a space before `/-`",
            ));
        }
        self.commented_out(|scanner| match scanner.peek() {
            Some('{') => scanner.block(header),
            _ => scanner.entry(),
        })
    }

    /// Reads `/-`, and by `read` what it comments out.
    fn commented_out<T>(&mut self, read: impl FnOnce(&mut Self) -> Scan<T>) -> Scan<T> {
        let at = self.at;
        if self.dashes == MOST_DASHES {
            return Err(self.lost(
                at..at + 2,
                format!("`/-` is within more than {MOST_DASHES} others"),
                "one too many",
                "remove what is commented out, or comment lines out by `//`",
            ));
        }
        self.at += 2;
        loop {
            let before = self.at;
            self.spaces()?;
            self.skip_while(is_newline);
            if self.starts("//") {
                self.skip_line();
            }
            if self.at == before {
                break;
            }
        }
        if matches!(self.peek(), None | Some('}' | ';')) {
            return Err(self.wrong(
                at..at + 2,
                "`/-` comments out what is after it, but nothing is",
                "nothing after it",
                "remove it, or write `//` for a comment",
            ));
        }
        self.dashes += 1;
        let result = read(self);
        self.dashes -= 1;
        result
    }

    /// Skips spaces, comments, and newlines after `\`.
    pub(super) fn spaces(&mut self) -> Scan {
        loop {
            self.skip_while(is_space);
            if self.starts("/*") {
                self.comment()?;
            } else if let Some(length) = self.continued_line() {
                self.at += length;
            } else {
                return Ok(());
            }
        }
    }

    /// Returns the length of a `\` with the newline after it.
    pub(super) fn continued_line(&self) -> Option<usize> {
        let rest = self.rest().strip_prefix('\\')?;
        let after = rest.trim_start_matches(is_space);
        let spaces = 1 + rest.len() - after.len();
        match after.chars().next() {
            None => Some(spaces),
            Some(c) if is_newline(c) => Some(spaces + c.len_utf8()),
            Some('/') if after.starts_with("//") => {
                let end = after.find(is_newline).unwrap_or(after.len());
                Some(spaces + end + after[end..].chars().next().map_or(0, char::len_utf8))
            }
            Some(_) => None,
        }
    }

    /// Skips blank lines, comments, and nodes that are commented out.
    fn between_nodes(&mut self) -> Scan {
        loop {
            let before = self.at;
            self.spaces()?;
            self.skip_while(is_newline);
            if self.starts("//") {
                self.skip_line();
            }
            if self.starts("/-") {
                let read = self.commented_out(|scanner| match scanner.peek() {
                    Some('{') => scanner.nameless_block(None),
                    _ => scanner.node_parts().map(|_| ()),
                });
                // The specification allows this, but the parser refuses it.
                let end = self.at;
                let read = match read {
                    Ok(()) if self.text[..end].ends_with(';') => Err(self.wrong(
                        end - 1..end,
                        "a node that `/-` comments out cannot end with `;`",
                        "here",
                        "begin a new line in place of the `;`",
                    )),
                    read => read,
                };
                if let Err(halt) = read {
                    self.recover(halt)?;
                }
            }
            if self.at == before {
                return Ok(());
            }
        }
    }

    /// Skips the rest of a node after a mistake in it.
    fn skip_node(&mut self) -> Scan {
        let known = self.mistakes.len();
        loop {
            let at = self.at;
            match self.peek() {
                None | Some('}') => return Ok(()),
                Some(';') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(c) if is_newline(c) => return Ok(()),
                Some('{') => self.block(at..at)?,
                Some('"') => {
                    let skipped = self.quoted();
                    self.mistakes.truncate(known);
                    if let Err(Halt::All) = skipped {
                        return Err(Halt::All);
                    }
                }
                Some('/') if self.starts("//") => return Ok(()),
                Some('/') if self.starts("/*") => {
                    let skipped = self.comment();
                    self.mistakes.truncate(known);
                    skipped?;
                }
                Some('#') if self.raw_hashes().is_some() => {
                    let skipped = self.raw();
                    self.mistakes.truncate(known);
                    if let Err(Halt::All) = skipped {
                        return Err(Halt::All);
                    }
                }
                Some('#') => self.skip_while(|c| c == '#'),
                Some(c) if is_space(c) && self.rest()[c.len_utf8()..].starts_with("# ") => {
                    self.skip_line();
                }
                Some(_) if self.continued_line().is_some() => self.spaces()?,
                Some(c) => self.at += c.len_utf8(),
            }
        }
    }

    /// Returns the number of the line of `at`, from 0.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.lines
            .partition_point(|(start, _)| *start <= at)
            .saturating_sub(1)
    }
}
