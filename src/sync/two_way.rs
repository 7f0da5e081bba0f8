//! Folders that both sides may edit, synced by unison (its manual: www.cis.upenn.edu/~bcpierce/unison).
//!
//! unison's archives of a folder (its memory) are among the machine's files on the host and on the
//! machine's disk in the guest, and are deleted with the machine. Without them unison deletes nothing:
//! both sides get the files of either.
//!
//! unison trusts the other side with everything: the other side may set unison's preferences, and so make
//! it run programs, and may read and write any file by name. So the host's unison runs in a sandbox
//! (provisioners/host/shut-in) that has nothing but the folder and its archives, and no network. stead makes
//! the connection and hands it over.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::OnceLock,
    time::Duration,
};

use miette::Diagnostic;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    time::timeout,
};

use crate::{
    guest::{GuestError, Remote},
    host::{
        bounded::Ends, digest::name_of, file, open, paths::CLOSED, process, shell::shell_quote,
    },
    machinefile::SyncFolder,
    report::clean::Shown,
};

use super::{
    ignore::{git_ignores, unison_regex},
    virtiofs::{Owner, no_sandbox},
};

#[derive(Debug, Error, Diagnostic)]
pub enum TwoWayError {
    #[error("unison is not installed on the host")]
    #[diagnostic(help(
        "install it (Debian: `apt install unison`), or remove mode=\"two-way\" to copy only the host's edits, by rsync"
    ))]
    NoUnison,
    #[error("the host's unison is {version}, but mode=\"two-way\" needs 2.52 or newer")]
    #[diagnostic(help(
        "install a newer one: with an older one, data from the guest can overwrite memory and so run programs here; or remove mode=\"two-way\" to copy only the host's edits, by rsync"
    ))]
    OldUnison { version: String },
    #[error("cannot confine unison to the folder: {why}")]
    #[diagnostic(help(
        "stead runs unison only in a sandbox, because it does whatever the guest's unison tells it; {remedy}; or remove mode=\"two-way\" to copy only the host's edits, by rsync"
    ))]
    NoSandbox { why: String, remedy: String },
    #[error(
        "machine {machine} cannot run the host's unison ({version}), and does not have that version installed"
    )]
    #[diagnostic(help(
        "install unison {version} in the guest, the same version as on the host; or remove mode=\"two-way\" to copy only the host's edits, by rsync"
    ))]
    NoUnisonInGuest { machine: String, version: String },
    #[error("{from} does not exist any more", from = .from.shown())]
    #[diagnostic(help(
        "put it back (is a disk not mounted?), or remove its `sync` from the Machinefile; nothing was deleted in the guest"
    ))]
    Gone { from: PathBuf },
    #[error(
        "{empty} is empty, but was not when it was last synced with {other}; nothing was deleted"
    )]
    #[diagnostic(help(
        "if a disk should be mounted there, mount it; if {other} should be empty too, empty it yourself; to restore the files, copy them back with `stead copy`"
    ))]
    Emptied { empty: String, other: String },
    #[error("unison failed to sync {from} with {to} of {machine}: {said}", from = .from.shown())]
    #[diagnostic(help("no file is lost; `stead sync {machine}` tries again"))]
    Failed {
        from: PathBuf,
        to: String,
        machine: String,
        said: String,
    },
    #[error("cannot {doing} {path}: {source}", path = .path.shown())]
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

/// provisioners/host/shut-in and two-way-connection.
const SHUT_IN: &str = include_str!("../../provisioners/host/shut-in");
const CONNECTION: &str = include_str!("../../provisioners/host/two-way-connection");

/// The script for `sh` that runs unison in the guest: as the user who owns the files, with that user's
/// archives.
const SERVER: &str = r#"
user=${1%%:*}
[ -n "$user" ] || user=$(id -un)
set -- env UNISON=/var/lib/stead/unison/state-"$user" "$2" -server __new-rpc-mode
[ "$user" = "$(id -un)" ] || set -- sudo -n -u "$user" "$@"
exec "$@"
"#;

