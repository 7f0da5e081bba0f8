//! Finds the files that a playbook of the host's Ansible reads, beyond those in its own folders.
//!
//! As for scripts, nothing is run and nothing is parsed. A word of a text counts if it leads to a file or a folder of
//! the project, from a folder in which Ansible looks. Bare words count only in these folders, because most of them are
//! not paths. Words with a slash count from the project's folder too, because the programs of a run start there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use crate::provision::ansible::STANDARD;

use super::{
    interpreters::{has_ending, is_script},
    named_files::plain,
    play_words::{PlayWord, makes_up, pieces},
    run_files::{FILES, Play, RunFiles},
};

/// For one text, stead looks in at most this many folders that bare words name.
const FOLDERS: usize = 256;

/// If a text has more words, all files of its folder count instead.
const WORDS: usize = 50_000;

/// Folders that only a role has. `files`, `templates` and `vars` may be in other folders too.
const ROLE: [&str; 13] = [
    "action_plugins",
    "callback_plugins",
    "connection_plugins",
    "defaults",
    "filter_plugins",
    "handlers",
    "library",
    "lookup_plugins",
    "meta",
    "module_utils",
    "tasks",
    "test_plugins",
    "vars_plugins",
];

/// The extensions of files with data for Ansible.
pub(super) const DATA: &[&str] = &["yml", "yaml", "json"];

/// The extensions of files that a run may read even if no word names them.
const READ: [&str; 10] = [
    "cfg", "ini", "j2", "jinja", "jinja2", "json", "py", "toml", "yaml", "yml",
];

/// How the words of a text are read.
#[derive(Clone, Copy, PartialEq)]
enum ReadAs {
    Words,
    /// Bare words may be folders.
    Folders,
    /// The text is a program: files that it names by a path count.
    Code,
}

/// The settings of a run, beside its files.
pub(super) struct RunSettings<'a> {
    /// The files of the Machinefile. A bare word that equals the name of one does not mean it.
    pub machinefiles: &'a [PathBuf],
    pub arguments: &'a [String],
    pub variables: &'a str,
}

