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

use crate::host::{
    open,
    process::{Command as Program, Environment, Limits, ProgramError, Start},
};

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

/// The largest file `.git` that is read, in bytes.
const LARGEST_LINK: u64 = 1 << 16;

/// Whether the folder is the top of a work tree: of a repository of its own, a submodule or a linked work tree
/// (gitrepository-layout(5)).
pub(super) fn is_work_tree(folder: &Path) -> bool {
    let git = folder.join(".git");
    match std::fs::metadata(&git) {
        Ok(it) if it.is_dir() => std::fs::symlink_metadata(git.join("HEAD")).is_ok(),
        Ok(it) if it.is_file() => {
            open::text(&git, LARGEST_LINK).is_ok_and(|text| text.starts_with("gitdir:"))
        }
        _ => false,
    }
}

/// Returns the top of the work tree that the folder is in.
pub(super) fn work_tree(folder: &Path) -> Option<&Path> {
    folder.ancestors().find(|it| is_work_tree(it))
}

/// Arguments of `git` that keep it from running any other program. The repository is named: git then also reads one
/// that belongs to another user, whose configuration it would not trust (`safe.directory` in git-config(1)). Nor is it
/// trusted here, whoever it belongs to.
fn words(folder: &Path, work_tree: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["--no-pager".into(), "--literal-pathspecs".into()];
    for (option, path) in [
        ("--git-dir=", work_tree.join(".git")),
        ("--work-tree=", work_tree.to_path_buf()),
    ] {
        let mut word = OsString::from(option);
        word.push(path);
        words.push(word);
    }
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

/// Returns git's output, split at NULs. It is empty if the folder is in no repository.
///
/// # Errors
/// Why git does not answer.
fn parts(folder: &Path, question: &[&str]) -> Result<Vec<Vec<u8>>, String> {
    let Some(work_tree) = work_tree(folder) else {
        return Ok(Vec::new());
    };
    let mut git = Program::new("git", "git")
        .args(words(folder, work_tree))
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
        Ok(output) if output.status.success() => Ok((output.stdout.split(|byte| *byte == 0))
            .filter(|part| !part.is_empty())
            .map(<[u8]>::to_vec)
            .collect()),
        Ok(output) => {
            let said = output.message();
            let line = said.lines().next().unwrap_or_default();
            Err(match line.strip_prefix("fatal: ").unwrap_or(line) {
                "" => format!("git failed with {}", output.status),
                line => format!("git says: {line}"),
            })
        }
        Err(ProgramError::NotInstalled { .. }) => Err("git is not installed on the host".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// The most names that are read, in bytes: some ten million files.
const MOST_LISTED: usize = 1 << 30;

/// Returns the files that git tracks although they match an ignore pattern, relative to the folder.
///
/// # Errors
/// Why git does not answer.
pub(super) fn tracked_but_ignored(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let question = [
        "ls-files",
        "-z",
        "--cached",
        "--ignored",
        "--exclude-standard",
    ];
    Ok((parts(folder, &question)?.into_iter())
        .map(|name| PathBuf::from(OsString::from_vec(name)))
        .collect())
}

/// The content that git has of the files in a folder. It takes two processes, however many files are
/// asked about, and two for each repository within the folder.
pub(super) struct Index {
    folder: PathBuf,
    /// Ids of blobs, by the path relative to the folder.
    blobs: HashMap<Vec<u8>, String>,
    hasher: Option<Hasher>,
    /// Submodules and other repositories within the folder, by their path relative to it.
    inner: HashMap<PathBuf, Index>,
}

struct Hasher {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Index {
    pub(super) fn of(folder: &Path) -> Self {
        // Without an answer no file counts as committed, and the host's are kept.
        let listed = parts(folder, &["ls-files", "-z", "--cached", "--stage"]).unwrap_or_default();
        Index {
            folder: folder.to_path_buf(),
            blobs: listed.iter().filter_map(|it| blob(it)).collect(),
            hasher: None,
            inner: HashMap::new(),
        }
    }

    /// Whether the file's content is that of git's index, so that `git checkout` restores it.
    pub(super) fn has(&mut self, path: &Path) -> bool {
        let inner = (path.ancestors().skip(1))
            .filter(|it| !it.as_os_str().is_empty())
            .find(|it| is_work_tree(&self.folder.join(it)));
        if let Some(inner) = inner {
            let rest = path.strip_prefix(inner).unwrap_or(path);
            let full = self.folder.join(inner);
            let index = self.inner.entry(inner.to_path_buf());
            return index.or_insert_with(|| Index::of(&full)).has(rest);
        }
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
        let work_tree = work_tree(folder)?;
        let mut command = Command::new("git");
        for (name, _) in std::env::vars_os() {
            if name.as_bytes().starts_with(b"GIT_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .envs(VARIABLES)
            .args(words(folder, work_tree))
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
        assert_eq!(tracked_but_ignored(&root).unwrap(), [Path::new("kept.log")]);
        assert!(!mark.exists());
    }

    /// git runs hooks with the variables of their repository.
    #[test]
    fn the_repository_of_a_hook_is_another_one() {
        let place = tempfile::tempdir().unwrap();
        let [project, other] = ["project", "other"].map(|name| {
            let root = place.path().join(name);
            fs::create_dir(&root).unwrap();
            fs::write(root.join(format!("{name}.log")), name).unwrap();
            repository(&root);
            fs::write(root.join(".gitignore"), "*.log\n").unwrap();
            root
        });
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sync::git::tests::in_a_hook"])
            .args(["--ignored", "--nocapture"])
            .env("STEAD_TEST_GROUND", &project)
            .env("GIT_DIR", other.join(".git"))
            .env("GIT_WORK_TREE", &other)
            .env("GIT_INDEX_FILE", other.join(".git/index"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{output:?}"
        );
    }

    #[ignore = "a part of another test"]
    #[test]
    fn in_a_hook() {
        let Some(root) = std::env::var_os("STEAD_TEST_GROUND").map(PathBuf::from) else {
            return;
        };
        let tracked = format!("{:?}", tracked_but_ignored(&root).unwrap());
        assert_eq!(tracked, "[\"project.log\"]");
        assert!(Index::of(&root).has(Path::new("project.log")));
    }

    #[test]
    fn what_git_cannot_answer_is_said() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        assert_eq!(tracked_but_ignored(root), Ok(Vec::new()), "no repository");
        fs::write(root.join("f"), "").unwrap();
        repository(root);
        fs::write(root.join(".git/index"), "broken").unwrap();
        let why = tracked_but_ignored(root).unwrap_err();
        assert!(why.starts_with("git says: "), "{why}");
    }

    #[test]
    fn a_repository_in_the_folder_knows_its_own_files() {
        let place = tempfile::tempdir().unwrap();
        let inner = place.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for name in ["same", "edited"] {
            fs::write(inner.join(name), name).unwrap();
        }
        repository(&inner);
        repository_of_nothing(place.path());
        fs::write(inner.join("edited"), "since").unwrap();
        let mut index = Index::of(place.path());
        assert!(index.has(Path::new("inner/same")));
        assert!(!index.has(Path::new("inner/edited")));
    }

    fn repository_of_nothing(root: &Path) {
        let status = Command::new("git").args(["init", "-q"]).arg(root).status();
        assert!(status.unwrap().success());
    }

    /// As in a container, or where root runs stead.
    #[test]
    fn a_repository_of_another_user_is_read() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        fs::write(root.join("kept.log"), "").unwrap();
        repository(root);
        fs::write(root.join(".gitignore"), "*.log\n").unwrap();
        for path in [root.to_path_buf(), root.join(".git")] {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        }
        let status = Command::new("git")
            .arg("-C")
            .arg(root)
            .args(["ls-files"])
            .stderr(Stdio::null())
            .env_remove("SUDO_UID")
            .status()
            .unwrap();
        assert!(!status.success(), "plain git does not");
        assert_eq!(tracked_but_ignored(root).unwrap(), [Path::new("kept.log")]);
        assert!(Index::of(root).has(Path::new("kept.log")));
    }
}
