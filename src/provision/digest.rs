//! The digest of everything that goes into a provisioner. When it changes, the provisioner is out of date.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    host::{digest::hex, open},
    machinefile::{Invocation, Playbook, Provisioner, ProvisionerKind, ScriptSource, Text},
};

use super::ansible;

/// Returns the sha256, in hex, of the provisioner's settings and of the content of its files. With
/// Ansible, the inventory of its machines is part of it too
/// ([`Inventory::input`](super::Inventory::input)).
///
/// # Errors
/// The path that cannot be read, and why.
pub fn digest(
    provisioner: &Provisioner,
    inventory: &serde_json::Value,
) -> Result<String, (PathBuf, io::Error)> {
    let mut hash = Sha256::new();
    // The settings have no paths of the host, so the same project in another folder has the same digest.
    let settings = match &provisioner.kind {
        ProvisionerKind::Shell(shell) => {
            match &shell.source {
                ScriptSource::Inline(Text(text)) => hash.update(text.as_bytes()),
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
    Ok(hex(hash.finalize()))
}

/// Returns the sha256 of one file, in hex.
pub fn digest_file(path: &Path) -> Result<String, (PathBuf, io::Error)> {
    let mut hash = Sha256::new();
    content(&mut hash, path)?;
    Ok(hex(hash.finalize()))
}

fn content(hash: &mut Sha256, path: &Path) -> Result<(), (PathBuf, io::Error)> {
    let failed = |error| (path.to_path_buf(), error);
    let mut file = open::file(path).map_err(failed)?;
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

fn playbook_files(hash: &mut Sha256, playbook: &Playbook) -> Result<(), (PathBuf, io::Error)> {
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
    hash: &mut Sha256,
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
