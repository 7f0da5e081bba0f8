//! Protects the guest's files from a copy: nothing is deleted in a folder that stead did not make, and
//! not everything because the host's folder is suddenly empty.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    guest::Remote,
    host::{digest::name_of, file, paths::CLOSED, shell::shell_quote},
    machinefile::SyncFolder,
    report::clean::Shown,
};

use super::error::SyncError;

/// A file that records that a folder was copied into a guest. It is among the machine's files, and is
/// deleted with them.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    file: PathBuf,
}

/// Whether the folder had anything in it when it was copied last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    Something,
    Nothing,
}

impl Mark {
    pub(super) fn of(folder: &SyncFolder, remote: &Remote) -> Self {
        Mark {
            file: remote.files.synced().join(name_of(&folder.to, 8)),
        }
    }

    /// `None` if the folder was never copied from here.
    pub(super) fn read(&self) -> Option<Copied> {
        match fs::read(&self.file).ok()?.as_slice() {
            b"empty\n" => Some(Copied::Nothing),
            _ => Some(Copied::Something),
        }
    }

    pub(super) fn write(&self, folder: &SyncFolder) -> Result<(), SyncError> {
        let copied = copied(&folder.from)?;
        if self.read() == Some(copied) {
            return Ok(());
        }
        let content: &[u8] = match copied {
            Copied::Something => b"filled\n",
            Copied::Nothing => b"empty\n",
        };
        let failed = |source| SyncError::Io {
            doing: format!("write {}", self.file.shown()),
            source,
        };
        if let Some(parent) = self.file.parent() {
            file::create_folder(parent, CLOSED).map_err(failed)?;
        }
        file::ensure(&self.file, content, file::PRIVATE).map_err(failed)
    }

    /// # Errors
    /// If the host's folder is empty but was not when it was last copied: perhaps a disk is not mounted,
    /// and that must not delete the copy.
    pub(super) fn check(&self, folder: &SyncFolder, machine: &str) -> Result<(), SyncError> {
        if folder.delete
            && self.read() == Some(Copied::Something)
            && copied(&folder.from)? == Copied::Nothing
        {
            return Err(SyncError::Emptied {
                from: folder.from.clone(),
                to: folder.to.clone(),
                machine: machine.to_string(),
            });
        }
        Ok(())
    }
}

fn copied(from: &Path) -> Result<Copied, SyncError> {
    let mut entries = fs::read_dir(from).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => SyncError::Gone {
            from: from.to_path_buf(),
        },
        _ => SyncError::file("read", from)(source),
    })?;
    Ok(match entries.next() {
        Some(_) => Copied::Something,
        None => Copied::Nothing,
    })
}

/// A file in the guest with the folders that stead made, one path per line. A box that is packed from the
/// machine has it too.
const MADE: &str = "/var/lib/stead/synced";

/// Whose files are in a folder of the guest that was never copied to from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilesOf {
    /// The folder is empty, or stead made it.
    Stead,
    Others,
}

/// Asks the guest whose a folder is. A wrong answer can only harm the guest's own files.
pub(super) async fn whose_files(
    folder: &SyncFolder,
    remote: &Remote,
) -> Result<FilesOf, SyncError> {
    let to = shell_quote(&folder.to);
    let script = format!(
        "if grep -qxF -- {to} {MADE} 2>/dev/null; then echo ours\n\
         elif [ -n \"$(ls -A -- {to} 2>/dev/null || sudo -n ls -A -- {to} 2>/dev/null)\" ]; then echo others\n\
         else echo ours; fi"
    );
    let output = remote.run(&script).await?;
    if output.status.code() == Some(crate::guest::SSH_FAILED) {
        return Err(SyncError::Lost {
            machine: remote.machine.clone(),
            from: folder.from.clone(),
            to: folder.to.clone(),
            said: output.last_words(),
        });
    }
    Ok(match output.stdout.lines().last() {
        Some("ours") => FilesOf::Stead,
        _ => FilesOf::Others,
    })
}

/// Makes the guest record that the folder is stead's. If it cannot, stead asks it again once the host's
/// own record is gone.
pub(super) async fn remember(folder: &SyncFolder, remote: &Remote) -> Result<(), SyncError> {
    let script = format!(
        "[ \"$(id -u)\" = 0 ] && s= || s='sudo -n'\n\
         grep -qxF -- {to} {MADE} 2>/dev/null || printf '%s\\n' {to} | $s sh -c 'mkdir -p /var/lib/stead && cat >>{MADE}'",
        to = shell_quote(&folder.to)
    );
    remote.run(&script).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{guest::MachineFiles, host::paths::DataDir, sync::folder::tests::folder};

    #[test]
    fn a_folder_that_is_empty_of_a_sudden_deletes_nothing() {
        let place = tempfile::tempdir().unwrap();
        let host = place.path().join("host");
        fs::create_dir(&host).unwrap();
        let mut folder = folder(&host, Path::new("/srv/app"));
        let data = DataDir::at(place.path().join("data"));
        let remote = Remote {
            machine: "web".into(),
            files: MachineFiles::new(&data, &uuid::Uuid::nil()),
        };
        let mark = Mark::of(&folder, &remote);
        assert_eq!(mark.read(), None);
        // A folder that is empty from the start is meant to be.
        mark.write(&folder).unwrap();
        assert!(mark.check(&folder, "web").is_ok());
        fs::write(host.join("f"), "").unwrap();
        assert!(mark.check(&folder, "web").is_ok());
        mark.write(&folder).unwrap();
        fs::remove_file(host.join("f")).unwrap();
        let error = mark.check(&folder, "web").unwrap_err();
        assert!(matches!(error, SyncError::Emptied { .. }), "{error}");
        folder.delete = false;
        assert!(mark.check(&folder, "web").is_ok());
        fs::remove_dir(&host).unwrap();
        folder.delete = true;
        assert!(matches!(
            mark.check(&folder, "web"),
            Err(SyncError::Gone { .. })
        ));
    }
}
