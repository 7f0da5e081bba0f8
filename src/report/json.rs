//! Events as JSON.

use std::sync::Mutex;

use super::{Event, Report, stdio};

/// Writes one JSON object per line to stdout.
#[derive(Default)]
pub(super) struct JsonLines {
    // So that lines of different tasks do not mix.
    lock: Mutex<()>,
}

impl Report for JsonLines {
    fn event(&self, event: &Event) {
        let Ok(mut line) = serde_json::to_string(event) else {
            return;
        };
        line.push('\n');
        let _held = self.lock.lock();
        // If the reader has ended, the work continues all the same.
        let _ = stdio::json(&line);
    }
}
