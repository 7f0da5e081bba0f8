//! The folder of one machine, with the files that OpenSSH and QEMU need.

use std::{
    fs,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::host::{
    file,
    paths::{DataDir, PASSABLE},
    process::Command,
    socket_folder,
};

use super::{console_log, error::GuestError};

const FOR_OTHERS: &str = "ssh_config.others";

/// Returns the pattern of all machines' configurations for other programs.
pub fn all_for_others(data: &DataDir) -> PathBuf {
    data.machines().join("*").join(FOR_OTHERS)
}

/// The paths of the files in `machines/<uuid>/`.
#[derive(Clone, Debug)]
pub struct MachineFiles {
    folder: PathBuf,
    /// The ControlMaster's socket.
    control: PathBuf,
    /// The prefix of the folders with the sockets of shares.
    shares: PathBuf,
}

impl MachineFiles {
    pub fn new(data: &DataDir, uuid: &Uuid) -> Self {
        let short = uuid.simple().to_string()[..12].to_string();
        MachineFiles {
            folder: data.machine(uuid),
            control: socket_folder::of_user().join(&short),
            shares: share_folder().join(short),
        }
    }

    /// The files of the machine whose folder it is. `None` if it is none.
    pub fn in_folder(folder: &Path) -> Option<Self> {
        let uuid = Uuid::try_parse(folder.file_name()?.to_str()?).ok()?;
        let machines = folder.parent()?;
        let files = MachineFiles::new(&DataDir::at(machines.parent()?), &uuid);
        (files.folder == folder).then_some(files)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
    pub fn client_key(&self) -> PathBuf {
        self.folder.join("id_ed25519")
    }
    pub fn client_public_key(&self) -> PathBuf {
        self.folder.join("id_ed25519.pub")
    }
    pub fn host_key(&self) -> PathBuf {
        self.folder.join("host_ed25519")
    }
    pub fn host_public_key(&self) -> PathBuf {
        self.folder.join("host_ed25519.pub")
    }
    /// The certificate for its names, with its key.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("certificate.json")
    }
    pub fn known_hosts(&self) -> PathBuf {
        self.folder.join("known_hosts")
    }
    pub fn ssh_config(&self) -> PathBuf {
        self.folder.join("ssh_config")
    }
    /// The configuration of OpenSSH for other programs.
    pub(super) fn for_others(&self) -> PathBuf {
        self.folder.join(FOR_OTHERS)
    }
    pub fn console_log(&self) -> PathBuf {
        self.folder.join("console.log")
    }
    /// The folder in which a copy's disk becomes a box.
    pub fn sealed(&self) -> PathBuf {
        self.folder.join("sealed")
    }
    /// Renames the console log, so that output of the previous boot is not mistaken for this one's.
    pub fn set_console_log_aside(&self) -> Result<(), GuestError> {
        let log = self.console_log();
        #[expect(clippy::disallowed_methods, reason = "nothing depends on a log")]
        match fs::rename(&log, self.folder.join("console.previous.log")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(GuestError::file("rename", log)(error))
            }
            _ => console_log::remove_parts(&log).map_err(GuestError::file("remove", log)),
        }
    }

    /// The folder of the credentials, a file each with the credential's name.
    pub fn credentials(&self) -> PathBuf {
        self.folder.join("credentials")
    }
    pub fn seed_disk(&self) -> PathBuf {
        self.folder.join("seed.img")
    }
    pub fn control_socket(&self) -> &Path {
        &self.control
    }

    /// The socket of a further ControlMaster, for what is too much for the first one (0).
    pub fn nth_control_socket(&self, nth: usize) -> PathBuf {
        match nth {
            0 => self.control.clone(),
            _ => self.control.with_extension(nth.to_string()),
        }
    }

    /// The sockets of all ControlMasters that run.
    pub fn control_sockets(&self) -> Vec<PathBuf> {
        let name = self.control.file_name().unwrap_or_default();
        let is_one = |path: &Path| {
            let further = path.extension().map(|it| it.to_string_lossy());
            path.file_stem() == Some(name)
                && further.is_none_or(|it| it.chars().all(|c| c.is_ascii_digit()))
        };
        let entries = self.control.parent().map(fs::read_dir);
        (entries.into_iter().flatten().flatten().flatten())
            .map(|entry| entry.path())
            .filter(|path| is_one(path))
            .collect()
    }

    /// The file that a process locks while it logs in.
    pub(super) fn login_turn(&self) -> PathBuf {
        self.control.with_extension("login")
    }

    /// The socket of the guest's agent, if libvirt's own path for it would be too long.
    pub fn agent_socket(&self) -> PathBuf {
        self.control.with_extension("agent")
    }

    /// The folder with the socket of the share with that tag. It is short, since the path of a Unix socket
    /// may have at most 107 bytes (unix(7)).
    pub fn share(&self, tag: &str) -> PathBuf {
        let mut path = self.shares_start();
        path.push(tag.trim_start_matches("stead-"));
        path.into()
    }
    /// The prefix of the paths of all share folders.
    pub fn shares_start(&self) -> std::ffi::OsString {
        let mut path = self.shares.clone().into_os_string();
        path.push(".");
        path
    }
    /// The log of the virtiofsd of the share with that tag.
    pub fn share_log(&self, tag: &str) -> PathBuf {
        self.folder.join(format!(
            "virtiofsd-{}.log",
            tag.trim_start_matches("stead-")
        ))
    }
    /// The folder of unison's archives and backups.
    pub fn unison(&self) -> PathBuf {
        self.folder.join("unison")
    }

    /// The folder that records which folders were copied into the guest, a file each.
    pub fn synced(&self) -> PathBuf {
        self.folder.join("synced")
    }

    fn make_folder(&self) -> Result<(), GuestError> {
        // QEMU of qemu:///system must be able to reach the seed in it. The keys have mode 0600 of their
        // own.
        file::open_folder(&self.folder, PASSABLE).map_err(GuestError::file("create", &self.folder))
    }

    /// Whether both key pairs exist and are complete. A power cut may leave a file empty, and somebody may
    /// delete a folder.
    pub fn has_keys(&self) -> bool {
        [self.client_key(), self.host_key()]
            .iter()
            .all(|key| is_pair(key))
    }

    /// Makes the folder, and both key pairs if they are missing or incomplete. A pair is made under another
    /// name and renamed, with the private key last.
    pub fn make_keys(&self, name: &str) -> Result<(), GuestError> {
        self.make_folder()?;
        for (key, comment) in [
            (self.client_key(), format!("stead client of {name}")),
            (self.host_key(), format!("stead host {name}")),
        ] {
            if !is_pair(&key) {
                make_key(&key, &comment)?;
            }
        }
        Ok(())
    }

    /// Records the libvirt that starts the machine, because no other libvirt knows of it.
    pub fn note_runtime(&self, text: &str) -> Result<(), GuestError> {
        self.make_folder()?;
        write_atomically(&self.runtime(), text.as_bytes(), 0o600)
    }

    /// Returns what was recorded last.
    pub fn noted_runtime(&self) -> Option<String> {
        fs::read_to_string(self.runtime()).ok()
    }

    fn runtime(&self) -> PathBuf {
        self.folder.join("runtime.json")
    }

    /// Copies the keys of another machine, which this machine's disk accepts.
    pub fn take_keys(&self, other: &MachineFiles) -> Result<(), GuestError> {
        self.make_folder()?;
        for (from, to, mode) in [
            (
                other.client_public_key(),
                self.client_public_key(),
                file::READABLE,
            ),
            (other.client_key(), self.client_key(), file::PRIVATE),
            (
                other.host_public_key(),
                self.host_public_key(),
                file::READABLE,
            ),
            (other.host_key(), self.host_key(), file::PRIVATE),
        ] {
            match fs::read(&from) {
                // The other machine was never started.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(GuestError::file("copy", from)(error)),
                Ok(content) => {
                    file::ensure(&to, &content, mode).map_err(GuestError::file("write", to))?
                }
            }
        }
        Ok(())
    }

    pub fn read(&self, path: &Path) -> Result<String, GuestError> {
        fs::read_to_string(path).map_err(GuestError::file("read", path))
    }

    /// Removes the folder and the control sockets, if they exist.
    pub fn remove(&self) -> Result<(), GuestError> {
        for socket in self.control_sockets() {
            let _ = fs::remove_file(socket);
        }
        let _ = fs::remove_file(self.login_turn());
        self.remove_shares();
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(GuestError::file("remove", &self.folder)),
        }
    }
}

