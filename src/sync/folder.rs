//! Copies one folder into one guest: all of it, or only what changed.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::Path};

use crate::{
    guest::Remote,
    host::{runtime::blocking, shell::shell_quote},
    machinefile::SyncFolder,
};

use super::{
    deletion_guard::{self, FilesOf, Mark},
    error::SyncError,
    filter::{Filter, Survey, holes},
    outcome::{Changes, RsyncResult},
    rsync::{Extra, Progress, RemoteShell, RsyncTarget, Rules, is_sparse, push_with},
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
    let survey = survey(folder, true).await?;
    for notice in survey.notices(folder.owner.is_some()) {
        each(SyncMessage::Notice(notice));
    }
    let rules = match folder.gitignore {
        true => Some(Rules::new(&survey.rules)?),
        false => None,
    };
    let owner = owner(folder, remote).await?;
    let mut target = target(folder, owner.as_deref());
    target.progress = true;
    let extra = Extra {
        rules: rules.as_ref(),
        count: true,
        of_bytes: Some(survey.bytes),
        sparse: is_sparse(survey.holes),
        ..Extra::default()
    };
    let shell = RemoteShell::of(remote)?;
    let ended = match push_with(&target, extra, &shell, &remote.machine, &mut |progress| {
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
    };
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
        &RemoteShell::of(remote)?,
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
            shell: RemoteShell::of(remote)?,
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
        let holes = match paths {
            None => survey(&self.folder, true).await?.holes,
            Some(list) => holes_of(&self.folder.from, list),
        };
        let extra = Extra {
            rules: Some(rules),
            paths,
            count: true,
            sparse: is_sparse(holes),
            ..Extra::default()
        };
        let ended = push_with(&target, extra, &self.shell, &self.machine, &mut |_| {}).await?;
        if let Some(mark) = &self.mark {
            mark.write(&self.folder)?;
        }
        Ok(ended.changes)
    }
}

/// Returns how many bytes of holes the files of a list have, each followed by a NUL.
fn holes_of(root: &Path, list: &[u8]) -> u64 {
    (list.split(|byte| *byte == 0))
        .filter(|name| !name.is_empty())
        .filter_map(|name| fs::symlink_metadata(root.join(OsStr::from_bytes(name))).ok())
        .map(|file| holes(&file))
        .sum()
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
        io::{Seek, Write},
        os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
        path::PathBuf,
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

    /// Zeros that were never written are not sent, and are not written in the guest.
    #[tokio::test]
    async fn holes_stay_holes() {
        let base = tempfile::tempdir().unwrap();
        let (host, guest) = (base.path().join("host"), base.path().join("guest"));
        fs::create_dir(&host).unwrap();
        fs::create_dir(&guest).unwrap();
        let folder = folder(&host, &guest);
        let ssh = fake_ssh(base.path());
        // What goes to the guest is counted.
        let through = "exec 3<&0
rm -f AT/through
mkfifo AT/through
tee AT/sent <&3 >AT/through 3<&- &
tee=$!
exec 3<&-
sh -c \"$*\" <AT/through
code=$?
kill $tee
exit $code";
        let through = through.replace("AT", &base.path().display().to_string());
        let script = fs::read_to_string(&ssh).unwrap();
        let script = script.replace("exec sh -c \"$*\"", &through);
        fs::write(&ssh, script).unwrap();
        let pusher = Pusher::through(&folder, &ssh);
        let rules = Rules::new(b"").unwrap();
        for (n, paths) in [None, Some(&b"disk\0"[..])].into_iter().enumerate() {
            let mut file = fs::File::create(host.join("disk")).unwrap();
            file.seek(std::io::SeekFrom::Start(8 << 20)).unwrap();
            file.write_all(format!("content {n}").as_bytes()).unwrap();
            file.set_len(16 << 20).unwrap();
            pusher.push(&rules, paths).await.unwrap();
            let got = fs::read(guest.join("disk")).unwrap();
            assert!(got == fs::read(host.join("disk")).unwrap());
            let blocks = fs::metadata(guest.join("disk")).unwrap().blocks();
            assert!(blocks * 512 < 1 << 20, "{blocks}");
            let sent = fs::metadata(base.path().join("sent")).unwrap().len();
            assert!(sent < 1 << 18, "{sent}");
        }
    }

    /// Files as trees have them: several names of one file, names that are not UTF-8 or have line ends, names that
    /// differ by case alone, pipes and sockets.
    #[tokio::test]
    async fn a_tree_arrives_as_it_is() {
        let base = tempfile::tempdir().unwrap();
        let (host, guest) = (base.path().join("host"), base.path().join("guest"));
        fs::create_dir_all(host.join("deep")).unwrap();
        fs::create_dir(&guest).unwrap();
        let odd = OsStr::from_bytes(b"caf\xe9 \xff\n*[x]\\");
        for name in [OsStr::new("name"), OsStr::new("Name"), odd] {
            fs::write(host.join(name), name.as_bytes()).unwrap();
        }
        for other in ["other", "deep/other"] {
            fs::hard_link(host.join("name"), host.join(other)).unwrap();
        }
        nix::unistd::mkfifo(&host.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(host.join("socket")).unwrap();
        let folder = folder(&host, &guest);
        let pusher = Pusher::through(&folder, &fake_ssh(base.path()));
        let rules = Rules::new(b"").unwrap();
        let listed = &b"name\0other\0deep/other\0Name\0pipe\0"[..];
        let list = [listed, odd.as_bytes(), b"\0"].concat();
        for paths in [None, Some(list.as_slice())] {
            pusher.push(&rules, paths).await.unwrap();
            for name in [OsStr::new("name"), OsStr::new("Name"), odd] {
                assert_eq!(fs::read(guest.join(name)).unwrap(), name.as_bytes());
            }
            let inode = |name: &str| fs::symlink_metadata(guest.join(name)).unwrap().ino();
            assert_eq!(inode("name"), inode("other"));
            assert_eq!(inode("name"), inode("deep/other"));
            let kind = |name: &str| fs::symlink_metadata(guest.join(name)).unwrap().file_type();
            assert!(kind("pipe").is_fifo() && kind("socket").is_socket());
        }
        // A name that becomes a file of its own is one in the guest too.
        fs::remove_file(host.join("other")).unwrap();
        fs::write(host.join("other"), "of its own").unwrap();
        pusher.push(&rules, Some(b"other\0")).await.unwrap();
        assert_eq!(fs::read(guest.join("name")).unwrap(), b"name");
        assert_eq!(fs::read(guest.join("other")).unwrap(), b"of its own");
    }

    /// With the variables that change what rsync does.
    #[test]
    fn the_users_settings_for_rsync_change_nothing() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sync::folder::tests::a_tree_arrives_as_it_is"])
            .env("RSYNC_ICONV", "utf-8,iso-8859-1")
            .env("RSYNC_MAX_ALLOC", "1k")
            .env("RSYNC_OLD_ARGS", "1")
            .env("RSYNC_RSH", "/bin/false")
            .env("POSIXLY_CORRECT", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
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
