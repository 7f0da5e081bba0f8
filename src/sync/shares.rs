//! Mounts folders of the host in guests, over virtiofs or 9p.

use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    guest::{GuestError, Remote},
    host::shell::shell_quote,
    machine::{Share, ShareKind},
    report::clean::Shown,
};

#[derive(Debug, Error, Diagnostic)]
pub enum ShareError {
    #[error("{from} does not exist any more", from = .from.shown())]
    #[diagnostic(help("put it back, or remove its `sync` from the Machinefile"))]
    Gone { from: PathBuf },
    #[error("{from}, or a folder above it, was replaced by a symlink", from = .from.shown())]
    #[diagnostic(help(
        "nothing was shared, because a symlink can lead to any folder of the host; put the folder back, or set the right path in the Machinefile"
    ))]
    Swapped { from: PathBuf },
    #[error("{why}")]
    #[diagnostic(help("{remedy}"))]
    NoVirtiofsd { why: String, remedy: String },
    #[error("virtiofsd cannot share {from}: {said}", from = .from.shown())]
    #[diagnostic(help(
        "`stead doctor` checks whether virtiofsd can be used here; type=\"rsync\" copies the folder instead"
    ))]
    NotStarted { from: PathBuf, said: String },
    #[error("cannot {doing} {path}: {source}", path = .path.shown())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot mount {to} in machine {machine}: its kernel {kernel} has no {}", .kind.word())]
    #[diagnostic(help("{}", remedy(*.kind)))]
    NoFilesystem {
        machine: String,
        to: String,
        kernel: String,
        kind: ShareKind,
    },
    #[error("cannot mount {to} in machine {machine}: {said}")]
    #[diagnostic(help(
        "the machine is running: inspect it with `stead ssh {machine}`; `stead up {machine}` continues from here"
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

/// What to do if a guest's kernel lacks the file system.
pub fn remedy(kind: ShareKind) -> &'static str {
    match kind {
        ShareKind::Virtiofs => {
            "choose another kernel (Linux has virtiofs since 5.4), or copy the folder with type=\"rsync\""
        }
        ShareKind::NineP => {
            "choose a kernel that has it (`kernel { package \"linux-image-amd64\" }`; Debian's cloud kernel does not), or use type=\"virtiofs\" or type=\"rsync\""
        }
    }
}

/// The largest 9p request, in bytes: twice Linux's default of 128 KiB, and below virtio's limit (500 KiB;
/// kernel, Documentation/filesystems/9p.rst).
const MSIZE: u32 = 256 << 10;

/// provisioners/guest/stead-mount.
const MOUNT_SCRIPT: &str = include_str!("../../provisioners/guest/stead-mount");

/// The lines for the script's standard input.
fn lines(shares: &[Share]) -> String {
    let mut lines = String::new();
    for share in shares {
        let options = match share.kind {
            ShareKind::Virtiofs => "defaults".to_string(),
            // access=any: QEMU does everything as one user, whoever the user is in the guest. cache=mmap:
            // without a cache, files could not be mapped for writing.
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

/// Escapes a path like fstab(5) and /proc/mounts.
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

/// The result of mounting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounting {
    /// Paths where the mount hides files of the guest.
    pub hidden: Vec<String>,
    /// File systems that the guest's kernel lacks.
    pub lacks: Vec<ShareKind>,
    /// Paths where nothing could be mounted, with the reason.
    pub failed: Vec<(String, String)>,
}

/// Mounts the shares in the guest, now and at each boot, and removes the lines of former shares from its
/// fstab. Needs sudo in the guest.
pub async fn mount(shares: &[Share], remote: &Remote) -> Result<Mounting, ShareError> {
    let inner = shell_quote(MOUNT_SCRIPT);
    // Root needs no sudo.
    let command = format!(
        "[ \"$(id -u)\" = 0 ] || exec sudo -n sh -c {inner} stead-mount; exec sh -c {inner} stead-mount"
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
            .unwrap_or("it ended without a message");
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

/// Whether a folder of the host is mounted at the path, below it or above it, so that files written there
/// land on the host.
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
        // Paths may have spaces, so the line is compared with the known ones.
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
                let kind = (shares.iter().map(|share| share.kind)).find(|it| it.word() == rest);
                found
                    .lacks
                    .extend(kind.filter(|kind| !found.lacks.contains(kind)));
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
            share("/srv/nine", ShareKind::NineP, false),
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
