//! Which files of a synced folder stay on the host: those that `exclude` matches, and those that git
//! ignores.
//!
//! rsync has patterns of its own kind, and the first match decides. With git the last match decides,
//! patterns are spread over several files, and tracked files are never ignored. So this module finds the
//! ignored files and names each of them to rsync. Files that exist only in the guest cannot be named:
//! there git's patterns, translated to rsync's, protect them from deletion.
//!
//! A submodule, or another repository within the folder, has patterns and tracked files of its own. Those of the
//! repository around it do not apply there.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Component, Path, PathBuf},
};

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder, gitconfig_excludes_path},
};

use crate::{
    host::open,
    report::{
        clean::{Shown, words},
        counted,
    },
};

use super::{
    git::{is_work_tree, tracked_but_ignored, work_tree},
    pattern::{Patterns, anchored},
};

const GITIGNORE: &str = ".gitignore";
const GIT: &str = ".git";

/// The largest file of git's patterns that is read, in bytes.
pub(super) const LARGEST: u64 = 1 << 20;

pub(super) struct Filter {
    root: PathBuf,
    exclude: Vec<String>,
    patterns: Patterns,
    git: Option<Git>,
}

/// git's ignore patterns, as far as its files were read.
#[derive(Default)]
struct Git {
    /// Patterns from outside the folder: folders above it in the repository, the repository's
    /// `info/exclude`, the user's. The first that matches decides.
    outer: Vec<Gitignore>,
    /// By the folder of the `.gitignore`, relative to the root.
    inner: BTreeMap<PathBuf, Gitignore>,
    /// By the folder of a repository within the root: its `info/exclude`, and the user's.
    repositories: BTreeMap<PathBuf, Vec<Gitignore>>,
    /// Files that are tracked although a pattern matches, with all folders above them.
    tracked: BTreeSet<PathBuf>,
    /// Why git could not list the tracked files of a repository, and of which. Only the first is kept.
    unlisted: Option<(PathBuf, String)>,
}

/// A file or folder that a walk finds.
pub(super) struct Entry<'a> {
    /// Relative to the root; empty for the root itself.
    pub path: &'a Path,
    pub is_folder: bool,
    pub is_link: bool,
    pub is_device: bool,
    pub excluded: bool,
}

/// The folder that was to be walked does not exist any more.
#[derive(Debug)]
pub(super) struct Gone(pub PathBuf);

