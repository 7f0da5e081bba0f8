//! Finds scripts of a project that another one runs or includes: the user agrees to these too.
//!
//! Nothing is run to find them. Every word counts that leads to a file of the project, from the project's root
//! (where hooks run), from the script's folder, from a folder that the text names (`cd lib && ./x`), or with a
//! variable or a command in place of the folder (`"$here/lib.sh"`, `"$(dirname "$0")/lib.sh"`), and that is a
//! script by its name, mode or first line, or stands where one is run (`. lib`, `bash lib`). What a script
//! writes is data, and would change with every run. Where a script makes up what it runs (`. "$x"`, `eval`),
//! all files of its folder count. A wrong match only costs an extra question.
//!
//! What a playbook reads is followed by the same means; where Ansible looks for it is told in `plays`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use super::{
    plays::{DATA, Play},
    shell_words::{Word, shell_words},
};

pub(super) type Failed = (PathBuf, io::Error);

/// How much of a script is read, in bytes.
const TEXT: u64 = 4 << 20;

/// How many different words of one text are checked.
const WORDS: usize = 50_000;

/// How many folders are tried for one text.
const FOLDERS: usize = 32;

/// How many files, and bytes of them, count for one hook.
pub(super) const FILES: usize = 1000;
pub(super) const BYTES: u64 = 64 << 20;

/// Folders with the output of tools.
const MADE: [&str; 4] = [".git", "target", "node_modules", "__pycache__"];

/// Files that run with a hook.
pub(super) struct RunFiles<'a> {
    pub root: &'a Path,
    /// By their paths, and by those without symlinks.
    pub files: BTreeMap<PathBuf, PathBuf>,
    /// Folders whose files all count, because stead cannot follow one of their scripts.
    pub whole: BTreeSet<PathBuf>,
    /// A limit was reached: files that are not in `files` may change unseen.
    pub cut: bool,
    /// A playbook computes names of files that it includes.
    pub made_up: bool,
    /// Named files that do not exist. If somebody makes them, they run.
    pub awaited: BTreeSet<PathBuf>,
    bytes: u64,
    walked: BTreeSet<(PathBuf, &'static [&'static str])>,
    /// Files to read, and files that were read.
    pub(super) next: Vec<PathBuf>,
    seen: BTreeSet<PathBuf>,
    /// Files that count because their folder does.
    listed: BTreeSet<PathBuf>,
    /// What Ansible reads is read as that.
    pub(super) play: Option<Play>,
    /// How many files count, whatever they are.
    pub(super) given: usize,
    pub(super) entries: HashMap<PathBuf, Rc<BTreeSet<String>>>,
}

