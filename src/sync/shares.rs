//! Folders that guests see themselves, over virtiofs or 9p: what the guest is told to mount.

use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    guest::{GuestError, Remote},
    host::shell::shell_quote,
    hypervisor::{Share, ShareKind},
    report::clean::Shown,
};

#[derive(Debug, Error, Diagnostic)]
pub enum ShareError {
    #[error("{from} is not there any more", from = .from.shown())]
    #[diagnostic(help("put it back, or take its `sync` out of the Machinefile"))]
    Gone { from: PathBuf },
    #[error("{from} was swapped for a symlink, or a folder above it was", from = .from.shown())]
    #[diagnostic(help(
        "nothing was shared: who may write there could have it lead anywhere; put the folder back, or name the one that is meant in the Machinefile"
    ))]
    Swapped { from: PathBuf },
    #[error("{why}")]
    #[diagnostic(help("{remedy}"))]
    NoVirtiofsd { why: String, remedy: String },
    #[error("virtiofsd does not share {from}: {said}", from = .from.shown())]
    #[diagnostic(help(
        "type=\"rsync\" copies the folder instead; `stead doctor` says whether virtiofsd can be used here"
    ))]
    NotStarted { from: PathBuf, said: String },
    #[error("cannot {doing} {path}: {source}", path = .path.shown())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{to} of {machine} cannot be a folder of the host: its kernel {kernel} has no {}", .kind.word())]
    #[diagnostic(help("{}", remedy(*.kind)))]
    NoFilesystem {
        machine: String,
        to: String,
        kernel: String,
        kind: ShareKind,
    },
    #[error("{to} of {machine} cannot be a folder of the host: {said}")]
    #[diagnostic(help(
        "the machine is up: look around with `stead ssh {machine}`; `stead up {machine}` goes on from here"
    ))]
    NotMounted {
        machine: String,
        to: String,
        said: String,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Guest(#[from] GuestError),
}

/// What to do where a guest's kernel lacks it.
pub fn remedy(kind: ShareKind) -> &'static str {
    match kind {
        ShareKind::Virtiofs => {
            "choose another kernel (Linux has virtiofs since 5.4), or copy the folder with type=\"rsync\""
        }
        ShareKind::NineP => {
            "choose a kernel that has it (`kernel { package \"linux-image-amd64\" }`: Debian's cloud kernel has none), or take type=\"virtiofs\" or type=\"rsync\""
        }
    }
}

/// How many bytes a 9p request may have: Linux's own 128 KiB doubled, and below what virtio takes
/// (500 KiB; kernel, Documentation/filesystems/9p.rst).
const MSIZE: u32 = 256 << 10;

/// provisioners/guest/stead-mount.
const MOUNT_SCRIPT: &str = include_str!("../../provisioners/guest/stead-mount");

/// The lines for the script's standard input.
fn lines(shares: &[Share]) -> String {
    let mut lines = String::new();
    for share in shares {
        let options = match share.kind {
            ShareKind::Virtiofs => "defaults".to_string(),
            // One user of QEMU's does everything, whoever it is in the guest; and without a cache
            // nothing could be mapped to be written.
            ShareKind::NineP => {
                format!("trans=virtio,version=9p2000.L,msize={MSIZE},access=any,cache=mmap")
            }
        };
        lines.push_str(&format!(
            "{} {} {} {options} {}\n",
            share.kind.word(),
            share.tag(),
            if share.readonly { "ro" } else { "rw" },
            escaped(&share.to)
        ));
    }
    lines
}

