//! Reports events to people and programs: as live lines on a terminal, as plain lines elsewhere, as JSON
//! lines.

pub mod clean;
mod event;
mod json;
mod meter;
mod numbers;
mod panics;
mod plain;
pub mod stdio;
mod table;
mod talk;
mod terminal;

use std::sync::Arc;

pub use event::{Event, EventKind, Outcome};
pub use meter::Meter;
pub use numbers::{ago, bytes, elapsed};
pub use panics::{BUG, bug, panic_words, report_panics};
pub use plain::indented;
pub use table::Table;
pub use talk::{ask, question, say, talk, warn};
pub use terminal::CopyBar;

/// Takes events from any task. Implementations do their own locking.
pub trait Report: Send + Sync {
    fn event(&self, event: &Event);
    /// Whether the output of programs may have colours.
    fn color(&self) -> bool {
        false
    }
    /// Called once at the end, before anything else is printed.
    fn finish(&self) {}
}

pub type Reporter = Arc<dyn Report>;

/// How much is reported, and in what form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub json: bool,
    pub quiet: bool,
    /// stderr is a terminal that can redraw.
    pub live: bool,
    pub color: bool,
    /// Report every step, with its time.
    pub verbose: bool,
    /// Lines begin with a date, for a log that is kept for weeks.
    pub dated: bool,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColorChoice {
    Auto,
    Always,
    Never,
}

pub fn reporter(style: Style, machines: &[String]) -> Reporter {
    if style.json {
        Arc::new(json::JsonLines::default())
    } else if style.quiet {
        Arc::new(plain::PlainLines::only_trouble())
    } else if style.live {
        Arc::new(terminal::Live::new(machines, style.color, style.verbose))
    } else {
        Arc::new(plain::PlainLines::new(machines, style))
    }
}
