//! Where kernels came from: which kernel a source became, so that it is not added twice.

use std::{fs, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::host::{digest::sha256_of, file};

use super::{
    error::KernelError,
    store::{KernelStore, StoredKernel},
};

/// The kernel that a source became. If a record is lost or cannot be read, the source is imported again.
#[derive(Serialize, Deserialize)]
struct SourceRecord {
    key: String,
    digest: String,
}

impl KernelStore {
    /// Returns the kernel that was last made from a source. `key` identifies the source (see [`super::fingerprint`]).
    pub fn of_source(&self, key: &str) -> Result<Option<StoredKernel>, KernelError> {
        let Ok(bytes) = fs::read(self.source_path(key)) else {
            return Ok(None);
        };
        match serde_json::from_slice::<SourceRecord>(&bytes) {
            Ok(record) if record.key == key => self.get(&record.digest),
            _ => Ok(None),
        }
    }

    /// Like [`Self::of_source`], but only if the kernel was made within `age`.
    pub fn of_recent_source(
        &self,
        key: &str,
        age: Duration,
    ) -> Result<Option<StoredKernel>, KernelError> {
        let recent = fs::metadata(self.source_path(key))
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|since| since < age));
        if recent {
            self.of_source(key)
        } else {
            Ok(None)
        }
    }

    /// Records which kernel a source became.
    pub fn remember_source(&self, key: &str, stored: &StoredKernel) -> Result<(), KernelError> {
        let path = self.source_path(key);
        let record = SourceRecord {
            key: key.to_string(),
            digest: stored.digest.to_string(),
        };
        let bytes = serde_json::to_vec(&record).map_err(|error| KernelError::Manifest {
            source_name: key.to_string(),
            message: error.to_string(),
        })?;
        file::replace(&path, &bytes, file::FIXED).map_err(KernelError::io("write", &path))
    }

    fn source_path(&self, key: &str) -> PathBuf {
        let hash = sha256_of(key.as_bytes());
        self.data().kernels().join("sources").join(hash)
    }
}
