//! The console log, as QEMU writes it.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// The last `lines` lines, without escape sequences, oldest first. Empty when there is no log.
pub fn tail(log: &Path, lines: usize) -> Vec<String> {
    let text = end_of(log, 16 * 1024).unwrap_or_default();
    let clean = plain(&text);
    let mut found: Vec<String> = clean
        .lines()
        .map(|line| line.trim_end().to_string())
        .filter(|line| !line.is_empty())
        .collect();
    let from = found.len().saturating_sub(lines);
    found.split_off(from)
}

/// The last line with anything on it.
pub fn last_line(log: &Path) -> Option<String> {
    let text = end_of(log, 2048)?;
    plain(&text)
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .map(str::to_string)
}

/// The line by which a guest says that it will not come up by itself, if one of these is it.
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

/// Takes out what a terminal would act on: CSI and OSC sequences (ECMA-48 §5.4, §8.3.89) and
/// control characters. A carriage return ends a line: progress that overwrites itself is lines.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                Some('[') => {
                    for c in chars.by_ref() {
                        if ('\u{40}'..='\u{7e}').contains(&c) {
                            break;
                        }
                    }
                }
                Some(']') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' {
                            break;
                        }
                        if c == '\u{1b}' {
                            chars.next();
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\r' => {
                if chars.peek() != Some(&'\n') {
                    out.push('\n');
                }
            }
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_taken_out() {
        assert_eq!(
            plain("\u{1b}[0;32m  OK  \u{1b}[0m\r\nx\u{1b}]0;t\u{7}y"),
            "  OK  \nxy"
        );
        assert_eq!(plain("10%\r20%\r\n"), "10%\n20%\n");
        assert_eq!(plain("cut \u{1b}["), "cut ");
    }

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