/// As fstab(5) and /proc/mounts have it.
fn escaped(path: &str) -> String {
    let mut text = String::new();
    for c in path.chars() {
        match c {
            ' ' | '\t' | '\\' | '#' => text.push_str(&format!("\\{:03o}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

/// What mounting has brought about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounting {
    /// Where files of the guest's own are hidden now.
    pub hidden: Vec<String>,
    /// What the guest's kernel has not got.
    pub lacks: Vec<ShareKind>,
    /// Paths, and why nothing is mounted there.
    pub failed: Vec<(String, String)>,
}

/// Mounts what is shared with a guest, and nothing else that was before. Needs sudo there.
pub async fn mount(shares: &[Share], remote: &Remote) -> Result<Mounting, ShareError> {
    let inner = shell_quote(MOUNT_SCRIPT);
    // The login user's own shell may be anything, and root needs no sudo.
    let command = format!(
        "exec sh -c {}",
        shell_quote(&format!(
            "[ \"$(id -u)\" = 0 ] || exec sudo -n sh -c {inner} stead-mount; exec sh -c {inner} stead-mount"
        ))
    );
    let mut said = String::new();
    let mut complaint = String::new();
    let lines = lines(shares);
    let status = remote
        .stream(&command, Some(lines.as_bytes()), &mut |is_error, line| {
            let to = if is_error { &mut complaint } else { &mut said };
            to.push_str(line);
            to.push('\n');
        })
        .await?;
    if !status.success() {
        let last = complaint
            .trim()
            .lines()
            .last()
            .unwrap_or("it ended without a word");
        return Err(ShareError::NotMounted {
            machine: remote.machine.clone(),
            to: (shares.iter().map(|share| share.to.as_str()))
                .collect::<Vec<_>>()
                .join(", "),
            said: last.to_string(),
        });
    }
    Ok(parse(&said, shares))
}

/// Whether a folder of the host is mounted there, below or above, so that what is written there is
/// written on the host.
pub async fn is_mounted(to: &str, remote: &Remote) -> Result<bool, GuestError> {
    let output = remote.run("grep '^stead-' /proc/mounts").await?;
    Ok(is_mounted_in(&output.stdout, to))
}

fn is_mounted_in(mounts: &str, to: &str) -> bool {
    let to = escaped(to);
    let below = |path: &str, above: &str| {
        (path.strip_prefix(above)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    (mounts.lines())
        .filter_map(|line| line.split(' ').nth(1))
        .any(|path| below(path, &to) || below(&to, path))
}

fn parse(said: &str, shares: &[Share]) -> Mounting {
    let mut found = Mounting::default();
    for line in said.lines() {
        let Some((word, rest)) = line.split_once(' ') else {
            continue;
        };
        // Paths may have spaces, and are known.
        let path = (shares.iter().map(|share| share.to.as_str()))
            .filter(|to| {
                rest == *to || rest.strip_prefix(*to).is_some_and(|it| it.starts_with(' '))
            })
            .max_by_key(|to| to.len());
        match (word, path) {
            ("hidden", Some(path)) => found.hidden.push(path.to_string()),
            ("busy", Some(path)) => {
                (found.failed).push((path.to_string(), "something else is mounted there".into()));
            }
            ("failed", Some(path)) => {
                let why = rest[path.len()..].trim().to_string();
                found.failed.push((path.to_string(), why));
            }
            ("lacks", _) => {
                for kind in [ShareKind::Virtiofs, ShareKind::NineP] {
                    if rest == kind.word() && !found.lacks.contains(&kind) {
                        found.lacks.push(kind);
                    }
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(to: &str, kind: ShareKind, readonly: bool) -> Share {
        Share {
            from: "/x".into(),
            to: to.into(),
            kind,
            readonly,
        }
    }

    #[test]
    fn what_the_guest_is_told_to_mount() {
        insta::assert_snapshot!(lines(&[
            share("/srv/app", ShareKind::Virtiofs, false),
            share("/srv/a b\\c#d", ShareKind::Virtiofs, true),
            share("/srv/nine", ShareKind::NineP, false),
        ]));
    }

    #[test]
    fn a_tag_is_of_the_place_alone_and_short() {
        let one = share("/srv/app", ShareKind::Virtiofs, false);
        let other = share("/srv/app", ShareKind::NineP, true);
        assert_eq!(one.tag(), other.tag());
        assert_ne!(one.tag(), share("/srv/b", ShareKind::NineP, true).tag());
        assert!(one.tag().len() <= 31);
    }

    #[test]
    fn what_is_mounted_is_known_by_its_place() {
        let mounts =
            "stead-01234567 /srv/a\\040b virtiofs rw 0 0\nstead-89abcdef /srv/app 9p rw 0 0\n";
        for (to, wanted) in [
            ("/srv/a b", true),
            ("/srv/app", true),
            ("/srv/app/below", true),
            ("/srv", true),
            ("/srv/application", false),
            ("/opt", false),
        ] {
            assert_eq!(is_mounted_in(mounts, to), wanted, "{to}");
        }
    }

    #[test]
    fn what_the_guest_says_is_read() {
        let shares = [
            share("/srv/a", ShareKind::Virtiofs, false),
            share("/srv/a b", ShareKind::Virtiofs, false),
        ];
        let said = "Welcome to it\nhidden /srv/a b\nlacks 9p\nlacks 9p\nfailed /srv/a mount: no such device\nbusy /srv/a b\n";
        assert_eq!(
            parse(said, &shares),
            Mounting {
                hidden: vec!["/srv/a b".into()],
                lacks: vec![ShareKind::NineP],
                failed: vec![
                    ("/srv/a".into(), "mount: no such device".into()),
                    ("/srv/a b".into(), "something else is mounted there".into()),
                ],
            }
        );
    }
}