impl Filter {
    pub(super) fn new(root: &Path, exclude: &[String], gitignore: bool) -> Self {
        Filter {
            root: root.to_path_buf(),
            exclude: exclude.to_vec(),
            patterns: Patterns::new(exclude),
            git: gitignore.then(|| Git::around(root)),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether git's rules may be others since an entry of this name came, changed or went.
    pub(super) fn depends_on(&self, name: &OsStr) -> bool {
        self.git.is_some() && (name == GITIGNORE || name == GIT)
    }

    /// Whether the path itself is excluded. The folders above it must not be.
    pub(super) fn excludes(&self, path: &Path, is_folder: bool) -> bool {
        if let Some(said) = self.patterns.excludes(path, is_folder) {
            return said;
        }
        self.git
            .as_ref()
            .is_some_and(|git| git.ignores(&self.root, path, is_folder))
    }

    /// Whether the path or a folder above it is excluded, as far as is known without a walk.
    pub(super) fn excludes_within(&self, path: &Path, is_folder: bool) -> bool {
        path.ancestors()
            .filter(|it| !it.as_os_str().is_empty())
            .any(|it| self.excludes(it, is_folder || it != path))
    }

    /// Asks git for files that it tracks although they match an ignore pattern.
    pub(super) fn read_tracked(&mut self) {
        if let Some(git) = &mut self.git {
            git.tracked.clear();
            git.unlisted = None;
            git.read_tracked(&self.root, Path::new(""));
        }
    }

    /// Reads the `.gitignore` of that folder, and the rest of git's rules if a repository begins there.
    pub(super) fn enter(&mut self, folder: &Path) {
        let Some(git) = &mut self.git else { return };
        let at = self.root.join(folder);
        if !folder.as_os_str().is_empty() {
            if is_work_tree(&at) {
                let outer = outer_patterns(&at, Some(&at));
                git.repositories.insert(folder.to_path_buf(), outer);
                git.read_tracked(&self.root, folder);
            } else {
                git.repositories.remove(folder);
            }
        }
        let file = at.join(GITIGNORE);
        // git does not follow a symlink here (gitignore(5)).
        if fs::symlink_metadata(&file).is_ok_and(|it| it.is_file()) {
            let mut builder = GitignoreBuilder::new(&at);
            // Invalid lines are ignored, as git does.
            let _ = builder.add(&file);
            if let Ok(read) = builder.build() {
                git.inner.insert(folder.to_path_buf(), read);
                return;
            }
        }
        git.inner.remove(folder);
    }

    /// Walks a folder and everything below it that is not excluded. `each` gets a folder before the
    /// folder is read, so that a watch which it sets misses nothing. Folders that cannot be read are
    /// skipped: rsync reports them.
    ///
    /// # Errors
    /// If `start` does not exist any more, or `each` fails.
    pub(super) fn walk<E: From<Gone>>(
        &mut self,
        start: &Path,
        each: &mut dyn FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut open = vec![start.to_path_buf()];
        while let Some(folder) = open.pop() {
            each(Entry {
                path: &folder,
                is_folder: true,
                is_link: false,
                is_device: false,
                excluded: false,
            })?;
            let at = self.root.join(&folder);
            let entries = match fs::read_dir(&at) {
                Ok(entries) => entries,
                Err(error) if folder == start && error.kind() == io::ErrorKind::NotFound => {
                    // Without the separator at its end.
                    return Err(Gone(at.components().collect()).into());
                }
                Err(_) => continue,
            };
            self.enter(&folder);
            for entry in entries.flatten() {
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                let path = folder.join(entry.file_name());
                let excluded = self.excludes(&path, kind.is_dir());
                if kind.is_dir() && !excluded {
                    open.push(path);
                } else {
                    each(Entry {
                        path: &path,
                        is_folder: kind.is_dir(),
                        is_link: kind.is_symlink(),
                        is_device: kind.is_block_device() || kind.is_char_device(),
                        excluded,
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Walks the whole folder for rsync's filter rules and for the symlinks that people should know of.
    /// With `weigh` it also adds up the sizes of the files, and of the holes in them.
    pub(super) fn survey(&mut self, weigh: bool) -> Result<Survey, Gone> {
        let mut survey = Survey::default();
        self.read_tracked();
        let root = self.root.clone();
        let git = self.git.is_some();
        let mut ignored = Vec::new();
        self.walk::<Gone>(Path::new(""), &mut |entry| {
            if entry.excluded {
                if git {
                    ignored.push(entry.path.to_path_buf());
                }
            } else if entry.is_link {
                if let Ok(target) = fs::read_link(root.join(entry.path))
                    && leads_out(entry.path, &target)
                {
                    survey.outward += 1;
                    if survey.first_outward.len() < NAMED {
                        survey
                            .first_outward
                            .push((entry.path.to_path_buf(), target));
                    }
                }
            } else if entry.is_device {
                survey.devices += 1;
                if survey.first_devices.len() < NAMED {
                    survey.first_devices.push(entry.path.to_path_buf());
                }
            } else if weigh
                && !entry.is_folder
                && let Ok(metadata) = fs::symlink_metadata(root.join(entry.path))
            {
                survey.bytes += metadata.len();
                survey.holes += holes(&metadata);
            }
            Ok(())
        })?;
        survey.unlisted = self.git.as_ref().and_then(|git| git.unlisted.clone());
        survey.rules = self.rules(&ignored);
        Ok(survey)
    }

    /// Returns rsync's filter rules, each followed by a NUL; `ignored` are the paths that git ignores.
    pub(super) fn rules(&self, ignored: &[PathBuf]) -> Vec<u8> {
        let mut rules = Vec::new();
        for pattern in &self.exclude {
            match (pattern.strip_prefix("+ "), pattern.strip_prefix("- ")) {
                // In rsync's patterns this drops all rules before it.
                _ if pattern == "!" => rules.clear(),
                (Some(rest), _) => rule(&mut rules, "+", rest.as_bytes()),
                (_, Some(rest)) => rule(&mut rules, "-", rest.as_bytes()),
                _ => rule(&mut rules, "-", pattern.as_bytes()),
            }
        }
        let Some(git) = &self.git else { return rules };
        for path in &git.tracked {
            rule(&mut rules, "+", anchored(path).as_bytes());
        }
        for path in ignored {
            rule(&mut rules, "-", anchored(path).as_bytes());
        }
        // The deepest first, because it takes precedence.
        let mut inner: Vec<_> = git.inner.keys().collect();
        inner.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        for folder in inner {
            if let Ok(text) = open::bytes(&self.root.join(folder).join(GITIGNORE), LARGEST) {
                for (sign, pattern) in protections(folder, &text) {
                    rule(&mut rules, sign, &pattern);
                }
            }
        }
        rules
    }
}

fn rule(rules: &mut Vec<u8>, sign: &str, pattern: &[u8]) {
    rules.extend_from_slice(sign.as_bytes());
    rules.push(b' ');
    rules.extend_from_slice(pattern);
    rules.push(0);
}

/// How many names a notice lists.
const NAMED: usize = 3;

/// The result of a walk over a whole folder.
#[derive(Default, Debug)]
pub(super) struct Survey {
    /// For rsync's `merge`, with `--from0`.
    pub rules: Vec<u8>,
    /// How many symlinks lead out of the folder.
    pub outward: usize,
    pub first_outward: Vec<(PathBuf, PathBuf)>,
    /// How many device nodes there are.
    pub devices: usize,
    pub first_devices: Vec<PathBuf>,
    /// Why git could not list the tracked files of a repository, and of which.
    pub unlisted: Option<(PathBuf, String)>,
    /// The size of all files that are not excluded, if it was asked for.
    pub bytes: u64,
    /// The part of it that has no place on the disk, because it was never written.
    pub holes: u64,
}

/// Returns how many bytes of a file have no place on the disk: holes, which read as zeros.
pub(super) fn holes(file: &fs::Metadata) -> u64 {
    // inode(7): blocks of 512 bytes, whatever the file system's blocks are.
    match file.is_file() {
        true => file.len().saturating_sub(file.blocks() * 512),
        false => 0,
    }
}

impl Survey {
    /// Returns what people should know. Only root can make devices in the guest.
    pub(super) fn notices(&self, as_root: bool) -> Vec<String> {
        let devices = (!as_root).then(|| self.devices_notice()).flatten();
        let unlisted = self.unlisted.as_ref().map(|(repository, why)| {
            format!(
                "files of {} that git tracks although .gitignore matches them are not sent, because git cannot list them: {}",
                repository.shown(),
                words(why)
            )
        });
        ([self.outward_notice(), devices, unlisted]
            .into_iter()
            .flatten())
        .collect()
    }

    fn devices_notice(&self) -> Option<String> {
        if self.devices == 0 {
            return None;
        }
        let names: Vec<String> = self.first_devices.iter().map(|it| it.shown()).collect();
        Some(format!(
            "{} not copied, because only root can make {}: {}{}; `exclude` them, or copy as root with owner=\"root:root\"",
            match self.devices {
                1 => "a device is".to_string(),
                many => format!("{} are", counted(many, "device")),
            },
            if self.devices == 1 { "one" } else { "them" },
            names.join(", "),
            more(self.devices - names.len())
        ))
    }

    fn outward_notice(&self) -> Option<String> {
        if self.outward == 0 {
            return None;
        }
        let names: Vec<String> = (self.first_outward.iter())
            .map(|(link, target)| format!("{} → {}", link.shown(), target.shown()))
            .collect();
        Some(format!(
            "{} {} out of the folder, so the guest may not have the target: {}{}",
            if self.outward == 1 {
                "a symlink".to_string()
            } else {
                format!("{} symlinks", self.outward)
            },
            if self.outward == 1 { "leads" } else { "lead" },
            names.join(", "),
            more(self.outward - names.len())
        ))
    }
}

/// Returns the end of a list of names that has this many more.
fn more(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(" and {count} more"),
    }
}

/// Whether a symlink's target is outside the folder, judged by its text alone.
fn leads_out(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            Component::RootDir | Component::Prefix(_) => return true,
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
        }
    }
    false
}

impl Git {
    /// Reads the patterns from outside the folder that apply to it.
    fn around(root: &Path) -> Self {
        Git {
            outer: outer_patterns(root, work_tree(root)),
            ..Git::default()
        }
    }

    fn ignores(&self, root: &Path, path: &Path, is_folder: bool) -> bool {
        if self.tracked.contains(path) {
            return false;
        }
        if let Some(said) = self.decides(root, path, is_folder) {
            return said;
        }
        // In an ignored folder with tracked files, everything but those is ignored. A repository in there is tracked
        // as a whole.
        path.ancestors()
            .skip(1)
            .take_while(|it| !it.as_os_str().is_empty() && !self.repositories.contains_key(*it))
            .filter(|it| self.tracked.contains(*it))
            .any(|folder| self.decides(root, folder, true) == Some(true))
    }

    /// Whether a pattern ignores the path, or includes it again. The deepest file of patterns decides, and none from
    /// outside the repository that the path is in.
    fn decides(&self, root: &Path, path: &Path, is_folder: bool) -> Option<bool> {
        let full = root.join(path);
        let said = |file: &Gitignore| match file.matched(&full, is_folder) {
            Match::Ignore(_) => Some(true),
            Match::Whitelist(_) => Some(false),
            Match::None => None,
        };
        for folder in path.ancestors().skip(1) {
            if let Some(said) = self.inner.get(folder).and_then(said) {
                return Some(said);
            }
            if let Some(outer) = self.repositories.get(folder) {
                return outer.iter().find_map(said);
            }
        }
        self.outer.iter().find_map(said)
    }

    /// Asks git for files that the repository of `folder` tracks although they match a pattern.
    fn read_tracked(&mut self, root: &Path, folder: &Path) {
        // Without the separator at its end.
        let at: PathBuf = root.join(folder).components().collect();
        match tracked_but_ignored(&at) {
            Ok(paths) => {
                for path in paths {
                    self.tracked.extend(
                        folder
                            .join(path)
                            .ancestors()
                            .filter(|it| !it.as_os_str().is_empty())
                            .map(Path::to_path_buf),
                    );
                }
            }
            Err(why) if self.unlisted.is_none() => self.unlisted = Some((at, why)),
            Err(_) => {}
        }
    }
}

/// Reads the patterns from outside the folder that apply to it: those of folders above it in its work tree, of its
/// repository's `info/exclude`, and the user's.
fn outer_patterns(root: &Path, work_tree: Option<&Path>) -> Vec<Gitignore> {
    let mut outer = Vec::new();
    let mut read = |folder: &Path, file: &Path| {
        let mut builder = GitignoreBuilder::new(folder);
        if file.is_file() && builder.add(file).is_none() {
            outer.extend(builder.build());
        }
    };
    if let Some(work_tree) = work_tree {
        for folder in root.ancestors().skip(1) {
            if !folder.starts_with(work_tree) {
                break;
            }
            read(folder, &folder.join(GITIGNORE));
        }
        if let Some(common) = common_dir(&work_tree.join(GIT)) {
            read(work_tree, &common.join("info/exclude"));
        }
    }
    if let Some(file) = gitconfig_excludes_path() {
        read(work_tree.unwrap_or(root), &file);
    }
    outer
}

/// The folder that all work trees of a repository share (gitrepository-layout(5)).
fn common_dir(git: &Path) -> Option<PathBuf> {
    if git.is_dir() {
        return Some(git.to_path_buf());
    }
    let text = open::text(git, LARGEST).ok()?;
    let own = git.parent()?.join(text.strip_prefix("gitdir:")?.trim());
    match open::text(&own.join("commondir"), LARGEST) {
        Ok(common) => Some(own.join(common.trim())),
        Err(_) => Some(own),
    }
}

/// Translates a file of git's patterns to rsync's rules that protect the guest's files from deletion:
/// `P` protects, `R` takes that back.
fn protections(folder: &Path, text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let base = match folder.as_os_str().is_empty() {
        true => b"/".to_vec(),
        false => {
            let mut base = anchored(folder).into_vec();
            base.push(b'/');
            base
        }
    };
    let mut rules = Vec::new();
    // With git the last match decides, with rsync the first.
    for line in text.split(|byte| *byte == b'\n').rev() {
        let mut line = line.strip_suffix(b"\r").unwrap_or(line);
        while line.ends_with(b" ") && !line.ends_with(b"\\ ") {
            line = &line[..line.len() - 1];
        }
        if line.starts_with(b"#") {
            continue;
        }
        let (sign, line) = match line.strip_prefix(b"!") {
            Some(rest) => ("R", rest),
            None => ("P", line),
        };
        let (line, folders_only) = match line.strip_suffix(b"/") {
            Some(rest) => (rest, true),
            None => (line, false),
        };
        let rooted = line.contains(&b'/') && !line.starts_with(b"**/");
        let line = line.strip_prefix(b"/").unwrap_or(line);
        let line = line.strip_prefix(b"**/").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        // rsync takes a backslash as an escape only in a pattern with wildcards.
        let wild = |text: &[u8]| text.iter().any(|byte| b"*?[".contains(byte));
        let mut say = |middle: &[u8]| {
            let mut pattern = base.clone();
            let escaped = !wild(line) && !wild(&base) && !wild(middle);
            pattern.extend_from_slice(middle);
            if escaped {
                let mut bytes = line.iter();
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'\\' => pattern.extend(bytes.next()),
                        byte => pattern.push(*byte),
                    }
                }
            } else {
                pattern.extend_from_slice(line);
            }
            if folders_only {
                pattern.push(b'/');
            }
            rules.push((sign, pattern));
        };
        say(b"");
        if !rooted {
            say(b"**/");
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, process::Command};

    use super::*;

    fn write(root: &Path, name: &str, content: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn git(root: &Path, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("git")
            .arg("-C")
            .arg(root)
            .args(["-c", "user.name=a", "-c", "user.email=a@b"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// Files that a filter does not exclude.
    fn kept(root: &Path) -> BTreeSet<PathBuf> {
        let mut filter = Filter::new(root, &[".git".into()], true);
        filter.survey(true).unwrap();
        let mut kept = BTreeSet::new();
        filter
            .walk::<Gone>(Path::new(""), &mut |entry| {
                if !entry.is_folder && !entry.excluded {
                    kept.insert(entry.path.to_path_buf());
                }
                Ok(())
            })
            .unwrap();
        kept
    }

    #[test]
    fn a_folder_that_is_gone_is_named() {
        let home = tempfile::tempdir().unwrap();
        let gone = home.path().join("gone");
        let error = Filter::new(&gone, &[], false).survey(false).unwrap_err();
        assert_eq!(error.0, gone);
    }

    #[test]
    fn what_git_ignores_stays() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path();
        git(root, &["init", "-q"]);
        write(root, ".git/info/exclude", "private\n");
        write(
            root,
            ".gitignore",
            "*.log\n!keep.log\n/build/\nnode_modules\nodd\\[1\\]\ndeep/**/x\n# a comment\n\\#hash\ntrail \n",
        );
        write(
            root,
            "sub/.gitignore",
            "!special.log\n/only-here\ngen/*\n!gen/kept\n",
        );
        for name in [
            "a.log",
            "keep.log",
            "build/x",
            "sub/build/x",
            "node_modules/m/i.js",
            "sub/node_modules/n",
            "odd[1]",
            "odd1",
            "deep/x",
            "deep/a/b/x",
            "#hash",
            "trail",
            "sub/special.log",
            "sub/other.log",
            "sub/only-here",
            "sub/more/only-here",
            "private",
            "sub/gen/a",
            "sub/gen/kept",
            "build/forced/f",
            "build/forced/g",
            "new\nline",
            "sub/private/p",
        ] {
            write(root, name, "");
        }
        git(root, &["add", "-f", "build/forced/f", "sub/other.log"]);
        let listed = git(
            root,
            &[
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ],
        );
        let wanted: BTreeSet<PathBuf> = listed
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| PathBuf::from(OsString::from_vec(name.to_vec())))
            .collect();
        assert_eq!(kept(root), wanted);
        // Also for a folder within the repository.
        assert!(!kept(&root.join("sub")).contains(Path::new("private/p")));
        assert!(kept(&root.join("sub")).contains(Path::new("special.log")));
    }

    #[test]
    fn what_would_be_ignored_is_not_deleted_in_the_guest() {
        let host = tempfile::tempdir().unwrap();
        let guest = tempfile::tempdir().unwrap();
        write(
            host.path(),
            ".gitignore",
            "target/\n*.log\n!keep.log\nodd\\[1\\]\n/top\n",
        );
        write(host.path(), "sub [x]/.gitignore", "made\n/here\n");
        write(host.path(), "sub [x]/f", "");
        write(host.path(), "plain/.gitignore", "made\n");
        let stays = [
            "target/debug/app",
            "plain/target/x",
            "a.log",
            "plain/b.log",
            "odd[1]",
            "top",
            "sub [x]/made",
            "sub [x]/deep/made",
            "sub [x]/here",
            "plain/made",
            "plain/y/made",
        ];
        let goes = [
            "keep.log",
            "plain/top",
            "odd1",
            "made",
            "stray/f",
            "sub [x]/y/here",
        ];
        for name in stays.iter().chain(&goes) {
            write(guest.path(), name, "");
        }
        let mut filter = Filter::new(host.path(), &[], true);
        let survey = filter.survey(true).unwrap();
        let rules = guest.path().parent().unwrap().join("rules");
        let rules = tempfile::Builder::new()
            .prefix("rules")
            .tempfile_in(rules.parent().unwrap())
            .unwrap();
        fs::write(rules.path(), &survey.rules).unwrap();
        let status = Command::new("rsync")
            .args(["-a", "--delete", "--from0"])
            .arg(format!("--filter=. {}", rules.path().display()))
            .arg("--")
            .arg(format!("{}/", host.path().display()))
            .arg(guest.path())
            .status()
            .unwrap();
        assert!(status.success());
        for name in stays {
            assert!(guest.path().join(name).exists(), "{name} went");
        }
        for name in goes {
            assert!(!guest.path().join(name).exists(), "{name} stayed");
        }
    }

    #[test]
    fn links_that_lead_out_are_told_of() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "a/f", "");
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, root.path().join(name)).unwrap();
        };
        link("f", "a/inside");
        link("../a/f", "a/around");
        link("../../else", "a/out");
        link("/etc/passwd", "absolute");
        let survey = Filter::new(root.path(), &[], false).survey(true).unwrap();
        assert_eq!(survey.outward, 2);
        let notices = survey.notices(false);
        assert_eq!(notices.len(), 1);
        assert!(
            notices[0].starts_with("2 symlinks lead out of the folder"),
            "{notices:?}"
        );
        assert!(notices[0].contains("absolute → /etc/passwd"), "{notices:?}");
    }

    #[test]
    fn devices_are_told_of_unless_root_makes_them() {
        let mut survey = Survey {
            devices: 1,
            first_devices: vec!["dev/null".into()],
            ..Survey::default()
        };
        assert_eq!(
            survey.notices(false),
            [
                "a device is not copied, because only root can make one: dev/null; `exclude` them, or copy as root with owner=\"root:root\""
            ]
        );
        assert!(survey.notices(true).is_empty());
        survey.devices = 9;
        let notice = survey.notices(false).remove(0);
        assert!(notice.starts_with("9 devices are not copied"), "{notice}");
        assert!(notice.contains("dev/null and 8 more;"), "{notice}");
    }

    #[test]
    fn holes_are_weighed() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "full", &"x".repeat(1 << 16));
        let file = fs::File::create(root.path().join("sparse")).unwrap();
        file.set_len(1 << 30).unwrap();
        let survey = Filter::new(root.path(), &[], false).survey(true).unwrap();
        assert_eq!(survey.bytes, (1 << 30) + (1 << 16));
        assert_eq!(survey.holes, 1 << 30);
    }

