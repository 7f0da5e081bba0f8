//! Ansible's programs on the host: found, started in a group of their own, read, ended as a whole.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::process::{Child, Command};

use crate::guest::read_lines;

use super::error::AnsibleError;

/// Where a program is that PATH has.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| {
            path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
        })
}

/// Kills a program and all that it started, when it is dropped before the program ended: Ansible's
/// workers, and the ssh that each has.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Its own folder for decrypted files is removed by whoever made it.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs a program to its end and hands each line that it prints to `each` (whether it came on
/// stderr, and the line without its end). Given up, it ends with all that it started.
pub async fn run(
    program: &'static str,
    mut command: Command,
    at: &str,
    each: &mut (dyn FnMut(bool, &str) + Send),
) -> Result<ExitStatus, AnsibleError> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C is for stead, which decides.
        .process_group(0)
        .kill_on_drop(true);
    let mut child: Child = command.spawn().map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            AnsibleError::Missing {
                at: at.to_string(),
                program,
            }
        } else {
            AnsibleError::Start { program, source }
        }
    })?;
    let mut group = Group(
        child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw),
    );
    let ended = read_lines(child.stdout.take(), child.stderr.take(), child.wait(), each).await;
    if ended.is_ok() {
        group.0 = None;
    }
    ended.map_err(|source| AnsibleError::Start { program, source })
}

/// The words of a script's first line: `#!/usr/bin/env python3`.
pub fn interpreter(program: &Path) -> Option<Vec<String>> {
    use std::io::{BufRead, BufReader, Read};
    let file = std::fs::File::open(program).ok()?;
    let mut line = Vec::new();
    // Binaries have no line ends; 4096 is more than the kernel reads of one.
    BufReader::new(file.take(4096))
        .read_until(b'\n', &mut line)
        .ok()?;
    let line = String::from_utf8(line).ok()?;
    let words: Vec<String> = line
        .strip_prefix("#!")?
        .split_whitespace()
        .map(ToString::to_string)
        .collect();
    (!words.is_empty()).then_some(words)
}
