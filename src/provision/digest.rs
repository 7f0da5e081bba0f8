//! The digest of everything that goes into a provisioner. When it changes, the provisioner is out of date.

use std::{
    fs::{self, Metadata},
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

use crate::{
    host::{digest::hex, file, open, paths::DataDir},
    machinefile::{Invocation, Playbook, Provisioner, ProvisionerKind, ScriptSource, Secret},
};

use super::ansible;

/// Inputs of fewer bytes are hashed each time, which takes milliseconds.
const LARGE: u64 = 1 << 20;

/// How long files must have been unchanged before a digest of them is remembered. A later change within one tick of
/// the file system's clock would not change their stamps. Ticks are up to 10 ms, on FAT 2 s.
const SETTLED: Duration = Duration::from_secs(3);

/// After this time a digest is computed again.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The digests of provisioners. Those of large inputs are remembered by the stamps of their files, so that a `status`
/// does not read gigabytes.
#[derive(Clone, Debug)]
pub struct Digests {
    folder: PathBuf,
    large: u64,
    settled: Duration,
}

impl Digests {
    pub fn open(data: &DataDir) -> Self {
        Digests {
            folder: data.digests(),
            large: LARGE,
            settled: SETTLED,
        }
    }

    /// Returns the sha256, in hex, of the provisioner's settings and of the content of its files. With
    /// Ansible, the inventory of its machines is part of it too
    /// ([`Inventory::input`](super::Inventory::input)).
    ///
    /// # Errors
    /// The path that cannot be read, and why.
    pub fn of(
        &self,
        provisioner: &Provisioner,
        inventory: &serde_json::Value,
    ) -> Result<String, (PathBuf, io::Error)> {
        let stamps = hash(Inputs::of(By::Stamp), provisioner, inventory)?;
        if stamps.bytes < self.large {
            return digest(provisioner, inventory);
        }
        let is_settled = stamps.changed + self.settled < SystemTime::now();
        let key = stamps.finish();
        let path = self.folder.join(&key);
        if let Some(known) = self.known(&path) {
            return Ok(known);
        }
        let digest = digest(provisioner, inventory)?;
        let unchanged = hash(Inputs::of(By::Stamp), provisioner, inventory)?.finish() == key;
        if is_settled && unchanged {
            // If it cannot be written, the files are hashed again next time.
            let _ = self.remember(&path, &digest);
        }
        Ok(digest)
    }

    fn known(&self, path: &Path) -> Option<String> {
        let text = fs::read_to_string(path).ok()?;
        let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then_some(text)
    }

    fn remember(&self, path: &Path, digest: &str) -> io::Result<()> {
        file::create_folder(&self.folder, 0o700)?;
        let old = SystemTime::now() - KEPT;
        for entry in fs::read_dir(&self.folder)?.flatten() {
            if entry.metadata()?.modified()? < old {
                let _ = fs::remove_file(entry.path());
            }
        }
        file::replace(path, digest.as_bytes(), file::PRIVATE)
    }
}

/// What is known of the content of files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// All of it.
    Content,
    /// Device, inode, size and times. The time of the last change of a file's state (ctime) cannot be set by
    /// programs.
    Stamp,
}

/// A hash of a provisioner's inputs.
struct Inputs {
    hash: Sha256,
    by: By,
    /// The size of all files.
    bytes: u64,
    /// When a file was changed last. Only known by stamps.
    changed: SystemTime,
}

impl Inputs {
    fn of(by: By) -> Self {
        let mut hash = Sha256::new();
        if by == By::Stamp {
            // Another release may compute digests in another way.
            hash.update(env!("CARGO_PKG_VERSION"));
        }
        Inputs {
            hash,
            by,
            bytes: 0,
            changed: SystemTime::UNIX_EPOCH,
        }
    }

    fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.hash.update(bytes);
    }

    fn stamp(&mut self, metadata: &Metadata) {
        for number in [metadata.dev(), metadata.ino(), metadata.len()] {
            self.update(number.to_le_bytes());
        }
        let (seconds, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
        for number in [
            metadata.mtime(),
            metadata.mtime_nsec(),
            seconds,
            nanoseconds,
        ] {
            self.update(number.to_le_bytes());
        }
        self.bytes += metadata.len();
        let since = Duration::new(
            u64::try_from(seconds).unwrap_or(0),
            u32::try_from(nanoseconds).unwrap_or(0),
        );
        self.changed = self.changed.max(SystemTime::UNIX_EPOCH + since);
    }

    fn finish(self) -> String {
        hex(self.hash.finalize())
    }
}

/// Like [`Digests::of`], always by content.
fn digest(
    provisioner: &Provisioner,
    inventory: &serde_json::Value,
) -> Result<String, (PathBuf, io::Error)> {
    Ok(hash(Inputs::of(By::Content), provisioner, inventory)?.finish())
}

fn hash(
    mut hash: Inputs,
    provisioner: &Provisioner,
    inventory: &serde_json::Value,
) -> Result<Inputs, (PathBuf, io::Error)> {
    // The settings have no paths of the host, so the same project in another folder has the same digest.
    let settings = match &provisioner.kind {
        ProvisionerKind::Shell(shell) => {
            match &shell.source {
                ScriptSource::Inline(Secret(text)) => hash.update(text.as_bytes()),
                ScriptSource::Path(path) => content(&mut hash, path)?,
            }
            let Invocation {
                args,
                env,
                interpreter,
                // Hidden output and the time limit make no difference to the machine.
                sensitive: _,
                timeout: _,
            } = &shell.run;
            let mut settings =
                serde_json::json!(["shell", args, env, shell.privileged, shell.user]);
            // Added only if they are set, so that the digests of older provisioners stay valid.
            if let Some(list) = settings.as_array_mut()
                && (interpreter.is_some() || shell.workdir.is_some())
            {
                list.push(serde_json::json!([interpreter, shell.workdir]));
            }
            settings
        }
        ProvisionerKind::File {
            from,
            to,
            mode,
            owner,
        } => {
            tree(&mut hash, from, Path::new(""), mode.is_none())?;
            serde_json::json!(["file", to, mode, owner])
        }
        ProvisionerKind::Ansible { playbook } => {
            playbook_files(&mut hash, playbook)?;
            serde_json::json!(["ansible", ansible::settings(playbook), inventory])
        }
        ProvisionerKind::AnsibleLocal { playbook, install } => {
            playbook_files(&mut hash, playbook)?;
            let settings = ansible::settings(playbook);
            serde_json::json!(["ansible-local", settings, install, inventory])
        }
    };
    hash.update([0]);
    hash.update(settings.to_string().as_bytes());
    Ok(hash)
}

/// Returns the sha256 of one file, in hex.
pub fn digest_file(path: &Path) -> Result<String, (PathBuf, io::Error)> {
    let mut hash = Inputs::of(By::Content);
    content(&mut hash, path)?;
    Ok(hash.finish())
}

fn content(hash: &mut Inputs, path: &Path) -> Result<(), (PathBuf, io::Error)> {
    let failed = |error| (path.to_path_buf(), error);
    let mut file = open::file(path).map_err(failed)?;
    if hash.by == By::Stamp {
        let metadata = file.metadata().map_err(failed)?;
        hash.stamp(&metadata);
        return Ok(());
    }
    let mut buffer = vec![0u8; 64 * 1024];
    let mut length = 0u64;
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            n => {
                length += n as u64;
                hash.update(&buffer[..n]);
            }
        }
    }
    // So that two files in a row cannot have the digest of two others.
    hash.update(length.to_le_bytes());
    Ok(())
}

