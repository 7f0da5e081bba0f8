//! The files that count for a hook or a playbook, within bounds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use crate::report::bytes;

use super::{
    interpreters::{has_ending, is_script},
    shown::{below, shown},
};

/// The path that cannot be read, and why.
pub(super) type Failed = (PathBuf, io::Error);

/// The most files that count for one hook.
pub(super) const FILES: usize = 1000;

/// The most bytes that the files of folders have, together.
pub(super) const BYTES: u64 = 64 << 20;

/// Folders that tools make. Their content does not count.
const MADE: [&str; 4] = [".git", "target", "node_modules", "__pycache__"];

/// The files that run with a hook or a playbook.
pub(super) struct RunFiles<'a> {
    pub root: &'a Path,
    /// Each by its path, with its path without symlinks.
    pub files: BTreeMap<PathBuf, PathBuf>,
    /// Folders whose files all count, because stead cannot follow one of their scripts.
    pub whole: BTreeSet<PathBuf>,
    /// Whether a limit was reached. Then files that are not in `files` can change unnoticed.
    pub incomplete: bool,
    /// Whether a playbook computes names of files that it includes.
    pub made_up: bool,
    /// Named files that do not exist. If somebody creates them, they run.
    pub awaited: BTreeSet<PathBuf>,
    bytes: u64,
    walked: BTreeSet<(PathBuf, &'static [&'static str])>,
    /// Files to read.
    pub(super) next: Vec<PathBuf>,
    /// Files that were read.
    pub(super) seen: BTreeSet<PathBuf>,
    /// Files that count because all files of their folder do.
    listed: BTreeSet<PathBuf>,
    /// If it is a playbook that runs: where it looks for files.
    pub(super) play: Option<Play>,
    /// How many files were given, which the limit of [`FILES`] does not cover.
    pub(super) given: usize,
    pub(super) entries: HashMap<PathBuf, Rc<BTreeSet<String>>>,
}

/// Whether a path is in a folder that a tool makes.
pub(super) fn is_made(path: &Path, root: &Path) -> bool {
    let below = path.strip_prefix(root).unwrap_or(path);
    below
        .components()
        .any(|part| MADE.iter().any(|name| part.as_os_str() == *name))
}

/// The folders in which the run of a playbook looks for files.
#[derive(Default)]
pub(super) struct Play {
    /// The playbook's folder, and the folders in it that Ansible reads.
    pub homes: Vec<PathBuf>,
    /// Folders above it, up to the project's folder.
    pub above: Vec<PathBuf>,
    pub machinefiles: Vec<PathBuf>,
    /// Folders whose files have been added already.
    pub covered: Vec<PathBuf>,
}

impl<'a> RunFiles<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        RunFiles {
            root,
            files: BTreeMap::new(),
            whole: BTreeSet::new(),
            incomplete: false,
            made_up: false,
            awaited: BTreeSet::new(),
            bytes: 0,
            walked: BTreeSet::new(),
            next: Vec::new(),
            seen: BTreeSet::new(),
            listed: BTreeSet::new(),
            play: None,
            given: 0,
            entries: HashMap::new(),
        }
    }

    /// Adds all files of a folder with a script that stead cannot follow.
    pub(super) fn all_of(&mut self, folder: &Path) {
        if self.is_covered(folder) || self.whole.insert(folder.to_path_buf()) {
            self.walk(folder, &[]);
        }
    }

    /// Adds the files below a folder, with these extensions if there are any. Directly in the project's own folder, only
    /// scripts count, because the rest of a project does not belong to a hook.
    pub(super) fn walk(&mut self, folder: &Path, endings: &'static [&'static str]) {
        if self.is_covered(folder) {
            if self.walked.insert((folder.to_path_buf(), endings)) {
                let fits = |path: &&PathBuf| {
                    path.starts_with(folder) && (endings.is_empty() || has_ending(path, endings))
                };
                self.next.extend(self.files.keys().filter(fits).cloned());
            }
            return;
        }
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let Ok(real) = folder.canonicalize() else {
                continue;
            };
            let inside = real.starts_with(self.root) && !is_made(&folder, self.root);
            let key = (folder.clone(), endings);
            // A symlink may lead to a folder above this one, without end.
            let around = folder.components().count() > 64;
            self.incomplete |= inside && around;
            if !inside || around || !self.walked.insert(key) {
                continue;
            }
            let entries = folder.read_dir().into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                if path.is_dir() {
                    if folder == self.root {
                        continue;
                    }
                    if self.walked.len() < FILES {
                        folders.push(path);
                    } else {
                        self.incomplete = true;
                    }
                    continue;
                }
                let Ok(metadata) = path.metadata() else {
                    continue;
                };
                let fits = match endings {
                    [] => {
                        let data = self.play.is_some() && has_ending(&path, &["yml", "yaml"]);
                        folder != self.root || data || is_script(&path)
                    }
                    _ => has_ending(&path, endings),
                };
                let known = self.seen.contains(&path) || self.listed.contains(&path);
                if !metadata.is_file() || !fits || known {
                    continue;
                }
                if self.files.contains_key(&path) {
                    self.next.push(path);
                    continue;
                }
                self.bytes += metadata.len();
                self.listed.insert(path.clone());
                if self.bytes > BYTES || self.listed.len() > FILES {
                    self.incomplete = true;
                    return;
                }
                self.next.push(path);
            }
        }
    }

    pub(super) fn is_covered(&self, folder: &Path) -> bool {
        (self.play.iter()).any(|play| play.covered.iter().any(|it| folder.starts_with(it)))
    }

    /// Returns what the user should know if not all files are known.
    pub(super) fn note(&self) -> Option<String> {
        let folders: Vec<String> = (self.whole.iter())
            .map(|folder| match below(folder, self.root) {
                name if name.is_empty() => "scripts in the project's folder".into(),
                name => format!("files of {}", shown(&name)),
            })
            .collect();
        let mut said = Vec::new();
        if !folders.is_empty() {
            said.push(format!(
                "stead cannot tell everything that it runs, so {} count as well",
                folders.join(", ")
            ));
        }
        if folders.is_empty() && self.made_up {
            said.push(
                "it computes names of files that it reads, so stead cannot find all of them".into(),
            );
        }
        if self.incomplete {
            said.push(format!(
                "it may run more files than stead checks ({} files, {}), so your agreement holds only once",
                FILES,
                bytes(BYTES)
            ));
        }
        (!said.is_empty()).then(|| said.join("; "))
    }
}
