use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

use crate::{guest::GuestError, report::clean::Shown};

#[derive(Debug, Error, Diagnostic)]
pub enum SyncError {
    #[error("rsync is not installed on the host")]
    #[diagnostic(help("install it (Debian: `apt install rsync`)"))]
    NoRsync,
    #[error("the guest {machine} has no rsync{}", .said.as_ref().map(|said| format!(", and it could not be installed there: {said}")).unwrap_or_default())]
    #[diagnostic(help("install it there (`stead ssh {machine}`), or use a box that has it"))]
    NoRsyncInGuest {
        machine: String,
        said: Option<String>,
    },
    #[error("{from} is not there any more", from = .from.shown())]
    #[diagnostic(help("put it back, or take its `sync` out of the Machinefile"))]
    Gone { from: PathBuf },
    #[error("{from} was swapped for a symlink, or a folder above it was", from = .from.shown())]
    #[diagnostic(help(
        "nothing was sent: who may write there could have it lead anywhere; put the folder back, or name the one that is meant in the Machinefile"
    ))]
    Swapped { from: PathBuf },
    #[error(
        "{from} is empty, and was not when it was last copied to {to} of {machine}; nothing was deleted there",
        from = .from.shown()
    )]
    #[diagnostic(help(
        "if a disk is not mounted there, mount it; if {to} is to be emptied too, empty it yourself: `stead exec {machine} -- find {to} -mindepth 1 -delete`, with sudo where its files are another user's"
    ))]
    Emptied {
        from: PathBuf,
        to: String,
        machine: String,
    },
    #[error(
        "{to} of {machine} was not made by stead, and has what {from} has not: {files}; the first copy would delete that",
        from = .from.shown()
    )]
    #[diagnostic(help(
        "choose another `to`, keep them with delete=#false or `exclude`, or delete them yourself: `stead exec {machine} -- rm -r …`"
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
        "free space in the guest, exclude what it does not need, or give the machine a larger `disk` and replace it"
    ))]
    GuestFull { said: String },
    #[error("{count} of {from} cannot be read on the host: {names}", from = .from.shown())]
    #[diagnostic(help(
        "all else was synced; let {user} read them (`ls -l` shows who may), or `exclude` them"
    ))]
    HostUnreadable {
        from: PathBuf,
        /// `3 files`
        count: String,
        names: String,
        user: String,
    },
    #[error("{to} in the guest may not be written to: {said}")]
    #[diagnostic(help(
        "its files are another user's there: `stead exec {machine} -- ls -l {to}` shows whose; owner=\"USER\" of the `sync` writes them as that user's"
    ))]
    GuestDenied {
        to: String,
        machine: String,
        said: String,
    },
    #[error("the guest {machine} has no user or group {name}")]
    #[diagnostic(help(
        "`owner` names one of the guest; folders are synced before provisioners run, so it has to be in the box, or be made and `stead sync {machine}` run after that"
    ))]
    NoOwner { machine: String, name: String },
    #[error("the connection to {machine} broke while {from} went to {to}{}", words(.said), from = .from.shown())]
    #[diagnostic(help(
        "`stead status` says whether it still runs; `stead up {machine}` boots it and syncs again"
    ))]
    Lost {
        machine: String,
        from: PathBuf,
        to: String,
        said: String,
    },
    #[error("there is no {path} in {machine}", path = .path.shown())]
    #[diagnostic(help("`stead exec {machine} -- ls {}` shows what is there", .path.parent().unwrap_or(.path).shown()))]
    NotInGuest { path: PathBuf, machine: String },
    #[error("rsync of {from} to {to} failed ({code}): {said}", from = .from.shown())]
    #[diagnostic(help("`stead sync {machine}` tries again; rsync(1) lists the exit codes"))]
    Failed {
        from: PathBuf,
        to: String,
        machine: String,
        code: String,
        said: String,
    },
    #[error("rsync of {from} of {machine} to this computer failed ({code}): {said}")]
    #[diagnostic(help(
        "nothing was changed; the same command tries again, and rsync(1) lists the exit codes"
    ))]
    NotFetched {
        from: String,
        machine: String,
        code: String,
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
        "the limit on watched folders is reached at {at}: fs.inotify.max_user_watches is {limit}, for all programs of this user together",
        at = .at.shown()
    )]
    #[diagnostic(help(
        "raise it: `sudo sysctl fs.inotify.max_user_watches={raised}`, and for good in a file of /etc/sysctl.d; or exclude folders that need no watching"
    ))]
    WatchLimit {
        at: PathBuf,
        limit: u64,
        raised: u64,
    },
    #[error(
        "no more inotify instances can be had: fs.inotify.max_user_instances is {limit}, for all programs of this user together"
    )]
    #[diagnostic(help("raise it: `sudo sysctl fs.inotify.max_user_instances={raised}`"))]
    InstanceLimit { limit: u64, raised: u64 },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Guest(#[from] GuestError),
    #[error("{to} of {machine} is the host's folder itself, as when it was booted")]
    #[diagnostic(help("nothing is copied to it; `stead restart {machine}` makes it a copy"))]
    Mounted { machine: String, to: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    TwoWay(#[from] super::TwoWayError),
}

impl From<std::io::Error> for SyncError {
    fn from(source: std::io::Error) -> Self {
        SyncError::Io {
            doing: "read the folder".into(),
            source,
        }
    }
}

fn words(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}
