//! Finds changes below a folder by inotify(7): with a watch on every folder that is not excluded, and no
//! list of the files in them.

#![expect(unsafe_code, reason = "file descriptors that inotify(7) returns")]

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, RawFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    report::clean::Shown,
    sync::{error::SyncError, filter::Filter},
};

/// The changes that were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TreeChanges {
    /// Paths that are to be sent, or were deleted; relative to the folder.
    pub paths: BTreeSet<PathBuf>,
    /// Files that are still open for writing.
    pub writing: HashSet<PathBuf>,
    /// There are too many changes to list: the whole folder must be scanned.
    pub all: bool,
    /// The ignore rules may have changed, or events were lost: the tree must be rebuilt.
    pub stale: bool,
    /// The folder itself does not exist any more.
    pub gone: bool,
}

impl TreeChanges {
    /// With more changes than this, a scan of the whole folder is not slower, and takes no memory.
    pub(super) const MANY: usize = 20_000;

    fn note(&mut self, path: PathBuf) {
        if self.paths.len() < Self::MANY {
            self.paths.insert(path);
        } else {
            self.all = true;
        }
    }
}

pub(super) struct Tree {
    filter: Filter,
    inotify: AsyncFd<Descriptor>,
    /// The path of each watched folder, relative to the root.
    folders: HashMap<WatchDescriptor, Box<Path>>,
    root: Option<WatchDescriptor>,
}

struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Tree {
    /// Watches a folder and everything below it. No change is missed that is made after this call began.
    pub(super) fn new(mut filter: Filter) -> Result<Self, SyncError> {
        filter.read_tracked();
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(instance_error)?;
        // SAFETY: the descriptor is the inotify instance's own, open as long as that is, and AsyncFd
        // owns it.
        let registered =
            unsafe { AsyncFd::register_with_interest(Descriptor(inotify), Interest::READABLE) }
                .map_err(|error| SyncError::Io {
                    doing: "wait for inotify".into(),
                    source: error.into(),
                })?;
        let mut tree = Tree {
            filter,
            inotify: registered,
            folders: HashMap::new(),
            root: None,
        };
        tree.add(Path::new(""), None)?;
        Ok(tree)
    }

    /// How many folders are watched.
    pub(super) fn len(&self) -> usize {
        self.folders.len()
    }

    /// Watches a new folder, and everything in it.
    fn add(&mut self, start: &Path, mut found: Option<&mut TreeChanges>) -> Result<(), SyncError> {
        let Tree {
            filter,
            inotify,
            folders,
            root,
        } = self;
        let from = filter.root().to_path_buf();
        let ended = filter.walk::<SyncError>(start, &mut |entry| {
            if entry.excluded {
                return Ok(());
            }
            if let Some(found) = found.as_deref_mut() {
                found.note(entry.path.to_path_buf());
            }
            if entry.is_folder {
                let at = from.join(entry.path);
                match inotify.get_ref().0.add_watch(&at, events()) {
                    Ok(watch) => {
                        if entry.path.as_os_str().is_empty() {
                            *root = Some(watch);
                        }
                        folders.insert(watch, entry.path.into());
                    }
                    Err(Errno::ENOSPC | Errno::ENOMEM) => return Err(watch_error(at)),
                    Err(error) if entry.path.as_os_str().is_empty() => {
                        return Err(match error {
                            Errno::ENOENT | Errno::ENOTDIR => SyncError::Gone { from: at },
                            error => SyncError::Io {
                                doing: format!("watch {}", at.shown()),
                                source: error.into(),
                            },
                        });
                    }
                    // It was deleted again, or cannot be read: rsync reports that.
                    Err(_) => {}
                }
            }
            Ok(())
        });
        match ended {
            // The folder was deleted again.
            Err(SyncError::Gone { .. }) if !start.as_os_str().is_empty() => Ok(()),
            other => other,
        }
    }

    /// Stops watching a folder that was moved away, and everything below it.
    fn forget(&mut self, folder: &Path) {
        let inotify = &self.inotify.get_ref().0;
        self.folders.retain(|watch, path| {
            let below = path.starts_with(folder);
            if below {
                // An error means that there is no such watch any more, which is what we want.
                let _ = inotify.rm_watch(*watch);
            }
            !below
        });
    }

    /// Waits until there is something to [`Self::read`].
    pub(super) async fn changed(&self) -> Result<(), SyncError> {
        let waited = self.inotify.readable().await;
        waited
            .map(|mut guard| guard.retain_ready())
            .map_err(|source| SyncError::Io {
                doing: "wait for inotify".into(),
                source,
            })
    }

    /// Reads all events that there are, without waiting.
    pub(super) fn read(&mut self, found: &mut TreeChanges) -> Result<(), SyncError> {
        loop {
            match self.inotify.get_ref().0.read_events() {
                Ok(events) if events.is_empty() => return Ok(()),
                Ok(events) => {
                    for event in events {
                        self.take(event, found)?;
                    }
                }
                Err(Errno::EAGAIN) => {
                    // The next wait is for new events.
                    let _ = self
                        .inotify
                        .try_io(Interest::READABLE, |_| -> io::Result<()> {
                            Err(io::ErrorKind::WouldBlock.into())
                        });
                    return Ok(());
                }
                Err(Errno::EINTR) => {}
                Err(error) => {
                    return Err(SyncError::Io {
                        doing: "read from inotify".into(),
                        source: error.into(),
                    });
                }
            }
        }
    }

    fn take(&mut self, event: InotifyEvent, found: &mut TreeChanges) -> Result<(), SyncError> {
        use AddWatchFlags as Flag;
        let has = |flag| event.mask.intersects(flag);
        if has(Flag::IN_Q_OVERFLOW) {
            found.stale = true;
            found.all = true;
            return Ok(());
        }
        let is_root = Some(event.wd) == self.root;
        if is_root && has(Flag::IN_DELETE_SELF | Flag::IN_MOVE_SELF | Flag::IN_UNMOUNT) {
            found.gone = true;
        }
        if has(Flag::IN_IGNORED) {
            self.folders.remove(&event.wd);
            return Ok(());
        }
        let Some(folder) = self.folders.get(&event.wd) else {
            return Ok(());
        };
        let Some(name) = event.name else {
            // The event is about the folder itself. The folder above reports it too, except for the root.
            if is_root && has(Flag::IN_ATTRIB) {
                found.all = true;
            }
            return Ok(());
        };
        let path = folder.join(&name);
        let is_folder = has(Flag::IN_ISDIR);
        if self.filter.depends_on(&name) && !has(Flag::IN_MODIFY) {
            found.stale = true;
            found.all = true;
        }
        if self.filter.excludes(&path, is_folder) {
            return Ok(());
        }
        if is_folder {
            if has(Flag::IN_MOVED_FROM) {
                self.forget(&path);
            }
            if has(Flag::IN_CREATE | Flag::IN_MOVED_TO) {
                self.add(&path, Some(found))?;
            }
            found.note(path);
        } else if has(Flag::IN_CREATE) {
            if is_whole(&self.filter.root().join(&path)) {
                found.note(path);
            } else {
                found.writing.insert(path);
            }
        } else if has(Flag::IN_MODIFY) {
            found.writing.insert(path);
        } else {
            found.writing.remove(&path);
            found.note(path);
        }
        Ok(())
    }
}