    #[test]
    fn a_repository_that_git_cannot_read_is_told_of() {
        let root = tempfile::tempdir().unwrap();
        git(root.path(), &["init", "-q"]);
        write(root.path(), ".git/index", "broken");
        let survey = Filter::new(root.path(), &[], true).survey(true).unwrap();
        let notice = survey.notices(false).remove(0);
        assert!(
            notice.contains("git cannot list them: git says: "),
            "{notice}"
        );
    }

    /// Submodules, one of them in an ignored folder, a clone that is no submodule, and a linked work tree.
    #[test]
    fn repositories_in_the_folder_have_rules_of_their_own() {
        let home = tempfile::tempdir().unwrap();
        let [origin, root, linked] = ["origin", "root", "linked"].map(|it| home.path().join(it));
        for name in ["build/out", "gen/tracked", "f"] {
            write(&origin, name, "");
        }
        write(&origin, ".gitignore", "gen/\n");
        git(&origin, &["init", "-q"]);
        git(&origin, &["add", "-f", "."]);
        git(&origin, &["commit", "-qm", "one"]);
        write(&root, ".gitignore", "build/\n*.log\n");
        git(&root, &["init", "-q"]);
        let origin = origin.to_str().unwrap();
        let allow = ["-c", "protocol.file.allow=always"];
        for to in ["sub", "build/in-ignored"] {
            let add = ["submodule", "add", "-q", "-f", origin, to];
            git(&root, &[&allow[..], &add].concat());
        }
        git(&root, &["clone", "-q", origin, "clone"]);
        git(&root, &["add", ".gitignore"]);
        git(&root, &["commit", "-qm", "one"]);
        git(&root, &["worktree", "add", "-q", linked.to_str().unwrap()]);
        let update = ["submodule", "update", "-q", "--init"];
        git(&linked, &[&allow[..], &update].concat());
        let inner = ["sub", "build/in-ignored", "clone"];
        for root in [&root, &linked] {
            for name in ["build/made", "a.log", "top"] {
                write(root, name, "");
            }
            for folder in inner {
                for name in ["gen/made", "b.log", "new"] {
                    write(&root.join(folder), name, "");
                }
            }
            let listed = |folder: &str| {
                let at = root.join(folder);
                let words = [
                    "ls-files",
                    "-z",
                    "--cached",
                    "--others",
                    "--exclude-standard",
                ];
                let said = if at.join(".git").exists() {
                    git(&at, &words)
                } else {
                    Vec::new()
                };
                (said.split(|byte| *byte == 0))
                    .filter(|name| !name.is_empty())
                    .map(|name| Path::new(folder).join(OsString::from_vec(name.to_vec())))
                    .filter(|path| !root.join(path).is_dir())
                    .collect::<Vec<_>>()
            };
            let mut wanted: BTreeSet<PathBuf> = listed("").into_iter().collect();
            wanted.retain(|path| !path.starts_with("clone"));
            wanted.extend(inner.into_iter().flat_map(listed));
            if root == &linked {
                // Here it is not a repository.
                wanted.extend(["gen/made", "new"].map(|it| Path::new("clone").join(it)));
            }
            assert_eq!(kept(root), wanted);
            assert!(wanted.contains(Path::new("sub/build/out")));
        }
    }
}
