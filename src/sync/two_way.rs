//! Folders that both sides may edit, synced by unison (its manual: www.cis.upenn.edu/~bcpierce/unison).
//!
//! What unison remembers of a folder is with the machine's files on the host and on the machine's
//! disk in the guest, and goes with the machine. Without a memory unison deletes nothing: it makes
//! both sides have what either has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use miette::Diagnostic;
use thiserror::Error;
use tokio::process::Command;

use crate::{
    guest::{GuestError, Remote, shell_quote},
    host::{file, paths::CLOSED},
    machinefile::SyncFolder,
};

use super::ignore::{git_ignores, unison_regex};

#[derive(Debug, Error, Diagnostic)]
pub enum TwoWayError {
    #[error("unison is not installed on the host")]
    #[diagnostic(help(
        "install it (Debian: `apt install unison`), or leave out mode=\"two-way\": the host's edits alone go by rsync"
    ))]
    NoUnison,
    #[error(
        "the guest {machine} cannot run the host's unison ({version}), and has no such release of its own"
    )]
    #[diagnostic(help(
        "install unison {version} there, the same release as on the host; or leave out mode=\"two-way\": the host's edits alone go by rsync"
    ))]
    NoUnisonInGuest { machine: String, version: String },
    #[error("{from} is not there any more", from = .from.display())]
    #[diagnostic(help(
        "put it back (is a disk not mounted?), or take its `sync` out of the Machinefile; nothing was deleted in the guest"
    ))]
    Gone { from: PathBuf },
    #[error(
        "{empty} is empty, and was not when it was last synced with {other}; nothing was deleted"
    )]
    #[diagnostic(help(
        "if a disk is not mounted there, mount it; if {other} is to be emptied too, empty it yourself; to have all of it again, copy it back with `stead copy`"
    ))]
    Emptied { empty: String, other: String },
    #[error("unison of {from} with {to} failed: {said}", from = .from.display())]
    #[diagnostic(help("nothing is lost; `stead sync {machine}` tries again"))]
    Failed {
        from: PathBuf,
        to: String,
        machine: String,
        said: String,
    },
    #[error("cannot {doing} {path}: {source}", path = .path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Guest(#[from] GuestError),
}

/// provisioners/guest/stead-two-way.
const PREPARE_SCRIPT: &str = include_str!("../../provisioners/guest/stead-two-way");

/// Where a unison that comes from the host is in the guest.
const GUEST_UNISON: &str = "/var/lib/stead/unison/unison";

/// What a sync both ways has brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Paths that both sides had changed. Nothing of them is lost.
    pub conflicts: Vec<String>,
}

impl Outcome {
    /// What to tell of conflicts.
    pub fn notice(&self, to: &str) -> Option<String> {
        const SHOWN: usize = 5;
        if self.conflicts.is_empty() {
            return None;
        }
        let mut list: Vec<String> = self.conflicts.iter().take(SHOWN).cloned().collect();
        if self.conflicts.len() > SHOWN {
            list.push(format!("and {} more", self.conflicts.len() - SHOWN));
        }
        Some(format!(
            "{to}: changed on both sides: {}; the newer one has the name, and the other one is beside it as \"… (conflict_on_DATE)\"",
            list.join(", ")
        ))
    }
}

