//! What a project would do beyond its machines.
//!
//! A demand is identified by commands, paths and names, not by the rest of the Machinefile: other edits change
//! nothing here. Files that would run on the host are bound to it by their content.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{host::digest::sha256_of, machinefile::Moment, provision::digest_file};

use super::shown::{below, plain};

/// How many machines a shortened line names. `stead trust --show` names all.
const MOST_NAMED: usize = 4;

/// The kind of a demand. It decides which commands of stead ask about the demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A hook that runs on the host.
    Hook(Moment),
    /// A playbook that the host's Ansible runs.
    Playbook,
    /// A file that has or prints a password.
    Password,
    /// A folder outside the project.
    Folder,
    /// An image or a kernel outside the project.
    Image,
    Variable,
    Catalogue,
    /// A forwarded port that others than this computer's users reach.
    Port,
    /// A port of this computer's own 127.0.0.1 that a machine reaches.
    HostPort,
    /// A bridge of this computer that a machine has a card on.
    Bridge,
    /// A guest can write to files that the host runs.
    Writes,
    /// Another user can write to files that the host runs.
    Owner,
}

impl Kind {
    /// The heading of a list of demands.
    pub fn heading(self) -> &'static str {
        match self {
            Kind::Hook(_) | Kind::Playbook => "runs on this computer, as you",
            Kind::Password | Kind::Folder | Kind::Image => "uses files outside the project",
            Kind::Variable => "uses environment variables",
            Kind::Catalogue => "fetches",
            Kind::Port => "lets other computers reach its machines",
            Kind::HostPort => "lets its machines reach this computer",
            Kind::Bridge => "puts its machines into a network of this computer",
            Kind::Writes => "lets machines write files that this computer runs",
            Kind::Owner => "can be changed by others",
        }
    }
}

/// One thing that a project would do, and that the user agrees to or not.
#[derive(Clone, Debug)]
pub struct Demand {
    pub kind: Kind,
    /// One line, cleaned of control characters, with long words cut.
    pub what: String,
    /// The same line, with whole words.
    pub whole: String,
    /// The machines that it is for, where `what` names them: between these two texts. The second one is for one
    /// machine, the third for several.
    pub(super) machines: Vec<String>,
    pub(super) around: Option<[String; 3]>,
    /// Its positions in the Machinefile.
    pub at: Vec<String>,
    /// All lines of an inline script.
    pub lines: Vec<String>,
    /// What `files` does not cover.
    pub note: Option<String>,
    /// Its identity: commands, paths and names.
    pub id: String,
    /// The digests of the files that run with it, by their paths below the root.
    pub files: BTreeMap<String, String>,
    /// The paths of these files.
    pub(super) paths: Vec<PathBuf>,
    /// Folders in which a new file would run with it, and named files that do not exist.
    pub(super) places: Vec<PathBuf>,
    /// Whether more files may run with it than are in `files`. Then an agreement to exactly these files would cover
    /// files that nobody has checked.
    pub incomplete: bool,
    /// Whether others can edit these files. Then an agreement to later edits would let them decide.
    pub others_can_edit: bool,
}

impl Demand {
    pub(super) fn new(kind: Kind, names: &Value, what: String) -> Self {
        Demand {
            kind,
            whole: what.clone(),
            what,
            machines: Vec::new(),
            around: None,
            at: Vec::new(),
            lines: Vec::new(),
            note: None,
            id: sha256_of(names.to_string().as_bytes()),
            files: BTreeMap::new(),
            paths: Vec::new(),
            places: Vec::new(),
            incomplete: false,
            others_can_edit: false,
        }
    }

    /// A demand for machines, which its line names: `before`, then the machines, then `after` of one or of several.
    pub(super) fn of_machines(
        kind: Kind,
        names: &Value,
        before: String,
        machines: &[&str],
        after: [String; 2],
    ) -> Self {
        let [one, several] = after;
        let mut demand = Demand::new(kind, names, String::new());
        demand.around = Some([before, one, several]);
        demand.also_for(machines.iter().map(ToString::to_string));
        demand
    }

    /// Adds machines that it is for. The line names them all.
    pub(super) fn also_for(&mut self, machines: impl IntoIterator<Item = String>) {
        for machine in machines {
            if !self.machines.contains(&machine) {
                self.machines.push(machine);
            }
        }
        if let Some([before, one, several]) = &self.around {
            let words = |most: usize| match self.machines.as_slice() {
                [] => format!("{before}a machine{one}"),
                [machine] => format!("{before}machine {machine}{one}"),
                all if all.len() > most => format!(
                    "{before}machines {} and {} more{several}",
                    all[..most].join(", "),
                    all.len() - most
                ),
                all => format!("{before}machines {}{several}", all.join(", ")),
            };
            (self.what, self.whole) = (words(MOST_NAMED), words(usize::MAX));
        }
    }

    pub(super) fn at(mut self, at: &str) -> Self {
        self.at.push(plain(at));
        self
    }

    pub(super) fn whole(mut self, whole: String) -> Self {
        self.whole = whole;
        self
    }

    /// Returns a digest of its files, as they were when the demand was made.
    pub fn content(&self) -> String {
        sha256_of(json!(self.files).to_string().as_bytes())
    }

    /// Adds files that run with it.
    ///
    /// # Errors
    /// The path that cannot be read, and why.
    pub(super) fn bind(
        &mut self,
        files: BTreeMap<PathBuf, PathBuf>,
        root: &Path,
    ) -> Result<(), (PathBuf, io::Error)> {
        for (path, real) in files {
            let digest = digest_file(&real)?;
            // A symlink with another target is another file, even if the content is the same.
            let digest = if real == path {
                digest
            } else {
                format!("{digest} {}", below(&real, root))
            };
            self.files.insert(below(&path, root), digest);
            self.paths.push(real);
            self.paths.push(path);
        }
        Ok(())
    }
}
