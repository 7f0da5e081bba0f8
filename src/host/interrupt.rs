//! Ctrl-C, SIGTERM and the end of the terminal (SIGHUP): one handler for the life of the process.
//!
//! Code that can stop cleanly listens. Then the first signal is a request, and a second one ends the process
//! immediately. If nothing listens, the first signal ends the process: everything that stead does can be
//! killed at any moment and repeated, so a download, a wait for a lock or a question need no more. Before that, programs
//! that run are killed and temporary folders removed ([`before_end`]).

use std::{
    collections::BTreeMap,
    fs, io,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
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

/// Installs the handler. `last_words` is called before a signal ends the process immediately.
///
/// # Errors
/// If the thread or the handler cannot be created.
pub fn install(last_words: fn()) -> io::Result<()> {
    // Signals that are ignored from the start stay ignored: nohup(1) and background jobs of shells rely on it.
    let ignored = fs::read_to_string("/proc/self/status")
        .map(|status| ignored(&status))
        .unwrap_or(0);
    let taken = [SIGINT, SIGTERM, SIGHUP]
        .into_iter()
        .filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = Signals::new(taken)?;
    // A write beyond the limit of the size of files fails, in place of ending this process without a word (setrlimit(2)).
    // Programs that it starts have the signal as it was (execve(2)).
    signal_hook::flag::register(nix::libc::SIGXFSZ, Arc::default())?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                let heard = LISTENERS.load(Ordering::SeqCst) > 0;
                if heard && !ASKED.send_replace(true) {
                    continue;
                }
                // Held to the end, so that no other thread reports what this causes, such as a program that was killed.
                let mut acts = acts();
                while let Some((_, act)) = acts.pop_last() {
                    act();
                }
                last_words();
                // As without a handler, so that a shell sees which signal ended the process.
                let _ = emulate_default_handler(signal);
            }
        })?;
    Ok(())
}

/// What is done before a signal ends the process immediately, the newest first.
static ACTS: Mutex<BTreeMap<u64, Act>> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

type Act = Box<dyn FnOnce() + Send>;

fn acts() -> MutexGuard<'static, BTreeMap<u64, Act>> {
    ACTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While this lives, its act is done before a signal ends the process immediately.
#[derive(Debug)]
pub struct LastAct(u64);

/// Has `act` done before a signal ends the process immediately. It must be short, and must neither call this function
/// nor drop a [`LastAct`].
pub fn before_end(act: impl FnOnce() + Send + 'static) -> LastAct {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    acts().insert(number, Box::new(act));
    LastAct(number)
}

impl Drop for LastAct {
    fn drop(&mut self) {
        acts().remove(&self.0);
    }
}

/// Returns the ignored signals from proc_pid_status(5), one bit each; the lowest is signal 1.
fn ignored(status: &str) -> u64 {
    (status.lines())
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// While this lives, some code listens, and stops cleanly on request.
pub struct Listening(());

/// Starts to listen.
pub fn listen() -> Listening {
    LISTENERS.fetch_add(1, Ordering::SeqCst);
    Listening(())
}

impl Listening {
    /// Becomes `true` when the process is asked to end. It is `true` from the start if that has happened.
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
