//! Formats numbers for people.

use std::{fmt::Display, time::Duration};

use jiff::Timestamp;

/// Formats a duration: `4.2s`, `1m 03s`, `2h 05m`.
pub fn elapsed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// Formats the time that something has taken so far, in whole seconds: `4s`, `1m 03s`, `2h 05m`.
pub(super) fn so_far(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        _ => elapsed(duration),
    }
}

/// Formats a time in the past: `3 days ago`, `5 hours ago`, `just now`.
pub fn ago(at: Timestamp) -> String {
    passed((Timestamp::now() - at).as_secs())
}

fn passed(seconds: i64) -> String {
    // A clock that was set back makes it negative.
    let seconds = seconds.max(0);
    let (number, unit) = match seconds {
        0..60 => return "just now".into(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{} ago", counted(number, unit))
}

/// Formats a number of things: `1 file`, `2 files`. `thing` is in the singular, and its plural has an s.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(number: N, thing: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// Formats a size: `1.4 GiB`, `372 MiB`, `12 KiB`.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1000.0 || unit == "TiB" {
            return if value < 10.0 && unit != "B" {
                format!("{value:.1} {unit}")
            } else {
                format!("{value:.0} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(elapsed(Duration::from_millis(4230)), "4.2s");
        assert_eq!(elapsed(Duration::from_secs(63)), "1m 03s");
        assert_eq!(elapsed(Duration::from_secs(7500)), "2h 05m");
        assert_eq!(passed(3600), "1 hour ago");
        let shown: Vec<String> = ([4230, 59_999, 81_000, 121_000, 7_500_000].iter())
            .map(|it| so_far(Duration::from_millis(*it)))
            .collect();
        assert_eq!(shown, ["4s", "59s", "1m 21s", "2m 01s", "2h 05m"]);
    }

    #[test]
    fn one_and_many() {
        assert_eq!(counted(0, "file"), "0 files");
        assert_eq!(counted(1u64, "huge page"), "1 huge page");
        assert_eq!(counted(2usize, "CPU"), "2 CPUs");
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(390_070_272), "372 MiB");
    }
}
