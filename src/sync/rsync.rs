//! rsync(1): its arguments, and one run of it.

use std::{
    ffi::{OsStr, OsString},
    io::Write,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

use crate::{
    guest::Remote,
    host::{
        bounded::Ends,
        confine::{Access, Wall},
        open,
        process::Tree,
        shell::shell_quote,
    },
    report::{bytes, clean::Shown, elapsed},
};

use super::{
    error::SyncError,
    outcome::{Ended, judge},
};

/// Where and how a push goes.
#[derive(Clone, Debug)]
pub struct RsyncTarget<'a> {
    pub from: &'a Path,
    /// Absolute, in the guest.
    pub to: &'a str,
    /// A folder's content goes into `to`; a file becomes `to`.
    pub contents: bool,
    pub exclude: &'a [String],
    pub delete: bool,
    /// As root, and with this owner there; else as the login user, who owns it then.
    pub as_root: Option<&'a str>,
    /// Permissions of files, as chmod takes them; of folders too, with leave to enter for who may
    /// read.
    pub mode: Option<u32>,
    pub progress: bool,
}

/// What a sync of a folder needs beside that.
#[derive(Clone, Copy, Default)]
pub struct Extra<'a> {
    /// In place of `exclude`.
    pub rules: Option<&'a Rules>,
    /// Only these, relative to the folder and each with a NUL behind it; those that are not there
    /// any more go on the other side too. All of it where `None`.
    pub paths: Option<&'a [u8]>,
    /// Changes nothing, and lists what it would.
    pub dry_run: bool,
    /// Whether what was changed is counted.
    pub count: bool,
    /// What the progress is a part of, in bytes, once somebody has found it out; else rsync looks
    /// at all of the folder before it sends anything.
    pub of_bytes: Option<&'a OnceLock<u64>>,
}

/// How far a transfer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub percent: u8,
    pub rate: String,
    pub eta: String,
}

/// In seconds.
const DAY: f64 = 86_400.0;

impl Progress {
    /// `done` of `total` bytes after so long.
    pub fn at(done: u64, total: u64, so_far: Duration) -> Self {
        let rate = done as f64 / so_far.as_secs_f64().max(0.001);
        let left = total.saturating_sub(done) as f64 / rate.max(1.0);
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(0);
        Progress {
            percent: u8::try_from(percent.min(100)).unwrap_or(100),
            rate: format!("{}/s", bytes(rate as u64)),
            // Of a folder that is mostly there, most bytes are never sent.
            eta: if left < DAY {
                elapsed(Duration::from_secs_f64(left))
            } else {
                "over a day".into()
            },
        }
    }
}

/// Filter rules in a file. It needs a name: rsync opens none through /proc/PID/fd.
pub struct Rules {
    file: tempfile::NamedTempFile,
}

impl Rules {
    pub fn new(rules: &[u8]) -> std::io::Result<Self> {
        let mut file = tempfile::Builder::new().prefix("stead-sync.").tempfile()?;
        file.write_all(rules)?;
        Ok(Rules { file })
    }

    /// For rsync to be let read it.
    pub(super) fn opened(&self) -> std::io::Result<OwnedFd> {
        Ok(self.file.as_file().try_clone()?.into())
    }

    /// For rsync, together with `--from0`.
    pub(super) fn filter(&self) -> String {
        format!("--filter=. {}", self.file.path().to_string_lossy())
    }
}

/// The words after `rsync`.
pub fn rsync_arguments(target: &RsyncTarget<'_>, remote: &Remote) -> Vec<OsString> {
    let shell = Shell::of(remote);
    arguments(target, Extra::default(), &shell.words, &remote.machine)
}

/// What rsync starts to reach the machine.
pub(super) struct Shell {
    /// As `-e` has them.
    pub words: String,
    /// What that opens of the host. `None` in tests whose machine is a folder of this host: no wall.
    pub opens: Option<Vec<(PathBuf, Access)>>,
}