impl MachineFiles {
    /// Removes the sockets of the machine's shares.
    fn remove_shares(&self) {
        let Some((folder, name)) = self.shares.parent().zip(self.shares.file_name()) else {
            return;
        };
        let start = format!("{}.", name.to_string_lossy());
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&start) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Whether both files of a key pair exist and look complete.
fn is_pair(private: &Path) -> bool {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let public = PathBuf::from(format!("{}.pub", private.to_string_lossy()));
    let (private, public) = (read(private), read(&public));
    private.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n")
        && private
            .trim_end()
            .ends_with("-----END OPENSSH PRIVATE KEY-----")
        && public.starts_with("ssh-ed25519 ")
}

fn make_key(path: &Path, comment: &str) -> Result<(), GuestError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let scratch =
        tempfile::tempdir_in(folder).map_err(GuestError::file("create a folder in", folder))?;
    let key = scratch.path().join("key");
    Command::new("ssh-keygen", "openssh-client")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(&key)
        .succeed()?;
    let public = PathBuf::from(format!("{}.pub", path.to_string_lossy()));
    file::rename(&key.with_extension("pub"), &public)
        .map_err(GuestError::file("write", &public))?;
    file::rename(&key, path).map_err(GuestError::file("write", path))
}

/// Writes a file by way of another name, so that a reader sees either the old file or the new one. Writes
/// nothing if the file has this content already.
pub(super) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), GuestError> {
    file::ensure(path, content, mode).map_err(GuestError::file("write", path))
}