/// The path in the guest of a unison copied from the host.
const GUEST_UNISON: &str = "/var/lib/stead/unison/unison";

/// The result of a two-way sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Paths that both sides had changed. Both versions are kept.
    pub conflicts: Vec<String>,
}

impl Outcome {
    /// A notice that lists the conflicts, if there are any.
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
            "{to}: changed on both sides: {}; the newer version keeps the name, and the older one is beside it as \"… (conflict_on_DATE)\"",
            list.join(", ")
        ))
    }
}

/// Makes both sides equal. If both changed a file, both versions are kept.
///
/// `compare` are files of the host, relative to the folder, that are compared by content and not only by
/// size and time. unison reads the state that it remembers of a file only after it has sent the file, so
/// it would miss an edit of the same size made in between (seen with 2.52.1).
///
/// # Errors
/// If one side is empty or gone but was not before: perhaps a disk is not mounted, and that must not
/// delete the other side's files.
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
    can_be_shut_in()?;
    let memory = Memory::of(folder, remote)?;
    let guest = prepare(folder, remote, &program, &version).await?;
    let host_is_empty = fs::read_dir(&folder.from)
        .map_err(io("read", &folder.from))?
        .next()
        .is_none();
    if memory.remembers() && host_is_empty != guest.is_empty {
        let host = folder.from.shown();
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
        server: server(folder.owner.as_deref(), guest.program),
    };
    for _ in 0..2 {
        let said = match run.once(&[]).await? {
            UnisonResult::Output(said) => said,
            UnisonResult::Forgotten => {
                // The machine's disk is not the one that was synced. Without archives, unison deletes
                // nothing.
                memory.forget().map_err(io("remove", &memory.folder))?;
                memory.make(remote)?;
                match run.once(&[]).await? {
                    UnisonResult::Output(said) => said,
                    UnisonResult::Forgotten => {
                        return Err(run.failed("one side has lost its archive".into()));
                    }
                }
            }
        };
        let conflicts = conflicts(&said);
        if conflicts.is_empty() {
            break;
        }
        // The older versions are only on one side so far: sync once more.
        outcome.conflicts.extend(conflicts);
    }
    // By now both sides have the folders that these files are in.
    for paths in compare.chunks(COMPARED_AT_ONCE) {
        if let UnisonResult::Output(said) = run.once(paths).await? {
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

/// How many paths one unison gets, in its arguments.
const COMPARED_AT_ONCE: usize = 500;

/// Returns the host's unison and its version, from `unison version 2.52.1 (ocaml 4.13.1)`.
async fn host_unison() -> Result<(PathBuf, String), TwoWayError> {
    let program = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("unison"))
        .find(|path| path.is_file())
        .ok_or(TwoWayError::NoUnison)?;
    let program = program.canonicalize().map_err(io("read", &program))?;
    let output = process::Command::new(&program, "unison")
        .arg("-version")
        .output()
        .await
        .map_err(|error| io("run", &program)(std::io::Error::other(error)))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = (said.split_whitespace().nth(2)).ok_or(TwoWayError::NoUnison)?;
    if !is_new_enough(version) {
        return Err(TwoWayError::OldUnison {
            version: version.to_string(),
        });
    }
    Ok((program, version.to_string()))
}

/// The protocol that does not send OCaml's own values came with 2.52.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= (2, 52),
        _ => false,
    }
}

/// Checks, once, whether this host allows the sandbox.
fn can_be_shut_in() -> Result<(), TwoWayError> {
    static CAN: OnceLock<()> = OnceLock::new();
    if CAN.get().is_some() {
        return Ok(());
    }
    let own = Owner {
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
    };
    if let Some(lack) = no_sandbox(own) {
        return Err(TwoWayError::NoSandbox {
            why: lack.why,
            remedy: lack.remedy,
        });
    }
    let _ = CAN.set(());
    Ok(())
}

/// unison's archives of a folder, on the host.
struct Memory {
    folder: PathBuf,
}