impl Shell {
    pub fn of(remote: &Remote) -> Self {
        let config = remote.ssh_config();
        let sockets = remote.files.control_socket().parent();
        let opens = [
            Some((remote.files.folder(), Access::Tree)),
            config.parent().map(|folder| (folder, Access::Tree)),
            sockets.map(|folder| (folder, Access::Folder)),
        ];
        let opens = opens.into_iter().flatten();
        // Where a test's guest is a folder of this host.
        #[cfg(test)]
        let ground = std::env::var_os("STEAD_TEST_GROUND").map(PathBuf::from);
        #[cfg(test)]
        let opens = opens.chain((ground.iter()).map(|it| (it.as_path(), Access::Folder)));
        Shell {
            words: format!("ssh -F {}", rsync_quote(&config.to_string_lossy())),
            opens: Some(
                opens
                    .map(|(path, access)| (path.to_path_buf(), access))
                    .collect(),
            ),
        }
    }

    /// What keeps rsync to what it is for, whatever the other side tells it or puts in the place of a
    /// folder: these, and what connects it.
    pub fn wall(&self, given: &[(&OwnedFd, Access)]) -> std::io::Result<Option<Wall>> {
        let Some(opens) = &self.opens else {
            return Ok(None);
        };
        let opened: Vec<(OwnedFd, Access)> = (opens.iter())
            .filter_map(|(path, access)| {
                let path = path.canonicalize().ok()?;
                Some((open::folder(&path).ok()?, *access))
            })
            .collect();
        let all: Vec<(&OwnedFd, Access)> = (opened.iter())
            .map(|(at, access)| (at, *access))
            .chain(given.iter().copied())
            .collect();
        Wall::new(&all).map(Some)
    }
}

pub(super) fn arguments(
    target: &RsyncTarget<'_>,
    extra: Extra<'_>,
    shell: &str,
    machine: &str,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut push = |text: &str| arguments.push(text.into());
    // Archive, less owner and group: the host's ids mean nothing in the guest. Of what is listed,
    // folders go by themselves.
    push(match extra.paths {
        None => "-rlptD",
        Some(_) => "-dlptD",
    });
    // File names reach the guest as they are, whatever its shell makes of them.
    push("--secluded-args");
    // By itself rsync takes two files of one size and one second for the same. What is listed is
    // known to have changed.
    push(match extra.paths {
        None => "--modify-window=-1",
        Some(_) => "--ignore-times",
    });
    if extra.rules.is_some() || extra.paths.is_some() {
        push("--from0");
    }
    if extra.paths.is_some() {
        push("--files-from=-");
        push(if target.delete {
            "--delete-missing-args"
        } else {
            "--ignore-missing-args"
        });
    }
    if target.delete {
        // With a list it deletes nothing that is not in it, but has the guest know the rules.
        push("--delete");
        if extra.paths.is_some() {
            push("--force");
        }
    }
    if target.progress {
        push("--info=progress2");
        if extra.of_bytes.is_none() {
            push("--no-inc-recursive");
        }
    }
    if extra.dry_run {
        push("--dry-run");
        push("--8-bit-output");
        push("--out-format=%i %n%L");
    } else if extra.count {
        push("--out-format=%i");
    }
    match extra.rules {
        Some(rules) => push(&rules.filter()),
        None => {
            for pattern in target.exclude {
                push(&format!("--exclude={pattern}"));
            }
        }
    }
    if let Some(mode) = target.mode {
        // Whoever may read the files may enter the folders.
        let folders = (mode & 0o777) | ((mode & 0o444) >> 2);
        push(&format!("--chmod=D{folders:04o},F{mode:04o}"));
    }
    let folder = if target.contents {
        target.to.to_string()
    } else {
        parent(target.to)
    };
    let folder = shell_quote(&folder);
    // One connection does it all: rsync's server is started by a line that makes the folder first.
    let server = match target.as_root {
        _ if extra.dry_run => match target.as_root {
            Some(_) => "sudo -n rsync".to_string(),
            None => "rsync".to_string(),
        },
        Some(owner) => {
            push("--owner");
            push("--group");
            push(&format!("--chown={owner}"));
            format!("sudo -n mkdir -p {folder} && sudo -n rsync")
        }
        None => format!(
            "{{ test -w {folder} || sudo -n install -d -o \"$(id -un)\" -g \"$(id -gn)\" {folder}; }} && rsync"
        ),
    };
    push(&format!("--rsync-path={server}"));
    push("-e");
    push(shell);
    push("--");
    // In the folder that was opened: `Opened`.
    let mut from = OsString::from("./");
    if !target.contents {
        from.push(target.from.file_name().unwrap_or_default());
    }
    arguments.push(from);
    arguments.push(
        format!(
            "{machine}:{}{}",
            target.to,
            if target.contents && !target.to.ends_with('/') {
                "/"
            } else {
                ""
            }
        )
        .into(),
    );
    arguments
}