impl<'a> RunFiles<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        RunFiles {
            root,
            files: BTreeMap::new(),
            whole: BTreeSet::new(),
            cut: false,
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

    /// Adds a file, and the files that it names.
    ///
    /// # Errors
    /// The path that cannot be read, and why.
    pub(super) fn file(&mut self, path: &Path) -> Result<(), Failed> {
        self.next.push(path.to_path_buf());
        self.follow()
    }

    /// Adds the files that an inline script names.
    ///
    /// # Errors
    /// The path that cannot be read, and why.
    pub(super) fn text(&mut self, text: &str, interpreter: &[String]) -> Result<(), Failed> {
        let root = self.root;
        let ending = interpreter.iter().find_map(|word| language(word));
        if let Some(ending) = ending {
            self.siblings(root, ending);
        }
        self.look(text, root, false, ending.is_none());
        self.follow()
    }

    /// Adds the files that the words of a command name.
    ///
    /// # Errors
    /// The path that cannot be read, and why.
    pub(super) fn arguments(&mut self, program: &str, arguments: &[String]) -> Result<(), Failed> {
        let root = self.root;
        let runs = is_runner(last(program));
        let all = [&[program.to_string()], arguments].concat();
        let shell = all.iter().any(|word| SHELLS.contains(&last(word)));
        // A shell's first word is the file that it reads, which is looked for below, whatever is in its
        // name. In any other place a word may be text to run, even where a file is called like it.
        let script = SHELLS.contains(&last(program))
            && (arguments.first())
                .is_some_and(|word| !word.starts_with(['-', '+']) && root.join(word).is_file());
        let texts = &arguments[usize::from(script)..];
        let mut text = texts.join(" ");
        // Each as one word too, whatever is in it.
        for argument in texts {
            if shell && argument.contains(|c: char| c.is_whitespace() || c == '$' || c == '`') {
                text.push_str(&format!("\n{argument}\n"));
            }
        }
        self.look(&text, root, runs, shell);
        for argument in arguments {
            for path in files_of(argument, &[root.to_path_buf()], root) {
                if runs || is_script(&path) {
                    self.next.push(path);
                }
            }
        }
        if all.iter().any(|word| last(word) == "run-parts") {
            for argument in arguments {
                let folder = plain(&root.join(argument));
                self.walk(&folder, &[]);
            }
        }
        self.follow()
    }

    /// Adds the files that the value of an environment variable names.
    ///
    /// # Errors
    /// The path that cannot be read, and why.
    pub(super) fn variable(&mut self, name: &str, value: &str) -> Result<(), Failed> {
        let root = self.root;
        self.next
            .extend(files_of(value, &[root.to_path_buf()], root));
        self.look(value, root, false, false);
        self.search_path(name, value, &[root.to_path_buf()]);
        self.follow()
    }

    pub(super) fn follow(&mut self) -> Result<(), Failed> {
        while let Some(path) = self.next.pop() {
            if !self.seen.insert(path.clone()) {
                continue;
            }
            let failed = |error| (path.clone(), error);
            if !self.files.contains_key(&path) {
                if self.files.len() - self.given >= FILES {
                    self.cut = true;
                    continue;
                }
                // A word of a playbook need not be a path. Ansible cannot read what stead cannot.
                if self.play.is_some() && File::open(&path).is_err() {
                    continue;
                }
                let real = path.canonicalize().map_err(failed)?;
                self.files.insert(path.clone(), real);
            }
            let mut bytes = Vec::new();
            File::open(&path)
                .and_then(|file| file.take(TEXT + 1).read_to_end(&mut bytes))
                .map_err(failed)?;
            if bytes.starts_with(b"\x7fELF") {
                continue;
            }
            let folder = path.parent().unwrap_or(self.root).to_path_buf();
            let is_text =
                std::str::from_utf8(&bytes).map_or_else(|it| it.error_len().is_none(), |_| true);
            if self.play.is_some() && !is_text && !bytes.starts_with(b"#!") {
                continue;
            }
            if bytes.len() as u64 > TEXT {
                self.all_of(&folder);
            }
            // Shells skip bytes that are not characters.
            bytes.retain(|byte| *byte != 0);
            let text = String::from_utf8_lossy(&bytes);
            if self.play.is_some() {
                self.look_file(&text, &path);
                // Modules of a plugin lie in its folder, which counts.
                let is_plugin = has_ending(&path, &["py"]) && self.is_covered(&folder);
                let first = text.lines().next().unwrap_or_default();
                let is_data = has_ending(&path, DATA)
                    && (!first.starts_with("#!") || first.contains("ansible"));
                if is_plugin || is_data || !is_script(&path) {
                    continue;
                }
            }
            let first = text.lines().next().unwrap_or_default();
            let by_line = first
                .strip_prefix("#!")
                .map(|line| line.split_whitespace().find_map(language));
            let by_name = (ENDINGS.iter())
                .map(|(_, endings)| *endings)
                .find(|endings| has_ending(&path, endings));
            let ending = by_line.flatten().or(by_name);
            if let Some(ending) = ending {
                self.siblings(&folder, ending);
            }
            let shell = ending.is_none() && is_script(&path);
            self.look(&text, &folder, false, shell);
        }
        Ok(())
    }

    /// Finds the files that a text in `folder` names. `shell`: its words are those of a shell.
    fn look(&mut self, text: &str, folder: &Path, runs: bool, shell: bool) {
        let root = self.root;
        let (words, whole) = shell_words(text);
        let mut distinct: BTreeSet<&str> = words.iter().map(|word| word.text.as_str()).collect();
        distinct.extend(text.split(separates));
        if distinct.len() > WORDS {
            self.all_of(folder);
            return;
        }
        let mut folders = vec![root.to_path_buf()];
        if folder != root {
            folders.push(folder.to_path_buf());
        }
        // One may be named from another: `cd a; cd b`.
        let mut known = 0;
        while known < folders.len() {
            let place = folders[known].clone();
            known += 1;
            for word in distinct.iter().flat_map(|word| meanings(word)) {
                let path = plain(&place.join(word));
                let inside = path.starts_with(root) && path.is_dir();
                if !inside || folders.contains(&path) || is_made(&path, root) {
                    continue;
                }
                if folders.len() == FOLDERS {
                    self.cut = true;
                    break;
                }
                folders.push(path);
            }
        }
        self.next.extend(named(text, &folders, root, runs));
        let mut opaque = !whole && shell;
        // Folders in which that what cannot be followed may lie.
        let mut reach = BTreeSet::from([folder.to_path_buf()]);
        let below = |word: &str| -> Vec<PathBuf> {
            (folders.iter())
                .flat_map(|place| meanings(word).into_iter().map(|it| plain(&place.join(it))))
                .filter(|path| path.starts_with(root) && path.is_dir())
                .collect()
        };
        let mut known = HashMap::new();
        for word in &words {
            let files: &Vec<PathBuf> = known
                .entry(word.text.as_str())
                .or_insert_with(|| files_of(&word.text, &folders, root));
            self.next.extend(
                (files.iter())
                    .filter(|path| !word.writes && (word.runs || is_script(path)))
                    .cloned(),
            );
            if let Some((name, value)) = word.assigns() {
                self.search_path(name, value, &folders);
                let own = [format!("${name}"), format!("${{{name}}}")];
                opaque |= shell
                    && is_search_path(name)
                    && (value.split(':'))
                        .any(|it| is_made_up(it) && !own.iter().any(|own| own == it));
                reach.extend(below(value));
            }
            if word.parts {
                below(&word.text).iter().for_each(|it| self.walk(it, &[]));
            }
            if word.enters || word.lists {
                reach.extend(below(&word.text));
            }
            if shell && cannot_be_followed(word, files) {
                opaque = true;
                let literal = word.text.split(['$', '`', '{']).next().unwrap_or_default();
                if let Some((folder, _)) = literal.rsplit_once('/') {
                    reach.extend(below(folder));
                }
            }
        }
        if opaque {
            reach.iter().for_each(|folder| self.all_of(folder));
        }
    }

    /// Adds all files of a folder with a script that stead cannot follow.
    pub(super) fn all_of(&mut self, folder: &Path) {
        if self.is_covered(folder) || self.whole.insert(folder.to_path_buf()) {
            self.walk(folder, &[]);
        }
    }

    /// Adds modules that a script of another interpreter may load.
    fn siblings(&mut self, folder: &Path, endings: &'static [&'static str]) {
        self.walk(folder, endings);
    }

    fn search_path(&mut self, name: &str, value: &str, folders: &[PathBuf]) {
        if !is_search_path(name) {
            return;
        }
        for part in value.split(':') {
            // Nothing between two colons is where the program runs: execvp(3).
            let parts = match part {
                "" if name == "PATH" => vec!["."],
                part if KNOWN
                    .iter()
                    .chain(&HERE)
                    .any(|it| *it == part.trim_end_matches('/')) =>
                {
                    vec!["."]
                }
                part => meanings(part),
            };
            for part in parts {
                for place in folders {
                    self.walk(&plain(&place.join(part)), &[]);
                }
            }
        }
    }

    /// Adds the files below a folder; of the project's own folder, scripts that lie there: all
    /// else of a project is no hook's.
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
            // A symlink may lead to a folder above this one.
            let around = folder.components().count() > 64;
            self.cut |= inside && around;
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
                        self.cut = true;
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
                    self.cut = true;
                    return;
                }
                self.next.push(path);
            }
        }
    }
}

