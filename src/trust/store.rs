//! Remembers what the user agreed to, in a file per project in stead's data folder.
//!
//! A project is identified by its folder and file. If it moves, or another one has the same content, stead asks
//! again.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    host::{
        file::{PRIVATE, create_folder, replace},
        lock::{Lock, LockName, own_holder},
        paths::DataDir,
    },
    machinefile::Project,
};

use super::{demand::Demand, error::TrustError, shown::shown};

/// The format of the file. It is raised when an older stead would misread the file.
const FORMAT: u32 = 1;

/// If there are more answers, the oldest are deleted. Each branch of a project may have its own.
const MOST: usize = 1000;

/// What the user has answered to a demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Agreed, to exactly these files.
    Exact,
    /// Agreed, to later edits of its files, too.
    Edits,
    /// Agreed, but its files have changed since.
    Changed,
    /// Not answered yet.
    New,
}

/// All answers for one project.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Answers {
    format: u32,
    /// For people who read the file. stead finds it by its name.
    root: PathBuf,
    file: PathBuf,
    answers: Vec<Remembered>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Remembered {
    demand: String,
    /// The digest of the files. `None`: later content counts as agreed to, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// The digests of the files, to name those that changed. Only the newest answer has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, String>,
    at: Timestamp,
}

impl Answers {
    /// Returns the answer to a demand.
    pub fn of(&self, demand: &Demand) -> Answer {
        let mut known = (self.answers.iter())
            .filter(|entry| entry.demand == demand.id)
            .peekable();
        // An agreement without later edits was for one command.
        if known.peek().is_none()
            || (demand.incomplete && known.clone().all(|it| it.content.is_some()))
        {
            return Answer::New;
        }
        let content = demand.content();
        let mut answer = Answer::Changed;
        for entry in known {
            match &entry.content {
                None if !demand.others_can_edit => return Answer::Edits,
                Some(agreed) if *agreed == content && !demand.incomplete => answer = Answer::Exact,
                _ => {}
            }
        }
        answer
    }

    /// Returns the files that changed since the newest answer, for people.
    pub fn changed(&self, demand: &Demand) -> Vec<String> {
        let Some(entry) = (self.answers.iter().rev())
            .find(|entry| entry.demand == demand.id && !entry.files.is_empty())
        else {
            return Vec::new();
        };
        let now = demand
            .files
            .iter()
            .filter_map(|(name, digest)| match entry.files.get(name) {
                None => Some(format!("{} (new)", shown(name))),
                Some(agreed) => (agreed != digest).then(|| shown(name)),
            });
        let gone = (entry.files.keys())
            .filter(|name| !demand.files.contains_key(*name))
            .map(|name| format!("{} (gone)", shown(name)));
        now.chain(gone).collect()
    }

    fn add(&mut self, demand: &Demand, edits: bool) {
        let content = (!edits).then(|| demand.content());
        // An agreement to exactly these files replaces an agreement to later edits.
        self.answers.retain(|entry| {
            entry.demand != demand.id
                || (!edits && entry.content.is_some() && entry.content != content)
        });
        for entry in &mut self.answers {
            if entry.demand == demand.id {
                entry.files.clear();
            }
        }
        self.answers.push(Remembered {
            demand: demand.id.clone(),
            content,
            files: if edits {
                BTreeMap::new()
            } else {
                demand.files.clone()
            },
            at: Timestamp::now(),
        });
        let more = self.answers.len().saturating_sub(MOST);
        self.answers.drain(..more);
    }
}

/// The folder with all answers.
pub struct Store {
    folder: PathBuf,
    locks: PathBuf,
}

impl Store {
    pub fn open(data: &DataDir) -> Self {
        Store {
            folder: data.trust(),
            locks: data.locks(),
        }
    }

    /// Returns the answers for a project.
    ///
    /// # Errors
    /// If the file cannot be read, or another user could have written it.
    pub fn read(&self, project: &Project) -> Result<Answers, TrustError> {
        let path = self.path(project);
        let failed = |source| TrustError::Store {
            doing: "read",
            path: path.clone(),
            source,
        };
        let unusable = |why: String| TrustError::Unusable {
            path: path.clone(),
            why,
        };
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty(project)),
            other => other.map_err(failed)?,
        };
        let mine = metadata.uid() == nix::unistd::geteuid().as_raw();
        if !metadata.is_file() || !mine || metadata.permissions().mode() & 0o022 != 0 {
            return Err(unusable("is not a file that only you can write".into()));
        }
        let text = fs::read_to_string(&path).map_err(failed)?;
        let answers: Answers = serde_json::from_str(&text)
            .map_err(|error| unusable(format!("is not valid: {error}")))?;
        if answers.format != FORMAT {
            return Err(unusable(format!(
                "has format {}, but this stead reads {FORMAT}",
                answers.format
            )));
        }
        Ok(answers)
    }

    /// Remembers an agreement to these demands, as they are. For [incomplete](Demand::incomplete) demands, only an
    /// agreement to later edits is remembered, because any other holds for one command.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn remember(
        &self,
        project: &Project,
        demands: &[&Demand],
        edits: bool,
    ) -> Result<(), TrustError> {
        let _held = self.lock()?;
        let mut answers = self.read(project)?;
        for demand in demands {
            let edits = edits && !demand.others_can_edit;
            if edits || !demand.incomplete {
                answers.add(demand, edits);
            }
        }
        self.write(&self.path(project), &answers)
    }

    /// Forgets all answers for a project. Returns whether there were any.
    ///
    /// # Errors
    /// If they cannot be removed.
    pub fn forget(&self, project: &Project) -> Result<bool, TrustError> {
        let _held = self.lock()?;
        let path = self.path(project);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(TrustError::Store {
                doing: "remove",
                path,
                source,
            }),
        }
    }

    fn path(&self, project: &Project) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(project.root.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(project.file.as_os_str().as_encoded_bytes());
        let name: String = (hash.finalize().iter())
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.folder.join(format!("{name}.json"))
    }

    fn lock(&self) -> Result<Lock, TrustError> {
        Lock::acquire(&self.locks, LockName::Trust, &own_holder()).map_err(|source| {
            TrustError::Store {
                doing: "lock",
                path: self.folder.clone(),
                source,
            }
        })
    }

    fn write(&self, path: &Path, answers: &Answers) -> Result<(), TrustError> {
        let write = || -> io::Result<()> {
            create_folder(&self.folder, 0o700)?;
            replace(path, &serde_json::to_vec_pretty(answers)?, PRIVATE)
        };
        write().map_err(|source| TrustError::Store {
            doing: "write",
            path: path.to_path_buf(),
            source,
        })
    }
}

fn empty(project: &Project) -> Answers {
    Answers {
        format: FORMAT,
        root: project.root.clone(),
        file: project.file.clone(),
        answers: Vec::new(),
    }
}
