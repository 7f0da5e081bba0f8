//! A panic is a bug of stead's own. It is never silent, whatever else is.

use std::{any::Any, backtrace::Backtrace, backtrace::BacktraceStatus, panic};

use super::{clean::words, stdio};

/// What to do about a bug of stead's own.
pub const BUG: &str = "this is a bug in stead: please report it with this message, the command line, and what `stead --version` and `stead doctor` print; with RUST_BACKTRACE=1 it says where it came from";

/// What a panic said.
pub fn panic_words(payload: &(dyn Any + Send)) -> String {
    let said = (payload.downcast_ref::<&str>().map(ToString::to_string))
        .or_else(|| payload.downcast_ref::<String>().cloned());
    words(&said.unwrap_or_else(|| "it did not say why".into()))
}

/// From now on each panic is told on stderr as errors are, also where its thread's end is seen by nobody.
pub fn tell_of_panics() {
    panic::set_hook(Box::new(|info| {
        let said = info.payload_as_str().unwrap_or("it did not say why");
        let place = info
            .location()
            .map_or(String::new(), |at| format!(" ({at})"));
        let mut text = format!(
            "error: stead itself failed: {}{place}\n\nhint: {BUG}\n",
            words(said)
        );
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            text.push_str(&format!("\n{trace}\n"));
        }
        stdio::talk(&text);
    }));
}
