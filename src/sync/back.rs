//! Fetches files that a guest made in a synced folder back to the host, without losing anything there:
//! rsync fetches into a folder of its own, and a file is put in place only if that destroys no content
//! of the host's. Files that the host would run by itself are never fetched: [`skip::Refused`].

mod decide;
mod outcome;
mod place;
mod skip;

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::Path,
};

use crate::{
    guest::Remote,
    host::{beneath::Folder, confine::Access, free_space, open},
    machinefile::SyncFolder,
    report::clean::Shown,
};

use super::{
    error::SyncError,
    filter::Filter,
    outcome::judge,
    rsync::{RemoteShell, RsyncTarget, Rules, not_opened, run},
};
use place::place_all;
use skip::Skip;

pub use outcome::{BackOptions, BackOutcome};

/// The prefix of the names of folders that rsync fetches into.
const STAGED: &str = "back.";

/// Fetches `path`, relative to the folder (empty for all of it), by way of a new folder in `scratch`.
///
/// # Errors
/// If `path` is not in the guest, rsync fails, or a file cannot be written on the host.
pub async fn fetch_back(
    folder: &SyncFolder,
    remote: &Remote,
    path: &Path,
    scratch: &Path,
    options: BackOptions<'_>,
) -> Result<BackOutcome, SyncError> {
    let shell = RemoteShell::of(remote)?;
    fetch_through(folder, &shell, &remote.machine, path, scratch, options).await
}

async fn fetch_through(
    folder: &SyncFolder,
    shell: &RemoteShell,
    machine: &str,
    path: &Path,
    scratch: &Path,
    options: BackOptions<'_>,
) -> Result<BackOutcome, SyncError> {
    fs::create_dir_all(scratch).map_err(SyncError::file("make", scratch))?;
    sweep(scratch);
    let staged = tempfile::Builder::new()
        .prefix(STAGED)
        .tempdir_in(scratch)
        .map_err(SyncError::file("make a folder in", scratch))?;
    let hold = || -> io::Result<_> {
        let staged_at = staged.path().canonicalize()?;
        let held = File::open(&staged_at)?;
        held.lock()?;
        Ok((staged_at, held))
    };
    let (staged_at, _held) = hold().map_err(SyncError::file("lock", staged.path()))?;
    // Opened before the guest can know of the fetch: it may be able to write to a folder above.
    let host = open::folder(&folder.from).map_err(|error| not_opened(&folder.from, error))?;
    let mut filter = Filter::new(&folder.from, &folder.exclude, folder.gitignore);
    let survey = filter.survey(false)?;
    // A path that the user names is fetched even if syncs exclude it.
    let rules = match filter.excludes_within(path, true) {
        true => None,
        false => Some(Rules::new(&survey.rules)?),
    };
    // Without -D: nobody wants sockets, pipes and devices back, and root would create them.
    let mut arguments: Vec<OsString> = ["-rlpt", "--relative", "--secluded-args", "--from0"]
        .map(OsString::from)
        .into();
    let mut same = OsString::from("--compare-dest=");
    same.push(&folder.from);
    arguments.push(same);
    arguments.extend(rules.as_ref().map(|rules| rules.filter().into()));
    // Files that do not fit are skipped from the start: a sparse file can claim any size.
    if let Some(free) = free_space::free(staged.path()) {
        arguments.push(format!("--max-size={free}").into());
        arguments.extend(["--sparse", "--info=skip1", "--8-bit-output"].map(OsString::from));
    }
    arguments.push(
        match folder.owner {
            Some(_) => "--rsync-path=sudo -n rsync",
            None => "--rsync-path=rsync",
        }
        .into(),
    );
    arguments.extend(["-e", &shell.words, "--"].map(OsString::from));
    let mut source = OsString::from(format!("{machine}:{}/./", folder.to.trim_end_matches('/')));
    source.push(path);
    arguments.push(source);
    arguments.push(staged.path().as_os_str().to_os_string());
    let target = RsyncTarget {
        from: staged.path(),
        to: &folder.to,
        contents: true,
        exclude: &[],
        delete: false,
        as_root: None,
        mode: None,
        progress: false,
    };
    let to = open::folder(&staged_at).map_err(SyncError::file("open", &staged_at))?;
    let rules = rules.as_ref().map(Rules::opened).transpose()?;
    let mut given = vec![(&host, Access::Tree), (&to, Access::Folder)];
    given.extend(rules.as_ref().map(|rules| (rules, Access::Read)));
    let rules = shell.file_rules(&given)?;
    let ended = run(&arguments, None, rules, None, false, &mut |_| {}).await?;
    if ended.code == Some(23)
        && let Some(line) =
            (ended.said.lines()).find(|it| it.contains("link_stat") || it.contains("change_dir"))
        && line.contains("No such file or directory")
    {
        return Err(SyncError::NotInGuest {
            path: Path::new(&folder.to).join(path),
            machine: machine.to_string(),
        });
    }
    let ended = judge(ended, &target, machine)
        .map_err(|error| fetching(error, folder, machine, scratch))?;
    let mut back = BackOutcome::default();
    let too_large = ended.too_large.iter();
    back.skipped
        .extend(too_large.map(|name| (name.into(), Skip::TooLarge)));
    let special = ended.special.iter();
    back.skipped
        .extend(special.map(|name| (name.into(), Skip::Special)));
    let host = Folder::of(host, &folder.from);
    place_all(folder, &host, staged.path(), path, options, &mut back)?;
    back.fetched.sort();
    back.skipped.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(back)
}

