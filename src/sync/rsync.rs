use std::{ffi::OsString, path::PathBuf, process::Stdio};

use miette::Diagnostic;
use thiserror::Error;
use tokio::{io::AsyncReadExt, process::Command};

use crate::guest::{Remote, shell_quote};

#[derive(Debug, Error, Diagnostic)]
pub enum SyncError {
    #[error("rsync is not installed on the host")]
    #[diagnostic(help("install it (Debian: `apt install rsync`)"))]
    NoRsync,
    #[error("the guest {machine} has no rsync")]
    #[diagnostic(help(
        "install it there (`stead exec {machine} -- sudo apt-get install -y rsync`), or use a box that has it"
    ))]
    NoRsyncInGuest { machine: String },
    #[error("{from} is not there any more", from = .from.display())]
    #[diagnostic(help("put it back, or take its `sync` out of the Machinefile"))]
    Gone { from: PathBuf },
    #[error("the guest's disk is full: {said}")]
    #[diagnostic(help(
        "free space in the guest, exclude what it does not need, or give the machine a larger `disk` and replace it"
    ))]
    GuestFull { said: String },
    #[error("rsync of {from} to {to} failed ({code}): {said}", from = .from.display())]
    #[diagnostic(help("`stead sync {machine}` tries again; rsync(1) lists the exit codes"))]
    Failed {
        from: PathBuf,
        to: String,
        machine: String,
        code: String,
        said: String,
    },
    #[error("cannot run rsync: {0}")]
    Spawn(std::io::Error),
}

/// Where and how a push goes.
#[derive(Clone, Debug)]
pub struct RsyncTarget<'a> {
    pub from: &'a std::path::Path,
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

/// How far a transfer is, as rsync says it (`--info=progress2`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub percent: u8,
    pub rate: String,
    pub eta: String,
}

/// The words after `rsync`.
pub fn rsync_arguments(target: &RsyncTarget<'_>, remote: &Remote) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut push = |text: &str| arguments.push(text.into());
    // Archive, less owner and group: the host's ids mean nothing in the guest.
    push("-rlptD");
    // File names reach the guest as they are, whatever its shell makes of them.
    push("--secluded-args");
    if target.delete {
        push("--delete");
    }
    if target.progress {
        push("--info=progress2");
        push("--no-inc-recursive");
    }
    for pattern in target.exclude {
        push(&format!("--exclude={pattern}"));
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
    push(&format!(
        "ssh -F {}",
        rsync_quote(&remote.ssh_config().to_string_lossy())
    ));
    push("--");
    let mut from = target.from.as_os_str().to_os_string();
    if target.contents {
        from.push("/");
    }
    arguments.push(from);
    arguments.push(
        format!(
            "{}:{}{}",
            remote.machine,
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
    if !target.from.exists() {
        return Err(SyncError::Gone {
            from: target.from.to_path_buf(),
        });
    }
    let mut child = Command::new("rsync")
        .args(rsync_arguments(target, remote))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => SyncError::NoRsync,
            _ => SyncError::Spawn(error),
        })?;
    let mut out = child.stdout.take();
    let mut err = child.stderr.take();
    let progress = async {
        let mut buffer = [0u8; 4096];
        let mut line = Vec::new();
        while let Some(pipe) = out.as_mut() {
            match pipe.read(&mut buffer).await {
                Ok(n) if n > 0 => {
                    for byte in &buffer[..n] {
                        if matches!(byte, b'\r' | b'\n') {
                            if let Some(found) = parse(&String::from_utf8_lossy(&line)) {
                                each(found);
                            }
                            line.clear();
                        } else {
                            line.push(*byte);
                        }
                    }
                }
                _ => break,
            }
        }
    };
    let said = async {
        let mut said = Vec::new();
        if let Some(pipe) = err.as_mut() {
            let _ = pipe.read_to_end(&mut said).await;
        }
        String::from_utf8_lossy(&said).trim().to_string()
    };
    let ((), said, status) = tokio::join!(progress, said, child.wait());
    let status = status.map_err(SyncError::Spawn)?;
    if status.success() {
        return Ok(());
    }
    let machine = remote.machine.clone();
    if status.code() == Some(127)
        || said.contains("rsync: command not found")
        || said.contains("rsync: not found")
    {
        return Err(SyncError::NoRsyncInGuest { machine });
    }
    if said.contains("No space left on device") {
        return Err(SyncError::GuestFull { said });
    }
    Err(SyncError::Failed {
        from: target.from.to_path_buf(),
        to: target.to.to_string(),
        machine,
        code: status
            .code()
            .map_or("killed".into(), |code| format!("exit {code}")),
        said,
    })
}

/// `  1,234,567  45%   12.34MB/s    0:00:03`, with more behind it at a file's end.
fn parse(line: &str) -> Option<Progress> {
    let mut words = line.split_whitespace();
    words.next()?;
    let percent = words.next()?.strip_suffix('%')?.parse().ok()?;
    Some(Progress {
        percent,
        rate: words.next()?.to_string(),
        eta: words.next()?.to_string(),
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
        assert_eq!(found.percent, 45);
        assert_eq!(found.rate, "12.34MB/s");
        assert_eq!(parse("sending incremental file list"), None);
    }

    #[test]
    fn parents() {
        assert_eq!(parent("/etc/app/conf"), "/etc/app");
        assert_eq!(parent("/conf"), "/");
    }
}