/// Whether a word of a shell decides what runs, but its value is not in the text.
fn cannot_be_followed(word: &Word, files: &[PathBuf]) -> bool {
    if word.text == "eval" || word.fed {
        return true;
    }
    if !(word.runs || word.starts || word.enters) {
        return false;
    }
    if word.assigns().is_some() {
        return false;
    }
    if is_made_up(&word.text) || (word.runs && word.text == "{}") {
        return true;
    }
    // A path of the project that is not there from any folder known.
    let relative = word.text.contains('/') && !word.text.starts_with(['/', '~', '-']);
    word.starts && relative && files.is_empty()
}

/// Expressions for the folder of the script, or of the project.
const KNOWN: [&str; 9] = [
    "$(dirname $0)",
    "$(dirname -- $0)",
    "${0%/*}",
    "${BASH_SOURCE%/*}",
    "$(dirname $BASH_SOURCE)",
    "$(dirname ${BASH_SOURCE[0]})",
    "$(dirname -- ${BASH_SOURCE[0]})",
    "$STEAD_ROOT",
    "${STEAD_ROOT}",
];

/// Where a program is when it starts, which is the project's folder.
const HERE: [&str; 4] = ["$PWD", "${PWD}", "$(pwd)", "`pwd`"];

/// Whether the text of a word is not all that it means. What leads to the script's own folder, or the
/// project's, is known.
fn is_made_up(word: &str) -> bool {
    let rest = (KNOWN.iter())
        .find_map(|known| word.strip_prefix(known))
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        .unwrap_or(word);
    rest.contains(['$', '`']) || (rest.contains('{') && rest.contains(','))
}