/// Whether a new file is complete. inotify reports a close only for files that were opened for writing:
/// not for symlinks, pipes, sockets and hard links.
fn is_whole(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(metadata) => {
            let kind = metadata.file_type();
            kind.is_symlink() || kind.is_fifo() || kind.is_socket() || metadata.nlink() > 1
        }
        Err(_) => true,
    }
}

fn events() -> AddWatchFlags {
    AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
        | AddWatchFlags::IN_DONT_FOLLOW
}

/// Returns the name and the value of the limit that was reached: the host's, or that of this user namespace, such as a
/// container's (namespaces(7), "The /proc/sys/user directory"), if that is lower.
fn limit(of_host: &'static str, of_namespace: &'static str) -> (&'static str, u64) {
    let read = |name: &str| -> Option<u64> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let limit = read(of_host).unwrap_or(0);
    match read(of_namespace).filter(|inner| *inner < limit) {
        Some(inner) => (of_namespace, inner),
        None => (of_host, limit),
    }
}

fn watch_error(at: PathBuf) -> SyncError {
    let (setting, limit) = limit("fs.inotify.max_user_watches", "user.max_inotify_watches");
    SyncError::WatchLimit {
        at,
        setting,
        limit,
        raised: (limit * 4).max(1 << 19),
    }
}

