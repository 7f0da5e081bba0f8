//! Builds the arguments of rsync(1), and runs it once.

use std::{
    ffi::{OsStr, OsString},
    io::Write,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    process::Stdio,
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
        confine::{Access, FileRules},
        open,
        process::{Start, Tree},
        runtime::blocking,
        shell::shell_quote,
    },
    report::{bytes, clean::Shown, elapsed},
};

use super::{
    error::SyncError,
    filter::{Filter, holes},
    outcome::{RsyncResult, judge},
};

/// What a push copies, where to and how.
#[derive(Clone, Debug)]
pub struct RsyncTarget<'a> {
    pub from: &'a Path,
    /// Absolute, in the guest.
    pub to: &'a str,
    /// `from` is a folder whose content is copied into `to`. Otherwise `from` becomes `to`.
    pub contents: bool,
    pub exclude: &'a [String],
    pub delete: bool,
    /// Copy as root, and give the files to this owner; `None`: copy as the login user, who then owns
    /// them.
    pub as_root: Option<&'a str>,
    /// Permissions of files, as in chmod(1). Folders get the same, and can also be entered by everybody
    /// who may read the files.
    pub mode: Option<u32>,
    pub progress: bool,
}

/// Further options, which only the sync of a folder needs.
#[derive(Clone, Copy, Default)]
pub(super) struct Extra<'a> {
    /// Filter rules in place of `exclude`.
    pub rules: Option<&'a Rules>,
    /// Only these paths, relative to the folder and each followed by a NUL; those that do not exist any
    /// more are deleted on the other side too. `None`: the whole folder.
    pub paths: Option<&'a [u8]>,
    /// Change nothing, and list what would change.
    pub dry_run: bool,
    /// Count the changes.
    pub count: bool,
    /// The size of the whole folder in bytes: progress is a percentage of it. Without this, rsync scans the
    /// whole folder before it sends anything.
    pub of_bytes: Option<u64>,
    /// Files have holes: send them compressed, which leaves almost nothing of the zeros that rsync reads there, and
    /// make holes of zeros in the guest. It costs time elsewhere: rsync then writes 1 KiB at a time.
    pub sparse: bool,
}

/// The progress of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub percent: u8,
    pub rate: String,
    pub eta: String,
}

/// A day, in seconds.
const DAY: f64 = 86_400.0;

impl Progress {
    /// Returns the progress after `done` of `total` bytes and the time `so_far`.
    pub fn at(done: u64, total: u64, so_far: Duration) -> Self {
        let rate = done as f64 / so_far.as_secs_f64().max(0.001);
        let left = total.saturating_sub(done) as f64 / rate.max(1.0);
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(0);
        Progress {
            percent: u8::try_from(percent.min(100)).unwrap_or(100),
            rate: format!("{}/s", bytes(rate as u64)),
            // If the guest has most of the folder, most bytes are never sent and the estimate is far off.
            eta: if left < DAY {
                elapsed(Duration::from_secs_f64(left))
            } else {
                "over a day".into()
            },
        }
    }
}

/// Filter rules in a file. The file needs a name, because rsync cannot open it through /proc/PID/fd.
pub(super) struct Rules {
    file: tempfile::NamedTempFile,
}

impl Rules {
    pub(super) fn new(rules: &[u8]) -> Result<Self, SyncError> {
        let written = || -> std::io::Result<Self> {
            let mut file = tempfile::Builder::new().prefix("stead-sync.").tempfile()?;
            file.write_all(rules)?;
            Ok(Rules { file })
        };
        let folder = std::env::temp_dir();
        written().map_err(SyncError::file("write a file in", &folder))
    }

    /// A descriptor of the file, for the rule that lets rsync read it.
    pub(super) fn opened(&self) -> Result<OwnedFd, SyncError> {
        let file = self.file.as_file().try_clone();
        let file = file.map_err(SyncError::file("open", self.file.path()))?;
        Ok(file.into())
    }

    /// The argument for rsync, to be used together with `--from0`.
    pub(super) fn filter(&self) -> String {
        format!("--filter=. {}", self.file.path().to_string_lossy())
    }
}

/// The program that rsync starts to reach the machine.
pub(super) struct RemoteShell {
    /// The value of `-e`.
    pub words: String,
    /// The files of the host that it opens. `None` in tests whose machine is a folder of this host: rsync
    /// is not confined then.
    pub opens: Option<Vec<(PathBuf, Access)>>,
}

