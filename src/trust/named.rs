//! Scripts of a project that another one runs or includes: they are a part of what is agreed to.
//!
//! Nothing is parsed. Every word counts that leads to a file of the project, from the project's root
//! (where hooks run), from the script's folder, or with a variable or a command in place of the folder
//! (`"$here/lib.sh"`, `"$(dirname "$0")/lib.sh"`), and that is a script by its name, mode or first line, or
//! stands where one is run (`. lib`, `bash lib`). What a script writes is data, and would change with every
//! run. A word too many costs a question too many; what a script makes up while it runs is not seen.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

/// More than this of a file is data.
const TEXT: u64 = 1 << 20;

/// Adds files that `text` names, and those that they name, by their paths without symlinks.
/// `folder` is where the text stands.
///
/// # Errors
/// With the path that cannot be read.
pub fn add(
    text: &str,
    folder: &Path,
    root: &Path,
    found: &mut BTreeMap<PathBuf, PathBuf>,
) -> Result<(), (PathBuf, io::Error)> {
    for path in named(text, folder, root, false) {
        add_file(&path, root, found)?;
    }
    Ok(())
}

/// As [`add`], for words that a program gets.
///
/// # Errors
/// With the path that cannot be read.
pub fn add_arguments(
    program: &str,
    arguments: &[String],
    root: &Path,
    found: &mut BTreeMap<PathBuf, PathBuf>,
) -> Result<(), (PathBuf, io::Error)> {
    for path in named(&arguments.join(" "), root, root, is_runner(program)) {
        add_file(&path, root, found)?;
    }
    Ok(())
}

/// Adds a file and those that it names.
pub fn add_file(
    path: &Path,
    root: &Path,
    found: &mut BTreeMap<PathBuf, PathBuf>,
) -> Result<(), (PathBuf, io::Error)> {
    let failed = |error| (path.to_path_buf(), error);
    let real = path.canonicalize().map_err(failed)?;
    if found.insert(path.to_path_buf(), real).is_some() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(TEXT).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.contains(&0) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&bytes);
    add(&text, path.parent().unwrap_or(root), root, found)
}

/// Words behind which a file is run.
const RUNS: [&str; 13] = [
    ".", "source", "exec", "eval", "sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "<", "-f",
];

/// How the names of other interpreters begin.
const INTERPRETERS: [&str; 8] = [
    "python", "perl", "ruby", "node", "php", "lua", "deno", "pwsh",
];

/// How the names of scripts end.
const SCRIPTS: [&str; 14] = [
    "sh", "bash", "zsh", "ksh", "fish", "py", "pl", "rb", "js", "mjs", "ts", "lua", "mk", "so",
];

fn named(text: &str, folder: &Path, root: &Path, mut runs: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // `runs`: the next file is one that is run; this: one that is written.
    let mut writes = false;
    let mut take = |word: &str, runs: &mut bool, writes: &mut bool| {
        let word = word.trim_end_matches(':');
        if word.is_empty() {
            return;
        }
        let here = files_of(word, folder, root);
        if !std::mem::take(writes) {
            found.extend(
                (here.iter())
                    .filter(|path| *runs || is_script(path))
                    .cloned(),
            );
        }
        if is_runner(word) {
            *runs = true;
        } else if !here.is_empty() {
            *runs = false;
        }
    };
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if !(c.is_whitespace() || "\"'`;|&()<>{}=,$#".contains(c)) {
            word.push(c);
            continue;
        }
        take(&word, &mut runs, &mut writes);
        word.clear();
        match c {
            '\n' | ';' | '|' | '&' => (runs, writes) = (false, false),
            '<' => runs = true,
            '>' => writes = true,
            _ => {}
        }
    }
    found.sort();
    found.dedup();
    found
}

fn is_runner(word: &str) -> bool {
    RUNS.contains(&word) || INTERPRETERS.iter().any(|name| word.starts_with(name))
}

fn is_script(path: &Path) -> bool {
    let by_name = path
        .extension()
        .is_some_and(|end| SCRIPTS.iter().any(|it| end == *it));
    let by_mode = || {
        path.metadata()
            .is_ok_and(|it| it.permissions().mode() & 0o111 != 0)
    };
    let by_first_line = || {
        let mut start = [0; 2];
        File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok())
            && start == *b"#!"
    };
    by_name || by_mode() || by_first_line()
}

