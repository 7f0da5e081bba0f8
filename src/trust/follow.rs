//! Reads the files that run, and adds the files that they name.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    interpreters::{ENDINGS, SHELLS, has_ending, is_runner, is_script, language, last},
    named_files::{files_of, plain},
    plays::{DATA, RunSettings},
    run_files::{FILES, Failed, RunFiles},
};

/// How much of a file is read, in bytes. All files count that lie beside a longer one.
const TEXT: u64 = 4 << 20;

impl RunFiles<'_> {
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
        self.look_script(text, root, false, ending.is_none());
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
        // A shell reads the file that its first word names. That file is looked for below, whatever characters are
        // in its name. Any other word may be text that the shell runs, even if a file has this name.
        let script = SHELLS.contains(&last(program))
            && (arguments.first())
                .is_some_and(|word| !word.starts_with(['-', '+']) && root.join(word).is_file());
        let texts = &arguments[usize::from(script)..];
        let mut text = texts.join(" ");
        // Each argument also counts as one word, whatever characters it has.
        for argument in texts {
            if shell && argument.contains(|c: char| c.is_whitespace() || c == '$' || c == '`') {
                text.push_str(&format!("\n{argument}\n"));
            }
        }
        self.look_script(&text, root, runs, shell);
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
        self.look_script(value, root, false, false);
        self.search_path(name, value, &[root.to_path_buf()]);
        self.follow()
    }

    /// Adds the files of a playbook, and the files that those name.
    ///
    /// # Errors
    /// The path that cannot be read, and why.
    pub(super) fn playbook(
        &mut self,
        playbook: &Path,
        files: BTreeMap<PathBuf, PathBuf>,
        covered: Vec<PathBuf>,
        told: &RunSettings,
    ) -> Result<(), Failed> {
        self.begin_playbook(playbook, files, covered, told);
        self.follow()
    }

    /// Reads each file that counts, until no file leads to another.
    fn follow(&mut self) -> Result<(), Failed> {
        while let Some(path) = self.next.pop() {
            if !self.seen.insert(path.clone()) {
                continue;
            }
            let failed = |error| (path.clone(), error);
            if !self.files.contains_key(&path) {
                if self.files.len() - self.given >= FILES {
                    self.incomplete = true;
                    continue;
                }
                // A word of a playbook may not be a path at all. Ansible cannot read what stead cannot read.
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
            // Shells skip null bytes.
            bytes.retain(|byte| *byte != 0);
            let text = String::from_utf8_lossy(&bytes);
            if self.play.is_some() {
                self.look_file(&text, &path);
                // The modules of a plugin are in its folder, and all files of that folder count.
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
            self.look_script(&text, &folder, false, shell);
        }
        Ok(())
    }
}
