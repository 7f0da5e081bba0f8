//! Copies one folder into one guest: all of it, or only what changed.

use std::sync::OnceLock;

use crate::{
    guest::Remote,
    host::{runtime::blocking, shell::shell_quote},
    machinefile::SyncFolder,
};

use super::{
    deletion_guard::{self, FilesOf, Mark},
    error::SyncError,
    filter::{Filter, Survey},
    outcome::{Changes, RsyncResult},
    rsync::{Extra, Progress, RemoteShell, RsyncTarget, Rules, push_with},
};

/// What a sync reports while it works.
pub enum SyncMessage {
    Progress(Progress),
    Notice(String),
}

/// Returns the owner of a folder's files in the guest, in the form of `--chown`. If only a user is set,
/// this asks the guest for that user's login group.
pub(super) async fn owner(
    folder: &SyncFolder,
    remote: &Remote,
) -> Result<Option<String>, SyncError> {
    let Some(owner) = &folder.owner else {
        return Ok(None);
    };
    if owner.contains(':') {
        return Ok(Some(owner.clone()));
    }
    let output = remote
        .run(&format!("id -g -- {}", shell_quote(owner)))
        .await?;
    // It must be a number, so that the guest's answer cannot become anything else in rsync's arguments.
    match output.stdout.trim().parse::<u32>() {
        Ok(group) if output.status.success() => Ok(Some(format!("{owner}:{group}"))),
        _ if output.status.code() == Some(crate::guest::SSH_FAILED) => Err(SyncError::Lost {
            machine: remote.machine.clone(),
            from: folder.from.clone(),
            to: folder.to.clone(),
            said: output.last_words(),
        }),
        _ => Err(SyncError::NoOwner {
            machine: remote.machine.clone(),
            name: owner.clone(),
        }),
    }
}

fn target<'a>(folder: &'a SyncFolder, owner: Option<&'a str>) -> RsyncTarget<'a> {
    RsyncTarget {
        from: &folder.from,
        to: &folder.to,
        contents: true,
        exclude: &folder.exclude,
        delete: folder.delete,
        as_root: owner,
        mode: None,
        progress: false,
    }
}

/// Walks the folder in a thread for blocking work.
async fn survey(folder: &SyncFolder, weigh: bool) -> Result<Survey, SyncError> {
    let (from, exclude, gitignore) = (
        folder.from.clone(),
        folder.exclude.clone(),
        folder.gitignore,
    );
    let unread = SyncError::file("read", &from);
    match blocking(move || Filter::new(&from, &exclude, gitignore).survey(weigh)).await {
        Ok(surveyed) => Ok(surveyed?),
        Err(error) => Err(unread(error.into())),
    }
}

/// Makes the guest's folder equal to the host's.
pub async fn sync_folder(
    folder: &SyncFolder,
    remote: &Remote,
    each: &mut (dyn FnMut(SyncMessage) + Send),
) -> Result<Changes, SyncError> {
    let mark = Mark::of(folder, remote);
    let is_known = mark.read().is_some();
    mark.check(folder, &remote.machine)?;
    if folder.delete
        && !is_known
        && deletion_guard::whose_files(folder, remote).await? == FilesOf::Others
    {
        takes_nothing_away(folder, remote, each).await?;
    }
    let bytes = OnceLock::new();
    // With `gitignore`, rsync needs the result of the walk. Otherwise the walk is only for notices and
    // progress, and runs beside rsync.
    let (rules, walk) = if folder.gitignore {
        let survey = survey(folder, true).await?;
        let _ = bytes.set(survey.bytes);
        if let Some(notice) = survey.notice() {
            each(SyncMessage::Notice(notice));
        }
        (Some(Rules::new(&survey.rules)?), None)
    } else {
        (None, Some(survey(folder, true)))
    };
    let owner = owner(folder, remote).await?;
    let mut target = target(folder, owner.as_deref());
    target.progress = true;
    let extra = Extra {
        rules: rules.as_ref(),
        count: true,
        of_bytes: Some(&bytes),
        ..Extra::default()
    };
    let mut notice = None;
    let walk = async {
        if let Some(walk) = walk
            && let Ok(survey) = walk.await
        {
            let _ = bytes.set(survey.bytes);
            notice = survey.notice();
        }
    };
    let shell = RemoteShell::of(remote);
    let push = async {
        match push_with(&target, extra, &shell, &remote.machine, &mut |progress| {
            each(SyncMessage::Progress(progress));
        })
        .await
        {
            Err(SyncError::NoRsyncInGuest { .. }) => {
                install(remote, each).await?;
                push_with(&target, extra, &shell, &remote.machine, &mut |progress| {
                    each(SyncMessage::Progress(progress));
                })
                .await
            }
            other => other,
        }
    };
    let (ended, ()) = tokio::join!(push, walk);
    if let Some(notice) = notice {
        each(SyncMessage::Notice(notice));
    }
    let changes = ended?.changes;
    if !is_known {
        deletion_guard::remember(folder, remote).await?;
    }
    mark.write(folder)?;
    Ok(changes)
}

