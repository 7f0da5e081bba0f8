//! Which boxes answer to a bare name: those that the user built, packed or added here. A box that
//! came from elsewhere says itself what it is called, so it is known by where it came from, and
//! its own name is worth nothing in a Machinefile.

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

/// How a box came by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Given {
    Built,
    Packed,
    /// From a file or folder of this host, or under a name that the user said.
    Added,
    /// It had its name before names were kept apart.
    Before,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    given: Given,
    since: Timestamp,
}

impl Store {
    /// Boxes with a name of their own, by the hex digits of their digest. That the folder is there
    /// says that names are kept apart, so nobody makes it empty beforehand.
    pub fn named(&self) -> Result<BTreeMap<String, Given>, BoxError> {
        let folder = self.names();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.names_before(),
            Err(error) => return Err(BoxError::io("read", folder)(error)),
        };
        let mut named = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(BoxError::io("read", &folder))?.path();
            // One that cannot be read gives no name.
            if let Some(digest) = path.file_name().and_then(|name| name.to_str())
                && let Ok(bytes) = fs::read(&path)
                && let Ok(record) = serde_json::from_slice::<Record>(&bytes)
            {
                named.insert(digest.to_string(), record.given);
            }
        }
        Ok(named)
    }

    /// The names in a store of before: each means what it meant, except that no box that was
    /// fetched keeps one that a box of this host has too. Written down, so that none comes by a
    /// name later.
    fn names_before(&self) -> Result<BTreeMap<String, Given>, BoxError> {
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
        let named: BTreeMap<String, Given> = (boxes.iter())
            .filter(|stored| !is_fetched(stored) || !own.contains(stored.manifest.name.as_str()))
            .map(|stored| (stored.digest.hex().to_string(), Given::Before))
            .collect();
        let write = || -> io::Result<()> {
            let folder = self.names();
            let parent = folder.parent().unwrap_or(Path::new("."));
            let made = tempfile::Builder::new()
                .prefix(".incoming-names-")
                .permissions(Permissions::from_mode(CLOSED))
                .tempdir_in(parent)?;
            for (digest, given) in &named {
                write_record(made.path(), digest, *given)?;
            }
            // Another stead may have been first; both have found the same.
            match file::rename(made.path(), &folder) {
                Ok(()) => {
                    let _ = made.keep();
                    Ok(())
                }
                Err(_) if folder.is_dir() => Ok(()),
                Err(error) => Err(error),
            }
        };
        // Where nothing can be written, nothing can be fetched either.
        if self.boxes_folder().is_dir() {
            let _ = write();
        }
        Ok(named)
    }

    /// Lets a box answer to its name. Returns the box that did so until now.
    pub fn give_name(
        &self,
        stored: &StoredBox,
        given: Given,
    ) -> Result<Option<StoredBox>, BoxError> {
        let before = self.by_name(&stored.manifest.name, None)?;
        let folder = self.names();
        file::create_folder(&folder, CLOSED)
            .and_then(|()| write_record(&folder, stored.digest.hex(), given))
            .map_err(BoxError::io("write in", &folder))?;
        Ok(before.filter(|before| before.digest != stored.digest))
    }

    /// The newest box of that name that the user has given it.
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

    /// What a box is called here: its name, or where it came from.
    pub fn known_as(&self, stored: &StoredBox, named: &BTreeMap<String, Given>) -> String {
        if named.contains_key(stored.digest.hex()) {
            return stored.manifest.name.clone();
        }
        self.origin_of(&stored.digest)
            .map_or_else(|| stored.digest.short().to_string(), |it| it.reference)
    }

    /// Where a box came from, in words.
    pub fn came_from(&self, stored: &StoredBox, named: &BTreeMap<String, Given>) -> String {
        match (
            named.get(stored.digest.hex()),
            self.origin_of(&stored.digest),
        ) {
            (Some(Given::Built), _) => "built here".into(),
            (Some(Given::Packed), _) => "packed here".into(),
            (_, Some(origin)) => origin.reference,
            (Some(Given::Added | Given::Before), None) => "this host".into(),
            (None, None) => "elsewhere".into(),
        }
    }

    /// Whether it cannot be had again from where it came: it was made here, or its file may be
    /// gone by now.
    pub fn is_only_here(&self, stored: &StoredBox, named: &BTreeMap<String, Given>) -> bool {
        matches!(
            named.get(stored.digest.hex()),
            Some(Given::Built | Given::Packed)
        ) || self
            .origin_of(&stored.digest)
            .is_none_or(|it| it.is_local())
    }
}

fn write_record(folder: &Path, digest: &str, given: Given) -> io::Result<()> {
    let record = Record {
        given,
        since: Timestamp::now(),
    };
    let bytes = serde_json::to_vec(&record)?;
    file::replace(&folder.join(digest), &bytes, file::PRIVATE)
}