/// The folder of the sockets of shares. QEMU of qemu:///system runs as a user of its own, who must be able
/// to reach them, but not root's other sockets.
fn share_folder() -> PathBuf {
    match nix::unistd::geteuid().is_root() {
        true => PathBuf::from("/run/stead"),
        false => socket_folder::of_user(),
    }
}

/// Makes the folder of the control sockets.
///
/// # Errors
/// If the folder belongs to another user, or others can enter it.
pub(super) fn make_control_folder(socket: &Path) -> Result<(), GuestError> {
    let Some(folder) = socket.parent() else {
        return Ok(());
    };
    Ok(socket_folder::make(folder, "control sockets")?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Keys that a power cut or a clean-up has damaged are made again; complete ones are kept.
    #[test]
    fn keys_that_are_not_whole_are_made_anew() {
        let data = tempfile::tempdir().unwrap();
        let files = MachineFiles::new(&DataDir::at(data.path()), &Uuid::from_u128(1));
        assert!(!files.has_keys());
        files.make_keys("web").unwrap();
        assert!(files.has_keys());
        let host_key = fs::read(files.host_key()).unwrap();
        let ways: [fn(&Path); 3] = [
            |path| fs::write(path, "").unwrap(),
            |path| fs::remove_file(path).unwrap(),
            |path| {
                let half = fs::read(path).unwrap();
                fs::write(path, &half[..half.len() / 2]).unwrap();
            },
        ];
        for damage in ways {
            damage(&files.client_key());
            assert!(!files.has_keys());
            files.make_keys("web").unwrap();
            assert!(files.has_keys());
        }
        fs::write(files.client_public_key(), "").unwrap();
        assert!(!files.has_keys());
        files.make_keys("web").unwrap();
        assert!(files.has_keys());
        assert_eq!(fs::read(files.host_key()).unwrap(), host_key);
    }

    #[test]
    fn a_folder_that_is_not_ours_is_in_the_way() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("stead");
        make_control_folder(&folder.join("socket")).unwrap();
        make_control_folder(&folder.join("socket")).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let error = make_control_folder(&folder.join("socket")).unwrap_err();
        assert!(error.to_string().contains("755"), "{error}");
        // Another user's folder: for root, one of nobody's; for others, one of root's.
        let theirs = if nix::unistd::geteuid().is_root() {
            nix::unistd::chown(&folder, Some(65_534.into()), None).unwrap();
            folder
        } else {
            PathBuf::from("/usr")
        };
        use miette::Diagnostic;
        let error = make_control_folder(&theirs.join("socket")).unwrap_err();
        let help = error.help().unwrap().to_string();
        assert!(
            help.contains("sudo rm -r") && help.contains("XDG_RUNTIME_DIR"),
            "{help}"
        );
    }
}