fn is_search_path(name: &str) -> bool {
    name.ends_with("PATH") || name.ends_with("LIB") || name == "BASH_ENV" || name == "ENV"
}

fn is_made(path: &Path, root: &Path) -> bool {
    let below = path.strip_prefix(root).unwrap_or(path);
    below
        .components()
        .any(|part| MADE.iter().any(|name| part.as_os_str() == *name))
}

fn last(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "zsh", "ksh", "fish"];

/// How the names of other interpreters begin, and how those of their scripts end.
const ENDINGS: [(&str, &[&str]); 7] = [
    ("python", &["py"]),
    ("perl", &["pl", "pm"]),
    ("ruby", &["rb"]),
    ("node", &["js", "mjs", "cjs"]),
    ("deno", &["ts", "js"]),
    ("php", &["php"]),
    ("lua", &["lua"]),
];

/// How modules of the interpreter that a word names end.
fn language(word: &str) -> Option<&'static [&'static str]> {
    (ENDINGS.iter())
        .find(|(name, _)| last(word).starts_with(name))
        .map(|(_, endings)| *endings)
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    (path.extension()).is_some_and(|end| endings.iter().any(|it| end == *it))
}

/// Words after which a file is run.
const RUNS: [&str; 13] = [
    ".", "source", "exec", "eval", "sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "<", "-f",
];

/// The starts of the names of other interpreters.
const INTERPRETERS: [&str; 8] = [
    "python", "perl", "ruby", "node", "php", "lua", "deno", "pwsh",
];

/// The ends of the names of scripts.
const SCRIPTS: [&str; 14] = [
    "sh", "bash", "zsh", "ksh", "fish", "py", "pl", "rb", "js", "mjs", "ts", "lua", "mk", "so",
];

fn separates(c: char) -> bool {
    c.is_whitespace() || "\"'`;|&()<>{}=,$#".contains(c)
}

