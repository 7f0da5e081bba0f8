//! Fetches files that a guest made in a synced folder back to the host, without losing anything there:
//! rsync fetches into a folder of its own, and a file is put in place only if that destroys no content
//! of the host's. Files that the host would run by itself are never fetched: [`Refused`].

use std::{
    ffi::OsString,
    fs::{self, File, FileTimes, Metadata},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
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
    git::Index,
    outcome::judge,
    rsync::{RemoteShell, RsyncTarget, Rules, not_opened, run},
};

/// The prefix of the names of folders that rsync fetches into.
const STAGED: &str = "back.";

/// What was fetched and what was skipped. Paths are relative to the folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BackOutcome {
    pub fetched: Vec<PathBuf>,
    /// Each with the reason.
    pub skipped: Vec<(PathBuf, Skip)>,
}

/// Why a file or folder was not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    Newer,
    Differs,
    OtherKind,
    LinkAbove,
    /// Larger than the free space on the host.
    TooLarge,
    /// A symlink whose target is outside the folder.
    LeadsOut,
    Refused(Refused),
}

/// Why the host would run the file without anybody asking for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It belongs to a repository of git, Mercurial or the like, whose configuration names programs.
    Repository,
    Machinefile,
    /// The project runs it on the host: a hook, a playbook with its files, a password script.
    Project,
    /// Programs of the host run it when somebody enters or opens the folder.
    ByItself,
}

/// Names by which programs know a repository.
const REPOSITORIES: [&str; 10] = [
    ".bzr", ".git", "git~1", "HEAD", ".hg", ".jj", ".pijul", ".sl", ".svn", "_darcs",
];

/// Names of files and folders that programs obey as soon as somebody enters or opens the folder that
/// they are in: direnv, autoenv, mise, asdf, vim, editors, agents, git hooks by husky and pre-commit.
const BY_THEMSELVES: [&str; 40] = [
    ".asdfrc",
    ".autoenv",
    ".autoenv.zsh",
    ".autoenv_leave.zsh",
    ".claude",
    ".codex",
    ".cursor",
    ".gemini",
    ".kiro",
    ".mcp.json",
    ".roo",
    ".theia",
    ".windsurf",
    ".config",
    ".devcontainer",
    ".devcontainer.json",
    ".dir-locals.el",
    ".editorconfig-checker.json",
    ".env",
    ".envrc",
    ".exrc",
    ".fleet",
    ".githooks",
    ".husky",
    ".idea",
    ".lefthook.toml",
    ".lefthook.yml",
    ".lvimrc",
    ".mise",
    ".mise.local.toml",
    ".mise.toml",
    ".nvim.lua",
    ".nvimrc",
    ".pre-commit-config.yaml",
    ".vimrc",
    ".vscode",
    ".zed",
    "lefthook.toml",
    "lefthook.yml",
    "mise.toml",
];

impl Refused {
    /// Returns why a path in the folder `from` must not be fetched, if it must not. `named` is the path
    /// that the user asked for, and `host_runs` are the files and folders that the project runs on the
    /// host.
    fn of(path: &Path, from: &Path, named: &Path, host_runs: &[PathBuf]) -> Option<Self> {
        let same = |name: &str, known: &str| name.eq_ignore_ascii_case(known);
        let names = || path.components().map(|it| it.as_os_str().to_string_lossy());
        // Also the spellings that a file system without case, or with short names, takes for .git. git
        // also takes a folder of any other name for a repository if a HEAD is in it.
        if names().any(|name| REPOSITORIES.iter().any(|known| same(&name, known))) {
            return Some(Refused::Repository);
        }
        let machinefile = |name: &str| {
            let name = name.to_ascii_lowercase();
            name.starts_with("machinefile") || name.ends_with(".kdl")
        };
        if names().any(|name| machinefile(&name)) {
            return Some(Refused::Machinefile);
        }
        let full = from.join(path);
        if host_runs.iter().any(|known| full.starts_with(known)) {
            return Some(Refused::Project);
        }
        let by_itself = |path: &Path| {
            path.components().any(|it| {
                let name = it.as_os_str().to_string_lossy();
                BY_THEMSELVES.iter().any(|known| same(&name, known))
                    || name.to_ascii_lowercase().ends_with(".code-workspace")
            })
        };
        (by_itself(path) && !by_itself(named)).then_some(Refused::ByItself)
    }
}

