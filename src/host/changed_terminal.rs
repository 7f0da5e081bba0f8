//! The terminal at standard input, while its settings are others.

use std::io::{self, IsTerminal, stdin};

use nix::sys::termios::{LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::interrupt::{LastAct, before_end};

/// While this lives, the terminal has other settings. It is as before after that, also if a signal ends the process.
pub struct ChangedTerminal {
    before: Termios,
    _restored: LastAct,
}

impl ChangedTerminal {
    /// Has the terminal pass on each key as it is typed, Ctrl-C too, and show what it is told as it is. `None`: standard
    /// input is not a terminal.
    ///
    /// # Errors
    /// If its settings cannot be read or changed.
    pub fn raw() -> io::Result<Option<Self>> {
        Self::of_stdin(cfmakeraw)
    }

    /// Has the terminal not show what is typed, except the end of a line. `None`: standard input is not a terminal.
    ///
    /// # Errors
    /// If its settings cannot be read or changed.
    pub(super) fn without_echo() -> io::Result<Option<Self>> {
        Self::of_stdin(|settings| {
            settings.local_flags.remove(LocalFlags::ECHO);
            settings.local_flags.insert(LocalFlags::ECHONL);
        })
    }

    fn of_stdin(change: impl FnOnce(&mut Termios)) -> io::Result<Option<Self>> {
        if !stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(stdin())?;
        let mut changed = before.clone();
        change(&mut changed);
        let saved = before.clone();
        let restored = before_end(move || restore(&saved));
        tcsetattr(stdin(), SetArg::TCSANOW, &changed)?;
        Ok(Some(ChangedTerminal {
            before,
            _restored: restored,
        }))
    }
}

impl Drop for ChangedTerminal {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn restore(before: &Termios) {
    // The terminal may be gone.
    let _ = tcsetattr(stdin(), SetArg::TCSANOW, before);
}
