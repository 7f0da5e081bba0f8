//! The terminal at standard input, whose keys are passed on one by one.

use std::io::{self, IsTerminal, stdin};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::interrupt::{LastAct, before_end};

/// While this lives, the terminal passes on each key as it is typed, Ctrl-C too, and shows what it is told as it is. It is as
/// before after that, also if a signal ends the process.
pub struct RawTerminal {
    before: Termios,
    _restored: LastAct,
}

impl RawTerminal {
    /// `None`: standard input is not a terminal.
    ///
    /// # Errors
    /// If its settings cannot be read or changed.
    pub fn of_stdin() -> io::Result<Option<Self>> {
        if !stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        let saved = before.clone();
        let restored = before_end(move || restore(&saved));
        tcsetattr(stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Some(RawTerminal {
            before,
            _restored: restored,
        }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn restore(before: &Termios) {
    // The terminal may be gone.
    let _ = tcsetattr(stdin(), SetArg::TCSANOW, before);
}
