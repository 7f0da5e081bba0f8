//! Matches braces, and finds the one that is missing or surplus.

use std::ops::Range;

use super::{
    DEEPEST,
    chars::{clipped, is_newline, is_space, is_word},
    scan::{Halt, Node, OpenBlock, Scan, Scanner},
};

impl Scanner<'_> {
    /// Reads `{ … }`.
    pub(super) fn block(&mut self, header: Range<usize>) -> Scan {
        if self.open.len() == DEEPEST {
            return Err(self.too_deep());
        }
        self.open.push(OpenBlock {
            brace: self.at,
            header,
            is_indented: false,
        });
        self.at += 1;
        self.nodes()?;
        let Some(block) = self.open.pop() else {
            return Ok(());
        };
        if self.at == self.text.len() {
            return Err(self.unclosed(block));
        }
        self.compare_braces(&block);
        self.at += 1;
        Ok(())
    }

    fn too_deep(&mut self) -> Halt {
        let at = self.at;
        self.lost(
            at..at + 1,
            format!("this nests more than {DEEPEST} levels deep"),
            "one level too many",
            "close a block before this one",
        )
    }

    /// Reads what may follow a block: the end of its node.
    pub(super) fn after_block(&mut self) -> Scan {
        let start = self.at;
        self.spaces()?;
        while let Some(after) = self.rest().strip_prefix("/-") {
            if !after
                .trim_start_matches(|c| is_space(c) || is_newline(c))
                .starts_with('{')
            {
                return Ok(());
            }
            let at = self.at;
            self.commented_out_part(at..at, true)?;
            self.spaces()?;
        }
        let at = self.at;
        let end = match self.rest() {
            comment if comment.starts_with("//") => {
                at + comment.find(is_newline).unwrap_or(comment.len())
            }
            _ => at,
        };
        if !self.text[start..end].trim().is_empty() {
            self.tails.push(start..end);
        }
        match self.peek() {
            None | Some('}') => Ok(()),
            Some(';') => {
                self.end_of_node();
                Ok(())
            }
            Some(c) if is_newline(c) => Ok(()),
            Some('/') if self.starts("//") => Ok(()),
            Some(',') => {
                self.at += 1;
                Err(self.wrong(
                    at..at + 1,
                    "a `}` ends a node without `,`",
                    "no `,` here",
                    "remove the `,`",
                ))
            }
            Some('{') => {
                let halt = self.wrong(
                    at..at + 1,
                    "a node has only one block",
                    "the second one",
                    "move what is in it into the first block, or write a name before it",
                );
                self.block(at..at)?;
                Err(halt)
            }
            Some('#') if self.raw_hashes().is_none() => {
                let token = self.keyword()?;
                Err(self.wrong(
                    token.span,
                    "a block ends its node",
                    "after the block",
                    "write the values of a node before its `{`",
                ))
            }
            Some(c) if is_word(c) || matches!(c, '"' | '#') => {
                let word = self.word_at(at);
                let halt = self.wrong(
                    at..at + word.len().max(c.len_utf8()),
                    "two nodes are on one line",
                    "the second one",
                    "begin a new line before it, or write `;` after the `}`",
                );
                match halt {
                    Halt::All => Err(Halt::All),
                    // The next node is read as usual.
                    Halt::Node => Ok(()),
                }
            }
            Some(c) => {
                self.at += c.len_utf8();
                Err(self.stray(at, c))
            }
        }
    }

    /// Reports `{{ … }}` without quotes, as templates have it.
    pub(super) fn double_brace(&mut self) -> Option<Halt> {
        let rest = self.rest().strip_prefix("{{")?;
        let end = rest.find(|c| c == '}' || is_newline(c))?;
        if !rest[end..].starts_with("}}") {
            return None;
        }
        let at = self.at;
        self.at += "{{".len() + end + "}}".len();
        Some(self.wrong(
            at..self.at,
            "text with `{{` needs quotes",
            "here",
            "write the whole text in quotes: \"{{ … }}\"",
        ))
    }

    /// Reports a `{` in place of a node's name, and reads its block.
    pub(super) fn nameless_block(&mut self, previous: Option<Node>) -> Scan {
        if let Some(halt) = self.double_brace() {
            return Err(halt);
        }
        let at = self.at;
        let own_line = previous.filter(|node| {
            let between = &self.text[node.header.end..at];
            !node.has_block && between.contains(is_newline) && !between.contains(';')
        });
        let (label, help) = match &own_line {
            Some(node) => {
                let header = clipped(&self.text[node.header.clone()]);
                let line = self.line_of(node.header.start) + 1;
                (
                    format!("belongs at the end of line {line}"),
                    format!("write `{header} {{`"),
                )
            }
            None => (
                "no name before it".into(),
                "write the name of a node before the `{`".into(),
            ),
        };
        let message = match &own_line {
            Some(_) => "a `{` must be on the line of its node",
            None => "a block needs a name",
        };
        if let Halt::All = self.wrong(at..at + 1, message, label, help) {
            return Err(Halt::All);
        }
        self.block(own_line.map_or(at..at, |node| node.header))?;
        self.after_block()
    }

    /// Reports a `}` outside all blocks.
    pub(super) fn surplus_brace(&mut self) -> Scan {
        let at = self.suspect_close.take().unwrap_or(self.at);
        self.at += 1;
        // An earlier mistake may have hidden the `{`.
        if !self.mistakes.is_empty() {
            return Ok(());
        }
        match self.wrong(
            at..at + 1,
            "this `}` closes nothing",
            "one `}` too many",
            "remove it, or write the `{` that it closes",
        ) {
            Halt::All => Err(Halt::All),
            Halt::Node => Ok(()),
        }
    }

    fn unclosed(&mut self, block: OpenBlock) -> Halt {
        let block = self.suspect_open.take().unwrap_or(block);
        let header = clipped(self.text[block.header.clone()].trim());
        let help = if header.is_empty() {
            "write `}` where this block ends".to_string()
        } else {
            format!("write `}}` where `{header}` ends")
        };
        self.lost(
            block.brace..block.brace + 1,
            "this `{` is not closed",
            "no `}` for this one",
            help,
        )
    }

    /// Returns how far the line of `at` is indented, in bytes, and whether only spaces come before `at`.
    fn indentation(&self, at: usize) -> (usize, bool) {
        let (start, text) = self
            .lines
            .get(self.line_of(at))
            .copied()
            .unwrap_or_default();
        (text - start, text == at)
    }

    /// Suspects the block around a node that is not indented further than that block: its `}` may be missing.
    pub(super) fn compare_indentation(&mut self) {
        let (own, is_first) = self.indentation(self.at);
        let Some(block) = self.open.last() else {
            return;
        };
        let (outer, _) = self.indentation(block.brace);
        if !is_first {
            return;
        }
        if own > outer {
            if let Some(block) = self.open.last_mut() {
                block.is_indented = true;
            }
        } else if self.suspect_open.is_none() && (own < outer || block.is_indented) {
            self.suspect_open = Some(block.clone());
        }
    }

    /// Suspects a `}` whose indentation differs from that of its `{`.
    fn compare_braces(&mut self, block: &OpenBlock) {
        let (own, is_first) = self.indentation(self.at);
        let (outer, _) = self.indentation(block.brace);
        if !is_first {
            return;
        }
        if own < outer && self.suspect_open.is_none() {
            self.suspect_open = Some(block.clone());
        }
        if own > outer && self.suspect_close.is_none() {
            self.suspect_close = Some(self.at);
        }
    }
}
