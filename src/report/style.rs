//! How reports look.

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
