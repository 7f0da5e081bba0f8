//! What a guest made in a synced folder, back to the host, where nothing may be lost: it is fetched
//! into a folder of its own, and each file put in place only where that takes no bytes away.

use std::{
    ffi::OsString,
    fs::{self, File, FileTimes, Metadata},
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{guest::Remote, machinefile::SyncFolder};

use super::{
    error::SyncError,
    filter::Filter,
    outcome::judge,
    rsync::{RsyncTarget, Rules, run, shell},
};

/// How it went, by paths relative to the folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Back {
    pub fetched: Vec<PathBuf>,
    /// With what speaks against them.
    pub skipped: Vec<(PathBuf, Skip)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    Newer,
    Differs,
    OtherKind,
    LinkAbove,
}

impl Skip {
    pub fn why(self) -> &'static str {
        match self {
            Skip::Newer => "the host's is newer",
            Skip::Differs => "the host's is another one, and its bytes are nowhere else",
            Skip::OtherKind => "the host has something of another kind there",
            Skip::LinkAbove => "a folder above it is a symlink on the host",
        }
    }

    /// Whether `--force` goes over it.
    pub fn can_be_forced(self) -> bool {
        matches!(self, Skip::Newer | Skip::Differs)
    }
}

/// Fetches `path`, relative to the folder (empty for all of it), by way of a new folder in `scratch`.
pub async fn fetch_back(
    folder: &SyncFolder,
    remote: &Remote,
    path: &Path,
    scratch: &Path,
    force: bool,
    dry_run: bool,
) -> Result<Back, SyncError> {
    let shell = shell(remote);
    fetch_through(
        folder,
        &shell,
        &remote.machine,
        path,
        scratch,
        Ways { force, dry_run },
    )
    .await
}

#[derive(Clone, Copy, Default)]
struct Ways {
    force: bool,
    dry_run: bool,
}

async fn fetch_through(
    folder: &SyncFolder,
    shell: &str,
    machine: &str,
    path: &Path,
    scratch: &Path,
    ways: Ways,
) -> Result<Back, SyncError> {
    let io = |doing: &str, path: &Path| {
        let doing = format!("{doing} {}", path.display());
        move |source| SyncError::Io { doing, source }
    };
    fs::create_dir_all(scratch).map_err(io("make", scratch))?;
    let staged = tempfile::Builder::new()
        .prefix("back.")
        .tempdir_in(scratch)
        .map_err(io("make a folder in", scratch))?;
    let mut filter = Filter::new(&folder.from, &folder.exclude, folder.gitignore);
    let survey = filter.survey(false)?;
    // What is named is wanted, left out of syncs or not.
    let rules = match filter.excludes_within(path, true) {
        true => None,
        false => Some(Rules::new(&survey.rules)?),
    };
    let mut arguments: Vec<OsString> = ["-rlptD", "--relative", "--secluded-args", "--from0"]
        .map(OsString::from)
        .into();
    let mut same = OsString::from("--compare-dest=");
    same.push(&folder.from);
    arguments.push(same);
    arguments.extend(rules.as_ref().map(|rules| rules.filter().into()));
    arguments.push(
        match folder.owner {
            Some(_) => "--rsync-path=sudo -n rsync",
            None => "--rsync-path=rsync",
        }
        .into(),
    );
    arguments.extend(["-e", shell, "--"].map(OsString::from));
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
    let ended = run(&arguments, None, false, &mut |_| {}).await?;
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
    judge(ended, &target, machine)?;
    let mut back = Back::default();
    place_all(folder, staged.path(), ways, &mut back)?;
    back.fetched.sort();
    back.skipped.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(back)
}