impl RemoteShell {
    pub(super) fn of(remote: &Remote) -> Result<Self, SyncError> {
        let config = remote.ssh_config();
        let sockets = remote.files.control_socket().parent();
        let opens = [
            Some((remote.files.folder(), Access::Tree)),
            config.parent().map(|folder| (folder, Access::Tree)),
            sockets.map(|folder| (folder, Access::Folder)),
        ];
        let opens = opens.into_iter().flatten();
        // The folder of this host that is a test's guest.
        #[cfg(test)]
        let ground = std::env::var_os("STEAD_TEST_GROUND").map(PathBuf::from);
        #[cfg(test)]
        let opens = opens.chain((ground.iter()).map(|it| (it.as_path(), Access::Folder)));
        Ok(RemoteShell {
            words: words(remote)?,
            opens: Some(
                opens
                    .map(|(path, access)| (path.to_path_buf(), access))
                    .collect(),
            ),
        })
    }

    /// Confines rsync to the `given` files and to those of its connection, whatever the other side tells
    /// it or puts in place of a folder.
    pub(super) fn file_rules(
        &self,
        given: &[(&OwnedFd, Access)],
    ) -> Result<Option<FileRules>, SyncError> {
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
        FileRules::new(&all)
            .map(Some)
            .map_err(SyncError::io("confine rsync"))
    }
}

/// Returns the program, which is stead: the guest's login shell must not get to see rsync's command, nor rsync what the
/// login prints.
#[cfg(not(test))]
fn words(remote: &Remote) -> Result<String, SyncError> {
    let program =
        crate::host::process::own_program().map_err(SyncError::io("find stead itself"))?;
    let [program, folder] =
        [program.as_path(), remote.files.folder()].map(|path| rsync_quote(&path.to_string_lossy()));
    Ok(format!("{program} through {folder}"))
}

/// As there, but the program of a test is not stead.
#[cfg(test)]
fn words(remote: &Remote) -> Result<String, SyncError> {
    let config = remote.ssh_config();
    Ok(format!("ssh -F {}", rsync_quote(&config.to_string_lossy())))
}

pub(super) fn arguments(
    target: &RsyncTarget<'_>,
    extra: Extra<'_>,
    shell: &str,
    machine: &str,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut push = |text: &str| arguments.push(text.into());
    // Like --archive, but without owner and group: the host's ids mean nothing in the guest. A folder in
    // a list is sent without its content.
    push(match extra.paths {
        None => "-rlptD",
        Some(_) => "-dlptD",
    });
    // Names of one file stay names of one file. Without such names this costs nothing.
    push("--hard-links");
    if extra.sparse {
        push("--sparse");
        push("--compress");
        push("--compress-level=1");
    }
    // Nor does the guest's `sh` get to see file names.
    push("--secluded-args");
    // By default rsync takes two files with the same size and the same second for equal. Files in a
    // list are known to have changed.
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
        // With a list this deletes nothing outside of it, but it makes rsync send the rules to the guest.
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
        // Everybody who may read the files may enter the folders.
        let folders = (mode & 0o777) | ((mode & 0o444) >> 2);
        push(&format!("--chmod=D{folders:04o},F{mode:04o}"));
    }
    let folder = if target.contents {
        target.to.to_string()
    } else {
        parent(target.to)
    };
    let folder = shell_quote(&folder);
    // One connection is enough: the command that starts rsync in the guest makes the folder first.
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
    // Relative to the folder that was opened: `Opened`.
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

/// Pushes, and reports progress to `each`.
pub async fn push(
    target: &RsyncTarget<'_>,
    remote: &Remote,
    each: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), SyncError> {
    let extra = Extra {
        sparse: has_holes(target).await,
        ..Extra::default()
    };
    push_with(
        target,
        extra,
        &RemoteShell::of(remote)?,
        &remote.machine,
        each,
    )
    .await?;
    Ok(())
}

/// How many bytes of holes are worth to be sent as such.
const WORTH: u64 = 1 << 20;

/// Whether files with so many bytes of holes are sent as sparse files.
pub(super) fn is_sparse(holes: u64) -> bool {
    holes >= WORTH
}

async fn has_holes(target: &RsyncTarget<'_>) -> bool {
    let (from, exclude) = (target.from.to_path_buf(), target.exclude.to_vec());
    let holes = blocking(move || match std::fs::symlink_metadata(&from) {
        Ok(it) if it.is_dir() => {
            let surveyed = Filter::new(&from, &exclude, false).survey(true);
            surveyed.map_or(0, |survey| survey.holes)
        }
        Ok(it) => holes(&it),
        // rsync reports it.
        Err(_) => 0,
    });
    holes.await.is_ok_and(is_sparse)
}

