//! Reads the result of an rsync that has ended.

use std::path::Path;

use crate::{
    guest::about_connection,
    report::{clean::Shown, counted},
};

use super::{error::SyncError, rsync::RsyncTarget};

/// How many changes rsync made on the other side, by its itemized list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files and links that were made or written.
    pub sent: u64,
    /// Folders that were made.
    pub made: u64,
    pub deleted: u64,
    /// Files and folders of which only owner, permissions or times changed, but for folders whose time alone did: that
    /// changes whenever something in them is made or deleted, on either side.
    pub touched: u64,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// Counts a line of `--out-format=%i`. Returns `false` if the line is something else.
    pub(super) fn count(&mut self, line: &str) -> bool {
        let code = line.split(' ').next().unwrap_or_default().as_bytes();
        match code {
            b"*deleting" => self.deleted += 1,
            [b'c', b'd', ..] if code.len() >= 9 => self.made += 1,
            [b'<' | b'>' | b'c' | b'h', b'f' | b'L' | b'D' | b'S', ..] if code.len() >= 9 => {
                self.sent += 1;
            }
            [b'.', b'd', changed @ ..] if code.len() >= 9 && is_time_alone(changed) => {}
            [b'.', b'f' | b'd' | b'L' | b'D' | b'S', ..] if code.len() >= 9 => self.touched += 1,
            _ => return false,
        }
        true
    }
}

/// Whether of what rsync lists as changed (`cstpoguax`, rsync(1), "--itemize-changes"), it is the time.
fn is_time_alone(changed: &[u8]) -> bool {
    let changes: Vec<u8> = (changed.iter().copied())
        .filter(|letter| *letter != b'.')
        .collect();
    matches!(changes.as_slice(), b"t" | b"T")
}

/// The result of an rsync that has ended.
#[derive(Debug, Default)]
pub struct RsyncResult {
    /// `None`: killed by a signal.
    pub code: Option<i32>,
    pub said: String,
    pub changes: Changes,
    /// Lines of rsync's list, if they were asked for.
    pub listed: Vec<String>,
    /// How many more lines there were.
    pub unlisted: u64,
    /// Names of files above `--max-size`.
    pub too_large: Vec<String>,
    /// Names of pipes, sockets and devices that rsync skipped.
    pub special: Vec<String>,
}

/// How many names an error lists.
const NAMED: usize = 5;

/// Turns rsync's exit code and messages into a result or an error (rsync(1), "EXIT VALUES").
pub(super) fn judge(
    result: RsyncResult,
    target: &RsyncTarget<'_>,
    machine: &str,
) -> Result<RsyncResult, SyncError> {
    let gone = || SyncError::Gone {
        from: target.from.to_path_buf(),
    };
    match result.code {
        Some(0) => return Ok(result),
        // Files vanished while rsync read them. The next sync deletes them in the guest.
        Some(24) if target.from.exists() => return Ok(result),
        Some(24) => return Err(gone()),
        _ => {}
    }
    let said = last_words(&result.said);
    let all = &result.said;
    let machine = machine.to_string();
    let to = target.to.to_string();
    let from = target.from.to_path_buf();
    if result.code == Some(127)
        || ["rsync: command not found", "rsync: not found"]
            .iter()
            .any(|it| all.contains(it))
    {
        return Err(SyncError::NoRsyncInGuest {
            machine,
            said: None,
        });
    }
    if let Some(line) = (all.lines()).find(|it| it.contains("No space left on device")) {
        return Err(SyncError::GuestFull {
            said: line.trim_start_matches("rsync: ").to_string(),
        });
    }
    if let Some(name) = (all.lines()).find_map(|it| it.split_once("name on receiver: ")) {
        return Err(SyncError::NoOwner {
            machine,
            name: name.1.to_string(),
        });
    }
    if !target.from.exists() {
        return Err(gone());
    }
    let denied: Vec<&str> = (all.lines())
        .filter(|it| it.contains("Permission denied") || it.contains("Operation not permitted"))
        .collect();
    let here: Vec<&str> = (denied.iter())
        .filter(|it| it.contains("[sender]"))
        .filter_map(|it| it.split('"').nth(1))
        .collect();
    if let Some(line) = denied
        .iter()
        .find(|it| !it.contains("[sender]") && it.contains("rsync:"))
    {
        return Err(SyncError::GuestDenied {
            to,
            machine,
            said: line.trim_start_matches("rsync: ").to_string(),
        });
    }
    if !here.is_empty() {
        let names: Vec<String> = here
            .iter()
            .take(NAMED)
            .map(|name| {
                Path::new(name)
                    .strip_prefix(target.from)
                    .unwrap_or(Path::new(name))
                    .shown()
            })
            .collect();
        let more = here.len() - names.len();
        return Err(SyncError::HostUnreadable {
            from,
            count: counted(here.len(), "file"),
            names: format!(
                "{}{}",
                names.join(", "),
                if more > 0 {
                    format!(" and {more} more")
                } else {
                    String::new()
                }
            ),
            user: nix::unistd::User::from_uid(nix::unistd::geteuid())
                .ok()
                .flatten()
                .map_or("your user".into(), |user| user.name),
        });
    }
    if matches!(result.code, Some(10 | 12 | 30 | 35 | 255)) {
        let said = (about_connection(all).lines())
            .find(|it| !it.starts_with("rsync") && !it.trim().is_empty())
            .unwrap_or_default()
            .to_string();
        return Err(SyncError::Lost {
            machine,
            from,
            to,
            said,
        });
    }
    Err(SyncError::Failed {
        from,
        to,
        machine,
        code: result
            .code
            .map_or("killed".into(), |code| format!("exit {code}")),
        said,
    })
}

