//! The log: what stead does, call by call, for the person who looks for a cause.
//!
//! The other rooms say by `tracing` what they do, each under its own target (`stead::hypervisor`). This room
//! shows it on stderr, if that is asked for, and keeps it in a file for each run that changes something.

mod levels;
mod redact;
mod run;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use tracing::Level;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt::{self, time},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    host::paths::DataDir,
    report::{clean, stdio},
};

pub use levels::{Levels, VARIABLE};
pub use redact::without_names;
pub use run::last;

/// The target of all of stead. Libraries have others, and what they say is never shown: a protocol's headers
/// have logins in them.
const STEAD: &str = "stead";

/// The target of what scripts in guests print. It is kept in the file only: stderr has it anyway, and what is published
/// must not have it.
const OUTPUT: &str = "stead::output";

/// Starts the log of this process. `shown` goes to stderr. With `data`, the rest is held until [`keep`] is called.
pub fn start(command: &str, shown: Option<Levels>, data: Option<DataDir>) {
    run::begin(command, data);
    redact::hide_environment();
    let held = fmt::layer()
        .with_timer(time::SystemTime)
        .with_writer(|| Lines(run::write))
        .with_filter(Targets::new().with_target(STEAD, Level::DEBUG));
    let shown = shown.map(|levels| {
        fmt::layer()
            .with_timer(time::uptime())
            .with_writer(|| Lines(stdio::talk))
            .with_filter(levels.targets().with_target(OUTPUT, LevelFilter::OFF))
    });
    // There is another one only if this is called twice, which changes nothing.
    let _ = tracing_subscriber::registry()
        .with(held)
        .with(shown)
        .try_init();
}

/// This run changes something: its log goes to a file, with everything since the start. Returns the file.
pub fn keep() -> Option<PathBuf> {
    run::keep()
}

/// Takes each event as lines of text, cleans them and passes them on.
struct Lines(fn(&str));

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = redact::without_secrets(&String::from_utf8_lossy(bytes));
        (self.0)(&clean::text(&text, false));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
