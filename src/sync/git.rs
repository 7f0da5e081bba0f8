//! Asks git about a folder whose configuration is not to be trusted: it came with a project, or from a
//! guest.

use std::{
    collections::HashMap,
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::host::process::{Command as Program, Environment, Limits, Start};

/// Turns off the settings by which a repository's own configuration can make git run or fetch something.
/// Filters have names that cannot be known, so only commands without filters are used: `ls-files`, and
/// `hash-object --no-filters`.
const OFF: [&str; 5] = [
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.untrackedCache=false",
    "protocol.allow=never",
    "submodule.recurse=false",
];

/// Arguments of `git` that keep it from running any other program.
fn words(folder: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["--no-pager".into(), "--literal-pathspecs".into()];
    for setting in OFF {
        words.extend(["-c".into(), setting.into()]);
    }
    words.extend(["-C".into(), folder.into()]);
    words
}

/// The only `GIT_` variables that git gets. All others are removed: if a git hook runs stead, GIT_DIR and
/// GIT_INDEX_FILE are those of another repository.
const VARIABLES: [(&str, &str); 3] = [
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
];

/// Returns git's output, split at NULs. It is empty if the folder is not a repository or belongs to
/// another user, or if git is not installed.
fn parts(folder: &Path, question: &[&str]) -> Vec<Vec<u8>> {
    let mut git = Program::new("git", "git")
        .args(words(folder))
        .args(question)
        .environment(Environment::Whole)
        .without("GIT_")
        .limits(Limits {
            time: None,
            output: MOST_LISTED,
        });
    for (name, value) in VARIABLES {
        git = git.env(name, value);
    }
    match git.run() {
        Ok(output) if output.status.success() => (output.stdout.split(|byte| *byte == 0))
            .filter(|part| !part.is_empty())
            .map(<[u8]>::to_vec)
            .collect(),
        _ => Vec::new(),
    }
}

/// The most names that are read, in bytes: some ten million files.
const MOST_LISTED: usize = 1 << 30;

/// Returns the files that git tracks although they match an ignore pattern, relative to the folder.
pub(super) fn tracked_but_ignored(folder: &Path) -> Vec<PathBuf> {
    let question = [
        "ls-files",
        "-z",
        "--cached",
        "--ignored",
        "--exclude-standard",
    ];
    (parts(folder, &question).into_iter())
        .map(|name| PathBuf::from(OsString::from_vec(name)))
        .collect()
}

/// The content that git has of the files in a folder. It takes two processes, however many files are
/// asked about.
pub(super) struct Index {
    folder: PathBuf,
    /// Ids of blobs, by the path relative to the folder.
    blobs: HashMap<Vec<u8>, String>,
    hasher: Option<Hasher>,
}

struct Hasher {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Index {
    pub(super) fn of(folder: &Path) -> Self {
        let listed = parts(folder, &["ls-files", "-z", "--cached", "--stage"]);
        Index {
            folder: folder.to_path_buf(),
            blobs: listed.iter().filter_map(|it| blob(it)).collect(),
            hasher: None,
        }
    }

    /// Whether the file's content is that of git's index, so that `git checkout` restores it.
    pub(super) fn has(&mut self, path: &Path) -> bool {
        let name = path.as_os_str().as_bytes();
        // git reads one name per line.
        if name.contains(&b'\n') {
            return false;
        }
        let Some(wanted) = self.blobs.get(name) else {
            return false;
        };
        if self.hasher.is_none() {
            self.hasher = Hasher::start(&self.folder);
        }
        let full = self.folder.join(path);
        (self.hasher.as_mut()).is_some_and(|it| it.hash(&full).as_ref() == Some(wanted))
    }
}

/// Parses a line of `ls-files --stage`: `100644 BLOB 0\tPATH`. A file with a merge conflict has other
/// stages than 0.
fn blob(line: &[u8]) -> Option<(Vec<u8>, String)> {
    let at = line.iter().position(|byte| *byte == b'\t')?;
    let text = std::str::from_utf8(&line[..at]).ok()?;
    let mut words = text.split(' ');
    let (mode, blob, stage) = (words.next()?, words.next()?, words.next()?);
    (mode.starts_with("100") && stage == "0").then(|| (line[at + 1..].to_vec(), blob.to_string()))
}

impl Hasher {
    #[expect(
        clippy::disallowed_methods,
        reason = "one program answers for many files"
    )]
    fn start(folder: &Path) -> Option<Self> {
        let mut command = Command::new("git");
        for (name, _) in std::env::vars_os() {
            if name.as_bytes().starts_with(b"GIT_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .envs(VARIABLES)
            .args(words(folder))
            .args(["hash-object", "--no-filters", "--stdin-paths"])
            .stderr(Stdio::null())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .start()
            .ok()?;
        let (to, from) = (child.stdin.take()?, child.stdout.take()?);
        Some(Hasher {
            child,
            to,
            from: BufReader::new(from),
        })
    }

    fn hash(&mut self, path: &Path) -> Option<String> {
        let mut line = path.as_os_str().as_bytes().to_vec();
        line.push(b'\n');
        self.to.write_all(&line).ok()?;
        self.to.flush().ok()?;
        let mut said = String::new();
        self.from.read_line(&mut said).ok()?;
        Some(said.trim_end().to_string())
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;

    pub(crate) fn repository(root: &Path) {
        for words in [
            &["init", "-q"][..],
            &["add", "."],
            &["commit", "-qm", "one"],
        ] {
            let status = Command::new("git")
                .arg("-C")
                .arg(root)
                .args(["-c", "user.name=a", "-c", "user.email=a@b"])
                .args(words)
                .status()
                .unwrap();
            assert!(status.success());
        }
    }

    /// Writes a configuration that makes git run a program wherever it can.
    pub(crate) fn set_traps(root: &Path, mark: &Path) {
        let trap = root.join(".git/trap");
        fs::write(
            &trap,
            format!("#!/bin/sh\ntouch '{}'\ncat\n", mark.display()),
        )
        .unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&trap, mode).unwrap();
        let hooks = root.join(".git/hooks");
        fs::create_dir_all(&hooks).unwrap();
        for hook in ["post-index-change", "fsmonitor-watchman", "pre-commit"] {
            let _ = fs::remove_file(hooks.join(hook));
            std::os::unix::fs::symlink(&trap, hooks.join(hook)).unwrap();
        }
        let trap = trap.display();
        let config = format!(
            "[core]\n\tfsmonitor = {trap}\n\thooksPath = {}\n\tsshCommand = {trap}\n\tpager = {trap}\n\
             [filter \"x\"]\n\tclean = {trap}\n\tsmudge = {trap}\n\tprocess = {trap}\n\
             [diff]\n\texternal = {trap}\n[diff \"x\"]\n\ttextconv = {trap}\n\
             [remote \"origin\"]\n\turl = ext::{trap}\n\tpromisor = true\n[extensions]\n\tpartialClone = origin\n",
            hooks.display()
        );
        let file = root.join(".git/config");
        let before = fs::read_to_string(&file).unwrap();
        let before = before.replace("repositoryformatversion = 0", "repositoryformatversion = 1");
        fs::write(&file, before + &config).unwrap();
        fs::create_dir_all(root.join(".git/info")).unwrap();
        fs::write(root.join(".git/info/attributes"), "* filter=x diff=x\n").unwrap();
    }

    #[test]
    fn what_a_repository_says_is_not_run() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("project");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("same"), "same").unwrap();
        fs::write(root.join("edited"), "one").unwrap();
        fs::write(root.join("kept.log"), "x").unwrap();
        repository(&root);
        fs::write(root.join(".gitignore"), "*.log\n").unwrap();
        fs::write(root.join("edited"), "two").unwrap();
        let mark = place.path().join("ran");
        set_traps(&root, &mark);
        // Plain git runs the trap.
        let status = Command::new("git")
            .arg("-C")
            .arg(&root)
            .arg("status")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(mark.exists(), "{status:?}");
        fs::remove_file(&mark).unwrap();
        let mut index = Index::of(&root);
        assert!(index.has(Path::new("same")));
        assert!(!index.has(Path::new("edited")) && !index.has(Path::new("none")));
        assert_eq!(tracked_but_ignored(&root), [Path::new("kept.log")]);
        assert!(!mark.exists());
    }
}
