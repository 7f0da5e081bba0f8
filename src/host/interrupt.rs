//! Ctrl-C, SIGTERM and the end of the terminal (SIGHUP): one handler for the life of the process.
//!
//! Whoever can end in good order listens. The first signal is then a request, and a second one ends the
//! process at once. Where nobody listens the first one does: everything that stead does can be ended at
//! any moment and done again, so a download, a lock that is waited for or a question need no more.

use std::{
    fs, io,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};
use tokio::sync::watch;

static ASKED: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::channel(false).0);
static LISTENERS: AtomicUsize = AtomicUsize::new(0);

/// Whether this process was asked to end.
pub fn asked() -> bool {
    *ASKED.borrow()
}

/// Takes signals over. `last_words` is called before the process ends by one at once.
///
/// # Errors
/// Where the system gives no thread or handler.
pub fn install(last_words: fn()) -> io::Result<()> {
    // What is ignored from the start stays so: nohup(1) and shells' background jobs count on it.
    let ignored = fs::read_to_string("/proc/self/status")
        .map(|status| ignored(&status))
        .unwrap_or(0);
    let taken = [SIGINT, SIGTERM, SIGHUP]
        .into_iter()
        .filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = Signals::new(taken)?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                let heard = LISTENERS.load(Ordering::SeqCst) > 0;
                if heard && !ASKED.send_replace(true) {
                    continue;
                }
                last_words();
                // As if there were no handler, so that a shell sees what ended it.
                let _ = emulate_default_handler(signal);
            }
        })?;
    Ok(())
}

/// The signals that are ignored, from proc_pid_status(5): a bit for each, from the lowest.
fn ignored(status: &str) -> u64 {
    (status.lines())
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Somebody who ends in good order when asked to, for as long as this lives.
pub struct Listening(());

/// Listens from now on.
pub fn listen() -> Listening {
    LISTENERS.fetch_add(1, Ordering::SeqCst);
    Listening(())
}

impl Listening {
    /// Turns true when the process is asked to end; is so from the start where it was before.
    pub fn asked(&self) -> watch::Receiver<bool> {
        ASKED.subscribe()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENERS.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_proc() {
        let status = "Name:\tstead\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\n";
        assert_eq!(ignored(status), 0x1003);
        assert_eq!(ignored(""), 0);
    }
}