impl Skip {
    /// The reason, for people.
    pub fn why(self) -> &'static str {
        match self {
            Skip::LeadsOut => "it is a symlink that leads out of the folder",
            Skip::Refused(Refused::Repository) => {
                "it is part of a repository, and git on the host would run what it contains"
            }
            Skip::Refused(Refused::Machinefile) => {
                "it is a Machinefile, and only the host decides about machines"
            }
            Skip::Refused(Refused::Project) => "the project runs it on the host",
            Skip::Refused(Refused::ByItself) => {
                "programs on the host would run what it contains; name it to fetch it"
            }
            Skip::Newer => "the host's is newer",
            Skip::Differs => "the host's differs, and there is no other copy of it",
            Skip::OtherKind => "the host has something of another type there",
            Skip::TooLarge => "it is larger than the free space on this computer",
            Skip::LinkAbove => "a folder above it is a symlink on the host",
        }
    }

    /// Whether `--force` fetches it all the same.
    pub fn can_be_forced(self) -> bool {
        matches!(self, Skip::Newer | Skip::Differs)
    }
}

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
    let shell = RemoteShell::of(remote);
    fetch_through(folder, &shell, &remote.machine, path, scratch, options).await
}

/// Options of [`fetch_back`].
#[derive(Clone, Copy, Default)]
pub struct BackOptions<'a> {
    pub force: bool,
    pub dry_run: bool,
    /// Absolute paths of files and folders that the project runs on the host.
    pub host_runs: &'a [PathBuf],
}

async fn fetch_through(
    folder: &SyncFolder,
    shell: &RemoteShell,
    machine: &str,
    path: &Path,
    scratch: &Path,
    options: BackOptions<'_>,
) -> Result<BackOutcome, SyncError> {
    let io = |doing: &str, path: &Path| {
        let doing = format!("{doing} {}", path.shown());
        move |source| SyncError::Io { doing, source }
    };
    fs::create_dir_all(scratch).map_err(io("make", scratch))?;
    sweep(scratch);
    let staged = tempfile::Builder::new()
        .prefix(STAGED)
        .tempdir_in(scratch)
        .map_err(io("make a folder in", scratch))?;
    let staged_at = staged.path().canonicalize()?;
    let held = File::open(&staged_at)?;
    held.lock()?;
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
    let to = open::folder(&staged_at)?;
    let rules = rules.as_ref().map(Rules::opened).transpose()?;
    let mut given = vec![(&host, Access::Tree), (&to, Access::Folder)];
    given.extend(rules.as_ref().map(|rules| (rules, Access::Read)));
    let wall = shell.wall(&given)?;
    let ended = run(&arguments, None, wall, None, false, &mut |_| {}).await?;
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
    let ended = judge(ended, &target, machine).map_err(|error| fetching(error, scratch))?;
    let mut back = BackOutcome::default();
    let too_large = ended.too_large.iter();
    back.skipped
        .extend(too_large.map(|name| (name.into(), Skip::TooLarge)));
    let host = Folder::of(host, &folder.from);
    place_all(folder, &host, staged.path(), path, options, &mut back)?;
    back.fetched.sort();
    back.skipped.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(back)
}

