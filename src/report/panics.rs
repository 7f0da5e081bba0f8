//! A panic is a bug in stead. It is never silent, not even with `--quiet`.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    panic,
    path::{Path, PathBuf},
};

use super::{
    clean::{Shown, words},
    stdio,
};

/// What to do about a bug in stead.
pub const BUG: &str = "this is a bug in stead: report it with this message, the command line, and the output of `stead doctor --report`; RUST_BACKTRACE=1 adds a backtrace";

/// What to do where no thread or program can be started.
pub const MORE_PROCESSES: &str = "raise the limit of processes, which counts threads too: `ulimit -u` shows yours, a systemd unit has TasksMax=, a container its limit of pids";

/// Returns [`BUG`], with the file that has the log of this run.
pub fn bug(log: Option<&Path>) -> String {
    match log {
        Some(path) => format!("{BUG}; the log of this run is {}", path.shown()),
        None => BUG.to_string(),
    }
}

/// Returns the message of a panic.
pub fn panic_words(payload: &(dyn Any + Send)) -> String {
    let said = (payload.downcast_ref::<&str>().map(ToString::to_string))
        .or_else(|| payload.downcast_ref::<String>().cloned());
    words(&said.unwrap_or_else(|| "no reason was given".into()))
}

/// Whether a library says that no thread can be started: std's and tokio's words.
fn is_about_threads(said: &str) -> bool {
    said.contains("failed to spawn thread") || said.contains("can't spawn worker thread")
}

/// From now on, each panic is reported on stderr like an error, even if nobody waits for its thread.
///
/// `log` returns the file with the log of this run, if there is one.
pub fn report_panics(log: fn() -> Option<PathBuf>) {
    panic::set_hook(Box::new(move |info| {
        let said = info.payload_as_str().unwrap_or("no reason was given");
        let place = info
            .location()
            .map_or(String::new(), |at| format!(" ({at})"));
        if is_about_threads(said) {
            // Libraries panic where no thread can be started. The computer has no room for it; stead has no bug.
            tracing::error!("cannot start a thread: {said}{place}");
            stdio::talk(&format!(
                "error: cannot start a thread: {}\n\nhint: {MORE_PROCESSES}\n",
                words(said)
            ));
            return;
        }
        tracing::error!("stead itself failed: {said}{place}");
        let mut text = format!(
            "error: stead itself failed: {}{place}\n\nhint: {}\n",
            words(said),
            bug(log().as_deref())
        );
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            text.push_str(&format!("\n{trace}\n"));
        }
        stdio::talk(&text);
    }));
}