/// Brings both sides to the same, and keeps both of what both have changed.
///
/// `compare` are files of the host, relative to the folder, of which the contents are compared and not
/// only size and time: what unison remembers of a file is looked up when it has been sent, so that an
/// edit of the same size that came meanwhile would be taken for what was sent (seen with 2.52.1).
///
/// # Errors
/// Where one side is empty or gone that was not before: a disk that is not mounted is no deletion.
pub async fn sync(
    folder: &SyncFolder,
    remote: &Remote,
    compare: &[PathBuf],
) -> Result<Outcome, TwoWayError> {
    if !folder.from.is_dir() {
        return Err(TwoWayError::Gone {
            from: folder.from.clone(),
        });
    }
    let (program, version) = host_unison().await?;
    let memory = Memory::of(folder, remote)?;
    let guest = prepare(folder, remote, &program, &version).await?;
    let host_is_empty = fs::read_dir(&folder.from)
        .map_err(io("read", &folder.from))?
        .next()
        .is_none();
    if memory.remembers() && host_is_empty != guest.is_empty {
        let host = folder.from.display().to_string();
        let there = format!("{} in {}", folder.to, remote.machine);
        let (empty, other) = match host_is_empty {
            true => (host, there),
            false => (there, host),
        };
        return Err(TwoWayError::Emptied { empty, other });
    }
    let mut outcome = Outcome::default();
    let run = Run {
        folder,
        remote,
        program: &program,
        memory: &memory,
        server: &guest.run,
    };
    for _ in 0..2 {
        let said = match run.once(&[]).await? {
            Ended::Said(said) => said,
            Ended::Forgotten => {
                // The machine's disk is not the one that was synced. Without a memory, nothing is
                // deleted.
                memory.forget().map_err(io("remove", &memory.folder))?;
                memory.make(remote)?;
                match run.once(&[]).await? {
                    Ended::Said(said) => said,
                    Ended::Forgotten => {
                        return Err(run.failed("one side has forgotten the other".into()));
                    }
                }
            }
        };
        let conflicts = conflicts(&said);
        if conflicts.is_empty() {
            break;
        }
        // What was kept beside is on one side as yet.
        outcome.conflicts.extend(conflicts);
    }
    // New folders that they are in are on both sides by now.
    for paths in compare.chunks(COMPARED_AT_ONCE) {
        if let Ended::Said(said) = run.once(paths).await? {
            outcome.conflicts.extend(conflicts(&said));
        }
    }
    Ok(outcome)
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TwoWayError {
    let path = path.to_path_buf();
    move |source| TwoWayError::Io {
        doing,
        path,
        source,
    }
}

/// How many paths one unison is told of, by its arguments.
const COMPARED_AT_ONCE: usize = 500;

/// The host's unison, and its release: `unison version 2.52.1 (ocaml 4.13.1)`.
async fn host_unison() -> Result<(PathBuf, String), TwoWayError> {
    let program = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("unison"))
        .find(|path| path.is_file())
        .ok_or(TwoWayError::NoUnison)?;
    let program = program.canonicalize().map_err(io("read", &program))?;
    let output = Command::new(&program)
        .arg("-version")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(io("run", &program))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match said.split_whitespace().nth(2) {
        Some(version) => Ok((program, version.to_string())),
        None => Err(TwoWayError::NoUnison),
    }
}

/// What unison remembers of a folder, on the host.
struct Memory {
    folder: PathBuf,
}

impl Memory {
    fn of(folder: &SyncFolder, remote: &Remote) -> Result<Self, TwoWayError> {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(folder.to.as_bytes());
        let name: String = digest
            .iter()
            .take(4)
            .map(|it| format!("{it:02x}"))
            .collect();
        let memory = Memory {
            folder: remote.files.unison().join(name),
        };
        memory.make(remote)?;
        Ok(memory)
    }

    /// The folder, and in it a program that unison runs for ssh: it takes a path and no arguments of
    /// which one could have a space.
    fn make(&self, remote: &Remote) -> Result<(), TwoWayError> {
        file::create_folder(&self.folder, CLOSED).map_err(io("make", &self.folder))?;
        let ssh = self.ssh();
        let config = remote.ssh_config();
        let text = format!(
            "#!/bin/sh\nexec ssh -F {} -o BatchMode=yes \"$@\"\n",
            shell_quote(&config.to_string_lossy())
        );
        // A file that is still open for writing cannot be run (ETXTBSY); this one is closed.
        file::ensure(&ssh, text.as_bytes(), 0o700).map_err(io("write", &ssh))
    }

    fn ssh(&self) -> PathBuf {
        self.folder.join("ssh")
    }

    /// Whether the two sides have been the same before: there is an archive.
    fn remembers(&self) -> bool {
        (fs::read_dir(&self.folder).into_iter().flatten().flatten())
            .any(|entry| entry.file_name().to_string_lossy().starts_with("ar"))
    }

    fn forget(&self) -> std::io::Result<()> {
        fs::remove_dir_all(&self.folder)
    }
}