/// The files to send, opened once: somebody who can write to a folder above cannot make rsync read the
/// target of a symlink.
struct Opened {
    /// The working folder of rsync.
    folder: OwnedFd,
    /// What rsync may read: one file, or the whole folder.
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

/// Returns the error for a synced folder or file that could not be opened by its name.
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
    shell: &RemoteShell,
    machine: &str,
    each: &mut (dyn FnMut(Progress) + Send),
) -> Result<RsyncResult, SyncError> {
    let Opened { folder, sent } = opened(target)?;
    let arguments = arguments(target, extra, &shell.words, machine);
    let rules = extra.rules.map(Rules::opened).transpose()?;
    let sent_as = match target.contents || target.from.is_dir() {
        true => Access::Tree,
        false => Access::Read,
    };
    let mut given = vec![(&sent, sent_as)];
    given.extend(rules.as_ref().map(|rules| (rules, Access::Read)));
    let rules = shell.file_rules(&given)?;
    let started = Instant::now();
    let ended = run(
        &arguments,
        Some(&folder),
        rules,
        extra.paths,
        extra.dry_run,
        &mut |sent| match extra.of_bytes {
            None => each(sent.progress),
            Some(total) => {
                if sent.bytes > 0 {
                    each(Progress::at(sent.bytes, total, started.elapsed()));
                }
            }
        },
    )
    .await?;
    judge(ended, target, machine).map_err(|error| match opened(target) {
        // The folder was swapped while rsync worked, and that is why rsync failed.
        Err(swapped @ SyncError::Swapped { .. }) => swapped,
        _ => error,
    })
}

/// In bytes. A name has at most 4096, and rsync may write each of them as the 5 of `\#ooo`.
const LONGEST_LINE: usize = 32 << 10;
/// Names in a list. Those to be deleted come from the guest, so their number has no limit of its own.
const MOST_LISTED: usize = 100_000;
/// How much of rsync's messages is kept, in bytes, from the start and from the end.
const MOST_SAID: usize = 64 << 10;

/// What `--info=skip1` prints after the name of a file above `--max-size`.
const TOO_LARGE: &str = " is over max-size";

/// Returns the name in `skipping non-regular file "NAME"`.
fn special(line: &str) -> Option<&str> {
    (line.strip_prefix("skipping non-regular file \"")?).strip_suffix('"')
}

/// Runs rsync to its end. With `list`, the result has rsync's list in `listed`.
#[expect(
    clippy::disallowed_methods,
    reason = "its output is read while it runs"
)]
pub(super) async fn run(
    arguments: &[impl AsRef<OsStr>],
    folder: Option<&OwnedFd>,
    rules: Option<FileRules>,
    input: Option<&[u8]>,
    list: bool,
    each: &mut (dyn FnMut(Sent) + Send),
) -> Result<RsyncResult, SyncError> {
    let mut command = Command::new("rsync");
    if let Some(folder) = folder {
        command.current_dir(open::in_proc(folder));
    }
    if let Some(rules) = rules {
        // ssh starts its ProxyCommand by a shell, and the user's own shell may be outside of the allowed folders.
        command.env("SHELL", "/bin/sh");
        rules.apply(command.as_std_mut());
    }
    command.args(arguments);
    // The user's settings for rsync would change what it does: with RSYNC_ICONV, names arrive as others.
    for (name, _) in std::env::vars_os() {
        if name.as_bytes().starts_with(b"RSYNC_") {
            command.env_remove(name);
        }
    }
    let mut child = command
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
        .start()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => SyncError::NoRsync,
            _ => SyncError::Spawn(error),
        })?;
    // Kills its ssh too, if this future is dropped.
    let tree = Tree::of(child.id());
    let pipe = child.stdin.take();
    let feed = async {
        if let Some((mut pipe, input)) = pipe.zip(input) {
            // rsync may stop reading early; its exit code shows whether it failed.
            let _ = pipe.write_all(input).await;
            let _ = pipe.shutdown().await;
        }
    };
    let mut out = child.stdout.take();
    let mut err = child.stderr.take();
    let mut ended = RsyncResult::default();
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
                        } else if let Some(name) = special(&text) {
                            if ended.special.len() < MOST_LISTED {
                                ended.special.push(name.to_string());
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
    // A ControlMaster that ssh leaves behind may keep stderr open. So this waits for the end of stdout
    // and of rsync, and takes what is on stderr by then.
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

/// rsync's progress (`--info=progress2`).
pub(super) struct Sent {
    bytes: u64,
    progress: Progress,
}

/// Parses `  1,234,567  45%   12.34MB/s    0:00:03`, which has more text at a file's end.
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

/// Quotes a word for `-e`, which rsync splits at spaces itself: it knows quotes, and a doubled quote
/// inside them (rsync(1), "--rsh").
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