impl Memory {
    fn of(folder: &SyncFolder, remote: &Remote) -> Result<Self, TwoWayError> {
        let name = name_of(&folder.to, 4);
        let memory = Memory {
            folder: remote.files.unison().join(name),
        };
        memory.make(remote)?;
        Ok(memory)
    }

    /// Makes the folder, with the program in it that unison runs in place of ssh.
    fn make(&self, remote: &Remote) -> Result<(), TwoWayError> {
        let root = Self::new_root(remote);
        for folder in [&self.folder, &root] {
            file::create_folder(folder, CLOSED).map_err(io("make", folder))?;
        }
        let program = self.connection();
        // A file that is still open for writing cannot be run (ETXTBSY); this one is closed.
        file::ensure(&program, CONNECTION.as_bytes(), 0o700).map_err(io("write", &program))
    }

    fn connection(&self) -> PathBuf {
        self.folder.join("connection")
    }

    /// An empty folder that is the root of the sandbox: a file system is mounted over it there.
    fn new_root(remote: &Remote) -> PathBuf {
        remote.files.unison().join("root")
    }

    /// Whether the two sides were synced before: there is an archive.
    fn remembers(&self) -> bool {
        (fs::read_dir(&self.folder).into_iter().flatten().flatten())
            .any(|entry| entry.file_name().to_string_lossy().starts_with("ar"))
    }

    fn forget(&self) -> std::io::Result<()> {
        fs::remove_dir_all(&self.folder)
    }
}

struct GuestSide {
    /// The program that runs unison in the guest.
    program: &'static str,
    is_empty: bool,
}