/// How many names an error lists.
const NAMED: usize = 5;

/// Checks that the first copy to a place deletes nothing.
///
/// # Errors
/// If it would delete files that stead did not put there.
async fn takes_nothing_away(
    folder: &SyncFolder,
    remote: &Remote,
    each: &mut (dyn FnMut(SyncMessage) + Send),
) -> Result<(), SyncError> {
    let ended = match list_changes(folder, remote).await {
        Err(SyncError::NoRsyncInGuest { .. }) => {
            install(remote, each).await?;
            list_changes(folder, remote).await?
        }
        other => other?,
    };
    let goes: Vec<&str> = (ended.listed.iter())
        .filter_map(|line| line.strip_prefix("*deleting"))
        .map(str::trim_start)
        .collect();
    if goes.is_empty() {
        return Ok(());
    }
    let more = goes.len() - goes.len().min(NAMED);
    let names = goes[..goes.len() - more].join(", ");
    Err(SyncError::NotOurs {
        from: folder.from.clone(),
        to: folder.to.clone(),
        machine: remote.machine.clone(),
        files: match more {
            0 => names,
            more => format!("{names} and {more} more"),
        },
    })
}

/// Lists what [`sync_folder`] would do, in rsync's itemized form.
pub async fn list_changes(folder: &SyncFolder, remote: &Remote) -> Result<RsyncResult, SyncError> {
    let rules = match folder.gitignore {
        true => Some(Rules::new(&survey(folder, false).await?.rules)?),
        false => None,
    };
    let owner = owner(folder, remote).await?;
    let target = target(folder, owner.as_deref());
    let extra = Extra {
        rules: rules.as_ref(),
        dry_run: true,
        ..Extra::default()
    };
    push_with(
        &target,
        extra,
        &RemoteShell::of(remote),
        &remote.machine,
        &mut |_| {},
    )
    .await
}

/// Syncs one folder many times. It keeps what it asked of the guest and the disk the first time.
pub(super) struct Pusher {
    folder: SyncFolder,
    machine: String,
    shell: RemoteShell,
    owner: Option<String>,
    mark: Option<Mark>,
}

impl Pusher {
    pub(super) async fn new(folder: &SyncFolder, remote: &Remote) -> Result<Self, SyncError> {
        Ok(Pusher {
            folder: folder.clone(),
            machine: remote.machine.clone(),
            shell: RemoteShell::of(remote),
            owner: owner(folder, remote).await?,
            mark: Some(Mark::of(folder, remote)),
        })
    }

    /// Returns a pusher that reaches its "guest" by a program of the test.
    #[cfg(test)]
    pub(super) fn through(folder: &SyncFolder, shell: &std::path::Path) -> Self {
        Pusher {
            folder: folder.clone(),
            machine: "web".into(),
            shell: RemoteShell {
                words: shell.to_string_lossy().into_owned(),
                opens: None,
            },
            owner: None,
            mark: None,
        }
    }

    /// Pushes the whole folder (`None`), or these paths, each followed by a NUL.
    pub(super) async fn push(
        &self,
        rules: &Rules,
        paths: Option<&[u8]>,
    ) -> Result<Changes, SyncError> {
        if let Some(mark) = &self.mark {
            mark.check(&self.folder, &self.machine)?;
        }
        let target = target(&self.folder, self.owner.as_deref());
        let extra = Extra {
            rules: Some(rules),
            paths,
            count: true,
            ..Extra::default()
        };
        let ended = push_with(&target, extra, &self.shell, &self.machine, &mut |_| {}).await?;
        if let Some(mark) = &self.mark {
            mark.write(&self.folder)?;
        }
        Ok(ended.changes)
    }
}