/// Turns an error of a push into that of a fetch, which goes in the other direction.
fn fetching(error: SyncError, folder: &SyncFolder, machine: &str, scratch: &Path) -> SyncError {
    let from = folder.to.clone();
    match error {
        SyncError::Lost { machine, said, .. } => SyncError::LostBack {
            machine,
            from,
            to: folder.from.clone(),
            said,
        },
        SyncError::GuestDenied { said, .. } | SyncError::HostUnreadable { names: said, .. } => {
            SyncError::GuestUnreadable {
                machine: machine.to_string(),
                from,
                said,
            }
        }
        SyncError::Failed {
            to,
            machine,
            code,
            said,
            ..
        } => SyncError::NotFetched {
            from: to,
            machine,
            code,
            said,
        },
        SyncError::GuestFull { said } => SyncError::Io {
            doing: format!("fetch into {}", scratch.shown()),
            source: io::Error::new(io::ErrorKind::StorageFull, said),
        },
        other => other,
    }
}

/// Removes the folders of fetches that were killed. A fetch at work holds a lock on its own.
fn sweep(scratch: &Path) {
    for entry in fs::read_dir(scratch).into_iter().flatten().flatten() {
        let is_ours = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(STAGED.as_bytes());
        if is_ours && File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok()) {
            // A folder that cannot be removed does no harm.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::FileTimes,
        io::{Seek, SeekFrom, Write},
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
        path::PathBuf,
        time::{Duration, SystemTime},
    };

    use super::{skip::Refused, *};
    use crate::sync::{
        folder::tests::{fake_ssh, folder},
        git::tests::{repository, set_traps},
    };

    struct Ground {
        base: tempfile::TempDir,
        folder: SyncFolder,
    }

    impl Ground {
        fn new() -> Self {
            let base = tempfile::tempdir().unwrap();
            let folder = folder(&base.path().join("host"), &base.path().join("guest"));
            fake_ssh(base.path());
            let ground = Ground { base, folder };
            fs::create_dir_all(ground.base.path().join("host")).unwrap();
            fs::create_dir_all(ground.base.path().join("guest")).unwrap();
            ground
        }

        /// `age` in minutes.
        fn write(&self, name: &str, content: &str, age: u64) {
            let path = self.base.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            let at = SystemTime::now() - Duration::from_secs(age * 60);
            File::options()
                .append(true)
                .open(&path)
                .unwrap()
                .set_times(FileTimes::new().set_modified(at))
                .unwrap();
        }

        fn host(&self, name: &str) -> String {
            fs::read_to_string(self.base.path().join("host").join(name)).unwrap()
        }

        async fn fetch(
            &self,
            path: &str,
            force: bool,
            dry_run: bool,
        ) -> Result<BackOutcome, SyncError> {
            let host_runs = [self.base.path().join("host/hooks")];
            fetch_through(
                &self.folder,
                &RemoteShell {
                    words: self.base.path().join("fake-ssh").display().to_string(),
                    opens: None,
                },
                "web",
                Path::new(path),
                &self.base.path().join("scratch"),
                BackOptions {
                    force,
                    dry_run,
                    host_runs: &host_runs,
                },
            )
            .await
        }
    }

    #[test]
    fn errors_name_the_folders_of_the_project_and_the_direction() {
        let ground = Ground::new();
        let staged = ground.base.path().join("scratch/back-x");
        let (machine, to) = ("web".to_string(), "/srv/app".to_string());
        for (error, said) in [
            (
                SyncError::HostUnreadable {
                    from: staged.clone(),
                    count: "1 file".into(),
                    names: "secret".into(),
                    user: "ann".into(),
                },
                "the login user cannot read all of /srv/app of web: secret",
            ),
            (
                SyncError::Lost {
                    machine: machine.clone(),
                    from: staged.clone(),
                    to: to.clone(),
                    said: String::new(),
                },
                "lost the connection to web while fetching /srv/app of it into /host",
            ),
        ] {
            let mut folder = ground.folder.clone();
            (folder.from, folder.to) = ("/host".into(), to.clone());
            assert_eq!(fetching(error, &folder, "web", &staged).to_string(), said);
        }
    }

    #[tokio::test]
    async fn nothing_of_the_host_is_lost() {
        let ground = Ground::new();
        ground.write("guest/made/new\nname", "made", 0);
        ground.write("host/log", "one\n", 10);
        ground.write("guest/log", "one\ntwo\n", 1);
        ground.write("host/edited", "by hand", 1);
        ground.write("guest/edited", "by the guest", 10);
        ground.write("host/other", "mine", 10);
        ground.write("guest/other", "theirs", 1);
        ground.write("host/same", "same", 10);
        ground.write("guest/same", "same", 1);
        ground.write("host/kind/f", "", 1);
        ground.write("guest/kind", "a file", 1);
        let wanted = BackOutcome {
            fetched: vec!["log".into(), "made/new\nname".into()],
            skipped: vec![
                ("edited".into(), Skip::Newer),
                ("kind".into(), Skip::OtherKind),
                ("other".into(), Skip::Differs),
            ],
        };
        assert_eq!(ground.fetch("", false, true).await.unwrap(), wanted);
        assert_eq!(ground.host("log"), "one\n");
        assert!(!ground.base.path().join("host/made").exists());
        assert_eq!(ground.fetch("", false, false).await.unwrap(), wanted);
        assert_eq!(ground.host("log"), "one\ntwo\n");
        assert_eq!(ground.host("made/new\nname"), "made");
        assert_eq!(ground.host("edited"), "by hand");
        assert_eq!(ground.host("other"), "mine");
        let forced = ground.fetch("", true, false).await.unwrap();
        assert_eq!(forced.fetched, [Path::new("edited"), Path::new("other")]);
        assert_eq!(ground.host("other"), "theirs");
        assert!(ground.base.path().join("host/kind/f").exists());
        assert_eq!(
            fs::read_dir(ground.base.path().join("host"))
                .unwrap()
                .count(),
            6,
            "nothing of stead's own is left"
        );
    }

    #[tokio::test]
    async fn what_is_committed_can_be_replaced() {
        let ground = Ground::new();
        ground.write("host/package.lock", "old", 10);
        ground.write("host/dirty", "committed", 10);
        repository(&ground.base.path().join("host"));
        ground.write("host/dirty", "edited", 10);
        ground.write("guest/package.lock", "new", 1);
        ground.write("guest/dirty", "of the guest", 1);
        let back = ground.fetch("", false, false).await.unwrap();
        assert_eq!(back.fetched, [Path::new("package.lock")]);
        assert_eq!(back.skipped, [("dirty".into(), Skip::Differs)]);
        assert_eq!(ground.host("package.lock"), "new");
    }

    #[tokio::test]
    async fn what_is_left_out_comes_when_it_is_named() {
        let mut ground = Ground::new();
        ground.folder.exclude = vec!["target".into()];
        ground.write("guest/target/app", "built", 1);
        ground.write("guest/src/f", "", 1);
        let back = ground.fetch("", false, true).await.unwrap();
        assert_eq!(back.fetched, [Path::new("src/f")]);
        let back = ground.fetch("target/app", false, false).await.unwrap();
        assert_eq!(back.fetched, [Path::new("target/app")]);
        assert_eq!(ground.host("target/app"), "built");
        assert!(matches!(
            ground.fetch("no/such", false, false).await,
            Err(SyncError::NotInGuest { .. })
        ));
    }

    #[tokio::test]
    async fn links_on_the_host_lead_nowhere() {
        let ground = Ground::new();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), ground.base.path().join("host/out")).unwrap();
        ground.write("guest/out/f", "", 1);
        let back = ground.fetch("", true, false).await.unwrap();
        assert_eq!(back.skipped, [("out".into(), Skip::LinkAbove)]);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    /// A guest that has a folder above it by virtiofs can do this: it knows when rsync starts.
    #[tokio::test]
    async fn a_folder_that_is_swapped_while_it_is_fetched_leads_nowhere() {
        let mut ground = Ground::new();
        let at = |name: &str| ground.base.path().canonicalize().unwrap().join(name);
        fs::create_dir(at("outside")).unwrap();
        ground.write("guest/.ssh/authorized_keys", "a key", 1);
        let script = format!(
            "#!/bin/sh\nwhile [ \"$1\" != web ]; do shift; done\nshift\ncd {}\nmv host aside\nln -s outside host\nexec sh -c \"$*\"\n",
            at("").display()
        );
        fs::write(at("fake-ssh"), script).unwrap();
        ground.folder.from = at("host");
        let outside = at("outside");
        let ended = ground.fetch("", true, false).await;
        assert_eq!(fs::read_dir(outside).unwrap().count(), 0, "{ended:?}");
    }

    /// A fetch that was killed could not remove its own.
    #[tokio::test]
    async fn what_was_fetched_into_is_removed() {
        let ground = Ground::new();
        ground.write("scratch/back.killed/f", "", 1);
        ground.write("scratch/other/f", "", 1);
        ground.write("guest/f", "f", 1);
        ground.fetch("", false, false).await.unwrap();
        let left: Vec<_> = fs::read_dir(ground.base.path().join("scratch"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["other"]);
    }

    #[tokio::test]
    async fn holes_come_back_as_holes() {
        let ground = Ground::new();
        let at = |name: &str| ground.base.path().join(name);
        let mut disk = File::create(at("guest/disk")).unwrap();
        disk.seek(SeekFrom::Start(8 << 20)).unwrap();
        disk.write_all(b"content").unwrap();
        disk.set_len(16 << 20).unwrap();
        fs::File::create(at("guest/hole"))
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        ground.fetch("", false, false).await.unwrap();
        for name in ["disk", "hole"] {
            let [guest, host] = ["guest", "host"].map(|it| at(it).join(name));
            assert!(
                fs::read(&guest).unwrap() == fs::read(&host).unwrap(),
                "{name}"
            );
            assert!(
                fs::metadata(&host).unwrap().blocks() * 512 < 1 << 20,
                "{name}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_larger_than_the_disk_is_left_and_said() {
        let ground = Ground::new();
        ground.write("guest/f", "f", 1);
        let huge = File::create(ground.base.path().join("guest/huge")).unwrap();
        huge.set_len(8 << 40).unwrap();
        let back = ground.fetch("", false, false).await.unwrap();
        assert_eq!(back.fetched, [Path::new("f")]);
        assert_eq!(back.skipped, [("huge".into(), Skip::TooLarge)]);
    }

    /// As a hostile guest would do that wants something run on the host.
    #[tokio::test]
    async fn what_the_host_would_run_does_not_come() {
        let ground = Ground::new();
        let host = ground.base.path().join("host");
        ground.write("host/tracked", "one", 10);
        ground.write("host/run.sh", "#!/bin/sh\n", 10);
        fs::set_permissions(host.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        ground.write("host/.profile", "true\n", 10);
        fs::write(host.join(".gitignore"), "run.sh\n.profile\n").unwrap();
        repository(&host);
        let config = fs::read_to_string(host.join(".git/config")).unwrap();
        let mark = ground.base.path().join("ran");
        let trap = format!("\tfsmonitor = \"touch '{}';false\"\n", mark.display());
        ground.write("guest/.git/config", &format!("{config}{trap}"), 1);
        ground.write("guest/.git/hooks/pre-commit", "#!/bin/sh\n", 1);
        ground.write("guest/sub/.GIT/config", "x", 1);
        ground.write("guest/bare/HEAD", "ref: refs/heads/main\n", 1);
        ground.write("guest/hg/.hg/hgrc", "[hooks]\n", 1);
        ground.write("guest/Machinefile", "x", 1);
        ground.write("guest/Machinefile.local", "x", 1);
        ground.write("guest/hooks/up", "x", 1);
        ground.write("guest/.envrc", "x", 1);
        ground.write("guest/.vscode/tasks.json", "x", 1);
        ground.write("guest/tracked", "two", 1);
        ground.write("guest/run.sh", "#!/bin/sh\nid\n", 1);
        ground.write("guest/.profile", "true\nid\n", 1);
        ground.write("guest/Makefile", "all:\n", 1);
        // The project's own configuration has traps, too.
        set_traps(&host, &mark);
        let refused = |name: &str, why| (PathBuf::from(name), Skip::Refused(why));
        for force in [false, true] {
            let back = ground.fetch("", force, false).await.unwrap();
            for wanted in [
                refused(".envrc", Refused::ByItself),
                refused(".git", Refused::Repository),
                refused(".vscode", Refused::ByItself),
                refused("Machinefile", Refused::Machinefile),
                refused("Machinefile.local", Refused::Machinefile),
                refused("bare/HEAD", Refused::Repository),
                refused("hg/.hg", Refused::Repository),
                refused("hooks", Refused::Project),
                refused("sub/.GIT", Refused::Repository),
            ] {
                assert!(back.skipped.contains(&wanted), "{wanted:?}: {back:?}");
            }
            if !force {
                assert_eq!(back.fetched, [Path::new("Makefile"), Path::new("tracked")]);
                for name in [".profile", "run.sh"] {
                    let wanted = (PathBuf::from(name), Skip::Differs);
                    assert!(back.skipped.contains(&wanted), "{wanted:?}: {back:?}");
                }
            }
        }
        assert!(!mark.exists());
        // Files that other programs run are fetched when they are named; files that git and stead run
        // are not.
        let back = ground.fetch(".vscode", false, false).await.unwrap();
        assert_eq!(back.fetched, [Path::new(".vscode/tasks.json")]);
        for named in [".git/config", "Machinefile.local", "hooks/up"] {
            let back = ground.fetch(named, true, false).await.unwrap();
            assert!(back.fetched.is_empty(), "{named}: {back:?}");
            assert!(!back.skipped.is_empty(), "{named}");
        }
        assert!(!host.join("hooks").exists() && !host.join("Machinefile").exists());
        assert!(!mark.exists());
    }

    #[tokio::test]
    async fn no_power_and_no_way_out_comes_with_a_file() {
        let ground = Ground::new();
        let guest = ground.base.path().join("guest");
        ground.write("guest/deep/er/program", "x", 1);
        let mode = |name: &str, mode| {
            fs::set_permissions(guest.join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        mode("deep/er/program", 0o6757);
        mode("deep/er", 0o3777);
        for (name, target) in [
            ("absolute", "/etc/passwd"),
            ("up", "../secret"),
            ("deep/out", "../../secret"),
            // Its text stays inside, but `deep/top` leads it out.
            ("deep/top", ".."),
            ("by-another", "deep/top/../secret"),
            ("deep/inside", "er/program"),
            ("deep/er/around", "../../deep/er"),
        ] {
            symlink(target, guest.join(name)).unwrap();
        }
        nix::unistd::mkfifo(&guest.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(guest.join("socket")).unwrap();
        let back = ground.fetch("", true, false).await.unwrap();
        let names = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(
            back.fetched,
            names(&[
                "deep/er/around",
                "deep/er/program",
                "deep/inside",
                "deep/top"
            ])
        );
        let skipped: Vec<PathBuf> = back.skipped.iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(
            skipped,
            names(&["absolute", "by-another", "deep/out", "pipe", "socket", "up"])
        );
        for (path, why) in &back.skipped {
            let special = ["pipe", "socket"].iter().any(|it| path == Path::new(it));
            let wanted = if special {
                Skip::Special
            } else {
                Skip::LeadsOut
            };
            assert_eq!(*why, wanted, "{path:?}");
        }
        let host = ground.base.path().join("host");
        let mode = |name: &str| fs::metadata(host.join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("deep/er/program"), mode("deep/er")), (0o755, 0o775));
        assert!(!host.join("pipe").exists() && !host.join("socket").exists());
    }
}