/// Pushes and reports progress.
pub async fn push(
    target: &RsyncTarget<'_>,
    remote: &Remote,
    each: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), SyncError> {
    push_with(
        target,
        Extra::default(),
        &Shell::of(remote),
        &remote.machine,
        each,
    )
    .await?;
    Ok(())
}

/// What is sent, opened once: whoever may write to a folder above it cannot have rsync read what a symlink
/// leads to.
struct Opened {
    /// Where rsync works.
    folder: OwnedFd,
    /// What it may read: a file alone, or all of the folder.
    sent: OwnedFd,
}

fn opened(target: &RsyncTarget<'_>) -> Result<Opened, SyncError> {
    let folder = match target.contents {
        true => target.from,
        false => target.from.parent().unwrap_or(target.from),
    };
    let both = || {
        Ok(Opened {
            folder: open::folder(folder)?,
            sent: open::in_place(target.from)?,
        })
    };
    both().map_err(|error| not_opened(target.from, error))
}

/// Why what is synced could not be opened by its name.
pub(super) fn not_opened(from: &Path, source: std::io::Error) -> SyncError {
    let from = from.to_path_buf();
    if open::was_swapped(&from) {
        SyncError::Swapped { from }
    } else if !from.exists() {
        SyncError::Gone { from }
    } else {
        SyncError::Io {
            doing: format!("open {}", from.shown()),
            source,
        }
    }
}

pub(super) async fn push_with(
    target: &RsyncTarget<'_>,
    extra: Extra<'_>,
    shell: &Shell,
    machine: &str,
    each: &mut (dyn FnMut(Progress) + Send),
) -> Result<Ended, SyncError> {
    let Opened { folder, sent } = opened(target)?;
    let arguments = arguments(target, extra, &shell.words, machine);
    let rules = extra.rules.map(Rules::opened).transpose()?;
    let sent_as = match target.contents || target.from.is_dir() {
        true => Access::Tree,
        false => Access::Read,
    };
    let mut given = vec![(&sent, sent_as)];
    given.extend(rules.as_ref().map(|rules| (rules, Access::Read)));
    let wall = shell.wall(&given)?;
    let started = Instant::now();
    let ended = run(
        &arguments,
        Some(&folder),
        wall,
        extra.paths,
        extra.dry_run,
        &mut |sent| match extra.of_bytes {
            None => each(sent.progress),
            Some(total) => {
                if let Some(total) = total.get().filter(|_| sent.bytes > 0) {
                    each(Progress::at(sent.bytes, *total, started.elapsed()));
                }
            }
        },
    )
    .await?;
    judge(ended, target, machine).map_err(|error| match opened(target) {
        // It was while rsync worked, which is what it failed at.
        Err(swapped @ SyncError::Swapped { .. }) => swapped,
        _ => error,
    })
}

/// A name is 4096 bytes at most, and has 4 for each that is written as `\#ooo`.
const LONGEST_LINE: usize = 32 << 10;
/// Names in a list; the guest has those to be deleted, and may have any number.
const MOST_LISTED: usize = 100_000;
/// Of complaints, in bytes, at either end.
const MOST_SAID: usize = 64 << 10;

/// What `--info=skip1` says of files that `--max-size` leaves out, after the name.
const TOO_LARGE: &str = " is over max-size";