/// Files that a word of a script in `folder` may mean.
fn files_of(word: &str, folder: &Path, root: &Path) -> Vec<PathBuf> {
    // What stands before the first slash may be a variable's name.
    let rest = word.split_once('/').map_or("", |(_, rest)| rest);
    // As in `${0%/*}`, which is no pattern of files.
    let rest = if rest == "*" { "" } else { rest };
    [root, folder]
        .into_iter()
        .flat_map(|place| [word, rest].map(|word| files(place, word, root)))
        .flatten()
        .collect()
}

/// Adds the file that a word names, if it names one.
///
/// # Errors
/// With the path that cannot be read.
pub fn add_word(
    word: &str,
    root: &Path,
    found: &mut BTreeMap<PathBuf, PathBuf>,
) -> Result<(), (PathBuf, io::Error)> {
    for path in files_of(word, root, root) {
        add_file(&path, root, found)?;
    }
    add(word, root, root, found)
}

/// The file of the project that a word leads to, or with a pattern in its last part, all that
/// lie there.
fn files(place: &Path, word: &str, root: &Path) -> Vec<PathBuf> {
    // A path longer than any file's is none.
    if word.is_empty() || word.len() > 4096 || word.contains('\0') {
        return Vec::new();
    }
    let path = plain(&place.join(word));
    if !path.starts_with(root) {
        return Vec::new();
    }
    let pattern = (path.file_name()).is_some_and(|name| {
        name.as_encoded_bytes()
            .iter()
            .any(|byte| b"*?[".contains(byte))
    });
    if !pattern {
        return Vec::from_iter(path.is_file().then_some(path));
    }
    let Some(folder) = path.parent() else {
        return Vec::new();
    };
    let entries = folder.read_dir().into_iter().flatten().flatten();
    (entries.map(|entry| entry.path()))
        .filter(|path| path.is_file())
        .collect()
}

/// The path without `.` and `..`, by its words alone.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found_in(script: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in [
            "lib.sh",
            "ops/lib.sh",
            "ops/more/a.sh",
            "ops/more/b.sh",
            "ops/plain",
            "x y",
        ] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), "echo\n").unwrap();
        }
        fs::write(root.join("ops/chain.sh"), ". lib.sh\n").unwrap();
        fs::write(root.join("ops/run.sh"), script).unwrap();
        let mut found = BTreeMap::new();
        add_file(&root.join("ops/run.sh"), &root, &mut found).unwrap();
        (found.keys())
            .map(|path| path.strip_prefix(&root).unwrap().display().to_string())
            .filter(|name| name != "ops/run.sh")
            .collect()
    }

    #[test]
    fn what_a_script_includes_is_found_however_it_is_written() {
        for (script, files) in [
            (". ./lib.sh", &["lib.sh", "ops/lib.sh"][..]),
            ("source ops/lib.sh", &["lib.sh", "ops/lib.sh"]),
            (
                "source \"$(dirname \"$0\")/lib.sh\"",
                &["lib.sh", "ops/lib.sh"],
            ),
            (". \"${BASH_SOURCE%/*}/lib.sh\"", &["lib.sh", "ops/lib.sh"]),
            ("here=x\n. \"$here/../lib.sh\"", &["lib.sh", "ops/lib.sh"]),
            ("bash $STEAD_ROOT/ops/more/a.sh", &["ops/more/a.sh"]),
            (
                "for f in ops/more/*.sh; do . \"$f\"; done",
                &["ops/more/a.sh", "ops/more/b.sh"],
            ),
            ("./ops/chain.sh", &["lib.sh", "ops/chain.sh", "ops/lib.sh"]),
            ("X=ops/lib.sh; . $X", &["lib.sh", "ops/lib.sh"]),
            ("cd ops && make", &[]),
            // Without an ending too, where it is run.
            ("bash -e ops/plain one two", &["ops/plain"]),
            (". \"$(dirname \"$0\")/plain\"", &["ops/plain"]),
            ("sh < ops/plain", &["ops/plain"]),
            // What is written or only read is data.
            ("echo x >>ops/plain; cat ops/plain", &[]),
            ("python3 ops/lib.sh ops/plain", &["lib.sh", "ops/lib.sh"]),
            ("cat /etc/passwd ../../../etc/passwd", &[]),
        ] {
            assert_eq!(found_in(script), files, "{script}");
        }
    }

    #[test]
    fn scripts_that_name_each_other_end() {
        assert_eq!(found_in("ops/run.sh ops/run.sh"), [""; 0]);
    }
}