/// Returns the command that runs unison in the guest. The guest chooses no part of it.
fn server(owner: Option<&str>, program: &str) -> String {
    // The login user's own shell may be anything.
    format!(
        "exec sh -c {} stead-two-way {} {program}",
        shell_quote(SERVER),
        shell_quote(owner.unwrap_or_default()),
    )
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
        let says = |line: &str| output.stdout.lines().any(|it| it == line);
        let there = match (says("unison own"), says("unison path")) {
            (true, _) => Some(GUEST_UNISON),
            (false, true) => Some("unison"),
            (false, false) => None,
        };
        if let Some(there) = there {
            return Ok(GuestSide {
                program: there,
                is_empty: says("empty"),
            });
        }
        if !copied {
            // It is written under another name first, so that a truncated copy is never run.
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
    server: String,
}

enum UnisonResult {
    Output(String),
    /// One side remembers, and the other one does not.
    Forgotten,
}

impl Run<'_> {
    /// Syncs `only` these files, compared by content, or the whole folder if there are none.
    async fn once(&self, only: &[PathBuf]) -> Result<UnisonResult, TwoWayError> {
        let ignored = match self.folder.gitignore {
            true => git_ignores(&self.folder.from),
            false => Vec::new(),
        };
        let mut words = arguments(
            self.folder,
            &self.remote.machine,
            &self.memory.connection(),
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
        let mut ssh = self.remote.start(&self.server)?;
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
                &Memory::new_root(self.remote),
                &[&self.folder.from, &self.memory.folder],
                self.program,
                words,
            ))
            .current_dir(open::in_proc(&from))
            // The environment may have secrets, and the guest may be able to read it.
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", &self.memory.folder)
            .env("UNISON", &self.memory.folder)
            .env("UNISONLOCALHOSTNAME", "stead-host")
            .stdin(Stdio::from(answers.into_owned_fd().map_err(own)?))
            .stdout(Stdio::piped())
            .stderr(Stdio::from(to.into_owned_fd().map_err(own)?))
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
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

    fn failed(&self, said: String) -> TwoWayError {
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

/// Returns the arguments of `unison`.
fn arguments(
    folder: &SyncFolder,
    machine: &str,
    connection: &Path,
    ignored: &[String],
) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![
        folder.from.clone().into_os_string(),
        format!("ssh://{machine}/{}", folder.to).into(),
    ];
    words.extend(["-sshcmd".into(), connection.into()]);
    let mut push = |text: &str| words.push(text.into());
    // No questions, and plain lines.
    for word in ["-ui", "text", "-batch", "-dumbtty", "-contactquietly"] {
        push(word);
    }
    push("-times");
    // If both sides changed a file, the newer version gets the name, and the older one is kept beside it.
    // If one side edited a file and the other deleted it, the edit is kept.
    for word in ["-prefer", "newer", "-copyonconflict"] {
        push(word);
    }
    // A file that the other side replaced or deleted is kept once, in `backup` beside the archives.
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
    // If one side is suddenly empty, the other side is not emptied.
    push("-confirmbigdel");
    // The machine's lock is held, so a lock of unison's was left by one that was killed.
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

/// Returns the paths of conflicts in unison's output: lines with a double arrow, `changed  <==== changed
/// PATH`, or with a question mark in the arrow, for files that it skipped.
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
        // One or two words in a column of fixed width, then the path and two spaces.
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
    use std::os::unix::fs::PermissionsExt;

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
            Path::new("/home/é b/.local/share/stead/machines/1/unison/01234567/connection"),
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

    #[test]
    fn versions_that_take_ocamls_values_are_refused() {
        for (version, wanted) in [
            ("2.52.1", true),
            ("2.53.7", true),
            ("3.0", true),
            ("2.51.5", false),
            ("2.48.4", false),
            ("new", false),
        ] {
            assert_eq!(is_new_enough(version), wanted, "{version}");
        }
    }

    /// A host and a guest in one folder. A program in place of ssh runs the guest's commands here, or the
    /// script `guest-does` in place of them.
    struct Ground {
        base: tempfile::TempDir,
    }

    /// The program in place of ssh. It records its arguments.
    const SSH: &str = r#"#!/bin/sh
base=$(dirname "$(dirname "$0")")
printf '%s\n' "$@" >>"$base/arguments"
while [ "$1" != web ]; do shift; done
shift
command=$(printf '%s' "$*" | sed "s|/var/lib/stead|$base/guest-lib|g; s|PATH=/usr/local/sbin|PATH=$base/sudo:/usr/local/sbin|")
export command base
[ ! -e "$base/guest-does" ] || exec sh "$base/guest-does"
exec sh -c "$command"
"#;

    impl Ground {
        fn new() -> Self {
            let base = tempfile::tempdir().unwrap();
            let ground = Ground { base };
            for folder in ["bin", "sudo", "host", "guest", "guest-lib", "data"] {
                fs::create_dir(ground.path(folder)).unwrap();
            }
            ground.program("bin/ssh", SSH);
            // For `sudo -n COMMAND`: everything belongs to one user here.
            ground.program("sudo/sudo", "#!/bin/sh\nshift\nexec \"$@\"\n");
            fs::write(ground.path("secret"), "of the host\n").unwrap();
            fs::write(ground.path("host/f"), "from the host\n").unwrap();
            fs::write(ground.path("guest/g"), "from the guest\n").unwrap();
            ground
        }

        fn path(&self, name: &str) -> PathBuf {
            self.base.path().canonicalize().unwrap().join(name)
        }

        fn program(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }

        /// Syncs in a process of its own, with another PATH, and returns the outcome.
        fn sync(&self) -> String {
            self.run("two-way")
        }

        fn run(&self, way: &str) -> String {
            let path = std::env::var("PATH").unwrap();
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "sync::two_way::tests::in_its_own_process"])
                .args(["--ignored", "--nocapture"])
                .env("STEAD_TEST_GROUND", self.path(""))
                .env("STEAD_TEST_WAY", way)
                .env("SECRET_OF_MINE", "secret of mine")
                .env("PATH", format!("{}:{path}", self.path("bin").display()))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let said = said
                .split_once("OUTCOME ")
                .map(|(_, said)| said.to_string());
            said.unwrap_or_else(|| panic!("{output:?}"))
        }
    }

    #[ignore = "a part of other tests"]
    #[tokio::test]
    async fn in_its_own_process() {
        let Some(base) = std::env::var_os("STEAD_TEST_GROUND").map(PathBuf::from) else {
            return;
        };
        let mut folder = folder();
        folder.from = base.join("host");
        folder.to = base.join("guest").to_str().unwrap().to_string();
        folder.exclude.clear();
        let data = crate::host::paths::DataDir::at(base.join("data"));
        let remote = Remote {
            machine: "web".into(),
            files: crate::guest::MachineFiles::new(&data, &uuid::Uuid::nil()),
        };
        match std::env::var("STEAD_TEST_WAY").as_deref() {
            Ok("copy") => {
                folder.kind = SyncKind::Rsync;
                let ended = crate::sync::sync_folder(&folder, &remote, &mut |_| {}).await;
                println!("OUTCOME {:?}", ended.map_err(|error| error.to_string()));
            }
            _ => println!("OUTCOME {:?}", sync(&folder, &remote, &[]).await),
        }
    }

    #[test]
    fn both_sides_get_what_either_has() {
        let ground = Ground::new();
        assert!(ground.sync().starts_with("Ok("), "{}", ground.sync());
        assert!(ground.path("host/g").exists() && ground.path("guest/f").exists());
        fs::remove_file(ground.path("host/g")).unwrap();
        fs::write(ground.path("guest/f"), "edited by the guest\n").unwrap();
        let said = ground.sync();
        assert!(said.starts_with("Ok("), "{said}");
        assert!(!ground.path("guest/g").exists());
        let edited = fs::read_to_string(ground.path("host/f")).unwrap();
        assert_eq!(edited, "edited by the guest\n");
    }

    /// Whatever the guest answers, each command is one of stead's own.
    #[test]
    fn no_word_of_a_guest_is_part_of_a_command() {
        let ground = Ground::new();
        let mark = ground.path("ran");
        let answer = |words: &str| {
            let lie = words.replace("MARK", &mark.display().to_string());
            let script = format!(
                "case $command in *-server*) exec sh -c \"$command\" ;; esac\nsh -c \"$command\" | grep -v unison\ncat <<'EOF'\n{lie}\nEOF\n"
            );
            fs::write(ground.path("guest-does"), script).unwrap();
            let _ = fs::remove_file(ground.path("arguments"));
            let said = ground.sync();
            (said, fs::read_to_string(ground.path("arguments")).unwrap())
        };
        let (said, wanted) = answer("unison path");
        assert!(said.starts_with("Ok("), "{said}");
        for lie in [
            "run -oControlPath=none -oProxyCommand=id>MARK x\nunison path",
            "unison path -oProxyCommand=id>MARK\nunison path",
            "unison path\nunison path;id>MARK",
            "unison path\nrun id>MARK\nempty;id>MARK",
        ] {
            let (said, arguments) = answer(lie);
            assert!(said.starts_with("Ok("), "{lie}: {said}");
            assert_eq!(arguments, wanted, "{lie}");
            assert!(!mark.exists(), "{lie}");
        }
    }

    #[test]
    fn the_protocol_with_ocamls_own_values_is_not_spoken() {
        for header in ["Unison 2.51 with OCaml >= 4.01.2", "Unison 2.48", "hello"] {
            let ground = Ground::new();
            let script = format!(
                "case $command in *-server*) echo '{header}'; exec cat >/dev/null ;; esac\nexec sh -c \"$command\"\n"
            );
            fs::write(ground.path("guest-does"), script).unwrap();
            let said = ground.sync();
            assert!(
                said.contains("does not speak the protocol of unison 2.52"),
                "{header}: {said}"
            );
        }
    }

    /// A unison that does what a guest may make it do: run programs, and use every file by its name.
    #[test]
    fn the_hosts_unison_has_the_folder_and_nothing_else() {
        let ground = Ground::new();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listening = std::os::unix::net::UnixListener::bind(ground.path("socket")).unwrap();
        let attack = format!(
            r#"#!/bin/bash
[ "$1" != -version ] || {{ echo 'unison version 2.52.1 (ocaml 4.13.1)'; exit; }}
exec 5>"{base}/host/report"
ls -a / "{base}" >&5 2>&1
env >&5
cat "{base}/secret" /etc/passwd /proc/1/environ >&5 2>/dev/null
echo x >"{base}/written"
chmod 777 "{base}/secret"
chmod 4755 /usr/bin/env
echo x >/usr/bin/stead-evil
(echo hello >/dev/tcp/127.0.0.1/{port})
kill -9 {pid}
mknod "{base}/host/disk" b 8 0 && echo DEVICE >&5
mount -t tmpfs x /usr && echo MOUNTED >&5
ls -d "{base}/socket" >&5
echo done >&5
"#,
            base = ground.path("").display().to_string().trim_end_matches('/'),
            port = socket.local_addr().unwrap().port(),
            pid = std::process::id(),
        );
        ground.program("bin/unison", &attack);
        let before = fs::metadata("/usr/bin/env").unwrap().permissions();
        // The guest has the same version, but does not sync.
        fs::write(
            ground.path("guest-does"),
            "case $command in *-server*) echo 'Unison RPC'; exec cat >/dev/null ;; esac\necho 'unison path'\necho filled\n",
        )
        .unwrap();
        let said = ground.sync();
        let report = fs::read_to_string(ground.path("host/report")).unwrap();
        assert!(report.ends_with("done\n"), "{report}\n{said}");
        for word in [
            "of the host",
            "root:",
            "secret of mine",
            "DEVICE",
            "MOUNTED",
            "socket",
            "home\n",
        ] {
            assert!(!report.contains(word), "{word:?} is in:\n{report}");
        }
        assert!(!ground.path("written").exists());
        let mode = fs::metadata(ground.path("secret"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(fs::metadata("/usr/bin/env").unwrap().permissions(), before);
        assert!(!Path::new("/usr/bin/stead-evil").exists());
        socket.set_nonblocking(true).unwrap();
        assert!(socket.accept().is_err(), "it reached the host's network");
        drop(listening);
    }

    /// A guest that has a folder above it by virtiofs can do this.
    #[test]
    fn a_folder_that_was_swapped_for_a_link_is_not_synced() {
        let ground = Ground::new();
        fs::create_dir(ground.path("private")).unwrap();
        fs::write(ground.path("private/key"), "").unwrap();
        fs::rename(ground.path("host"), ground.path("aside")).unwrap();
        std::os::unix::fs::symlink("private", ground.base.path().join("host")).unwrap();
        let said = ground.sync();
        assert!(said.contains("replaced by a symlink"), "{said}");
        assert!(!ground.path("guest/key").exists() && !ground.path("private/g").exists());
    }

    #[test]
    fn the_first_copy_takes_nothing_away_that_is_not_its_own() {
        let ground = Ground::new();
        let said = ground.run("copy");
        assert!(said.contains("stead did not make "), "{said}");
        assert!(said.contains("does not have: g"), "{said}");
        assert!(ground.path("guest/g").exists() && !ground.path("guest/f").exists());
        fs::remove_file(ground.path("guest/g")).unwrap();
        assert!(ground.run("copy").starts_with("Ok("));
        assert!(ground.path("guest/f").exists());
        // From now on the folder is stead's, for another host too: one with a box that was packed from
        // this machine.
        fs::remove_dir_all(ground.path("data")).unwrap();
        fs::write(ground.path("guest/built"), "").unwrap();
        let said = ground.run("copy");
        assert!(said.starts_with("Ok("), "{said}");
        assert!(!ground.path("guest/built").exists());
        // A folder that is suddenly empty.
        fs::remove_file(ground.path("host/f")).unwrap();
        let said = ground.run("copy");
        assert!(said.contains("nothing was deleted"), "{said}");
        assert!(ground.path("guest/f").exists());
    }
}
