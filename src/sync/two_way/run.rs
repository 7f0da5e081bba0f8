//! Runs unison on the host, in its sandbox, with a connection to the guest.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    time::timeout,
};

use crate::{
    guest::Remote,
    host::{bounded::Ends, open, process::Start},
    machinefile::SyncFolder,
    report::clean::Shown,
    sync::ignore::git_ignores,
};

use super::{
    archives::Archives,
    error::{TwoWayError, io},
    unison::{arguments, last_words},
};

/// provisioners/host/shut-in.
const SHUT_IN: &str = include_str!("../../../provisioners/host/shut-in");

pub(super) struct Run<'a> {
    pub folder: &'a SyncFolder,
    pub remote: &'a Remote,
    pub program: &'a Path,
    pub archives: &'a Archives,
    pub server: String,
}

pub(super) enum UnisonResult {
    Output(String),
    /// One side remembers, and the other one does not.
    Forgotten,
}

impl Run<'_> {
    /// Syncs `only` these files, compared by content, or the whole folder if there are none.
    pub(super) async fn once(&self, only: &[PathBuf]) -> Result<UnisonResult, TwoWayError> {
        let ignored = match self.folder.gitignore {
            true => git_ignores(&self.folder.from),
            false => Vec::new(),
        };
        let mut words = arguments(
            self.folder,
            &self.remote.machine,
            &self.archives.connection(),
            &ignored,
        );
        if !only.is_empty() {
            words.extend(["-fastcheck".into(), "false".into()]);
        }
        for path in only {
            words.extend(["-path".into(), path.clone().into_os_string()]);
        }
        let (status, said) = self.unison(&words).await?;
        let forgotten = [
            "archive file is missing",
            "inconsistent state",
            "archives are missing",
        ];
        if forgotten.iter().any(|words| said.contains(words)) {
            return Ok(UnisonResult::Forgotten);
        }
        if said.contains("confirmbigdel") {
            return Err(TwoWayError::Emptied {
                empty: format!(
                    "{} or {} in {}",
                    self.folder.from.shown(),
                    self.folder.to,
                    self.remote.machine
                ),
                other: "the other side".into(),
            });
        }
        // 0: both sides are equal; 1: some files were skipped, because of conflicts (unison's manual,
        // "Exit Code").
        match status.code() {
            Some(0 | 1) => Ok(UnisonResult::Output(said)),
            _ => Err(self.failed(last_words(&said))),
        }
    }

    /// Runs unison once, in its sandbox, with a connection to the guest that is made here. Returns its exit
    /// status, and the output of unison and ssh.
    #[expect(
        clippy::disallowed_methods,
        reason = "unison and ssh run beside each other"
    )]
    async fn unison(&self, words: &[OsString]) -> Result<(ExitStatus, String), TwoWayError> {
        let mut ssh = match self.remote.start(&self.server).await? {
            Ok(ssh) => ssh,
            Err(output) => return Err(self.failed(output.last_words())),
        };
        let pipes = (ssh.stdin.take(), ssh.stdout.take(), ssh.stderr.take());
        let (Some(to), Some(answers), Some(complaints)) = pipes else {
            return Err(self.failed("ssh has no pipes".into()));
        };
        let own = |source| io("connect", self.program)(source);
        // A guest that can write to a folder above must not put another folder in its place.
        let from = open::folder(&self.folder.from).map_err(|error| {
            match open::was_swapped(&self.folder.from) {
                true => {
                    self.failed("the folder, or one above it, was replaced by a symlink".into())
                }
                false => io("open", &self.folder.from)(error),
            }
        })?;
        // stdin comes from the guest and stderr goes to it, until the shell has moved both (`HAND_OVER`).
        let mut child = Command::new("sh")
            .args(["-c", HAND_OVER, "stead", "unshare"])
            .args(shut_in(
                &Archives::new_root(self.remote),
                &[&self.folder.from, &self.archives.folder],
                self.program,
                words,
            ))
            .current_dir(open::in_proc(&from))
            // The environment may have secrets, and the guest may be able to read it.
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", &self.archives.folder)
            .env("UNISON", &self.archives.folder)
            .env("UNISONLOCALHOSTNAME", "stead-host")
            .stdin(Stdio::from(answers.into_owned_fd().map_err(own)?))
            .stdout(Stdio::piped())
            .stderr(Stdio::from(to.into_owned_fd().map_err(own)?))
            .process_group(0)
            .kill_on_drop(true)
            .start()
            .map_err(own)?;
        let mut said = Ends::new(MOST_SAID);
        let mut complained = Ends::new(MOST_SAID);
        let out = child.stdout.take();
        let work = async {
            if let Some(out) = out {
                listen(out, &mut said).await;
            }
            let status = child.wait().await;
            // unison's end of the connection is closed, so the guest's unison ends.
            if timeout(Duration::from_secs(10), ssh.wait()).await.is_err() {
                let _ = ssh.start_kill();
            }
            status
        };
        // A ControlMaster that ssh leaves behind may keep stderr open.
        let status = tokio::select! {
            status = work => status,
            never = async {
                listen(complaints, &mut complained).await;
                std::future::pending().await
            } => never,
        }
        .map_err(own)?;
        Ok((status, format!("{}\n{}", said.text(), complained.text())))
    }

    pub(super) fn failed(&self, said: String) -> TwoWayError {
        TwoWayError::Failed {
            from: self.folder.from.clone(),
            to: self.folder.to.clone(),
            machine: self.remote.machine.clone(),
            said,
        }
    }
}

/// How much of unison's and ssh's output is kept, in bytes, from the start and from the end.
const MOST_SAID: usize = 2 << 20;

async fn listen(mut pipe: impl AsyncRead + Unpin, said: &mut Ends) {
    let mut buffer = [0u8; 4096];
    while let Ok(n) = pipe.read(&mut buffer).await
        && n > 0
    {
        said.push(&buffer[..n]);
    }
}

/// The script for `sh` that moves the connection to descriptors 3 and 4, and stderr to stdout.
const HAND_OVER: &str = "exec 3<&0 4>&2 2>&1 </dev/null; exec \"$@\"";

/// Returns the arguments of `unshare`: namespaces, and in them a program that sees only these folders.
fn shut_in(
    new_root: &Path,
    folders: &[&Path],
    program: &Path,
    words: &[OsString],
) -> Vec<OsString> {
    let mut all: Vec<OsString> = [
        "--mount",
        "--pid",
        "--net",
        "--ipc",
        "--fork",
        "--kill-child",
    ]
    .map(OsString::from)
    .into();
    // Root keeps the capabilities to work on other users' files.
    let capabilities = match nix::unistd::geteuid().is_root() {
        true => "-all,+dac_override,+fowner,+chown,+fsetid",
        false => {
            all.extend(["--user", "--map-root-user"].map(OsString::from));
            "-all"
        }
    };
    all.extend(["--", "sh", "-c", SHUT_IN, "shut-in"].map(OsString::from));
    all.push(new_root.into());
    all.push(capabilities.into());
    all.extend(folders.iter().map(OsString::from));
    all.push("--".into());
    all.push(program.into());
    all.extend_from_slice(words);
    all
}
