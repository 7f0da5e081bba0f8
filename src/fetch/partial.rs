//! A file that is not complete yet, and a note of which file it belongs to.

use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::host::{file, free_space::lacking};

use super::{
    digest::{Algorithm, Expected, Hashes},
    error::FetchError,
    urls::{mark, shown},
    verify::verify,
};

/// A note beside a partial file: which file it belongs to.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PartialNote {
    /// A hash of the URL, because it may contain a password.
    pub url: String,
    /// A strong ETag, or a date, for If-Range.
    pub validator: Option<String>,
}

/// Checks that the file system of `folder` has space for this many bytes more.
pub(crate) fn room(folder: &Path, bytes: u64) -> Result<(), FetchError> {
    match lacking(folder, bytes) {
        Some(free) => Err(FetchError::NoRoom {
            folder: folder.to_path_buf(),
            needed: bytes,
            free,
        }),
        None => Ok(()),
    }
}

/// A partial file, and its note.
pub(super) struct PartialFile {
    pub path: PathBuf,
    note: PathBuf,
    file: File,
    partial: PartialNote,
    hashes: Hashes,
}

impl PartialFile {
    pub(super) fn open(folder: &Path, name: &str, sha512: bool) -> Result<Self, FetchError> {
        let path = folder.join(format!("{name}.part"));
        let note = folder.join(format!("{name}.json"));
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(FetchError::io("open", &path))?;
        // Without its note, the part is of no use.
        let partial: Option<PartialNote> = fs::read(&note)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut hashes = Hashes::new(sha512);
        let known = partial.is_some();
        if known {
            hashes
                .read_all(&mut file)
                .map_err(FetchError::io("read", &path))?;
        }
        let mut part = PartialFile {
            path,
            note,
            file,
            partial: partial.unwrap_or_default(),
            hashes,
        };
        if !known {
            part.restart(PartialNote::default())?;
        }
        Ok(part)
    }

    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    pub(super) fn size(&self) -> u64 {
        self.hashes.size()
    }

    /// Returns the position to continue from, and the validator that the file must still have.
    pub(super) fn resumes(&mut self, url: &Url) -> Result<Option<(u64, String)>, FetchError> {
        if self.size() == 0 {
            return Ok(None);
        }
        match &self.partial.validator {
            Some(validator) if self.partial.url == mark(url) => {
                Ok(Some((self.size(), validator.clone())))
            }
            _ => {
                self.restart(PartialNote::default())?;
                Ok(None)
            }
        }
    }

    pub(super) fn restart(&mut self, partial: PartialNote) -> Result<(), FetchError> {
        let mut write = || -> io::Result<()> {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            file::replace(&self.note, &serde_json::to_vec(&partial)?, file::PRIVATE)
        };
        write().map_err(FetchError::io("write", &self.path))?;
        self.partial = partial;
        self.hashes = self.hashes.restarted();
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file
            .write_all(bytes)
            .map_err(FetchError::io("write", &self.path))?;
        self.hashes.update(bytes);
        Ok(())
    }

    /// Returns the sha256 and size of the complete file.
    ///
    /// # Errors
    /// If a digest differs. Then the file is deleted.
    pub(super) fn verify(
        &mut self,
        expected: &[Expected],
        url: &Url,
    ) -> Result<(String, u64), FetchError> {
        let size = self.size();
        let restarted = self.hashes.restarted();
        let hashes = std::mem::replace(&mut self.hashes, restarted).finish();
        let _ = fs::remove_file(&self.note);
        if let Err(error) = verify(&hashes, expected, &shown(url)) {
            // So that it cannot be used by mistake.
            let _ = fs::remove_file(&self.path);
            return Err(error);
        }
        Ok((hashes.of(Algorithm::Sha256).to_string(), size))
    }
}
