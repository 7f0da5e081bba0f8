//! Options of every command.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum, builder::PossibleValue};

use crate::{
    log,
    report::{ColorChoice, Style, stdio},
    session::Invocation,
};

/// Options of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Run as if started in this folder
    #[arg(short = 'C', value_name = "DIR", global = true)]
    pub directory: Option<PathBuf>,
    /// Use this Machinefile instead of searching for one
    #[arg(short = 'f', long = "file", value_name = "FILE", global = true)]
    pub file: Option<PathBuf>,
    /// libvirt URI, such as qemu:///session or qemu:///system
    #[arg(long, value_name = "URI", global = true)]
    pub connect: Option<String>,
    /// Agree once to what the project does to this computer; `stead trust --show` prints the hash
    #[arg(long, value_name = "HASH", global = true)]
    pub trust: Option<String>,
    /// Print JSON: one document, or one event per line from commands that take a while
    #[arg(long, global = true)]
    pub json: bool,
    /// Print errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print every step with its duration; -vv: also each libvirt call, program, wait and lock
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Print plain lines instead of a live display
    #[arg(long, global = true)]
    pub plain: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    pub color: ColorChoice,
}

impl Global {
    pub(super) fn invocation(&self) -> Invocation {
        Invocation {
            directory: self.directory.clone(),
            file: self.file.clone(),
            connect: self.connect.clone(),
            trust: self.trust.clone(),
            style: self.style(),
            color: self.color,
        }
    }

    pub(super) fn style(&self) -> Style {
        Style {
            json: self.json,
            quiet: self.quiet,
            // Lines of the log would go through a live display.
            live: !self.plain
                && self.verbose < 2
                && std::env::var_os(log::VARIABLE).is_none()
                && stdio::stderr_is_terminal()
                && is_capable(),
            color: color(self.color),
            verbose: self.verbose > 0,
            dated: false,
        }
    }
}

impl ValueEnum for ColorChoice {
    fn value_variants<'a>() -> &'a [Self] {
        &[ColorChoice::Auto, ColorChoice::Always, ColorChoice::Never]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            ColorChoice::Auto => "auto",
            ColorChoice::Always => "always",
            ColorChoice::Never => "never",
        }))
    }
}

/// Whether to colour what goes to stderr. `NO_COLOR` (no-color.org) counts unless overridden.
fn color(choice: ColorChoice) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => stdio::stderr_is_terminal() && colors_are_wanted(),
    }
}

/// Whether the environment allows colours.
pub(super) fn colors_are_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && is_capable()
}

/// Whether `TERM` names a terminal that understands escape sequences.
pub(super) fn is_capable() -> bool {
    std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}