struct GuestSide {
    /// How unison is run, for a shell.
    run: String,
    is_empty: bool,
}

async fn prepare(
    folder: &SyncFolder,
    remote: &Remote,
    program: &Path,
    version: &str,
) -> Result<GuestSide, TwoWayError> {
    // The login user's own shell may be anything.
    let command = format!(
        "exec sh -c {} stead-two-way {} {} {}",
        shell_quote(PREPARE_SCRIPT),
        shell_quote(&folder.to),
        shell_quote(folder.owner.as_deref().unwrap_or_default()),
        shell_quote(version)
    );
    for copied in [false, true] {
        let output = remote.run(&command).await?;
        if !output.status.success() {
            return Err(TwoWayError::Failed {
                from: folder.from.clone(),
                to: folder.to.clone(),
                machine: remote.machine.clone(),
                said: output.last_words(),
            });
        }
        let mut lines = output.stdout.lines();
        if let Some(run) = lines.find_map(|line| line.strip_prefix("run ")) {
            return Ok(GuestSide {
                run: run.to_string(),
                is_empty: output.stdout.lines().any(|line| line == "empty"),
            });
        }
        if !copied {
            // Whole under another name first: a copy that is cut short is never run.
            let script = format!(
                "exec sh -c {}",
                shell_quote(&format!(
                    "set -e; f=$(mktemp); cat >$f; s=; [ \"$(id -u)\" = 0 ] || s='sudo -n'; $s install -D -m 755 $f {GUEST_UNISON}.new; $s mv -f {GUEST_UNISON}.new {GUEST_UNISON}; rm -f $f"
                ))
            );
            remote.send(&script, program, &mut |_| {}).await?;
        }
    }
    Err(TwoWayError::NoUnisonInGuest {
        machine: remote.machine.clone(),
        version: version.to_string(),
    })
}

struct Run<'a> {
    folder: &'a SyncFolder,
    remote: &'a Remote,
    program: &'a Path,
    memory: &'a Memory,
    server: &'a str,
}

enum Ended {
    Said(String),
    /// One side remembers, and the other one does not.
    Forgotten,
}

impl Run<'_> {
    /// `only` these files, by their contents; all of the folder where there are none.
    async fn once(&self, only: &[PathBuf]) -> Result<Ended, TwoWayError> {
        let ignored = match self.folder.gitignore {
            true => git_ignores(&self.folder.from),
            false => Vec::new(),
        };
        let mut words = arguments(
            self.folder,
            &self.remote.machine,
            &self.memory.ssh(),
            self.server,
            &ignored,
        );
        if !only.is_empty() {
            words.extend(["-fastcheck".into(), "false".into()]);
        }
        for path in only {
            words.extend(["-path".into(), path.clone().into_os_string()]);
        }
        let output = Command::new(self.program)
            .args(words)
            .env("UNISON", &self.memory.folder)
            .env("UNISONLOCALHOSTNAME", "stead-host")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(io("run", self.program))?;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push('\n');
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        let forgotten = [
            "archive file is missing",
            "inconsistent state",
            "archives are missing",
        ];
        if forgotten.iter().any(|words| said.contains(words)) {
            return Ok(Ended::Forgotten);
        }
        if said.contains("confirmbigdel") {
            return Err(TwoWayError::Emptied {
                empty: format!(
                    "{} or {} in {}",
                    self.folder.from.display(),
                    self.folder.to,
                    self.remote.machine
                ),
                other: "the other one".into(),
            });
        }
        // 0: all is the same; 1: some was left as it is, which conflicts are told of
        // (unison's manual, "Exit Code").
        match output.status.code() {
            Some(0 | 1) => Ok(Ended::Said(said)),
            _ => Err(self.failed(last_words(&said))),
        }
    }

    fn failed(&self, said: String) -> TwoWayError {
        TwoWayError::Failed {
            from: self.folder.from.clone(),
            to: self.folder.to.clone(),
            machine: self.remote.machine.clone(),
            said,
        }
    }
}