/// The last lines of rsync's messages, without the one that repeats that it failed.
fn last_words(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.starts_with("rsync error:") && !line.trim().is_empty())
        .collect();
    if lines.is_empty() {
        return said.trim().to_string();
    }
    lines[lines.len().saturating_sub(NAMED)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rsyncs_list_is_counted() {
        let mut changes = Changes::default();
        for line in [
            "<f+++++++++ ",
            "<f.st......",
            "cd+++++++++",
            "cL+++++++++",
            "*deleting  ",
            ".d..t......",
            ".d..tp.....",
            ".f..t......",
        ] {
            assert!(changes.count(line), "{line}");
        }
        assert!(!changes.count("  1,234,567  45%   12.34MB/s    0:00:03"));
        assert!(!changes.count("sending incremental file list"));
        assert_eq!(
            changes,
            Changes {
                sent: 3,
                made: 1,
                deleted: 1,
                touched: 2
            }
        );
    }

    fn judged(code: i32, said: &str, from: &Path) -> Result<RsyncResult, SyncError> {
        let target = RsyncTarget {
            from,
            to: "/srv/app",
            contents: true,
            exclude: &[],
            delete: true,
            as_root: None,
            mode: None,
            progress: false,
        };
        let result = RsyncResult {
            code: Some(code),
            said: said.into(),
            ..RsyncResult::default()
        };
        judge(result, &target, "web")
    }

    #[test]
    fn failures_say_what_they_are() {
        let here = std::env::temp_dir();
        let text = |code, said: &str| judged(code, said, &here).unwrap_err().to_string();
        assert!(judged(24, "file has vanished: \"/tmp/x\"", &here).is_ok());
        assert!(matches!(
            judged(24, "", Path::new("/nowhere/at/all")),
            Err(SyncError::Gone { .. })
        ));
        assert_eq!(
            text(
                11,
                "rsync: [receiver] write failed on \"/srv/app/big\": No space left on device (28)\nrsync error: error in file IO (code 11) at receiver.c(380)"
            ),
            "the guest's disk is full: [receiver] write failed on \"/srv/app/big\": No space left on device (28)"
        );
        let inside = here.join("a b");
        let denied = text(
            23,
            &format!(
                "rsync: [sender] send_files failed to open \"{}\": Permission denied (13)\nrsync error: some files/attrs were not transferred (code 23)",
                inside.display()
            ),
        );
        assert!(denied.starts_with("cannot read 1 file of /"), "{denied}");
        assert!(denied.ends_with(" on the host: a b"), "{denied}");
        assert!(
            text(
                23,
                "rsync: [receiver] mkstemp \"/srv/app/.f.Ab12Cd\" failed: Permission denied (13)"
            )
            .starts_with("cannot write to /srv/app of web: ")
        );
        assert!(matches!(
            judged(255, "ssh: connect to host 127.0.0.1 port 2222: Connection refused\r\nrsync: connection unexpectedly closed (0 bytes received so far) [sender]\nrsync error: unexplained error (code 255) at io.c(232)", &here),
            Err(SyncError::Lost { said, .. }) if said.contains("Connection refused")
        ));
        assert!(matches!(
            judged(127, "sh: 1: rsync: not found", &here),
            Err(SyncError::NoRsyncInGuest { .. })
        ));
        assert!(matches!(
            judged(1, "Unknown --usermap name on receiver: app", &here),
            Err(SyncError::NoOwner { name, .. }) if name == "app"
        ));
    }
}
