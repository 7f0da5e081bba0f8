//! Prints how a command failed, and returns its exit code.

use std::process::ExitCode;

use miette::GraphicalTheme;

use crate::{
    failure::Failure,
    machinefile::MachinefileErrors,
    report::{Style, clean::without_long_words, counted, indented, say, secrets, stdio},
};

/// A longer word of an error is shortened, in characters. Paths and addresses have some hundreds at most.
const LONGEST_WORD: usize = 1_000;

/// Prints a failure to stderr and returns the exit code.
pub(super) fn render(failure: &Failure, style: Style) -> ExitCode {
    let color = style.color;
    if !failure.message().is_empty() {
        tracing::error!("{}", failure.message());
    }
    match failure {
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
            say(
                style,
                &format!("interrupted: nothing is lost, and {goes_on} continues from here"),
            );
            ExitCode::from(130)
        }
        Failure::Reported(code) => ExitCode::from(*code),
    }
}

/// Renders every error of a Machinefile with its source line.
fn render_errors(errors: &MachinefileErrors, color: bool) -> String {
    let theme = if color {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let mut text = errors.render(theme, 100);
    text.push_str(&format!(
        "{} in the Machinefile\n",
        counted(errors.count(), "error")
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
    let block = |text: &str| {
        // Before it is cut: a part of a secret would not be found.
        let text = without_long_words(&secrets::without(text), LONGEST_WORD);
        indented(&text).join("\n")
    };
    let mut text = format!("{} {}\n", label("31;1", "error:"), block(message));
    if let Some(hint) = hint {
        text.push_str(&format!("\n{} {}\n", label("36;1", "hint:"), block(hint)));
    }
    stdio::talk_in_color(&text, color);
}