fn place_all(
    folder: &SyncFolder,
    staged: &Path,
    ways: Ways,
    back: &mut Back,
) -> Result<(), SyncError> {
    let mut open = vec![PathBuf::new()];
    while let Some(inner) = open.pop() {
        for entry in fs::read_dir(staged.join(&inner))? {
            let entry = entry?;
            let path = inner.join(entry.file_name());
            let host = folder.from.join(&path);
            if entry.file_type()?.is_dir() {
                match fs::symlink_metadata(&host) {
                    Ok(it) if it.is_dir() => {}
                    Ok(it) if it.is_symlink() => {
                        back.skipped.push((path, Skip::LinkAbove));
                        continue;
                    }
                    Ok(_) => {
                        back.skipped.push((path, Skip::OtherKind));
                        continue;
                    }
                    Err(_) if !ways.dry_run => {
                        fs::create_dir(&host)?;
                        fs::set_permissions(&host, entry.metadata()?.permissions())?;
                    }
                    Err(_) => {}
                }
                open.push(path);
                continue;
            }
            let found = fs::symlink_metadata(&host).ok();
            match skip(folder, &path, &entry.path(), found.as_ref())? {
                Verdict::Same => {}
                Verdict::Skip(why) if !(ways.force && why.can_be_forced()) => {
                    back.skipped.push((path, why));
                }
                _ => {
                    if !ways.dry_run && !place(&entry.path(), &host, found.as_ref())? {
                        // Edited on the host in this very moment.
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

enum Verdict {
    Same,
    Take,
    Skip(Skip),
}

fn skip(
    folder: &SyncFolder,
    path: &Path,
    staged: &Path,
    host: Option<&Metadata>,
) -> io::Result<Verdict> {
    let Some(host) = host else {
        return Ok(Verdict::Take);
    };
    let guest = fs::symlink_metadata(staged)?;
    let at = folder.from.join(path);
    if host.file_type() != guest.file_type() {
        return Ok(Verdict::Skip(Skip::OtherKind));
    }
    if host.is_symlink() {
        return Ok(if fs::read_link(&at)? == fs::read_link(staged)? {
            Verdict::Same
        } else {
            Verdict::Skip(Skip::Differs)
        });
    }
    if !host.is_file() {
        return Ok(Verdict::Same);
    }
    let begins = begins_with(staged, &at)?;
    if begins && host.len() == guest.len() {
        return Ok(Verdict::Same);
    }
    if (host.mtime(), host.mtime_nsec()) > (guest.mtime(), guest.mtime_nsec()) {
        return Ok(Verdict::Skip(Skip::Newer));
    }
    if begins || is_committed(&folder.from, path) {
        return Ok(Verdict::Take);
    }
    Ok(Verdict::Skip(Skip::Differs))
}

/// Whether the one file begins with all of the other.
fn begins_with(whole: &Path, start: &Path) -> io::Result<bool> {
    let (mut whole, mut start) = (
        io::BufReader::with_capacity(1 << 16, File::open(whole)?),
        File::open(start)?,
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

/// Whether git has the file's very bytes.
fn is_committed(root: &Path, path: &Path) -> bool {
    let git = |words: &[&str]| {
        Command::new("git")
            .arg("-C")
            .arg(root)
            .args(["--literal-pathspecs"])
            .args(words)
            .arg("--")
            .arg(path)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())
    };
    git(&["ls-files", "--error-unmatch"]).is_some()
        && git(&["status", "--porcelain"]).is_some_and(|output| output.stdout.is_empty())
}

/// Puts a file in its place, whole or not at all; `false` where the host's is not the one any more
/// that was looked at.
fn place(staged: &Path, host: &Path, seen: Option<&Metadata>) -> io::Result<bool> {
    let parent = host.parent().unwrap_or(Path::new("/"));
    let scratch = tempfile::Builder::new()
        .prefix(".stead-back.")
        .tempdir_in(parent)?;
    let new = scratch.path().join("new");
    let metadata = fs::symlink_metadata(staged)?;
    if metadata.is_symlink() {
        symlink(fs::read_link(staged)?, &new)?;
    } else if metadata.is_file() {
        let mut to = File::create_new(&new)?;
        io::copy(&mut File::open(staged)?, &mut to)?;
        to.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        to.set_times(FileTimes::new().set_modified(metadata.modified()?))?;
        to.sync_data()?;
    } else {
        // Sockets, pipes and devices are nothing to bring home.
        return Ok(true);
    }
    let now = fs::symlink_metadata(host).ok();
    let key = |it: &Metadata| (it.ino(), it.mtime(), it.mtime_nsec(), it.len());
    if now.as_ref().map(key) != seen.map(key) {
        return Ok(false);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "its content is synced; after a power cut the old file may stand there as well"
    )]
    fs::rename(&new, host)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::sync::folder::tests::{fake_ssh, folder};

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

        async fn fetch(&self, path: &str, force: bool, dry_run: bool) -> Result<Back, SyncError> {
            fetch_through(
                &self.folder,
                &self.base.path().join("fake-ssh").display().to_string(),
                "web",
                Path::new(path),
                &self.base.path().join("scratch"),
                Ways { force, dry_run },
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
        let wanted = Back {
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
        let git = |words: &[&str]| {
            let status = Command::new("git")
                .arg("-C")
                .arg(ground.base.path().join("host"))
                .args(["-c", "user.name=a", "-c", "user.email=a@b"])
                .args(words)
                .status()
                .unwrap();
            assert!(status.success());
        };
        git(&["init", "-q"]);
        git(&["add", "."]);
        git(&["commit", "-qm", "one"]);
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
}