/// One rsync, to its end. `listed` is filled where `list` asks for it.
pub(super) async fn run(
    arguments: &[impl AsRef<OsStr>],
    folder: Option<&OwnedFd>,
    wall: Option<Wall>,
    input: Option<&[u8]>,
    list: bool,
    each: &mut (dyn FnMut(Sent) + Send),
) -> Result<Ended, SyncError> {
    let mut command = Command::new("rsync");
    if let Some(folder) = folder {
        command.current_dir(open::in_proc(folder));
    }
    if let Some(wall) = wall {
        // ssh has a shell start what connects it, and the user's own may be anywhere.
        command.env("SHELL", "/bin/sh");
        wall.enclose(command.as_std_mut());
    }
    let mut child = command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => SyncError::NoRsync,
            _ => SyncError::Spawn(error),
        })?;
    // Its ssh too, where the wait is given up.
    let tree = Tree::of(child.id());
    let pipe = child.stdin.take();
    let feed = async {
        if let Some((mut pipe, input)) = pipe.zip(input) {
            // It may stop reading early; its exit code tells the rest.
            let _ = pipe.write_all(input).await;
            let _ = pipe.shutdown().await;
        }
    };
    let mut out = child.stdout.take();
    let mut err = child.stderr.take();
    let mut ended = Ended::default();
    let progress = async {
        let mut buffer = [0u8; 4096];
        let mut line = Vec::new();
        while let Some(pipe) = out.as_mut() {
            match pipe.read(&mut buffer).await {
                Ok(n) if n > 0 => {
                    for byte in &buffer[..n] {
                        if !matches!(byte, b'\r' | b'\n') {
                            if line.len() < LONGEST_LINE {
                                line.push(*byte);
                            }
                            continue;
                        }
                        let text = String::from_utf8_lossy(&line);
                        if ended.changes.count(&text) {
                            if list && ended.listed.len() < MOST_LISTED {
                                ended.listed.push(text.into_owned());
                            } else if list {
                                ended.unlisted += 1;
                            }
                        } else if let Some(name) = text.strip_suffix(TOO_LARGE) {
                            if ended.too_large.len() < MOST_LISTED {
                                ended.too_large.push(name.to_string());
                            }
                        } else if let Some(found) = parse(&text) {
                            each(found);
                        }
                        line.clear();
                    }
                }
                _ => break,
            }
        }
    };
    let mut said = Ends::new(MOST_SAID);
    let listen = async {
        let mut buffer = [0u8; 4096];
        while let Some(pipe) = err.as_mut() {
            match pipe.read(&mut buffer).await {
                Ok(n) if n > 0 => said.push(&buffer[..n]),
                _ => break,
            }
        }
    };
    // A ControlMaster that its ssh leaves behind may keep stderr open: the end is that of stdout
    // and of rsync itself, and what had been said by then.
    let both = async {
        let ((), status, ()) = tokio::join!(feed, child.wait(), progress);
        status
    };
    let status = {
        tokio::pin!(listen, both);
        let mut over = false;
        let status = loop {
            tokio::select! {
                status = &mut both => break status,
                () = &mut listen, if !over => over = true,
            }
        };
        if !over {
            let _ = tokio::time::timeout(std::time::Duration::from_millis(50), listen).await;
        }
        status.map_err(SyncError::Spawn)?
    };
    tree.let_go();
    ended.said = said.text().trim().to_string();
    ended.code = status.code();
    Ok(ended)
}

/// What rsync says of its progress (`--info=progress2`).
pub(super) struct Sent {
    bytes: u64,
    progress: Progress,
}

/// `  1,234,567  45%   12.34MB/s    0:00:03`, with more behind it at a file's end.
fn parse(line: &str) -> Option<Sent> {
    let mut words = line.split_whitespace();
    let bytes = words.next()?.replace(',', "").parse().ok()?;
    let percent = words.next()?.strip_suffix('%')?.parse().ok()?;
    Some(Sent {
        bytes,
        progress: Progress {
            percent,
            rate: words.next()?.to_string(),
            eta: words.next()?.to_string(),
        },
    })
}

fn parent(path: &str) -> String {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) | None => "/".into(),
        Some((folder, _)) => folder.into(),
    }
}

/// rsync splits `-e` at spaces itself; it knows quotes, and a quote doubled inside them
/// (rsync(1), "--rsh").
fn rsync_quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines_are_read() {
        let found = parse("  1,234,567  45%   12.34MB/s    0:00:03").unwrap();
        assert_eq!(found.bytes, 1_234_567);
        assert_eq!(found.progress.percent, 45);
        assert_eq!(found.progress.rate, "12.34MB/s");
        assert!(parse("sending incremental file list").is_none());
    }

    #[test]
    fn progress_is_in_words() {
        let half = Progress::at(5 << 30, 10 << 30, Duration::from_secs(10));
        assert_eq!(
            (half.percent, half.rate.as_str(), half.eta.as_str()),
            (50, "512 MiB/s", "10.0s")
        );
        assert_eq!(Progress::at(0, 0, Duration::ZERO).percent, 0);
        let little = Progress::at(12, 10 << 30, Duration::from_secs(1));
        assert_eq!((little.percent, little.eta.as_str()), (0, "over a day"));
    }

    #[test]
    fn parents() {
        assert_eq!(parent("/etc/app/conf"), "/etc/app");
        assert_eq!(parent("/conf"), "/");
    }
}
