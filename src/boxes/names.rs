//! Bare names of boxes. A box that the user built, packed or added here is found by its name. A fetched box
//! chose its name itself, so a Machinefile refers to it by its source, never by that name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::{file, paths::CLOSED};

use super::{
    error::BoxError,
    store::{Store, StoredBox},
};

/// How a box got its bare name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameSource {
    Built,
    Packed,
    /// Added from a file or folder of this host, or under a name that the user chose.
    Added,
    /// Added before stead recorded names.
    Before,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    given: NameSource,
    since: Timestamp,
}

impl Store {
    /// Returns the boxes with a bare name, by the hex digits of their digest. The folder must never be
    /// created empty: if it exists, the names of older boxes count as recorded.
    pub fn named(&self) -> Result<BTreeMap<String, NameSource>, BoxError> {
        let folder = self.data().named();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.names_before(),
            Err(error) => return Err(BoxError::io("read", folder)(error)),
        };
        let mut named = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(BoxError::io("read", &folder))?.path();
            // A record that cannot be read gives no name.
            if let Some(digest) = path.file_name().and_then(|name| name.to_str())
                && let Ok(bytes) = fs::read(&path)
                && let Ok(record) = serde_json::from_slice::<Record>(&bytes)
            {
                named.insert(digest.to_string(), record.given);
            }
        }
        Ok(named)
    }

    /// Returns the names of boxes in a store that is older than these records. Each box keeps its name, unless it
    /// was fetched and a box of this host has the same name. The names are recorded, so that no box gains one
    /// later.
    fn names_before(&self) -> Result<BTreeMap<String, NameSource>, BoxError> {
        let boxes = self.list()?;
        let fetched: BTreeSet<String> = (self.all_origins())
            .filter(|origin| !origin.is_local())
            .map(|origin| origin.digest)
            .collect();
        let is_fetched = |stored: &StoredBox| fetched.contains(&stored.digest.to_string());
        let own: BTreeSet<&str> = (boxes.iter())
            .filter(|stored| !is_fetched(stored))
            .map(|stored| stored.manifest.name.as_str())
            .collect();
        let named: BTreeMap<String, NameSource> = (boxes.iter())
            .filter(|stored| !is_fetched(stored) || !own.contains(stored.manifest.name.as_str()))
            .map(|stored| (stored.digest.hex().to_string(), NameSource::Before))
            .collect();
        let write = || -> io::Result<()> {
            let folder = self.data().named();
            let parent = folder.parent().unwrap_or(Path::new("."));
            let made = tempfile::Builder::new()
                .prefix(".incoming-names-")
                .permissions(Permissions::from_mode(CLOSED))
                .tempdir_in(parent)?;
            for (digest, given) in &named {
                write_record(made.path(), digest, *given)?;
            }
            // Another stead may have been faster; both found the same names.
            match file::rename(made.path(), &folder) {
                Ok(()) => {
                    let _ = made.keep();
                    Ok(())
                }
                Err(_) if folder.is_dir() => Ok(()),
                Err(error) => Err(error),
            }
        };
        // A failure may be ignored: where nothing can be written, no box can be fetched either.
        if self.data().boxes().is_dir() {
            let _ = write();
        }
        Ok(named)
    }

    /// Gives a box its bare name. Returns the other box that had this name until now.
    pub fn give_name(
        &self,
        stored: &StoredBox,
        given: NameSource,
    ) -> Result<Option<StoredBox>, BoxError> {
        let before = self.by_name(&stored.manifest.name, None)?;
        let folder = self.data().named();
        file::create_folder(&folder, CLOSED)
            .and_then(|()| write_record(&folder, stored.digest.hex(), given))
            .map_err(BoxError::io("write in", &folder))?;
        Ok(before.filter(|before| before.digest != stored.digest))
    }

    /// Returns the newest box with that bare name, and of that version if one is given.
    pub fn by_name(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<StoredBox>, BoxError> {
        let named = self.named()?;
        Ok(self.list()?.into_iter().find(|stored| {
            stored.manifest.name == name
                && version.is_none_or(|version| stored.manifest.version == version)
                && named.contains_key(stored.digest.hex())
        }))
    }

    /// Returns what to call a box: its bare name, else its source, else its short digest.
    pub fn known_as(&self, stored: &StoredBox, named: &BTreeMap<String, NameSource>) -> String {
        if named.contains_key(stored.digest.hex()) {
            return stored.manifest.name.clone();
        }
        self.origin_of(&stored.digest)
            .map_or_else(|| stored.digest.short().to_string(), |it| it.reference)
    }

    /// Describes where a box came from.
    pub fn came_from(&self, stored: &StoredBox, named: &BTreeMap<String, NameSource>) -> String {
        match (
            named.get(stored.digest.hex()),
            self.origin_of(&stored.digest),
        ) {
            (Some(NameSource::Built), _) => "built here".into(),
            (Some(NameSource::Packed), _) => "packed here".into(),
            (_, Some(origin)) => origin.reference,
            (Some(NameSource::Added | NameSource::Before), None) => "this host".into(),
            (None, None) => "elsewhere".into(),
        }
    }

    /// Whether a box cannot be fetched again: it was made here, or its file may be gone by now.
    pub fn is_only_here(&self, stored: &StoredBox, named: &BTreeMap<String, NameSource>) -> bool {
        matches!(
            named.get(stored.digest.hex()),
            Some(NameSource::Built | NameSource::Packed)
        ) || self
            .origin_of(&stored.digest)
            .is_none_or(|it| it.is_local())
    }
}

fn write_record(folder: &Path, digest: &str, given: NameSource) -> io::Result<()> {
    let record = Record {
        given,
        since: Timestamp::now(),
    };
    let bytes = serde_json::to_vec(&record)?;
    file::replace(&folder.join(digest), &bytes, file::PRIVATE)
}
