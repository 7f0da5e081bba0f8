//! Errors of Machinefiles, each with a span.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, OnceLock},
};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, MietteError, MietteSpanContents,
    SourceCode, SourceSpan, SpanContents,
};
use thiserror::Error;

use crate::report::{
    clean::{bounded, escaped, in_place, text, words},
    counted, secrets,
};

use super::variables::Variable;

/// How much of a file is shown for one error, in bytes. A file may be one long line.
const LONGEST_EXCERPT: usize = 600;
/// How much of it is marked, in bytes.
const LONGEST_MARK: usize = 100;

/// Further errors are only counted.
const MOST_SHOWN: usize = 30;

/// The name of a file, for people, and its text.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
    shown: OnceLock<Shown>,
}

/// What is needed to show a part of a text. It is computed once, since a file may have as many errors as lines.
#[derive(Debug)]
struct Shown {
    /// The text without control characters, as long as the original.
    text: String,
    /// Where each line starts.
    lines: Vec<usize>,
}

impl Source {
    pub fn new(name: String, text: String) -> Self {
        Source {
            name,
            text,
            shown: OnceLock::new(),
        }
    }

    fn shown(&self) -> &Shown {
        self.shown.get_or_init(|| {
            let starts = self.text.match_indices('\n').map(|(at, _)| at + 1);
            Shown {
                text: in_place(&self.text),
                lines: std::iter::once(0).chain(starts).collect(),
            }
        })
    }

    /// Returns the line and the column of a byte, both from 1. The column is in characters.
    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let shown = self.shown();
        let line = shown.line(offset);
        (line + 1, shown.column(line, offset) + 1)
    }
}

impl Shown {
    /// Returns the line of a byte, from 0.
    fn line(&self, offset: usize) -> usize {
        self.lines
            .partition_point(|start| *start <= offset)
            .saturating_sub(1)
    }

    fn start(&self, line: usize) -> usize {
        self.lines.get(line).copied().unwrap_or(self.text.len())
    }

    /// Returns the column of a byte in a line, in characters, from 0.
    fn column(&self, line: usize, offset: usize) -> usize {
        let before = self.text.get(self.start(line)..offset);
        before.map_or(0, |before| before.chars().count())
    }
}

/// The part of a file around an error.
#[derive(Clone, Debug)]
struct Excerpt(Arc<Source>);

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let shown = self.0.shown();
        let (start, end) = (span.offset(), span.offset() + span.len());
        if end > shown.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let (first, last) = (
            shown.line(start),
            shown.line(end.saturating_sub(1).max(start)),
        );
        let from_line = first.saturating_sub(before);
        let mut from = if before == 0 {
            start
        } else {
            shown.start(from_line)
        };
        let mut to = shown.start(last + after + 1);
        let mut line = from_line;
        if to - from > LONGEST_EXCERPT {
            let near = LONGEST_EXCERPT / 4;
            from = shown
                .text
                .ceil_char_boundary(start.saturating_sub(near))
                .max(shown.start(first))
                .min(start);
            to = shown
                .text
                .floor_char_boundary(end + near)
                .min(shown.start(last + 1))
                .max(end);
            line = first;
        }
        let data = shown.text.get(from..to).ok_or(MietteError::OutOfBounds)?;
        Ok(Box::new(MietteSpanContents::new_named(
            words(&self.0.name),
            data.as_bytes(),
            (from, to - from).into(),
            line,
            shown.column(line, from),
            last + 1 - line,
        )))
    }
}

/// A part of a file.
#[derive(Clone, Debug)]
pub struct Span {
    pub source: Arc<Source>,
    pub range: SourceSpan,
}

impl Span {
    /// Returns its position, such as `Machinefile:12:5`.
    pub fn text(&self) -> String {
        let (line, column) = self.source.line_and_column(self.range.offset());
        format!("{}:{line}:{column}", self.source.name)
    }

    /// Returns a part of it. `at` and `length` are in bytes.
    pub(super) fn part(&self, at: usize, length: usize) -> Span {
        Span {
            source: Arc::clone(&self.source),
            range: (self.range.offset() + at, length).into(),
        }
    }
}

/// A value with its span.
#[derive(Clone, Debug)]
pub(super) struct Spanned<T> {
    pub value: T,
    pub span: Span,
}

impl<T> Spanned<T> {
    pub(super) fn new(value: T, span: Span) -> Self {
        Spanned { value, span }
    }
}

/// One mistake.
#[derive(Clone, Debug, Error, Diagnostic)]
#[error("{message}")]
pub struct MachinefileError {
    message: String,
    #[source_code]
    source_code: Excerpt,
    #[label("{label}")]
    span: SourceSpan,
    label: String,
    #[help]
    help: Option<String>,
}

impl MachinefileError {
    pub fn new(span: &Span, message: impl Into<String>, label: impl Into<String>) -> Self {
        let start = span.range.offset();
        let end = start + span.range.len().min(LONGEST_MARK);
        let end = span.source.text.floor_char_boundary(end).max(start);
        // The words of a foreign file are foreign too.
        MachinefileError {
            message: escaped(&message.into()),
            source_code: Excerpt(Arc::clone(&span.source)),
            span: (start, end - start).into(),
            label: escaped(&label.into()),
            help: None,
        }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(text(&help.into(), false));
        self
    }

    /// The marked part of the file.
    fn marked(&self) -> &str {
        let start = self.span.offset();
        let end = start + self.span.len();
        self.source_code.0.text.get(start..end).unwrap_or_default()
    }

