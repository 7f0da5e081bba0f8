//! The private folder of one run, with inventory, variables, and the files that Ansible decrypts.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::host::{
    lock::{Lock, LockName, own_holder},
    paths::DataDir,
};

use super::error::AnsibleError;

/// The folder is removed on drop. If a killed run left one, the next run removes it.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    /// Locked for as long as the run lives.
    _held: File,
}

impl RunFolder {
    /// Makes a folder, and removes those that killed runs left.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn new(data: &DataDir) -> Result<Self, AnsibleError> {
        let runs = data.ansible_runs();
        let failed = |source| AnsibleError::File {
            doing: "create a folder in",
            path: runs.clone(),
            source,
        };
        Self::make(data, &runs).map_err(failed)
    }

    fn make(data: &DataDir, runs: &Path) -> io::Result<Self> {
        fs::create_dir_all(runs.parent().unwrap_or(runs))?;
        match DirBuilder::new().mode(0o700).create(runs) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // So that no other process takes the new folder for abandoned before it is locked.
        let _one = Lock::acquire(&data.locks(), LockName::AnsibleRuns, &own_holder())?;
        for entry in fs::read_dir(runs)? {
            let path = entry?.path();
            let free = File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok());
            if free {
                fs::remove_dir_all(&path)?;
            }
        }
        let path = tempfile::Builder::new()
            .prefix("run-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(runs)?
            .keep();
        let held = File::open(&path)?;
        held.try_lock().map_err(io::Error::other)?;
        Ok(RunFolder { path, _held: held })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that only its owner can read.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, AnsibleError> {
        let path = self.path.join(name);
        let failed = |source| AnsibleError::File {
            doing: "write",
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        Ok(path)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_private_and_goes_and_what_was_left_goes_too() {
        let place = tempfile::tempdir().unwrap();
        let data = DataDir::at(place.path());
        let one = RunFolder::new(&data).unwrap();
        let file = one.write("vars.json", b"{}").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(one.path()), mode(&file)), (0o700, 0o600));
        let left = data.ansible_runs().join("run-killed");
        fs::create_dir(&left).unwrap();
        let two = RunFolder::new(&data).unwrap();
        assert!(!left.exists() && file.exists());
        drop((one, two));
        assert_eq!(fs::read_dir(data.ansible_runs()).unwrap().count(), 0);
    }
}