/// Turns an error of a push into that of a fetch, which goes in the other direction.
fn fetching(error: SyncError, scratch: &Path) -> SyncError {
    match error {
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

/// Puts what was fetched in place. `host` is the open folder, so nothing is written outside it, even if
/// the guest replaces a folder in it by a symlink.
fn place_all(
    folder: &SyncFolder,
    host: &Folder,
    staged: &Path,
    named: &Path,
    options: BackOptions<'_>,
    back: &mut BackOutcome,
) -> Result<(), SyncError> {
    let mut git = None;
    let mut open = vec![PathBuf::new()];
    while let Some(inner) = open.pop() {
        let here = match host.folder(&inner) {
            Ok(here) => Some(here),
            // A dry run has not made it.
            Err(error) if options.dry_run && error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => {
                back.skipped.push((inner, Skip::LinkAbove));
                continue;
            }
        };
        for entry in fs::read_dir(staged.join(&inner))? {
            let entry = entry?;
            let path = inner.join(entry.file_name());
            let at = match &here {
                Some(here) => open::in_proc(here).join(entry.file_name()),
                None => folder.from.join(&path),
            };
            if let Some(why) = Refused::of(&path, &folder.from, named, options.host_runs) {
                // An empty folder was only made because the path leads through it; nobody asked for it.
                if !is_empty_folder(&entry)? {
                    back.skipped.push((path, Skip::Refused(why)));
                }
                continue;
            }
            if entry.file_type()?.is_dir() {
                match fs::symlink_metadata(&at) {
                    Ok(it) if it.is_dir() => {}
                    Ok(it) if it.is_symlink() => {
                        back.skipped.push((path, Skip::LinkAbove));
                        continue;
                    }
                    Ok(_) => {
                        back.skipped.push((path, Skip::OtherKind));
                        continue;
                    }
                    Err(_) if !options.dry_run => {
                        fs::create_dir(&at)?;
                        let mode = permissions(&entry.metadata()?) | 0o700;
                        File::from(host.folder(&path)?)
                            .set_permissions(fs::Permissions::from_mode(mode))?;
                    }
                    Err(_) => {}
                }
                open.push(path);
                continue;
            }
            let found = fs::symlink_metadata(&at).ok();
            let seen = found.as_ref().map(|found| (at.as_path(), found));
            let decision = decide(folder, &path, &entry.path(), seen, &mut git)?;
            match decision {
                Decision::Same => {}
                Decision::Skip(why) if !(options.force && why.can_be_forced()) => {
                    back.skipped.push((path, why));
                }
                _ => {
                    if !options.dry_run && !place(&entry.path(), &at, found.as_ref())? {
                        // It was edited on the host since the check.
                        back.skipped.push((path, Skip::Newer));
                        continue;
                    }
                    back.fetched.push(path);
                }
            }
        }
    }
    Ok(())
}

fn is_empty_folder(entry: &fs::DirEntry) -> io::Result<bool> {
    Ok(entry.file_type()?.is_dir() && fs::read_dir(entry.path())?.next().is_none())
}

/// The permissions that a file gets on the host: the guest's, but never set-user-ID or set-group-ID, and
/// never writable by everybody.
fn permissions(guest: &Metadata) -> u32 {
    guest.mode() & 0o775
}

/// Whether a symlink leads to a path in the folder, whatever other symlinks are on its way: `..` is only
/// allowed at the start of the target, where it goes through real folders.
fn stays_inside(link: &Path, target: &Path) -> bool {
    let above = link.components().count().saturating_sub(1);
    let up = (target.components())
        .take_while(|it| *it == Component::ParentDir)
        .count();
    up <= above
        && (target.components().skip(up))
            .all(|it| matches!(it, Component::Normal(_) | Component::CurDir))
}

enum Decision {
    Same,
    Take,
    Skip(Skip),
}

fn decide(
    folder: &SyncFolder,
    path: &Path,
    staged: &Path,
    host: Option<(&Path, &Metadata)>,
    git: &mut Option<Index>,
) -> io::Result<Decision> {
    let guest = fs::symlink_metadata(staged)?;
    if guest.is_symlink() && !stays_inside(path, &fs::read_link(staged)?) {
        return Ok(Decision::Skip(Skip::LeadsOut));
    }
    let Some((at, host)) = host else {
        return Ok(Decision::Take);
    };
    if host.file_type() != guest.file_type() {
        return Ok(Decision::Skip(Skip::OtherKind));
    }
    if host.is_symlink() {
        return Ok(if fs::read_link(at)? == fs::read_link(staged)? {
            Decision::Same
        } else {
            Decision::Skip(Skip::Differs)
        });
    }
    if !host.is_file() {
        return Ok(Decision::Same);
    }
    let begins = begins_with(staged, at)?;
    if begins && host.len() == guest.len() {
        return Ok(Decision::Same);
    }
    if (host.mtime(), host.mtime_nsec()) > (guest.mtime(), guest.mtime_nsec()) {
        return Ok(Decision::Skip(Skip::Newer));
    }
    // A longer file is a log that has grown, unless it is a program or hidden: those may do something
    // else now.
    let is_log = begins && host.mode() & 0o111 == 0 && !is_hidden(path);
    let mut has = |path| (git.get_or_insert_with(|| Index::of(&folder.from))).has(path);
    if is_log || has(path) {
        return Ok(Decision::Take);
    }
    Ok(Decision::Skip(Skip::Differs))
}

fn is_hidden(path: &Path) -> bool {
    path.components()
        .any(|it| it.as_os_str().as_encoded_bytes().starts_with(b"."))
}

/// Whether the file `whole` begins with all of the content of the file `start`.
fn begins_with(whole: &Path, start: &Path) -> io::Result<bool> {
    let (mut whole, mut start) = (
        io::BufReader::with_capacity(1 << 16, File::open(whole)?),
        File::options()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(start)?,
    );
    let mut theirs = vec![0; 1 << 16];
    let mut ours = vec![0; 1 << 16];
    loop {
        let n = start.read(&mut theirs)?;
        if n == 0 {
            return Ok(true);
        }
        match whole.read_exact(&mut ours[..n]) {
            Ok(()) if ours[..n] == theirs[..n] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Puts a file in place, whole or not at all. Returns `false` if the host's file has changed since
/// `seen`.
fn place(staged: &Path, host: &Path, seen: Option<&Metadata>) -> io::Result<bool> {
    let parent = host.parent().unwrap_or(Path::new("/"));
    let metadata = fs::symlink_metadata(staged)?;
    let mut name = tempfile::Builder::new();
    let name = name.prefix(".stead-back.");
    // Neither follows a symlink in its place. Both are removed again on an error.
    let new = if metadata.is_symlink() {
        let target = fs::read_link(staged)?;
        let made = name.make_in(parent, |new| symlink(&target, new))?;
        made.into_temp_path()
    } else if metadata.is_file() {
        let (mut to, new) = name.tempfile_in(parent)?.into_parts();
        io::copy(&mut File::open(staged)?, &mut to)?;
        to.set_permissions(fs::Permissions::from_mode(permissions(&metadata)))?;
        to.set_times(FileTimes::new().set_modified(metadata.modified()?))?;
        to.sync_data()?;
        new
    } else {
        return Err(io::Error::other(
            "rsync fetched something that is neither a file nor a symlink",
        ));
    };
    let now = fs::symlink_metadata(host).ok();
    let key = |it: &Metadata| (it.ino(), it.mtime(), it.mtime_nsec(), it.len());
    if now.as_ref().map(key) != seen.map(key) {
        return Ok(false);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "its content is synced; after a power cut the old file may still be in place, which is fine"
    )]
    fs::rename(&new, host)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
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
            names(&["absolute", "by-another", "deep/out", "up"])
        );
        assert!(back.skipped.iter().all(|(_, why)| *why == Skip::LeadsOut));
        let host = ground.base.path().join("host");
        let mode = |name: &str| fs::metadata(host.join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("deep/er/program"), mode("deep/er")), (0o755, 0o775));
        assert!(!host.join("pipe").exists() && !host.join("socket").exists());
    }
}