fn named(text: &str, folders: &[PathBuf], root: &Path, mut runs: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut known: HashMap<String, Vec<PathBuf>> = HashMap::new();
    // `runs`: the next file is one that is run; this: one that is written.
    let mut writes = false;
    let mut take = |word: &str, runs: &mut bool, writes: &mut bool| {
        let word = word.trim_end_matches(':');
        if word.is_empty() {
            return;
        }
        let here: &Vec<PathBuf> =
            (known.entry(word.to_string())).or_insert_with(|| files_of(word, folders, root));
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
        if !separates(c) {
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

pub(super) fn is_runner(word: &str) -> bool {
    RUNS.contains(&word) || INTERPRETERS.iter().any(|name| word.starts_with(name))
}

pub(super) fn is_script(path: &Path) -> bool {
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

/// What a word may be below a folder: what stands before a slash may be a variable's name or a command.
fn meanings(word: &str) -> Vec<&str> {
    let word = word.trim_end_matches(':');
    let mut all = vec![word];
    all.extend(word.split_once('/').map(|(_, rest)| rest));
    all.extend(
        [")/", "}/"]
            .iter()
            .filter_map(|end| Some(word.rsplit_once(end)?.1)),
    );
    // As in `X=lib.sh`.
    all.extend(word.split_once('=').map(|(_, rest)| rest));
    // As in `${0%/*}`, which is no pattern of files.
    all.retain(|it| !it.is_empty() && !it.trim_end_matches('}').trim_start_matches('*').is_empty());
    all
}

/// Returns files that a word may mean in one of these folders.
fn files_of(word: &str, folders: &[PathBuf], root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = folders
        .iter()
        .flat_map(|place| meanings(word).into_iter().map(move |word| (place, word)))
        .flat_map(|(place, word)| files(place, word, root))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The file of the project that a word leads to, or with a pattern in its last part, all that
/// lie there.
fn files(place: &Path, word: &str, root: &Path) -> Vec<PathBuf> {
    // Longer than any path of a file.
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

/// Returns the path without `.` and `..`, from its text only.
pub(super) fn plain(path: &Path) -> PathBuf {
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
        let mut found = RunFiles::new(&root);
        found.file(&root.join("ops/run.sh")).unwrap();
        (found.files.keys())
            .map(|path| path.strip_prefix(&root).unwrap().display().to_string())
            .filter(|name| name != "ops/run.sh")
            .collect()
    }

    /// What counts where a script makes up what it runs.
    const ALL: [&str; 6] = [
        "lib.sh",
        "ops/chain.sh",
        "ops/lib.sh",
        "ops/more/a.sh",
        "ops/more/b.sh",
        "ops/plain",
    ];

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
            ("here=x\n. \"$here/../lib.sh\"", &ALL),
            ("bash $STEAD_ROOT/ops/more/a.sh", &["ops/more/a.sh"]),
            ("for f in ops/more/*.sh; do . \"$f\"; done", &ALL),
            ("./ops/chain.sh", &["lib.sh", "ops/chain.sh", "ops/lib.sh"]),
            ("X=ops/lib.sh; . $X", &ALL),
            ("cd ops && make", &[]),
            // Without an ending too, where it is run.
            ("bash -e ops/plain one two", &["ops/plain"]),
            (". \"$(dirname \"$0\")/plain\"", &["ops/plain"]),
            ("sh < ops/plain", &["ops/plain"]),
            // What is written or only read is data.
            ("echo x >>ops/plain; cat ops/plain", &[]),
            ("python3 ops/lib.sh ops/plain", &["lib.sh", "ops/lib.sh"]),
            ("echo x >ops/lib.sh; rm -f \"$x\"; echo \"$y\"", &[]),
            ("cat /etc/passwd ../../../etc/passwd", &[]),
        ] {
            assert_eq!(found_in(script), files, "{script}");
        }
    }

    #[test]
    fn scripts_that_name_each_other_end() {
        assert_eq!(found_in("ops/run.sh ops/run.sh"), [""; 0]);
    }

    fn shop() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in [
            "hooks/lib/i.sh",
            "hooks/lib/i sp.sh",
            "hooks/lib/i.py",
            "assets/a.sh",
            "web/x.sh",
        ] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), "echo\n").unwrap();
        }
        (folder, root)
    }

    fn names(found: &RunFiles) -> Vec<String> {
        (found.files.keys())
            .map(|path| path.strip_prefix(found.root).unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn no_way_to_name_a_script_leaves_it_out() {
        let (_folder, root) = shop();
        let long = |size: usize| format!("{}\n. hooks/lib/i.sh\n", "# x\n".repeat(size / 4));
        for (script, file) in [
            ("cd hooks/lib && . ./i.sh", "hooks/lib/i.sh"),
            ("cd hooks\ncd lib\n./i.sh", "hooks/lib/i.sh"),
            (". \"hooks/lib/i sp.sh\"", "hooks/lib/i sp.sh"),
            (". hooks/lib/i\\ sp.sh", "hooks/lib/i sp.sh"),
            (". hooks/\"lib\"/i.sh", "hooks/lib/i.sh"),
            (". hooks/l\\ib/i.sh", "hooks/lib/i.sh"),
            ("d=$(dirname \"$0\")/lib; \"$d/i.sh\"", "hooks/lib/i.sh"),
            (". hooks/{lib,x}/i.sh", "hooks/lib/i.sh"),
            ("L=lib; . hooks/$L/i.sh", "hooks/lib/i.sh"),
            ("for i in $(ls hooks/lib); do sh $i; done", "hooks/lib/i.sh"),
            ("run-parts hooks/lib", "hooks/lib/i.sh"),
            ("find hooks -name 'i*' -exec {} \\;", "hooks/lib/i.sh"),
            ("ls hooks/lib/* | xargs -n1 sh", "hooks/lib/i.sh"),
            ("PYTHONPATH=hooks/lib python3 -m i", "hooks/lib/i.py"),
            (&long(2 << 20), "hooks/lib/i.sh"),
        ] {
            let start: String = script.chars().take(80).collect();
            let mut found = RunFiles::new(&root);
            found.text(script, &[]).unwrap();
            let inline = names(&found);
            let from_file = script.contains("$0");
            assert!(
                from_file || inline.contains(&file.to_string()),
                "{start}: {inline:?}"
            );
            fs::write(root.join("hooks/up.sh"), script).unwrap();
            let mut found = RunFiles::new(&root);
            found.file(&root.join("hooks/up.sh")).unwrap();
            assert!(names(&found).contains(&file.to_string()), "{start}");
        }
        // Too long to be read.
        fs::write(root.join("hooks/up.sh"), long(5 << 20)).unwrap();
        let mut found = RunFiles::new(&root);
        found.file(&root.join("hooks/up.sh")).unwrap();
        assert!(names(&found).contains(&"hooks/lib/i.sh".to_string()));
        assert!(found.whole.contains(&root.join("hooks")));
        // Modules of another interpreter.
        fs::write(root.join("hooks/tool"), "#!python3\nimport lib.i\n").unwrap();
        let mut found = RunFiles::new(&root);
        found.file(&root.join("hooks/tool")).unwrap();
        assert_eq!(names(&found), ["hooks/lib/i.py", "hooks/tool"]);
        let mut found = RunFiles::new(&root);
        found.variable("PYTHONPATH", "hooks/lib").unwrap();
        assert!(names(&found).contains(&"hooks/lib/i.py".to_string()));
    }

    /// Then a bare word is a program of the project.
    #[test]
    fn a_search_path_that_leads_into_the_project_binds_what_lies_there() {
        let (_folder, root) = shop();
        // Without an ending; the one in the project's folder can be run.
        fs::write(root.join("hooks/lib/tool"), "echo\n").unwrap();
        fs::write(root.join("tool"), "#!/bin/sh\n").unwrap();
        let whole = format!("{}/hooks/lib:/usr/bin", root.display());
        for (value, file) in [
            ("hooks/lib", "hooks/lib/tool"),
            ("./hooks/lib/", "hooks/lib/tool"),
            ("/usr/bin:hooks/lib:/bin", "hooks/lib/tool"),
            ("$PWD/hooks/lib:/bin", "hooks/lib/tool"),
            ("hooks/../hooks/lib", "hooks/lib/tool"),
            (whole.as_str(), "hooks/lib/tool"),
            (".", "tool"),
            ("/usr/bin:", "tool"),
            (":/usr/bin", "tool"),
            ("/bin::/usr/bin", "tool"),
            ("", "tool"),
            ("$PWD", "tool"),
            ("$STEAD_ROOT:$PATH", "tool"),
            (root.to_str().unwrap(), "tool"),
        ] {
            let mut found = RunFiles::new(&root);
            found.variable("PATH", value).unwrap();
            assert!(
                names(&found).contains(&file.to_string()),
                "env {value:?}: {:?}",
                names(&found)
            );
            let words = [format!("PATH={value}"), "tool".to_string()];
            let mut found = RunFiles::new(&root);
            found.arguments("env", &words).unwrap();
            assert!(
                names(&found).contains(&file.to_string()),
                "words {value:?}: {:?}",
                names(&found)
            );
            for script in [
                format!("env PATH=\"{value}\" tool"),
                format!("PATH=\"{value}\" tool"),
                format!("export PATH=\"{value}\"\ntool"),
            ] {
                let mut found = RunFiles::new(&root);
                found.text(&script, &[]).unwrap();
                assert!(
                    names(&found).contains(&file.to_string()),
                    "{script}: {:?}",
                    names(&found)
                );
            }
        }
        let mut found = RunFiles::new(&root);
        found.variable("PATH", "/usr/bin:/bin").unwrap();
        assert_eq!(names(&found), [""; 0]);
    }

    #[test]
    fn words_of_programs_bind_what_they_run_and_no_more() {
        let (_folder, root) = shop();
        for (words, files) in [
            (
                &["sh", "-c", "cd hooks/lib && ./i.sh"][..],
                &["hooks/lib/i.sh"][..],
            ),
            (&["env", "-C", "hooks/lib", "./i.sh"], &["hooks/lib/i.sh"]),
            (&["sh", "hooks/lib/i sp.sh"], &["hooks/lib/i sp.sh"]),
            (
                &["run-parts", "hooks/lib"],
                &["hooks/lib/i sp.sh", "hooks/lib/i.py", "hooks/lib/i.sh"],
            ),
            (&["make", "assets"], &[]),
            (&["npm", "--prefix", "web", "run", "build"], &[]),
            (&["rsync", "-a", "web/", "$HOST:web"], &[]),
        ] {
            let arguments: Vec<String> = words[1..].iter().map(ToString::to_string).collect();
            let mut found = RunFiles::new(&root);
            found.arguments(words[0], &arguments).unwrap();
            assert_eq!(names(&found), files, "{words:?}");
        }
    }

    #[test]
    fn what_a_folder_counts_for_has_bounds() {
        let (_folder, root) = shop();
        for n in 0..=FILES {
            fs::write(root.join(format!("hooks/lib/{n}")), "").unwrap();
        }
        fs::create_dir_all(root.join("hooks/node_modules")).unwrap();
        fs::write(root.join("hooks/node_modules/x.sh"), "").unwrap();
        fs::write(root.join("hooks/up.sh"), "eval \"$x\"\n").unwrap();
        let mut found = RunFiles::new(&root);
        found.file(&root.join("hooks/up.sh")).unwrap();
        assert!(found.cut && found.files.len() <= FILES);
        // As many as there may be are all of them.
        fs::remove_file(root.join("hooks/lib/0")).unwrap();
        for n in 1..20 {
            fs::remove_file(root.join(format!("hooks/lib/{n}"))).unwrap();
        }
        let mut found = RunFiles::new(&root);
        found.file(&root.join("hooks/up.sh")).unwrap();
        assert!(!found.cut);
        // Folders of which there are too many to be looked into.
        for n in 0..=FILES {
            fs::create_dir(root.join(format!("hooks/lib/d{n}"))).unwrap();
        }
        let mut found = RunFiles::new(&root);
        found.file(&root.join("hooks/up.sh")).unwrap();
        assert!(found.cut);
        assert!(
            names(&found)
                .iter()
                .all(|name| !name.contains("node_modules"))
        );
    }
}
