//! Changes that are waiting to be sent.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::tree::TreeChanges;

/// A file that is still open for writing is sent when nothing was written to it for this long,
const STILL: Duration = Duration::from_secs(1);
/// and after this long at the latest.
const LATEST: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Batch {
    All,
    Paths(BTreeSet<PathBuf>),
}

impl Batch {
    /// Returns the list for rsync's `--files-from`, with `--from0`; `None` for the whole folder. If a file
    /// or symlink has taken the place of a folder, paths below it are skipped: rsync must not follow the
    /// symlink.
    pub(super) fn list(&self, root: &Path) -> Option<Vec<u8>> {
        let Batch::Paths(paths) = self else {
            return None;
        };
        let mut list = Vec::new();
        let mut file: Option<&Path> = None;
        for path in paths {
            if file.is_some_and(|file| path.starts_with(file)) {
                continue;
            }
            let is_file = fs::symlink_metadata(root.join(path)).is_ok_and(|it| !it.is_dir());
            file = is_file.then_some(path.as_path());
            list.extend_from_slice(path.as_os_str().as_bytes());
            list.push(0);
        }
        Some(list)
    }

    /// Whether one of the files has several names (hard links).
    pub(super) fn has_linked(&self, root: &Path) -> bool {
        let Batch::Paths(paths) = self else {
            return false;
        };
        paths.iter().any(|path| {
            fs::symlink_metadata(root.join(path)).is_ok_and(|it| it.is_file() && it.nlink() > 1)
        })
    }

    /// Returns the paths; none for the whole folder.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        match self {
            Batch::All => Vec::new(),
            Batch::Paths(paths) => paths.iter().cloned().collect(),
        }
    }
}

#[derive(Default)]
pub(super) struct Pending {
    batch: RefCell<Option<Batch>>,
    added: Notify,
}

impl Pending {
    pub(super) fn add(&self, paths: &BTreeSet<PathBuf>) {
        if paths.is_empty() {
            return;
        }
        let mut batch = self.batch.borrow_mut();
        match &mut *batch {
            Some(Batch::All) => {}
            Some(Batch::Paths(known)) => {
                known.extend(paths.iter().cloned());
                if known.len() > TreeChanges::MANY {
                    *batch = Some(Batch::All);
                }
            }
            None if paths.len() > TreeChanges::MANY => *batch = Some(Batch::All),
            None => *batch = Some(Batch::Paths(paths.clone())),
        }
        self.added.notify_one();
    }

    pub(super) fn add_all(&self) {
        *self.batch.borrow_mut() = Some(Batch::All);
        self.added.notify_one();
    }

    /// Like [`Self::add_all`], but wakes nobody.
    pub(super) fn keep_all(&self) {
        *self.batch.borrow_mut() = Some(Batch::All);
    }

    pub(super) fn take(&self) -> Option<Batch> {
        self.batch.borrow_mut().take()
    }

    /// Waits until something is added.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }
}

/// Files that are still open for writing, with the times of the first and the last write.
#[derive(Default)]
pub(super) struct Open {
    files: HashMap<PathBuf, (Instant, Instant)>,
}

impl Open {
    /// Adds files that were written to, and removes those that were closed (`done`).
    pub(super) fn update(
        &mut self,
        now: Instant,
        writing: HashSet<PathBuf>,
        done: &BTreeSet<PathBuf>,
    ) {
        for path in done {
            self.files.remove(path);
        }
        for path in writing {
            self.files.entry(path).or_insert((now, now)).1 = now;
        }
    }

    /// When the next file is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.files
            .values()
            .map(|(first, last)| (*last + STILL).min(*first + LATEST))
            .min()
    }

    /// Removes and returns the files that are due.
    pub(super) fn due(&mut self, now: Instant) -> BTreeSet<PathBuf> {
        let due: BTreeSet<PathBuf> = (self.files.iter())
            .filter(|(_, (first, last))| (*last + STILL).min(*first + LATEST) <= now)
            .map(|(path, _)| path.clone())
            .collect();
        for path in &due {
            self.files.remove(path);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> BTreeSet<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn what_comes_while_others_go_is_one_batch() {
        let pending = Pending::default();
        pending.add(&paths(&["a", "b"]));
        pending.add(&paths(&["b", "c"]));
        let batch = pending.take().unwrap();
        assert_eq!(batch.list(Path::new("/none")).unwrap(), b"a\0b\0c\0");
        assert_eq!(pending.take(), None);
        pending.add(&paths(&["a"]));
        pending.add_all();
        pending.add(&paths(&["b"]));
        assert_eq!(pending.take(), Some(Batch::All));
    }

    #[test]
    fn what_was_in_a_folder_that_became_a_link_is_not_looked_for() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("was")).unwrap();
        let batch = Batch::Paths(paths(&[
            "was",
            "was/passwd",
            "was/x/y",
            "was-not",
            "z/gone",
        ]));
        assert_eq!(batch.list(root.path()).unwrap(), b"was\0was-not\0z/gone\0");
    }

    #[test]
    fn files_with_several_names_are_found() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("one"), "").unwrap();
        fs::write(root.path().join("two"), "").unwrap();
        fs::create_dir(root.path().join("folder")).unwrap();
        let batch = Batch::Paths(paths(&["gone", "folder", "one"]));
        assert!(!batch.has_linked(root.path()) && !Batch::All.has_linked(root.path()));
        fs::hard_link(root.path().join("one"), root.path().join("two.")).unwrap();
        assert!(batch.has_linked(root.path()));
    }

    #[test]
    fn too_many_are_all() {
        let pending = Pending::default();
        let many: BTreeSet<PathBuf> = (0..=TreeChanges::MANY)
            .map(|n| n.to_string().into())
            .collect();
        pending.add(&many);
        assert_eq!(pending.take(), Some(Batch::All));
    }

    #[test]
    fn a_file_that_is_written_for_long_goes_now_and_then() {
        let mut open = Open::default();
        let big: HashSet<PathBuf> = [PathBuf::from("big")].into();
        let mut now = Instant::now();
        for _ in 0..12 {
            open.update(now, big.clone(), &BTreeSet::new());
            assert!(open.due(now).is_empty());
            now += Duration::from_millis(800);
        }
        now += Duration::from_millis(800);
        assert_eq!(open.due(now), paths(&["big"]));
        assert_eq!(open.next(), None);
    }
}
