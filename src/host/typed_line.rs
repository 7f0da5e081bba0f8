//! A line that the user types at the terminal.

use std::{
    io::{self, stdin},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{FlushArg, tcflush},
    unistd::read,
};
use tokio::sync::oneshot;

use super::changed_terminal::ChangedTerminal;

/// A terminal passes on longer lines in pieces of this size, in bytes (termios(3), "canonical mode").
const LONGEST: usize = 4096;
/// How often to check whether somebody still waits for the line, in milliseconds.
const BETWEEN_CHECKS: u8 = 100;

/// Reads a line from the terminal at standard input, without its end. `None`: Ctrl-D. What was typed before is discarded: it
/// was not meant for this. If the future is dropped, nothing more is read.
///
/// # Errors
/// If the terminal cannot be read.
pub async fn typed_line(is_hidden: bool) -> io::Result<Option<String>> {
    let wanted = Arc::new(AtomicBool::new(true));
    let _unwanted = Unwanted(Arc::clone(&wanted));
    let (sender, line) = oneshot::channel();
    // Not a thread of the runtime, whose end would wait for it.
    thread::spawn(move || {
        // An error means that nobody waits for it any more.
        let _ = sender.send(read_line(is_hidden, &wanted));
    });
    (line.await).unwrap_or_else(|_| Err(io::Error::other("the thread that reads it panicked")))
}

struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

fn read_line(is_hidden: bool, wanted: &AtomicBool) -> io::Result<Option<String>> {
    let _hidden = match is_hidden {
        true => ChangedTerminal::without_echo()?,
        false => None,
    };
    tcflush(stdin(), FlushArg::TCIFLUSH)?;
    while wanted.load(Ordering::SeqCst) {
        let stdin = stdin();
        let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(BETWEEN_CHECKS)) {
            Ok(0) | Err(nix::Error::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [0; LONGEST];
        let n = read(&stdin, &mut buffer)?;
        let line = String::from_utf8_lossy(&buffer[..n]);
        return Ok((n > 0).then(|| line.trim_end_matches(['\n', '\r']).to_string()));
    }
    Ok(None)
}
