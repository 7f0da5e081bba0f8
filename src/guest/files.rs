//! The folder of one machine: what OpenSSH and QEMU want as files.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::host::{file, paths::DataDir, process::Command};

use super::{console_log, error::GuestError};

/// Names in `machines/<uuid>/`.
#[derive(Clone, Debug)]
pub struct MachineFiles {
    folder: PathBuf,
    /// The ControlMaster's socket.
    control: PathBuf,
    /// The start of the names of folders with the sockets of shares.
    shares: PathBuf,
}

impl MachineFiles {
    pub fn new(data: &DataDir, uuid: &Uuid) -> Self {
        let short = uuid.simple().to_string()[..12].to_string();
        MachineFiles {
            folder: data.machine(uuid),
            control: control_folder().join(&short),
            shares: share_folder().join(short),
        }
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
    pub fn known_hosts(&self) -> PathBuf {
        self.folder.join("known_hosts")
    }
    pub fn ssh_config(&self) -> PathBuf {
        self.folder.join("ssh_config")
    }
    pub fn console_log(&self) -> PathBuf {
        self.folder.join("console.log")
    }
    /// Where a copy's disk becomes a box.
    pub fn sealed(&self) -> PathBuf {
        self.folder.join("sealed")
    }
    /// Keeps the console of the boot before apart, so that nothing old is taken for new.
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

    /// Files of the credentials, named as they are.
    pub fn credentials(&self) -> PathBuf {
        self.folder.join("credentials")
    }
    pub fn seed_disk(&self) -> PathBuf {
        self.folder.join("seed.img")
    }
    pub fn control_socket(&self) -> &Path {
        &self.control
    }

    /// The folder of the socket of the share with that tag: short, since the path of a Unix socket
    /// ends at 107 bytes (unix(7)).
    pub fn share(&self, tag: &str) -> PathBuf {
        let mut path = self.shares_start();
        path.push(tag.trim_start_matches("stead-"));
        path.into()
    }
    /// What the paths of all of them begin with.
    pub fn shares_start(&self) -> std::ffi::OsString {
        let mut path = self.shares.clone().into_os_string();
        path.push(".");
        path
    }
    /// What virtiofsd said of the share with that tag.
    pub fn share_log(&self, tag: &str) -> PathBuf {
        self.folder.join(format!(
            "virtiofsd-{}.log",
            tag.trim_start_matches("stead-")
        ))
    }
    /// What unison remembers, and keeps of what it replaces.
    pub fn unison(&self) -> PathBuf {
        self.folder.join("unison")
    }

    fn make_folder(&self) -> Result<(), GuestError> {
        // QEMU of qemu:///system must pass through to the seed; the keys are 0600 by themselves.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&self.folder)
            .map_err(GuestError::file("create", &self.folder))
    }

    /// Makes the folder and both key pairs where they are missing. A pair is made under another
    /// name and renamed, private half last, so what is there is whole.
    pub fn make_keys(&self, name: &str) -> Result<(), GuestError> {
        self.make_folder()?;
        for (key, comment) in [
            (self.client_key(), format!("stead client of {name}")),
            (self.host_key(), format!("stead host {name}")),
        ] {
            if !key.exists() {
                make_key(&key, &comment)?;
            }
        }
        Ok(())
    }

    /// Copies the keys of another machine, which this one's disk knows.
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
                // It was never started.
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

    /// Removes the folder and the control socket. That they are gone already is no error.
    pub fn remove(&self) -> Result<(), GuestError> {
        let _ = fs::remove_file(&self.control);
        self.remove_shares();
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(GuestError::file("remove", &self.folder)),
        }
    }
}

impl MachineFiles {
    /// Sockets of shares that no machine uses any more.
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

fn make_key(path: &Path, comment: &str) -> Result<(), GuestError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let scratch =
        tempfile::tempdir_in(folder).map_err(GuestError::file("create a folder in", folder))?;
    let key = scratch.path().join("key");
    Command::new("ssh-keygen", "openssh-client")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(&key)
        .succeed()?;
    let public = PathBuf::from(format!("{}.pub", path.display()));
    file::rename(&key.with_extension("pub"), &public)
        .map_err(GuestError::file("write", &public))?;
    file::rename(&key, path).map_err(GuestError::file("write", path))
}

/// Writes a file by way of another name, so that a reader sees the old or the new whole.
/// Nothing is written when the content is there already.
pub(super) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), GuestError> {
    file::ensure(path, content, mode).map_err(GuestError::file("write", path))
}

/// Where control sockets are: short, since a Unix socket's path ends at 107 bytes (unix(7)), and
/// OpenSSH adds 17 of its own while it binds one.
fn control_folder() -> PathBuf {
    let uid = nix::unistd::geteuid();
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(dir) if dir.is_absolute() && dir.as_os_str().len() <= 60 => dir.join("stead"),
        // No login manager, or a long path.
        _ => PathBuf::from(format!("/tmp/stead-{uid}")),
    }
}

/// Where the sockets of shares are. QEMU of qemu:///system has a user of its own, who has to come
/// to them, and not to root's other sockets.
fn share_folder() -> PathBuf {
    match nix::unistd::geteuid().is_root() {
        true => PathBuf::from("/run/stead"),
        false => control_folder(),
    }
}

/// Makes the folder of the control sockets, and refuses one that somebody else could reach into.
pub fn make_control_folder(socket: &Path) -> Result<(), GuestError> {
    let Some(folder) = socket.parent() else {
        return Ok(());
    };
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(GuestError::file("create", folder)(error));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(folder).map_err(GuestError::file("read", folder))?;
    let ours = metadata.is_dir()
        && metadata.uid() == nix::unistd::geteuid().as_raw()
        && metadata.mode() & 0o077 == 0;
    if ours {
        Ok(())
    } else {
        Err(GuestError::File {
            doing: "trust",
            path: folder.to_path_buf(),
            source: std::io::Error::other(
                "it must be a folder of your own that nobody else can enter (0700)",
            ),
        })
    }
}
