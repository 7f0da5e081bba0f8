//! Why a folder cannot be synced.

use std::path::{Path, PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::{guest::GuestError, report::clean::Shown};

use super::filter::Gone;

#[derive(Debug, Error, Diagnostic)]
pub enum SyncError {
    #[error("rsync is not installed on the host")]
    #[diagnostic(help("install it (Debian: `apt install rsync`)"))]
    NoRsync,
    #[error("rsync is not installed in machine {machine}{}", .said.as_ref().map(|said| format!(", and stead could not install it: {said}")).unwrap_or_default())]
    #[diagnostic(help("install it there (`stead ssh {machine}`), or use a box that has it"))]
    NoRsyncInGuest {
        machine: String,
        said: Option<String>,
    },
    #[error("{from} does not exist any more", from = .from.shown())]
    #[diagnostic(help("put it back, or remove its `sync` from the Machinefile"))]
    Gone { from: PathBuf },
    #[error("{from}, or a folder above it, was replaced by a symlink", from = .from.shown())]
    #[diagnostic(help(
        "nothing was sent, because a symlink can lead to any folder of the host; put the folder back, or set the right path in the Machinefile"
    ))]
    Swapped { from: PathBuf },
    #[error(
        "{from} is empty, but was not when it was last copied to {to} of {machine}; nothing was deleted there",
        from = .from.shown()
    )]
    #[diagnostic(help(
        "if a disk should be mounted there, mount it; if {to} should be empty too, empty it yourself: `stead exec {machine} -- find {to} -mindepth 1 -delete`, with sudo if its files belong to another user"
    ))]
    Emptied {
        from: PathBuf,
        to: String,
        machine: String,
    },
    #[error(
        "stead did not make {to} of {machine}, and the first copy would delete files that {from} does not have: {files}",
        from = .from.shown()
    )]
    #[diagnostic(help(
        "choose another `to`, keep the files with delete=#false or `exclude`, or delete them yourself: `stead exec {machine} -- rm -r …`"
    ))]
    NotOurs {
        from: PathBuf,
        to: String,
        machine: String,
        /// `a, b and 3 more`
        files: String,
    },
    #[error("the guest's disk is full: {said}")]
    #[diagnostic(help(
        "free space in the guest, exclude files that it does not need, or give the machine a larger `disk` and replace it"
    ))]
    GuestFull { said: String },
    #[error("cannot read {count} of {from} on the host: {names}", from = .from.shown())]
    #[diagnostic(help(
        "everything else was synced; let {user} read them (`ls -l` shows who may), or `exclude` them"
    ))]
    HostUnreadable {
        from: PathBuf,
        /// `3 files`
        count: String,
        names: String,
        user: String,
    },
    #[error("cannot write to {to} of {machine}: {said}")]
    #[diagnostic(help(
        "its files belong to another user there: `stead exec {machine} -- ls -l {to}` shows to whom; owner=\"USER\" in the `sync` gives them to that user"
    ))]
    GuestDenied {
        to: String,
        machine: String,
        said: String,
    },
    #[error("machine {machine} has no user or group {name}")]
    #[diagnostic(help(
        "`owner` is a user of the guest, and folders are synced before provisioners run: use a box that has this user, or create it and run `stead sync {machine}`"
    ))]
    NoOwner { machine: String, name: String },
    #[error("lost the connection to {machine} while copying {from} to {to}{}", words(.said), from = .from.shown())]
    #[diagnostic(help(
        "`stead status` shows whether it still runs; `stead up {machine}` boots it and syncs again"
    ))]
    Lost {
        machine: String,
        from: PathBuf,
        to: String,
        said: String,
    },
    #[error("{path} does not exist in {machine}", path = .path.shown())]
    #[diagnostic(help("`stead exec {machine} -- ls {}` shows what is there", .path.parent().unwrap_or(.path).shown()))]
    NotInGuest { path: PathBuf, machine: String },
    #[error("rsync from {from} to {to} of {machine} failed ({code}): {said}", from = .from.shown())]
    #[diagnostic(help("`stead sync {machine}` tries again; rsync(1) lists the exit codes"))]
    Failed {
        from: PathBuf,
        to: String,
        machine: String,
        code: String,
        said: String,
    },
    #[error("rsync from {from} of {machine} to this computer failed ({code}): {said}")]
    #[diagnostic(help(
        "nothing was changed; run the command again; rsync(1) lists the exit codes"
    ))]
    NotFetched {
        from: String,
        machine: String,
        code: String,
        said: String,
    },
    #[error("lost the connection to {machine} while fetching {from} of it into {to}{}", words(.said), to = .to.shown())]
    #[diagnostic(help(
        "nothing was changed; `stead status` shows whether it still runs; run the command again when it does"
    ))]
    LostBack {
        machine: String,
        from: String,
        to: PathBuf,
        said: String,
    },
    #[error("the login user cannot read all of {from} of {machine}: {said}")]
    #[diagnostic(help(
        "nothing was changed; `stead exec {machine} -- ls -la {from}` shows whose files they are; `sudo chmod` lets the login user read them, or name the part to fetch"
    ))]
    GuestUnreadable {
        machine: String,
        from: String,
        said: String,
    },
    #[error("cannot run rsync: {0}")]
    Spawn(std::io::Error),
    #[error("cannot {doing}: {source}")]
    Io {
        doing: String,
        source: std::io::Error,
    },
    #[error(
        "cannot watch {at}: the limit on watched folders is reached ({setting} is {limit}, for all programs of this user together)",
        at = .at.shown()
    )]
    #[diagnostic(help(
        "raise it: `sudo sysctl {setting}={raised}`, and permanently by a file in /etc/sysctl.d; or exclude folders that need no watching"
    ))]
    WatchLimit {
        at: PathBuf,
        setting: &'static str,
        limit: u64,
        raised: u64,
    },
    #[error(
        "cannot watch folders: the limit on inotify instances is reached ({setting} is {limit}, for all programs of this user together)"
    )]
    #[diagnostic(help("raise it: `sudo sysctl {setting}={raised}`"))]
    InstanceLimit {
        setting: &'static str,
        limit: u64,
        raised: u64,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Guest(#[from] GuestError),
    #[error("{to} of {machine} is the host's folder itself since the machine booted, not a copy")]
    #[diagnostic(help("nothing is copied to it; run `stead restart {machine}` to make it a copy"))]
    Mounted { machine: String, to: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    TwoWay(#[from] super::TwoWayError),
}

impl From<Gone> for SyncError {
    fn from(Gone(from): Gone) -> Self {
        SyncError::Gone { from }
    }
}

impl SyncError {
    /// Whether the reason is only that the connection was lost.
    pub fn is_cut_off(&self) -> bool {
        matches!(self, SyncError::Lost { .. } | SyncError::LostBack { .. })
    }

    /// Wraps an error of a file or a system call: "cannot {doing}: …".
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| SyncError::Io { doing, source }
    }

    /// Wraps an error of a file: "cannot {doing} {path}: …".
    pub(super) fn file(doing: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        Self::io(format!("{doing} {}", path.shown()))
    }
}

/// `said` behind a colon, or nothing.
fn words(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}
