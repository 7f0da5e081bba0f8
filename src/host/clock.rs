//! The clocks of this computer.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Returns for how long this computer has slept since its boot (clock_gettime(2)): one of its clocks went on meanwhile.
pub fn slept() -> Duration {
    let of = |clock| clock_gettime(clock).map(Duration::from);
    match (of(ClockId::CLOCK_BOOTTIME), of(ClockId::CLOCK_MONOTONIC)) {
        (Ok(all), Ok(awake)) => all.saturating_sub(awake),
        _ => Duration::ZERO,
    }
}
