//! Finds scripts of a project that another script runs or includes. The user agrees to these, too.
//!
//! Nothing is run to find them. A word of a script counts if it leads to a file of the project:
//! - from the project's folder, where hooks run; from the folder of the script; from a folder that the text names
//!   (`cd lib && ./x`);
//! - also with a variable or a command in place of the folder (`"$here/lib.sh"`, `"$(dirname "$0")/lib.sh"`).
//!
//! The file must be a script by its name, mode or first line, or be named where a file is run (`. lib`, `bash lib`).
//! Files that a script writes are data, and would change with every run. If a script computes what it runs (`. "$x"`,
//! `eval`), all files of its folder count. A wrong match only costs an extra question.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use super::{
    interpreters::{is_runner, is_script},
    named_files::{files_of, meanings, plain},
    run_files::{RunFiles, is_made},
    shell_words::{Word, shell_words},
};

/// If a text has more different words, all files of its folder count instead.
const WORDS: usize = 50_000;

/// For one text, stead looks in at most this many folders.
const FOLDERS: usize = 32;

impl RunFiles<'_> {
    /// Finds the files that a text in `folder` names. `shell`: its words are those of a shell.
    pub(super) fn look_script(&mut self, text: &str, folder: &Path, runs: bool, shell: bool) {
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
        // A folder may be named from another one: `cd a; cd b`.
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
                    self.incomplete = true;
                    break;
                }
                folders.push(path);
            }
        }
        self.next.extend(named(text, &folders, root, runs));
        let mut opaque = !whole && shell;
        // Folders that may have the files that cannot be found by name.
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

    /// Adds the modules in a folder that a script of another interpreter may load.
    pub(super) fn siblings(&mut self, folder: &Path, endings: &'static [&'static str]) {
        self.walk(folder, endings);
    }

    /// Adds the files of folders in which programs are looked for, if the variable is such a search path.
    pub(super) fn search_path(&mut self, name: &str, value: &str, folders: &[PathBuf]) {
        if !is_search_path(name) {
            return;
        }
        for part in value.split(':') {
            // An empty part is the current folder: execvp(3).
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
}

/// Whether a word of a shell decides what runs, but its value is known only at run time.
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
    // A path of the project that leads to a file from none of the known folders.
    let relative = word.text.contains('/') && !word.text.starts_with(['/', '~', '-']);
    word.starts && relative && files.is_empty()
}

/// Expressions for the folder of the script, or of the project. Quotes are left out.
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

/// Expressions for the folder in which a program starts, which is the project's.
const HERE: [&str; 4] = ["$PWD", "${PWD}", "$(pwd)", "`pwd`"];

/// Whether a word has parts that are known only at run time. The folder of the script and that of the project are known.
fn is_made_up(word: &str) -> bool {
    let rest = (KNOWN.iter())
        .find_map(|known| word.strip_prefix(known))
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        .unwrap_or(word);
    rest.contains(['$', '`']) || (rest.contains('{') && rest.contains(','))
}

/// Whether a variable lists folders with programs or modules, or names a file that shells read first.
fn is_search_path(name: &str) -> bool {
    name.ends_with("PATH") || name.ends_with("LIB") || name == "BASH_ENV" || name == "ENV"
}

fn separates(c: char) -> bool {
    c.is_whitespace() || "\"'`;|&()<>{}=,$#".contains(c)
}

/// Returns the files of the project that a text names, and that are scripts or named where a file is run.
fn named(text: &str, folders: &[PathBuf], root: &Path, mut runs: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut known: HashMap<String, Vec<PathBuf>> = HashMap::new();
    // `runs`: the next file is run. `writes`: the next file is written.
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::trust::run_files::FILES;

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

    /// What counts if a script computes what it runs.
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
            // A file without an extension counts where it is run.
            ("bash -e ops/plain one two", &["ops/plain"]),
            (". \"$(dirname \"$0\")/plain\"", &["ops/plain"]),
            ("sh < ops/plain", &["ops/plain"]),
            // A file that is written or only read is data.
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
        // This script is too long to be read.
        fs::write(root.join("hooks/up.sh"), long(5 << 20)).unwrap();
        let mut found = RunFiles::new(&root);
        found.file(&root.join("hooks/up.sh")).unwrap();
        assert!(names(&found).contains(&"hooks/lib/i.sh".to_string()));
        assert!(found.whole.contains(&root.join("hooks")));
        // Another interpreter loads modules.
        fs::write(root.join("hooks/tool"), "#!python3\nimport lib.i\n").unwrap();
        let mut found = RunFiles::new(&root);
        found.file(&root.join("hooks/tool")).unwrap();
        assert_eq!(names(&found), ["hooks/lib/i.py", "hooks/tool"]);
        let mut found = RunFiles::new(&root);
        found.variable("PYTHONPATH", "hooks/lib").unwrap();
        assert!(names(&found).contains(&"hooks/lib/i.py".to_string()));
    }

    /// With such a path, a bare word may name a program of the project.
    #[test]
    fn a_search_path_that_leads_into_the_project_binds_what_lies_there() {
        let (_folder, root) = shop();
        // Files without an extension. The one in the project's folder is a script by its first line.
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
        assert!(found.incomplete && found.files.len() <= FILES);
        // Exactly as many as the limit allows.
        fs::remove_file(root.join("hooks/lib/0")).unwrap();
        for n in 1..20 {
            fs::remove_file(root.join(format!("hooks/lib/{n}"))).unwrap();
        }
        let mut found = RunFiles::new(&root);
        found.file(&root.join("hooks/up.sh")).unwrap();
        assert!(!found.incomplete);
        // More folders than the limit allows.
        for n in 0..=FILES {
            fs::create_dir(root.join(format!("hooks/lib/d{n}"))).unwrap();
        }
        let mut found = RunFiles::new(&root);
        found.file(&root.join("hooks/up.sh")).unwrap();
        assert!(found.incomplete);
        assert!(
            names(&found)
                .iter()
                .all(|name| !name.contains("node_modules"))
        );
    }
}