fn instance_error(error: Errno) -> SyncError {
    let (setting, limit) = limit(
        "fs.inotify.max_user_instances",
        "user.max_inotify_instances",
    );
    match error {
        Errno::EMFILE => SyncError::InstanceLimit {
            setting,
            limit,
            raised: (limit * 4).max(512),
        },
        error => SyncError::Io {
            doing: "use inotify".into(),
            source: error.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ground {
        folder: tempfile::TempDir,
        tree: Tree,
    }

    impl Ground {
        fn new(exclude: &[&str], gitignore: bool, before: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in before {
                let path = folder.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, name).unwrap();
            }
            let exclude: Vec<String> = exclude.iter().map(ToString::to_string).collect();
            let tree = Tree::new(Filter::new(folder.path(), &exclude, gitignore)).unwrap();
            Ground { folder, tree }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn found(&mut self) -> TreeChanges {
            let mut found = TreeChanges::default();
            self.tree.read(&mut found).unwrap();
            found
        }
    }

    fn paths(names: &[&str]) -> BTreeSet<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[tokio::test]
    async fn edits_are_found() {
        let mut ground = Ground::new(&["target"], false, &["a", "src/b", "target/x"]);
        assert_eq!(ground.tree.len(), 2);
        fs::write(ground.path("src/b"), "other").unwrap();
        fs::write(ground.path("target/x"), "other").unwrap();
        fs::remove_file(ground.path("a")).unwrap();
        std::os::unix::fs::symlink("b", ground.path("src/link")).unwrap();
        assert_eq!(ground.found().paths, paths(&["a", "src/b", "src/link"]));
        assert_eq!(ground.found(), TreeChanges::default());
    }

    #[tokio::test]
    async fn an_editor_that_saves_by_renaming_is_seen() {
        let mut ground = Ground::new(&[], false, &["src/b"]);
        fs::write(ground.path("src/.b.swp"), "new").unwrap();
        fs::rename(ground.path("src/.b.swp"), ground.path("src/b")).unwrap();
        assert_eq!(ground.found().paths, paths(&["src/.b.swp", "src/b"]));
    }

    #[tokio::test]
    async fn folders_that_come_are_watched_with_all_that_is_in_them() {
        let mut ground = Ground::new(&[], false, &["src/b"]);
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir_all(outside.path().join("came/deep")).unwrap();
        fs::write(outside.path().join("came/deep/f"), "").unwrap();
        fs::rename(outside.path().join("came"), ground.path("came")).unwrap();
        fs::create_dir_all(ground.path("made/deep/er")).unwrap();
        fs::write(ground.path("made/deep/er/f"), "").unwrap();
        assert_eq!(
            ground.found().paths,
            paths(&[
                "came",
                "came/deep",
                "came/deep/f",
                "made",
                "made/deep",
                "made/deep/er",
                "made/deep/er/f"
            ])
        );
        fs::write(ground.path("came/deep/f"), "x").unwrap();
        fs::write(ground.path("made/deep/er/f"), "x").unwrap();
        assert_eq!(
            ground.found().paths,
            paths(&["came/deep/f", "made/deep/er/f"])
        );
    }

    #[tokio::test]
    async fn a_folder_that_moves_is_watched_where_it_is() {
        let mut ground = Ground::new(&[], false, &["src/deep/b", "other/c"]);
        fs::rename(ground.path("src"), ground.path("moved")).unwrap();
        fs::write(ground.path("moved/deep/b"), "between").unwrap();
        assert_eq!(
            ground.found().paths,
            paths(&["src", "moved", "moved/deep", "moved/deep/b"])
        );
        assert_eq!(ground.tree.len(), 4);
        fs::write(ground.path("moved/deep/b"), "x").unwrap();
        assert_eq!(ground.found().paths, paths(&["moved/deep/b"]));
        fs::remove_dir_all(ground.path("moved")).unwrap();
        ground.found();
        assert_eq!(ground.tree.len(), 2);
    }

    #[tokio::test]
    async fn what_is_still_written_is_told_apart() {
        use std::io::Write;
        let mut ground = Ground::new(&[], false, &[]);
        let mut file = fs::File::create(ground.path("big")).unwrap();
        file.write_all(b"one").unwrap();
        let found = ground.found();
        assert!(found.paths.is_empty());
        assert!(found.writing.contains(Path::new("big")));
        drop(file);
        assert_eq!(ground.found().paths, paths(&["big"]));
    }

    #[tokio::test]
    async fn a_changed_gitignore_makes_the_tree_stale() {
        let mut ground = Ground::new(&[], true, &["made/x", "a"]);
        fs::write(ground.path(".gitignore"), "made/\n").unwrap();
        assert!(ground.found().stale);
        let filter = Filter::new(ground.folder.path(), &[], true);
        assert_eq!(Tree::new(filter).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_folder_that_is_gone_is_told() {
        let mut ground = Ground::new(&[], false, &["a"]);
        fs::remove_dir_all(ground.folder.path()).unwrap();
        assert!(ground.found().gone);
        assert!(matches!(
            Tree::new(Filter::new(&ground.path("no"), &[], false)),
            Err(SyncError::Gone { .. })
        ));
    }

    #[tokio::test]
    async fn names_may_be_any_bytes() {
        use std::os::unix::ffi::OsStrExt;
        let mut ground = Ground::new(&[], false, &[]);
        let name = std::ffi::OsStr::from_bytes(b"-\xff\n\"'");
        fs::write(ground.folder.path().join(name), "").unwrap();
        assert!(ground.found().paths.contains(Path::new(name)));
    }

    #[test]
    fn the_limit_is_named() {
        let text = watch_error("/srv/app".into()).to_string();
        assert!(text.contains("fs.inotify.max_user_watches is"), "{text}");
    }

    /// As in a rootless container.
    #[test]
    fn the_limit_of_a_user_namespace_is_named() {
        let script = "echo 2 >/proc/sys/user/max_inotify_watches || exit 77; exec \"$@\"";
        let output = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "sync::watch::tree::tests::in_a_namespace"])
            .args(["--ignored", "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        // This host may not allow such namespaces.
        if !said.contains("running 1 test") {
            return;
        }
        assert!(
            said.contains("user.max_inotify_watches is 2, for"),
            "{output:?}"
        );
    }

    #[ignore = "a part of another test"]
    #[tokio::test]
    async fn in_a_namespace() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let ended = Tree::new(Filter::new(folder.path(), &[], false));
        println!("{}", ended.map(|tree| tree.len()).unwrap_err());
    }
}