/// Installs rsync without asking questions. A Debian box may never have fetched its package lists.
const INSTALL: &str = r#"
set -u
[ "$(id -u)" = 0 ] && root= || root='sudo -n'
if command -v apt-get >/dev/null; then
    $root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends rsync ||
    { $root apt-get -q update && $root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends rsync; }
elif command -v dnf >/dev/null; then $root dnf -q install -y rsync
elif command -v yum >/dev/null; then $root yum -q install -y rsync
elif command -v apk >/dev/null; then $root apk add -q rsync
elif command -v zypper >/dev/null; then $root zypper -n -q install rsync
elif command -v pacman >/dev/null; then $root pacman -Sy --noconfirm --noprogressbar rsync
else echo 'found none of apt-get, dnf, yum, apk, zypper and pacman' >&2; exit 1
fi
"#;

async fn install(
    remote: &Remote,
    each: &mut (dyn FnMut(SyncMessage) + Send),
) -> Result<(), SyncError> {
    each(SyncMessage::Notice(
        "the guest has no rsync; installing it there".into(),
    ));
    let output = remote.run(INSTALL).await?;
    if output.status.success() {
        return Ok(());
    }
    Err(SyncError::NoRsyncInGuest {
        machine: remote.machine.clone(),
        said: Some(output.last_words()),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        path::{Path, PathBuf},
    };

    use crate::machinefile::SyncKind;

    use crate::host::confine::{Access, Isolation};

    use super::*;

    /// A program in place of ssh, which runs the guest's side here.
    pub(crate) fn fake_ssh(folder: &Path) -> PathBuf {
        let path = folder.join("fake-ssh");
        // The first arguments name the machine; `test -w` and `install` run as the login user.
        fs::write(
            &path,
            "#!/bin/sh\nwhile [ \"$1\" != web ]; do shift; done\nshift\nexec sh -c \"$*\"\n",
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub(crate) fn folder(from: &Path, to: &Path) -> SyncFolder {
        SyncFolder {
            from: from.to_path_buf(),
            to: to.display().to_string(),
            kind: SyncKind::Rsync,
            exclude: Vec::new(),
            delete: true,
            gitignore: false,
            owner: None,
            readonly: false,
            watch: true,
            at: String::new(),
        }
    }

    #[tokio::test]
    async fn edits_of_one_second_and_one_size_are_told_apart() {
        let base = tempfile::tempdir().unwrap();
        let (host, guest) = (base.path().join("host"), base.path().join("guest"));
        fs::create_dir(&host).unwrap();
        fs::create_dir(&guest).unwrap();
        let folder = folder(&host, &guest);
        let pusher = Pusher::through(&folder, &fake_ssh(base.path()));
        let rules = Rules::new(b"").unwrap();
        for (n, paths) in [None, Some(&b"f\0"[..]), None, Some(&b"f\0"[..])]
            .into_iter()
            .enumerate()
        {
            let at = std::time::SystemTime::UNIX_EPOCH
                + std::time::Duration::new(1_700_000_000, u32::try_from(n).unwrap() * 1_000_000);
            fs::write(host.join("f"), n.to_string()).unwrap();
            let file = fs::File::options()
                .append(true)
                .open(host.join("f"))
                .unwrap();
            file.set_times(fs::FileTimes::new().set_modified(at))
                .unwrap();
            pusher.push(&rules, paths).await.unwrap();
            assert_eq!(fs::read_to_string(guest.join("f")).unwrap(), n.to_string());
        }
    }

    #[tokio::test]
    async fn what_is_listed_goes_and_what_is_gone_goes_there_too() {
        let base = tempfile::tempdir().unwrap();
        let (host, guest) = (base.path().join("host"), base.path().join("guest"));
        for name in [
            "keep/f",
            "gone/src/f",
            "gone/target/t",
            "odd\nname",
            "-dash",
        ] {
            let path = host.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        fs::create_dir(&guest).unwrap();
        let mut folder = folder(&host, &guest);
        folder.exclude = vec!["target".into()];
        let pusher = Pusher::through(&folder, &fake_ssh(base.path()));
        let rules = Rules::new(b"- target\0").unwrap();
        let first = pusher.push(&rules, None).await.unwrap();
        assert_eq!((first.sent, first.made), (4, 3), "{first:?}");
        assert!(!guest.join("gone/target").exists());
        fs::create_dir(guest.join("gone/target")).unwrap();
        fs::write(guest.join("gone/target/made"), "").unwrap();
        fs::create_dir(host.join("keep/new")).unwrap();
        fs::write(host.join("keep/new/unlisted"), "").unwrap();
        fs::write(host.join("odd\nname"), "other").unwrap();
        fs::remove_dir_all(host.join("gone")).unwrap();
        fs::remove_file(host.join("-dash")).unwrap();
        let list = b"odd\nname\0gone\0-dash\0keep/new\0";
        let second = pusher.push(&rules, Some(list)).await.unwrap();
        assert_eq!(
            fs::read_to_string(guest.join("odd\nname")).unwrap(),
            "other"
        );
        assert!(!guest.join("-dash").exists());
        assert!(!guest.join("gone/src").exists());
        assert!(
            guest.join("gone/target/made").exists(),
            "excluded, so it stays"
        );
        assert!(guest.join("keep/new").is_dir());
        assert!(!guest.join("keep/new/unlisted").exists());
        assert_eq!((second.sent, second.made), (1, 1), "{second:?}");
    }

    /// A guest that has a folder above it by virtiofs can do this.
    #[tokio::test]
    async fn a_folder_that_was_swapped_for_a_link_is_not_sent() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(at("shared/host")).unwrap();
        fs::create_dir_all(at("private/host")).unwrap();
        fs::create_dir(at("guest")).unwrap();
        fs::write(at("shared/host/f"), "").unwrap();
        fs::write(at("private/host/key"), "").unwrap();
        let folder = folder(&at("shared/host"), &at("guest"));
        let pusher = Pusher::through(&folder, &fake_ssh(base.path()));
        let rules = Rules::new(b"").unwrap();
        pusher.push(&rules, None).await.unwrap();
        fs::rename(at("shared"), at("aside")).unwrap();
        std::os::unix::fs::symlink(at("private"), at("shared")).unwrap();
        for paths in [None, Some(&b"key\0"[..])] {
            let error = pusher.push(&rules, paths).await.unwrap_err();
            assert!(matches!(error, SyncError::Swapped { .. }), "{error}");
        }
        assert!(at("guest/f").exists() && !at("guest/key").exists());
    }

    /// A guest knows when rsync starts, because that starts a program there. rsync looks names up again
    /// and again, so the folder that it opened at first does not protect it from a later symlink.
    #[tokio::test]
    async fn a_folder_that_is_swapped_while_it_is_sent_leads_nowhere() {
        if !matches!(Isolation::of_host(), Isolation::Landlock(_)) {
            return;
        }
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().canonicalize().unwrap().join(name);
        for folder in ["project/share/d", "project/guest", "victim"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for contents in [true, false] {
            fs::write(at("project/share/d/f"), "the project's").unwrap();
            fs::write(at("victim/f"), "a secret").unwrap();
            let swap = at("project/swap");
            let script = format!(
                "while [ \"$1\" != web ]; do shift; done\nshift\ncd {}\nmv d aside\nln -s ../../victim d\nexec sh -c \"$*\"\n",
                at("project/share").display()
            );
            fs::write(&swap, script).unwrap();
            let shell = RemoteShell {
                words: format!("sh {}", swap.display()),
                // The program that plays the guest is confined too.
                opens: Some(vec![(at("project"), Access::Folder)]),
            };
            let to = at("project/guest/got").display().to_string();
            let from = match contents {
                true => at("project/share/d"),
                false => at("project/share/d/f"),
            };
            let target = RsyncTarget {
                from: &from,
                to: &to,
                contents,
                exclude: &[],
                delete: false,
                as_root: None,
                mode: None,
                progress: false,
            };
            let ended = push_with(&target, Extra::default(), &shell, "web", &mut |_| {}).await;
            let got = if contents {
                at("project/guest/got/f")
            } else {
                at("project/guest/got")
            };
            let got = fs::read_to_string(got).unwrap_or_default();
            assert_ne!(got, "a secret");
            let error = ended.unwrap_err();
            assert!(matches!(error, SyncError::Swapped { .. }), "{error}");
            fs::remove_file(at("project/share/d")).unwrap();
            fs::rename(at("project/share/aside"), at("project/share/d")).unwrap();
            let _ = fs::remove_dir_all(at("project/guest/got"));
        }
    }
}
