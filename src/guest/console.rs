//! Reads the end of the console log that QEMU writes.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use crate::report::clean;

/// Returns the last `lines` lines, without escape sequences, oldest first. Empty if there is no log.
pub fn tail(log: &Path, lines: usize) -> Vec<String> {
    let text = end_of(log, 16 * 1024).unwrap_or_default();
    let clean = clean::text(&text, false);
    let mut found: Vec<String> = clean
        .lines()
        .map(|line| line.trim_end().to_string())
        .filter(|line| !line.is_empty())
        .collect();
    let from = found.len().saturating_sub(lines);
    found.split_off(from)
}

/// Returns the last line that is not blank.
pub fn last_line(log: &Path) -> Option<String> {
    let text = end_of(log, 2048)?;
    clean::text(&text, false)
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .map(str::to_string)
}

/// Returns the line that shows that the guest will not boot without help, if there is one.
pub fn hopeless(lines: &[String]) -> Option<String> {
    const SIGNS: [&str; 6] = [
        "stead-init: cannot go on",
        "Kernel panic - not syncing",
        "(initramfs)",
        "You are in emergency mode",
        "No bootable device",
        "grub rescue>",
    ];
    lines
        .iter()
        .find(|line| SIGNS.iter().any(|sign| line.contains(sign)))
        .cloned()
}

fn end_of(log: &Path, bytes: u64) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))
        .ok()?;
    let mut buffer = Vec::new();
    file.take(bytes).read_to_end(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_gave_up_is_known() {
        let lines = |text: &str| text.lines().map(str::to_string).collect::<Vec<_>>();
        assert!(hopeless(&lines("No init found.\n(initramfs)")).is_some());
        assert!(hopeless(&lines("Loading Linux\nDebian GNU/Linux 12 web ttyS0")).is_none());
    }

    #[test]
    fn no_log_is_no_lines() {
        assert_eq!(last_line(Path::new("/nonexistent/log")), None);
        assert!(tail(Path::new("/nonexistent/log"), 5).is_empty());
    }
}