fn playbook_files(hash: &mut Inputs, playbook: &Playbook) -> Result<(), (PathBuf, io::Error)> {
    let files = ansible::files(playbook)?;
    // Files outside the project are not read, but another target changes the digest.
    for (name, target) in files.outside {
        for path in [name, target] {
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update([0]);
        }
    }
    for (name, path) in files.inside {
        hash.update(name.as_os_str().as_encoded_bytes());
        hash.update([0]);
        let metadata = fs::metadata(&path).map_err(|error| (path.clone(), error))?;
        hash.update([u8::from(metadata.permissions().mode() & 0o111 != 0)]);
        content(hash, &path)?;
    }
    Ok(())
}

/// Hashes a file, or a folder with its content. With `modes`, the permissions of files are part of it;
/// those of folders always are.
fn tree(
    hash: &mut Inputs,
    path: &Path,
    name: &Path,
    modes: bool,
) -> Result<(), (PathBuf, io::Error)> {
    let failed = |error| (path.to_path_buf(), error);
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    let mode = (metadata.permissions().mode() & 0o7777).to_le_bytes();
    hash.update(name.as_os_str().as_encoded_bytes());
    hash.update([0]);
    if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(failed)?;
        hash.update([b'l']);
        hash.update(target.as_os_str().as_encoded_bytes());
        hash.update([0]);
    } else if metadata.is_dir() {
        hash.update([b'd']);
        hash.update(mode);
        let mut entries: Vec<_> = fs::read_dir(path)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            tree(hash, &entry.path(), &name.join(entry.file_name()), modes)?;
        }
    } else if metadata.is_file() {
        hash.update([b'f']);
        if modes {
            hash.update(mode);
        }
        content(hash, path)?;
    } else {
        // A pipe or a socket has no content, and reading one would block.
        hash.update([b's']);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinefile::{RunPolicy, Shell};

    fn shell(path: &Path, argument: &str) -> Provisioner {
        Provisioner {
            name: "app".into(),
            run: RunPolicy::Once,
            kind: ProvisionerKind::Shell(Shell {
                source: ScriptSource::Path(path.into()),
                run: Invocation {
                    args: vec![argument.into()],
                    ..Invocation::default()
                },
                workdir: None,
                privileged: true,
                user: None,
                label: String::new(),
            }),
        }
    }

    #[test]
    fn an_edit_of_script_or_arguments_changes_it_and_a_move_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let one = folder.path().join("one.sh");
        let two = folder.path().join("two.sh");
        fs::write(&one, "true\n").unwrap();
        fs::write(&two, "true\n").unwrap();
        let digest = |it: &Provisioner| digest(it, &serde_json::Value::Null).unwrap();
        let before = digest(&shell(&one, "a"));
        assert_eq!(before, digest(&shell(&two, "a")));
        assert_ne!(before, digest(&shell(&one, "b")));
        let mut elsewhere = shell(&one, "a");
        if let ProvisionerKind::Shell(shell) = &mut elsewhere.kind {
            shell.workdir = Some("/srv".into());
        }
        assert_ne!(before, digest(&elsewhere));
        fs::write(&one, "false\n").unwrap();
        assert_ne!(before, digest(&shell(&one, "a")));
    }

    /// A wrong digest in the place of a remembered one shows whether the files were read.
    #[test]
    fn large_inputs_are_read_once_until_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::at(folder.path().join("data"));
        let script = folder.path().join("setup.sh");
        let write = |c: char| fs::write(&script, c.to_string().repeat(2_000)).unwrap();
        write('a');
        let of = |digests: &Digests| {
            let digest = digests.of(&shell(&script, "x"), &serde_json::Value::Null);
            digest.unwrap()
        };
        let all = Digests {
            large: 1_000,
            settled: Duration::ZERO,
            ..Digests::open(&data)
        };
        let by_content = of(&Digests::open(&data));
        assert!(!data.digests().exists(), "a small input is not remembered");
        let recent = Digests {
            settled: Duration::from_secs(60),
            ..all.clone()
        };
        assert_eq!(of(&recent), by_content);
        assert!(!data.digests().exists(), "it may change within this tick");
        assert_eq!(of(&all), by_content);
        let known: Vec<_> = fs::read_dir(data.digests()).unwrap().flatten().collect();
        assert_eq!(known.len(), 1);
        let other = "0".repeat(64);
        fs::write(known[0].path(), &other).unwrap();
        assert_eq!(of(&all), other);
        // What is no digest is not taken for one.
        fs::write(known[0].path(), "").unwrap();
        assert_eq!(of(&all), by_content);
        fs::write(known[0].path(), &other).unwrap();
        write('b');
        let changed = of(&all);
        assert!(changed != by_content && changed != other);
        // Its length and time are as before, and its content is not.
        write('a');
        let before = fs::metadata(&script).unwrap().modified().unwrap();
        assert_eq!(of(&all), by_content);
        write('c');
        let file = fs::File::options().append(true).open(&script).unwrap();
        file.set_modified(before).unwrap();
        assert!(![by_content, changed, other].contains(&of(&all)));
    }

    #[test]
    fn a_playbook_is_its_files_settings_and_inventory() {
        use crate::provision::ansible::files::tests::{playbook, tree};
        let files = ["site.yml", "roles/web/tasks/main.yml", "README"];
        let folder = tree(&files);
        let of = |root: &Path, change: &dyn Fn(&mut Playbook), inventory: u32| {
            let mut playbook = playbook(root, "site.yml");
            change(&mut playbook);
            let provisioner = Provisioner {
                name: "app".into(),
                run: RunPolicy::Once,
                kind: ProvisionerKind::Ansible {
                    playbook: Box::new(playbook),
                },
            };
            digest(&provisioner, &inventory.into()).unwrap()
        };
        let before = of(folder.path(), &|_| {}, 1);
        // The same project in another folder, and files that Ansible does not read.
        assert_eq!(before, of(tree(&files).path(), &|_| {}, 1));
        fs::write(folder.path().join("README"), "other").unwrap();
        assert_eq!(before, of(folder.path(), &|_| {}, 1));
        assert_ne!(before, of(folder.path(), &|it| it.tags.push("x".into()), 1));
        assert_ne!(before, of(folder.path(), &|it| it.r#become = true, 1));
        assert_ne!(
            before,
            of(
                folder.path(),
                &|it| {
                    it.vars.0.insert("a".into(), 1.into());
                },
                1
            )
        );
        assert_ne!(before, of(folder.path(), &|_| {}, 2));
        fs::write(folder.path().join("roles/web/tasks/main.yml"), "[]").unwrap();
        assert_ne!(before, of(folder.path(), &|_| {}, 1));
    }

    #[test]
    fn a_folder_is_what_is_in_it_and_who_may_use_it() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("conf");
        fs::create_dir(&from).unwrap();
        let file = from.join("a");
        fs::write(&file, "a").unwrap();
        let with = |mode| {
            let provisioner = Provisioner {
                name: "conf".into(),
                run: RunPolicy::Once,
                kind: ProvisionerKind::File {
                    from: from.clone(),
                    to: "/etc/conf".into(),
                    mode,
                    owner: None,
                },
            };
            digest(&provisioner, &serde_json::Value::Null).unwrap()
        };
        let permit = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        permit(0o644);
        let (plain, given) = (with(None), with(Some(0o600)));
        permit(0o640);
        assert_ne!(plain, with(None));
        // The Machinefile sets the mode, so the file's own does not matter.
        assert_eq!(given, with(Some(0o600)));
        permit(0o644);
        assert_eq!(plain, with(None));
        std::os::unix::fs::symlink("a", from.join("b")).unwrap();
        let linked = with(None);
        assert_ne!(plain, linked);
        // Nobody writes to the pipe; hashing must not wait for that.
        nix::unistd::mkfifo(&from.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_ne!(linked, with(None));
    }
}