impl RunFiles<'_> {
    /// Adds the files of a playbook, and finds the folders in which it looks for others.
    pub(super) fn begin_playbook(
        &mut self,
        playbook: &Path,
        files: BTreeMap<PathBuf, PathBuf>,
        covered: Vec<PathBuf>,
        told: &RunSettings,
    ) {
        let root = self.root;
        let mut play = Play {
            covered,
            machinefiles: told.machinefiles.to_vec(),
            ..Play::default()
        };
        for path in [Some(playbook), files.get(playbook).map(PathBuf::as_path)] {
            let Some(folder) = path.and_then(Path::parent) else {
                continue;
            };
            play.above.extend(
                (folder
                    .ancestors()
                    .skip(1)
                    .take_while(|it| it.starts_with(root)))
                .map(Path::to_path_buf),
            );
            play.homes.extend(self.with_parts(folder));
        }
        if !play.homes.iter().any(|it| it == root) && !play.above.iter().any(|it| it == root) {
            play.above.push(root.to_path_buf());
        }
        self.play = Some(play);
        self.given = files.len();
        self.files.extend(files);
        self.told(told);
        let read: Vec<PathBuf> = (self.files.keys())
            .filter(|path| *path == playbook || obeys(path))
            .cloned()
            .collect();
        self.next.extend(read);
    }

    /// Finds the files that the arguments and the variables of a run name.
    fn told(&mut self, told: &RunSettings) {
        /// Options that take a name, which may also be the name of a folder.
        const NAMES: [&str; 14] = [
            "-c",
            "-f",
            "-l",
            "-t",
            "-u",
            "-T",
            "--become-method",
            "--become-user",
            "--connection",
            "--forks",
            "--limit",
            "--skip-tags",
            "--tags",
            "--user",
        ];
        let root = self.root.to_path_buf();
        let mut text = String::new();
        let mut before = "";
        for argument in told.arguments {
            if !NAMES.contains(&before) {
                text.push_str(&format!("{argument}\n"));
                // As in `-iFILE`.
                if argument.starts_with('-') && !argument.starts_with("--") {
                    text.push_str(&format!(
                        "{}\n",
                        argument.chars().skip(2).collect::<String>()
                    ));
                }
            }
            before = argument;
        }
        self.look_play(&text, &[root], ReadAs::Folders, None);
        self.look_play(told.variables, &[], ReadAs::Words, None);
    }

    /// Finds the files that a file's text names.
    pub(super) fn look_file(&mut self, text: &str, path: &Path) {
        let real = self.files.get(path).cloned();
        let root = self.root;
        let mut homes = Vec::new();
        let reads = if has_ending(path, &["cfg"]) {
            ReadAs::Folders
        } else if has_ending(path, &["py"]) || (!has_ending(path, &READ) && is_script(path)) {
            ReadAs::Code
        } else {
            ReadAs::Words
        };
        let is_play = has_ending(path, DATA)
            && ["hosts", "import_playbook", "\\"]
                .iter()
                .any(|it| text.contains(it))
            && (pieces(text).iter())
                .any(|it| it.text == "hosts" || it.text.ends_with("import_playbook"));
        let folders: BTreeSet<PathBuf> = [Some(path), real.as_deref()]
            .into_iter()
            .flatten()
            .filter_map(|path| Some(path.parent()?.to_path_buf()))
            .filter(|folder| folder.starts_with(root))
            .collect();
        for folder in folders {
            // Ansible reads some folders beside a play, and some folders of a role, without being told to.
            if is_play {
                self.parts_count(&folder);
            }
            homes.extend(self.with_parts(&folder));
            let role = (folder.ancestors())
                .take_while(|it| it.starts_with(root) && *it != root)
                .find(|it| {
                    it.file_name()
                        .is_some_and(|name| STANDARD.iter().any(|it| name == *it))
                })
                .and_then(Path::parent);
            if let Some(role) = role {
                if role != root {
                    self.parts_count(role);
                }
                homes.extend(self.with_parts(role));
            }
        }
        if reads == ReadAs::Folders {
            // The name of a user may also be the name of a folder.
            let is_path =
                |line: &&str| !line.split('=').next().unwrap_or_default().contains("user");
            let text: Vec<&str> = text.lines().filter(is_path).collect();
            return self.look_play(&text.join("\n"), &homes, reads, path.parent());
        }
        self.look_play(text, &homes, reads, path.parent());
    }

    /// Finds the files that a text names, from the folders `own` and those of the run.
    fn look_play(&mut self, text: &str, own: &[PathBuf], reads: ReadAs, folder: Option<&Path>) {
        let root = self.root;
        let Some(play) = &self.play else {
            return;
        };
        let mut homes: Vec<PathBuf> = own.to_vec();
        homes.extend(play.homes.iter().cloned());
        let mut above = play.above.clone();
        for list in [&mut homes, &mut above] {
            let mut known = BTreeSet::new();
            list.retain(|it| known.insert(it.clone()));
        }
        above.retain(|it| !homes.contains(it));
        let words = pieces(text);
        if words.len() > WORDS {
            if let Some(folder) = folder {
                self.all_of(folder);
            }
            return;
        }
        let index = Index::new(&words, root);
        // Folders that bare words name: `d: sub` may become `{{ d }}/x.yml`.
        let mut entered: Vec<PathBuf> = Vec::new();
        for (at, place) in homes.iter().chain(&above).enumerate() {
            let home = at < homes.len();
            for (piece, word) in index.below(&self.entries(place)) {
                self.take(piece, word, place, home, reads, &mut entered);
            }
        }
        let mut at = 0;
        while at < entered.len() {
            let place = entered[at].clone();
            at += 1;
            if entered.len() > FOLDERS {
                self.incomplete = true;
                break;
            }
            for (piece, word) in index.below(&self.entries(&place)) {
                let path = place.join(word);
                if piece.text.contains('/') || piece.runs || has_ending(&path, DATA) {
                    self.take(piece, word, &place, true, ReadAs::Words, &mut entered);
                }
            }
        }
        if reads != ReadAs::Code && makes_up(text) {
            self.made_up = true;
            // YAML files of the project's own folder count for a playbook that lies there.
            if let Some(folder) = folder.filter(|it| *it != root || text.contains("script")) {
                self.all_of(folder);
            }
            for place in entered {
                self.walk(&place, DATA);
            }
        }
    }

    /// Adds the files that a word leads to in a folder.
    fn take(
        &mut self,
        piece: &PlayWord,
        word: &str,
        place: &Path,
        home: bool,
        reads: ReadAs,
        entered: &mut Vec<PathBuf>,
    ) {
        let root = self.root;
        let slash = piece.text.contains('/');
        let path = plain(&place.join(word));
        if !path.starts_with(root) || word.len() > 4096 || word.contains('\0') {
            return;
        }
        if !slash && self.is_machinefile(&path) {
            return;
        }
        if reads == ReadAs::Code {
            if slash && path.is_file() && obeys(&path) {
                self.next.push(path);
            }
            return;
        }
        // `..` after a symlink is not the folder above the symlink.
        if word.contains("/..")
            && let Ok(real) = place.join(word).canonicalize()
            && real != path
            && real.starts_with(root)
        {
            if real.is_file() {
                self.next.push(real);
            } else {
                self.walk(&real, &[]);
            }
        }
        if word.contains(['*', '?']) {
            self.pattern(&path, slash);
        } else if path.is_file() {
            if slash || home || piece.runs || is_script(&path) {
                self.next.push(path);
            }
        } else if path.is_dir() {
            if path == root && !slash {
                return;
            }
            let unknown = piece.head && !piece.tail && !piece.folder && !word.starts_with("..");
            if piece.tail && slash {
                self.all_of(&path);
            } else if (slash && !unknown) || reads == ReadAs::Folders || piece.folder {
                self.walk(&path, &[]);
            } else if slash {
                self.walk(&path, DATA);
            }
            if self
                .entries(&path)
                .iter()
                .any(|it| ROLE.contains(&it.as_str()))
                && path != root
            {
                self.parts_count(&path);
            }
            if !self.is_covered(&path) && path != root && !entered.contains(&path) {
                entered.push(path);
            }
        } else if slash && let Some(folder) = path.parent().filter(|it| it.is_dir()) {
            if piece.tail {
                self.all_of(folder);
            }
            if has_ending(&path, &READ) {
                self.awaited.insert(path);
            }
        }
    }

    /// Adds the files that match a pattern. Folders in it may be patterns, too.
    fn pattern(&mut self, path: &Path, slash: bool) {
        let is_pattern = |it: &Path| it.to_string_lossy().contains(['*', '?']);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !slash && !name.contains('.') {
            return;
        }
        let Some(base) = path.ancestors().find(|it| !is_pattern(it)) else {
            return;
        };
        let rest = path.strip_prefix(base).unwrap_or(path);
        let mut found = vec![base.to_path_buf()];
        for part in rest {
            let part = part.to_string_lossy();
            let mut next = Vec::new();
            for folder in found {
                if !is_pattern(Path::new(&*part)) {
                    next.push(folder.join(&*part));
                    continue;
                }
                let entries = self.entries(&folder);
                let fitting = entries
                    .iter()
                    .filter(|it| fits(part.as_bytes(), it.as_bytes()));
                next.extend(fitting.map(|it| folder.join(it)));
            }
            if next.len() > FILES {
                self.incomplete = true;
                return;
            }
            found = next;
        }
        for path in found {
            if self.is_machinefile(&path) {
                continue;
            }
            if path.is_file() {
                self.next.push(path);
            } else if slash && path.is_dir() && !name.starts_with('*') {
                self.walk(&path, &[]);
            }
        }
    }

    /// Adds all files of the folders that Ansible reads in this folder.
    fn parts_count(&mut self, folder: &Path) {
        for part in &STANDARD {
            let part = folder.join(part);
            if part.is_dir() && !self.is_covered(&part) {
                self.walk(&part, &[]);
            }
        }
    }

    /// Returns the folder, and the folders in it that Ansible reads.
    fn with_parts(&mut self, folder: &Path) -> Vec<PathBuf> {
        let entries = self.entries(folder);
        let mut all = vec![folder.to_path_buf()];
        all.extend(
            (STANDARD.iter())
                .filter(|it| entries.contains(**it))
                .map(|it| folder.join(it)),
        );
        all
    }

    /// Returns the names in a folder.
    fn entries(&mut self, folder: &Path) -> std::rc::Rc<BTreeSet<String>> {
        if let Some(known) = self.entries.get(folder) {
            return known.clone();
        }
        let entries = folder.read_dir().into_iter().flatten().flatten();
        let names = entries.filter_map(|it| it.file_name().into_string().ok());
        let names = std::rc::Rc::new(names.collect::<BTreeSet<_>>());
        self.entries.insert(folder.to_path_buf(), names.clone());
        names
    }

    fn is_machinefile(&self, path: &PathBuf) -> bool {
        (self.play.iter()).any(|play| play.machinefiles.contains(path))
    }
}

