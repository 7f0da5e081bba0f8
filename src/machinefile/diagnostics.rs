//! Errors with a place.

use std::{fmt, sync::Arc};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, NamedSource, SourceSpan};
use thiserror::Error;

use crate::report::clean::{in_place, text, words};

/// A file's name (as people write it) and text.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// A stretch of a file.
#[derive(Clone, Debug)]
pub struct Place {
    pub source: Arc<Source>,
    pub span: SourceSpan,
}

impl Place {
    /// `Machinefile:12:5`.
    pub fn text(&self) -> String {
        let (line, column) = line_and_column(&self.source.text, self.span.offset());
        format!("{}:{line}:{column}", self.source.name)
    }
}

/// Both from 1, the column in characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Spanned<T> {
    pub value: T,
    pub place: Place,
}

impl<T> Spanned<T> {
    pub fn new(value: T, place: Place) -> Self {
        Spanned { value, place }
    }
}

/// One thing that is wrong.
#[derive(Debug, Error, Diagnostic)]
#[error("{message}")]
pub struct MachinefileError {
    message: String,
    #[source_code]
    source_code: NamedSource<String>,
    #[label("{label}")]
    span: SourceSpan,
    label: String,
    #[help]
    help: Option<String>,
    line: usize,
    column: usize,
}

impl MachinefileError {
    pub fn new(place: &Place, message: impl Into<String>, label: impl Into<String>) -> Self {
        let source = &place.source;
        let (line, column) = line_and_column(&source.text, place.span.offset());
        // The file is somebody's, and so are the words that are taken from it.
        MachinefileError {
            message: words(&message.into()),
            source_code: NamedSource::new(words(&source.name), in_place(&source.text)),
            span: place.span,
            label: words(&label.into()),
            help: None,
            line,
            column,
        }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(text(&help.into(), false));
        self
    }
}

/// Everything that is wrong with a project's files.
#[derive(Debug)]
pub struct MachinefileErrors {
    errors: Vec<MachinefileError>,
}

impl MachinefileErrors {
    pub fn new(mut errors: Vec<MachinefileError>) -> Self {
        errors.sort_by(|a, b| {
            (a.source_code.name(), a.span.offset()).cmp(&(b.source_code.name(), b.span.offset()))
        });
        MachinefileErrors { errors }
    }

    pub fn errors(&self) -> &[MachinefileError] {
        &self.errors
    }

    /// Every error with its source line underlined, one after the other.
    pub fn render(&self, theme: GraphicalTheme, width: usize) -> String {
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width);
        let mut text = String::new();
        for error in &self.errors {
            if handler.render_report(&mut text, error).is_err() {
                text.push_str(&error.to_string());
            }
            text.push('\n');
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
            write!(
                f,
                "{}:{}:{}: {}",
                error.source_code.name(),
                error.line,
                error.column,
                error.message
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for MachinefileErrors {}
