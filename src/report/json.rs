use std::sync::Mutex;

use super::{Event, Report, stdio};

/// One JSON object per line on stdout.
#[derive(Default)]
pub struct JsonLines {
    // Keeps lines of different tasks whole.
    lock: Mutex<()>,
}

impl Report for JsonLines {
    fn event(&self, event: &Event) {
        let Ok(mut line) = serde_json::to_string(event) else {
            return;
        };
        line.push('\n');
        let _held = self.lock.lock();
        // The reader went away: the work goes on.
        let _ = stdio::json(&line);
    }
}
