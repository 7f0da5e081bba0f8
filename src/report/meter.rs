//! Measures a copy or a download, and reports its rate and the time that is left.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::report::{Event, EventKind, Reporter, bytes, elapsed};

/// Reports the progress of a step, a few times a second.
pub struct Meter {
    label: String,
    step: &'static str,
    reporter: Reporter,
    state: Mutex<(Instant, Option<(Instant, u64)>)>,
}

impl Meter {
    pub fn new(label: &str, step: &'static str, reporter: Reporter) -> Self {
        Meter {
            label: label.to_string(),
            step,
            reporter,
            state: Mutex::new((Instant::now(), None)),
        }
    }

    /// Reports `done` of `total` bytes; `total` is 0 if it is unknown.
    pub fn at(&self, done: u64, total: u64) {
        let Ok(mut state) = self.state.lock() else {
            return;
        };
        let now = Instant::now();
        // The first bytes are of an earlier, interrupted download, so they do not count for the rate.
        let (start, before) = *state.1.get_or_insert((now, done));
        if now.duration_since(state.0) < Duration::from_millis(200) || total == 0 {
            return;
        }
        state.0 = now;
        let seconds = now.duration_since(start).as_secs_f64().max(0.001);
        let rate = (done - before.min(done)) as f64 / seconds;
        let left = (total - done.min(total)) as f64 / rate.max(1.0);
        let rate = rate as u64;
        let percent = u8::try_from(done.saturating_mul(100) / total).unwrap_or(100);
        self.reporter.event(&Event::now(
            &self.label,
            EventKind::Progress {
                step: self.step.into(),
                percent,
                rate: format!("{}/s", bytes(rate)),
                eta: elapsed(Duration::from_secs_f64(left.min(1e6))),
            },
        ));
    }
}