/// The words after `unison`.
fn arguments(
    folder: &SyncFolder,
    machine: &str,
    ssh: &Path,
    server: &str,
    ignored: &[String],
) -> Vec<std::ffi::OsString> {
    let mut words: Vec<std::ffi::OsString> = vec![
        folder.from.clone().into_os_string(),
        format!("ssh://{machine}/{}", folder.to).into(),
    ];
    words.extend(["-sshcmd".into(), ssh.as_os_str().to_os_string()]);
    let mut push = |text: &str| words.push(text.into());
    for word in ["-servercmd", server] {
        push(word);
    }
    // No questions, and plain lines.
    for word in ["-ui", "text", "-batch", "-dumbtty", "-contactquietly"] {
        push(word);
    }
    push("-times");
    // Of what both sides changed the newer one gets the name, and the other one is kept beside it;
    // an edit is kept where the other side deleted.
    for word in ["-prefer", "newer", "-copyonconflict"] {
        push(word);
    }
    // What one side replaces or deletes of the other's is kept once, in `backup` of its memory.
    for word in [
        "-backup",
        "Name *",
        "-backuploc",
        "central",
        "-maxbackups",
        "1",
    ] {
        push(word);
    }
    // A whole side that is gone is no deletion.
    push("-confirmbigdel");
    // The machine's lock is held: one that is there was left by a unison that was killed.
    push("-ignorelocks");
    push("-log=false");
    for pattern in &folder.exclude {
        push("-ignore");
        push(&format!("Regex {}", unison_regex(pattern)));
    }
    for regex in ignored {
        push("-ignore");
        push(&format!("Regex {regex}"));
    }
    words
}

/// The paths of what unison calls conflicts: lines with a double arrow, `changed  <==== changed    PATH`,
/// or one of its question marks, for what it left alone.
fn conflicts(said: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in said.split(['\n', '\r']) {
        let arrow = ["<====", "====>", "<-?->"]
            .iter()
            .find_map(|arrow| line.split_once(arrow));
        let Some((left, right)) = arrow else { continue };
        if left.len() > 12 {
            continue;
        }
        // A word or two of a fixed width, and two spaces at the end.
        let path = right.get(12..).unwrap_or(right).trim();
        if !path.is_empty() && !found.iter().any(|it| it == path) {
            found.push(path.to_string());
        }
    }
    found
}

fn last_words(said: &str) -> String {
    let lines: Vec<&str> = (said.split(['\n', '\r']))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(3)..].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinefile::SyncKind;

    fn folder() -> SyncFolder {
        SyncFolder {
            from: "/home/é b/app".into(),
            to: "/srv/app".into(),
            kind: SyncKind::TwoWay,
            exclude: vec![".git".into(), "/target/".into(), "*.o".into()],
            delete: true,
            gitignore: false,
            owner: None,
            readonly: false,
            watch: false,
            at: "Machinefile:3:5".into(),
        }
    }

    #[test]
    fn how_unison_is_run() {
        let words = arguments(
            &folder(),
            "web",
            Path::new("/home/é b/.local/share/stead/machines/1/unison/01234567/ssh"),
            "env UNISON=/var/lib/stead/unison/state-stead /var/lib/stead/unison/unison",
            &["a".into()],
        );
        let words: Vec<_> = words.iter().map(|it| it.to_string_lossy()).collect();
        insta::assert_snapshot!(words.join("\n"));
    }

    #[test]
    fn conflicts_are_found_among_what_unison_says() {
        let said = "Looking for changes\n| m/1     \rReconciling changes\n\
            deleted  <==== chgd dir   d  \n\
            changed  <==== changed    with two words  \n\
            new dir  ---->            e  \n\
            new file <-?-> new file   n  \n\
            changed  ====> deleted    h  \n\
            [END] Copying <==== odd\n";
        assert_eq!(conflicts(said), ["d", "with two words", "n", "h"]);
    }

    #[test]
    fn a_few_conflicts_are_told_by_name() {
        let outcome = |n: usize| Outcome {
            conflicts: (0..n).map(|n| n.to_string()).collect(),
        };
        assert_eq!(outcome(0).notice("/srv/app"), None);
        insta::assert_snapshot!(outcome(7).notice("/srv/app").unwrap());
    }
}
