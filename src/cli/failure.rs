use std::process::ExitCode;

use miette::{Diagnostic, GraphicalTheme};

use crate::{
    machinefile::MachinefileErrors,
    report::{indented, stdio},
};

use super::{Global, output};

/// Why a command ends without success: what is printed, and the exit code.
#[derive(Debug)]
pub enum Failure {
    /// Something went wrong: exit 1.
    Error {
        message: String,
        hint: Option<String>,
    },
    /// The arguments make no sense together: exit 2.
    Usage { message: String, hint: String },
    /// The Machinefile is wrong, at these places: exit 2.
    Machinefile(Box<MachinefileErrors>),
    /// Ctrl-C, SIGTERM or the end of the terminal, between two parts of a command: exit 130.
    Interrupted { goes_on: String },
    /// Everything has been said already.
    Said(u8),
}

impl<E: Diagnostic> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Failure::Error {
            message,
            hint: error.help().map(|help| help.to_string()),
        }
    }
}

impl Failure {
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::Usage {
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub fn error(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::Error {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    pub fn io(doing: impl Into<String>, error: &std::io::Error) -> Self {
        Failure::Error {
            message: format!("cannot {}: {error}", doing.into()),
            hint: None,
        }
    }

    /// What went wrong, in a line.
    pub fn message(&self) -> String {
        match self {
            Failure::Error { message, .. } | Failure::Usage { message, .. } => message.clone(),
            Failure::Machinefile(errors) => errors.to_string(),
            Failure::Interrupted { .. } => "interrupted".to_string(),
            Failure::Said(_) => String::new(),
        }
    }

    /// Prints it to stderr and gives the exit code.
    pub fn render(&self, global: &Global) -> ExitCode {
        let color = output::color(global);
        match self {
            Failure::Error { message, hint } => {
                print(message, hint.as_deref(), color);
                ExitCode::from(1)
            }
            Failure::Usage { message, hint } => {
                print(message, Some(hint), color);
                ExitCode::from(2)
            }
            Failure::Machinefile(errors) => {
                stdio::talk_in_color(&render_errors(errors, color), color);
                ExitCode::from(2)
            }
            Failure::Interrupted { goes_on } => {
                output::say(
                    global,
                    &format!("interrupted: nothing is lost, {goes_on} goes on from here"),
                );
                ExitCode::from(130)
            }
            Failure::Said(code) => ExitCode::from(*code),
        }
    }
}

/// Every error of a Machinefile with its source line, one after the other.
fn render_errors(errors: &MachinefileErrors, color: bool) -> String {
    let theme = if color {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let count = errors.count();
    let mut text = errors.render(theme, 100);
    text.push_str(&format!(
        "{count} error{} in the Machinefile\n",
        if count == 1 { "" } else { "s" }
    ));
    text
}

fn print(message: &str, hint: Option<&str>, color: bool) {
    let label = |code: &str, text: &str| {
        if color {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_string()
        }
    };
    let block = |text: &str| indented(text).join("\n");
    let mut text = format!("{} {}\n", label("31;1", "error:"), block(message));
    if let Some(hint) = hint {
        text.push_str(&format!("\n{} {}\n", label("36;1", "hint:"), block(hint)));
    }
    stdio::talk_in_color(&text, color);
}
