//! Reads KDL v2 within bounds, and explains its mistakes.
//!
//! The parser reports one mistake three to five times, in terms of its grammar. So a scanner (`scan`) reads a text
//! first and reports each mistake once. The parser then only reads valid texts. On some invalid ones, its time grows
//! with the cube of their length.

mod blocks;
mod chars;
mod foreign_syntax;
mod language;
mod scan;
mod text;
mod token;

use std::{borrow::Cow, collections::HashSet, ops::Range};

use kdl::{KdlDocument, KdlEntry, KdlError};

use chars::clipped;

pub use language::Language;

/// How deep nodes and comments may nest. The parser calls itself for each level, so hundreds of levels
/// overflow the stack. Nothing that stead reads nests ten deep.
const DEEPEST: usize = 32;

/// How many nodes a text may have. A project with a hundred machines has some thousands.
const MOST_NODES: usize = 50_000;

/// How many `/-` may be around another one. The parser reads everything after `/-` twice: within 32 of them, four
/// thousand million times.
const MOST_DASHES: usize = 4;

/// The most mistakes that are reported. If there are more, the text is something else, or one causes the rest.
const MOST_MISTAKES: usize = 20;

/// A place that is not KDL.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// In bytes.
    pub span: Range<usize>,
    pub message: String,
    /// Is shown beside the span.
    pub label: String,
    /// What to write instead.
    pub help: String,
    /// Set if the whole text is in this language.
    pub language: Option<Language>,
}

impl Mistake {
    /// Returns its line in `text`, from 1.
    pub fn line(&self, text: &str) -> usize {
        let before = text.get(..self.span.start).unwrap_or(text);
        before.matches('\n').count() + 1
    }

    /// Returns what is wrong and what to write instead, in one line.
    pub fn sentence(&self) -> String {
        format!("{}: {}", self.message, self.help)
    }
}

/// The mistakes in a text, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistakes {
    pub first: Mistake,
    /// In the order of the text.
    pub others: Vec<Mistake>,
}

impl Mistakes {
    pub fn all(self) -> impl Iterator<Item = Mistake> {
        std::iter::once(self.first).chain(self.others)
    }
}

/// Reads KDL v2.
///
/// # Errors
/// If the text is not KDL: each mistake once, at most 20.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the function to use instead"
)]
pub fn parse(text: &str) -> Result<KdlDocument, Mistakes> {
    let mut scanner = scan::Scanner::new(text);
    scanner.run();
    if let Some(mistakes) = mistakes(text, scanner.mistakes) {
        return Err(mistakes);
    }
    let document = KdlDocument::parse_v2(&masked(text, &scanner.comments)).map_err(unknown)?;
    let mut repeated = Vec::new();
    find_repeated(&document, &mut repeated);
    match mistakes(text, repeated) {
        Some(mistakes) => Err(mistakes),
        None => Ok(document),
    }
}

/// Returns what to report. A text in another language has many mistakes, but one reason.
fn mistakes(text: &str, found: Vec<Mistake>) -> Option<Mistakes> {
    let mut found = found.into_iter();
    let first = found.next()?;
    Some(match in_other_language(text) {
        Some(first) => Mistakes {
            first,
            others: Vec::new(),
        },
        None => Mistakes {
            first,
            others: found.collect(),
        },
    })
}

/// Finds properties that a node has twice. KDL uses the last one, but whoever reads the file may see only the first.
fn find_repeated(document: &KdlDocument, mistakes: &mut Vec<Mistake>) {
    for node in document.nodes() {
        let mut seen = HashSet::new();
        for name in node.entries().iter().filter_map(KdlEntry::name) {
            if !seen.insert(name.value()) && mistakes.len() < MOST_MISTAKES {
                let at = name.span().offset();
                mistakes.push(Mistake {
                    span: at..at + name.span().len(),
                    message: format!(
                        "`{}` has the property `{}` twice",
                        clipped(node.name().value()),
                        clipped(name.value())
                    ),
                    label: "the second one".into(),
                    help: "keep one of them".into(),
                    language: None,
                });
            }
        }
        if let Some(children) = node.children() {
            find_repeated(children, mistakes);
        }
    }
}

/// Returns what is between the `}` of each node and the node's end, such as a comment. A document does not have it: the
/// parser drops it.
pub fn tails(text: &str) -> Vec<Range<usize>> {
    let mut scanner = scan::Scanner::new(text);
    scanner.run();
    scanner.tails
}

/// Writes a document as text. `to_string` alone would not restore its comments.
pub fn text_of(document: &KdlDocument) -> String {
    document.to_string().replace(STAR, "*").replace(SLASH, "/")
}

/// Replace `*` and `/` in comments while the parser reads them. The parser calls itself for each `*` and `/`, so some
/// thousands overflow the stack. Valid documents contain neither of these control characters.
const STAR: char = '\u{1}';
const SLASH: char = '\u{2}';

/// Replaces each `*` and `/` in `comments`. Every other byte keeps its place.
fn masked<'a>(text: &'a str, comments: &[Range<usize>]) -> Cow<'a, str> {
    if comments.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut masked = String::with_capacity(text.len());
    let mut at = 0;
    for comment in comments {
        masked.push_str(&text[at..comment.start]);
        masked.extend(text[comment.clone()].chars().map(|c| match c {
            '*' => STAR,
            '/' => SLASH,
            c => c,
        }));
        at = comment.end;
    }
    masked.push_str(&text[at..]);
    Cow::Owned(masked)
}

/// Returns the mistake of a text that is in another language. Some of these texts are valid KDL (most Dockerfiles), so
/// callers that know which nodes they expect ask too.
pub fn in_other_language(text: &str) -> Option<Mistake> {
    let (language, span) = language::language(text)?;
    let help = match language {
        Language::Utf16 => "save it as UTF-8 (`iconv -f UTF-16 -t UTF-8` converts it)",
        _ => "KDL (kdl.dev) is written as: name \"value\" property=\"value\" { … }",
    };
    Some(Mistake {
        span,
        message: format!("this looks like {}, not like KDL", language.name()),
        label: "here".into(),
        help: help.into(),
        language: Some(language),
    })
}

/// Explains a mistake that only the parser found.
fn unknown(error: KdlError) -> Mistakes {
    let span = (error.diagnostics.first()).map_or((0, 0).into(), |diagnostic| diagnostic.span);
    Mistakes {
        first: Mistake {
            span: span.offset()..span.offset() + span.len(),
            message: "this is not valid KDL".into(),
            label: "near here".into(),
            help:
                "check the spaces, quotes and braces of this node; kdl.dev has the rules of KDL v2"
                    .into(),
            language: None,
        },
        others: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