/// Words by their first part, so a folder is searched only for names that it has.
struct Index<'a> {
    by_name: HashMap<&'a str, Vec<(&'a PlayWord, &'a str)>>,
    /// Words that begin with `..` or with a pattern.
    always: Vec<(&'a PlayWord, &'a str)>,
}

impl<'a> Index<'a> {
    fn new(words: &'a [PlayWord], root: &Path) -> Self {
        let mut index = Index {
            by_name: HashMap::new(),
            always: Vec::new(),
        };
        for piece in words {
            let text = piece.text.as_str();
            if Path::new(text).is_absolute() {
                if Path::new(text).starts_with(root) {
                    index.always.push((piece, text));
                } else if piece.head {
                    index.add(piece, text.trim_start_matches('/'));
                }
                continue;
            }
            index.add(piece, text);
            // As in `$PWD/x` and `%s/x`.
            if let Some((first, rest)) = text.split_once('/')
                && first.contains(['$', '%', '~', '+'])
            {
                index.add(piece, rest);
            }
        }
        index
    }

    fn add(&mut self, piece: &'a PlayWord, mut word: &'a str) {
        while let Some(rest) = word.strip_prefix("./") {
            word = rest.trim_start_matches('/');
        }
        let first = word.split('/').next().unwrap_or_default();
        if first == ".." || first.contains(['*', '?']) {
            self.always.push((piece, word));
        } else if !first.is_empty() && first != "." {
            self.by_name.entry(first).or_default().push((piece, word));
        }
    }

    fn below(&self, entries: &BTreeSet<String>) -> Vec<(&'a PlayWord, &'a str)> {
        let mut found = self.always.clone();
        for entry in entries {
            found.extend(self.by_name.get(entry.as_str()).into_iter().flatten());
        }
        found
    }
}

/// Whether Ansible may run or interpret a file, because of its name or because it is a script.
pub(super) fn obeys(path: &Path) -> bool {
    path.extension().is_none() || has_ending(path, &READ) || is_script(path)
}

/// Whether a name matches a pattern with `*` and `?`.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut back) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, at)) = back else {
                    return false;
                };
                back = Some((star, at + 1));
                (p, n) = (star + 1, at + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}
