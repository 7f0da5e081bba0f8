//! The digest of everything that goes into a provisioner: it runs again when this changes.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::machinefile::{Provisioner, ProvisionerKind, ScriptSource};

/// sha256 in hex over the provisioner's settings and the content of the files it names.
///
/// # Errors
/// With the path that cannot be read.
pub fn digest(provisioner: &Provisioner) -> Result<String, (PathBuf, io::Error)> {
    let mut hash = Sha256::new();
    // Settings without the host's paths: the same project elsewhere has the same digest.
    let settings = match &provisioner.kind {
        ProvisionerKind::Shell {
            source,
            args,
            env,
            privileged,
            user,
        } => {
            match source {
                ScriptSource::Inline(text) => hash.update(text.as_bytes()),
                ScriptSource::Path(path) => content(&mut hash, path)?,
            }
            serde_json::json!(["shell", args, env, privileged, user])
        }
        ProvisionerKind::File {
            from,
            to,
            mode,
            owner,
        } => {
            tree(&mut hash, from, Path::new(""))?;
            serde_json::json!(["file", to, mode, owner])
        }
    };
    hash.update([0]);
    hash.update(settings.to_string().as_bytes());
    Ok(hex(&hash.finalize()))
}

/// sha256 in hex of one file.
pub fn digest_file(path: &Path) -> Result<String, (PathBuf, io::Error)> {
    let mut hash = Sha256::new();
    content(&mut hash, path)?;
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn content(hash: &mut Sha256, path: &Path) -> Result<(), (PathBuf, io::Error)> {
    let failed = |error| (path.to_path_buf(), error);
    let mut file = File::open(path).map_err(failed)?;
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
    // So that two files in a row cannot be taken for two others.
    hash.update(length.to_le_bytes());
    Ok(())
}

fn tree(hash: &mut Sha256, path: &Path, name: &Path) -> Result<(), (PathBuf, io::Error)> {
    let failed = |error| (path.to_path_buf(), error);
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    hash.update(name.as_os_str().as_encoded_bytes());
    hash.update([0]);
    if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(failed)?;
        hash.update([b'l']);
        hash.update(target.as_os_str().as_encoded_bytes());
    } else if metadata.is_dir() {
        hash.update([b'd']);
        let mut entries: Vec<_> = fs::read_dir(path)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            tree(hash, &entry.path(), &name.join(entry.file_name()))?;
        }
    } else {
        hash.update([b'f', u8::from(metadata.permissions().mode() & 0o111 != 0)]);
        content(hash, path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::machinefile::RunPolicy;

    fn shell(path: &Path, argument: &str) -> Provisioner {
        Provisioner {
            name: "app".into(),
            run: RunPolicy::Once,
            kind: ProvisionerKind::Shell {
                source: ScriptSource::Path(path.into()),
                args: vec![argument.into()],
                env: BTreeMap::new(),
                privileged: true,
                user: None,
            },
        }
    }

    #[test]
    fn an_edit_of_script_or_arguments_changes_it_and_a_move_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let one = folder.path().join("one.sh");
        let two = folder.path().join("two.sh");
        fs::write(&one, "true\n").unwrap();
        fs::write(&two, "true\n").unwrap();
        let before = digest(&shell(&one, "a")).unwrap();
        assert_eq!(before, digest(&shell(&two, "a")).unwrap());
        assert_ne!(before, digest(&shell(&one, "b")).unwrap());
        fs::write(&one, "false\n").unwrap();
        assert_ne!(before, digest(&shell(&one, "a")).unwrap());
    }
}