    /// Shows a variable as the file writes it, in place of its value.
    fn hide(&mut self, variable: &Variable) {
        let Some(value) = variable.secret() else {
            return;
        };
        let written = variable.written();
        let is_here = self.marked().contains(written.trim_end_matches('}'));
        // A mistake may be explained by a part of the value.
        let parts: HashSet<&[u8]> = match is_here {
            true => value.as_bytes().windows(BYTES_OF_PART).collect(),
            false => HashSet::new(),
        };
        let is_part = |text: &str| {
            text.replace(&written, "")
                .as_bytes()
                .windows(BYTES_OF_PART)
                .any(|part| parts.contains(part))
        };
        let hidden = |text: &str, otherwise: &str| {
            let mut text = text.to_string();
            for line in value.lines().map(str::trim).filter(|line| !line.is_empty()) {
                for form in secrets::forms(line).into_iter().chain([escaped(line)]) {
                    if form.len() >= BYTES_ANYWHERE {
                        text = text.replace(&form, &written);
                    } else if is_here {
                        // Elsewhere, so few letters are there by chance.
                        text = replace_word(&text, &form, &written);
                    }
                }
            }
            match is_part(&text) {
                true => otherwise.to_string(),
                false => text,
            }
        };
        self.message = hidden(
            &self.message,
            &format!("the value of {written} is not valid here"),
        );
        self.label = hidden(&self.label, "here");
        self.help = (self.help.as_ref()).map(|help| {
            hidden(
                help,
                &format!("check the environment variable {}", variable.name),
            )
        });
    }

    /// Keeps texts readable that contain long foreign words.
    fn bound(&mut self) {
        self.message = bounded(&self.message);
        self.label = bounded(&self.label);
        self.help = self.help.as_deref().map(bounded);
    }
}

/// A value of so many bytes is not in stead's own words by chance.
const BYTES_ANYWHERE: usize = 6;
/// So much of a value must not be shown, in bytes.
const BYTES_OF_PART: usize = 5;

/// Replaces a word that is not a part of a longer one.
fn replace_word(text: &str, word: &str, with: &str) -> String {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (found, _) in text.match_indices(word) {
        let end = found + word.len();
        let is_whole =
            !is_part(text[..found].chars().next_back()) && !is_part(text[end..].chars().next());
        if is_whole {
            out.push_str(&text[at..found]);
            out.push_str(with);
            at = end;
        }
    }
    out.push_str(&text[at..]);
    out
}

/// So many errors are kept, to show the first ones in the order of the files. The others are only counted: a file has as
/// many as somebody likes.
const MOST_KEPT: usize = 1_000;

/// So many warnings are shown.
const MOST_WARNINGS: usize = 10;

/// The mistakes that were found so far.
#[derive(Default)]
pub(super) struct Errors {
    kept: Vec<MachinefileError>,
    more: usize,
    warnings: Vec<String>,
}

impl Errors {
    pub(super) fn push(&mut self, error: MachinefileError) {
        match self.is_full() {
            true => self.more += 1,
            false => self.kept.push(error),
        }
    }

    /// Adds what is no mistake, but would surprise.
    pub(super) fn warn(&mut self, place: &Span, message: &str) {
        if self.warnings.len() < MOST_WARNINGS {
            self.warnings.push(format!("{}: {message}", place.text()));
        }
    }

    pub(super) fn warnings(self) -> Vec<String> {
        self.warnings
    }

    /// Whether another error is only counted. Then its text need not be made: use [`Self::count`].
    pub(super) fn is_full(&self) -> bool {
        self.kept.len() >= MOST_KEPT
    }

    pub(super) fn count(&mut self) {
        self.more += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len() + self.more
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

impl Extend<MachinefileError> for Errors {
    fn extend<T: IntoIterator<Item = MachinefileError>>(&mut self, errors: T) {
        for error in errors {
            self.push(error);
        }
    }
}

/// All mistakes in a project's files.
#[derive(Clone, Debug)]
pub struct MachinefileErrors {
    errors: Vec<MachinefileError>,
    /// How many more there are.
    more: usize,
}

impl MachinefileErrors {
    pub fn new(errors: Vec<MachinefileError>) -> Self {
        let mut found = Errors::default();
        found.extend(errors);
        Self::of(found, &[])
    }

    /// Keeps the values of variables out of the errors.
    pub(super) fn of(found: Errors, variables: &[Variable]) -> Self {
        let mut errors = found.kept;
        errors.sort_by(|a, b| {
            let key = |error: &MachinefileError| error.span.offset();
            (&a.source_code.0.name, key(a)).cmp(&(&b.source_code.0.name, key(b)))
        });
        let more = found.more + errors.len().saturating_sub(MOST_SHOWN);
        errors.truncate(MOST_SHOWN);
        for error in &mut errors {
            for variable in variables {
                error.hide(variable);
            }
            error.bound();
        }
        MachinefileErrors { errors, more }
    }

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.errors.len() + self.more
    }

    /// Renders all errors, each with its source line underlined.
    pub fn render(&self, theme: GraphicalTheme, width: usize) -> String {
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width);
        let mut text = String::new();
        for error in &self.errors {
            if handler.render_report(&mut text, error).is_err() {
                text.push_str(&error.to_string());
            }
            text.push('\n');
        }
        if self.more > 0 {
            text.push_str(&format!("and {}\n", counted(self.more, "more error")));
        }
        text
    }
}

impl fmt::Display for MachinefileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.errors.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            let source = &error.source_code.0;
            let (line, column) = source.line_and_column(error.span.offset());
            let name = words(&source.name);
            write!(f, "{name}:{line}:{column}: {}", error.message)?;
        }
        if self.more > 0 {
            write!(f, "\nand {}", counted(self.more, "more error"))?;
        }
        Ok(())
    }
}

impl std::error::Error for MachinefileErrors {}
