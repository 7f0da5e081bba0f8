//! Reports events to people and programs: as live lines on a terminal, as plain lines elsewhere, as JSON
//! lines.

pub mod clean;
mod event;
mod fold;
mod json;
mod meter;
mod numbers;
mod panics;
mod plain;
mod question;
pub mod secrets;
pub mod stdio;
mod style;
mod table;
mod talk;
mod terminal;
mod wrap;

use std::sync::Arc;

pub use event::{Event, EventKind, Outcome, Report, Reporter};
pub use meter::Meter;
pub(crate) use numbers::counted;
pub use numbers::{ago, bytes, elapsed};
pub use panics::{BUG, MORE_PROCESSES, bug, panic_words, report_panics};
pub use plain::indented;
pub use question::Question;
pub use style::{ColorChoice, Style};
pub use table::Table;
pub use talk::{ask, can_ask, question, say, talk, warn};
pub use terminal::{CopyBar, WorkLine};
pub use wrap::line_within;

pub fn reporter(style: Style, machines: &[String]) -> Reporter {
    let reporter: Reporter = if style.json {
        Arc::new(json::JsonLines::default())
    } else if style.quiet {
        Arc::new(plain::PlainLines::only_trouble())
    } else if style.live {
        Arc::new(terminal::Live::new(machines, style.color, style.verbose))
    } else {
        Arc::new(plain::PlainLines::new(machines, style))
    };
    Arc::new(event::WithoutSecrets(reporter))
}
