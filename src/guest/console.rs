//! Reads the end of the console log that QEMU writes.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use crate::report::clean;

/// Returns the last `lines` lines, without escape sequences, oldest first. Empty if there is no log.
pub fn tail(log: &Path, lines: usize) -> Vec<String> {
    let text = end_of(log, 128 * 1024).unwrap_or_default();
    let clean = clean::text(&text, false);
    let mut found: Vec<String> = Vec::new();
    for line in clean
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
    {
        // systemd draws a line for each job that runs, in turn, several times a second.
        if let Some(job) = running_job(line) {
            found.retain(|other| running_job(other).as_ref() != Some(&job));
        }
        found.push(line.to_string());
    }
    let from = found.len().saturating_sub(lines);
    found.split_off(from)
}

/// Returns what a line of systemd's says of a running job, without what moves in it: stars and times.
/// `[  *** ] (1 of 2) A start job is running for X (5s / no limit)`
fn running_job(line: &str) -> Option<String> {
    let (stars, text) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    let moves = stars.contains('*') && stars.chars().all(|c| c == '*' || c == ' ');
    let (job, _) = text.rsplit_once('(').unwrap_or((text, ""));
    let job = job.trim_start();
    let job = match job.strip_prefix('(').and_then(|job| job.split_once(')')) {
        Some((_, job)) => job,
        None => job,
    };
    moves.then(|| job.trim().to_string())
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
    const SIGNS: [&str; 4] = [
        "stead-init: cannot go on",
        "Kernel panic - not syncing",
        "(initramfs)",
        "You are in emergency mode",
    ];
    let signs = || SIGNS.iter().chain(&NOTHING_TO_BOOT);
    lines
        .iter()
        .find(|line| signs().any(|sign| line.contains(sign)))
        .cloned()
}

/// What firmware and bootloaders print that find no system on the disk: SeaBIOS, GRUB, EDK II and its shell.
const NOTHING_TO_BOOT: [&str; 4] = [
    "No bootable device",
    "grub rescue>",
    "No bootable option or device was found",
    "to skip startup.nsh",
];

/// Whether a line says that the firmware or the bootloader has found no system on the disk.
pub fn finds_no_system(line: &str) -> bool {
    NOTHING_TO_BOOT.iter().any(|sign| line.contains(sign))
}

/// Returns the log's length, in bytes; 0 if there is none.
pub fn console_length(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |found| found.len())
}

/// Whether the guest has begun to boot after the log was `length` bytes long, and has not come to a login prompt since.
/// Its kernel says so on the console, unless its command line sends that elsewhere.
pub fn boots_since(log: &Path, length: u64) -> bool {
    const SIGNS: [&str; 3] = [
        "reboot: Restarting system",
        "Starting new kernel",
        "Linux version ",
    ];
    let now = console_length(log);
    if now == length {
        return false;
    }
    // A log that is shorter has begun anew, with virtlogd's next file.
    let new = now.checked_sub(length).unwrap_or(now);
    let text = end_of(log, new.min(128 * 1024)).unwrap_or_default();
    let last = SIGNS.iter().filter_map(|sign| text.rfind(sign)).max();
    last.is_some_and(|at| !text[at..].contains(" login:"))
}

/// Whether a console that ends with these lines waits for somebody to log in. Messages of the kernel may follow the prompt.
pub fn shows_prompt(lines: &[String]) -> bool {
    (lines.iter()).any(|line| line.trim_end().ends_with("login:") && !line.contains("Last login"))
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
        let panic = hopeless(&lines("No init found.\n(initramfs)")).unwrap();
        assert!(!finds_no_system(&panic));
        for text in [
            "Booting from Hard Disk...\nNo bootable device.",
            "BdsDxe: No bootable option or device was found.\nBdsDxe: Press any key to enter the Boot Manager Menu.",
            "Mapping table\nPress ESC in 5 seconds to skip startup.nsh or any other key to continue.\nShell> ",
        ] {
            assert!(finds_no_system(&hopeless(&lines(text)).unwrap()), "{text}");
        }
        assert!(hopeless(&lines("Loading Linux\nDebian GNU/Linux 12 web ttyS0")).is_none());
    }

    #[test]
    fn a_line_that_is_drawn_again_and_again_is_shown_once() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        let mut text = "[  OK  ] Reached target network.target\r\n".to_string();
        for n in 1..200 {
            let stars = ["*     ", "**    ", "***   ", " ***  ", "  *** ", "     *"][n % 6];
            let time = match n {
                0..60 => format!("{n}s"),
                _ => format!("{}min {}s", n / 60, n % 60),
            };
            let (number, job) = [(1, "Network"), (2, "/dev/vdb")][n % 2];
            let job = format!("({number} of 2) A start job is running for {job}");
            text.push_str(&format!(
                "\r\u{1b}[K[{stars}] {job} ({time} / no limit)\r\n"
            ));
        }
        text.push_str("\r\n[FAILED] Failed to start networking.\r\n");
        std::fs::write(&log, text).unwrap();
        assert_eq!(
            tail(&log, 12),
            [
                "[  OK  ] Reached target network.target",
                "[*     ] (1 of 2) A start job is running for Network (3min 18s / no limit)",
                "[**    ] (2 of 2) A start job is running for /dev/vdb (3min 19s / no limit)",
                "[FAILED] Failed to start networking.",
            ]
        );
        std::fs::write(&log, "[    0.1] sda1\n[    0.1] sda1\n").unwrap();
        assert_eq!(tail(&log, 5).len(), 2);
    }

    #[test]
    fn a_guest_that_boots_by_itself_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        let write = |text: &str| {
            let mut file = File::options().create(true).append(true).open(&log);
            std::io::Write::write_all(file.as_mut().unwrap(), text.as_bytes()).unwrap();
        };
        assert!(!boots_since(&log, 0));
        write("[    0.000000] Linux version 6.1\r\n\r\nweb login: ");
        let length = console_length(&log);
        assert!(!boots_since(&log, length));
        write("[  900.1] a line\r\n");
        assert!(!boots_since(&log, length));
        write("[  901.1] reboot: Restarting system\r\n");
        assert!(boots_since(&log, length));
        write("[    0.000000] Linux version 6.1\r\n");
        assert!(boots_since(&log, length));
        write("\r\nDebian GNU/Linux 12 web ttyS0\r\n\r\nweb login: ");
        assert!(!boots_since(&log, length));
        // virtlogd has begun another file.
        std::fs::write(&log, "reboot: Restarting system").unwrap();
        assert!(boots_since(&log, length));
    }

    #[test]
    fn a_login_prompt_is_known() {
        let is = |text: &str| shows_prompt(&text.lines().map(str::to_string).collect::<Vec<_>>());
        assert!(is("Debian GNU/Linux 12 web ttyS0\n\nweb login: "));
        assert!(is("web login:\n[   12.3] random: crng init done"));
        assert!(!is("Last login: Mon Nov 30\nLast login:"));
        assert!(!is(
            "Started systemd-logind.service - User Login Management."
        ));
    }

    #[test]
    fn no_log_is_no_lines() {
        assert_eq!(last_line(Path::new("/nonexistent/log")), None);
        assert!(tail(Path::new("/nonexistent/log"), 5).is_empty());
    }
}
