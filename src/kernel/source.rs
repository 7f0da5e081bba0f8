//! Kernels of this host: where they are, and a fingerprint of their current files.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::host::digest::hex;

use super::{
    error::KernelError,
    tree::{KernelFiles, Modules, files_of, locate},
};

/// Returns a text that changes whenever a file of the kernel does. It is made of names, sizes, inodes and times
/// of change, because a build is too large to be hashed every time.
pub fn fingerprint(found: &KernelFiles) -> Result<String, KernelError> {
    let mut hash = Sha256::new();
    let mut add = |path: &Path| -> Result<(), KernelError> {
        let metadata = fs::metadata(path).map_err(KernelError::io("read", path))?;
        hash.update(path.as_os_str().as_encoded_bytes());
        for number in [
            metadata.ino(),
            metadata.len(),
            metadata.mtime().unsigned_abs(),
            metadata.mtime_nsec().unsigned_abs(),
        ] {
            hash.update(number.to_le_bytes());
        }
        Ok(())
    };
    add(&found.image_path)?;
    for path in [&found.config, &found.system_map].into_iter().flatten() {
        add(path)?;
    }
    match &found.modules {
        Some(Modules::Installed(tree)) => {
            for file in files_of(tree)? {
                add(&file.path)?;
            }
        }
        Some(Modules::Build(build)) => {
            for file in super::tree::built(build)? {
                add(&file.path)?;
            }
        }
        None => {}
    }
    Ok(format!("path {}", hex(hash.finalize())))
}

/// Finds the kernel that this host runs.
///
/// # Errors
/// If there is no image of that release, or if only root can read it.
pub fn running(arch: &str) -> Result<KernelFiles, KernelError> {
    let release = running_release()?;
    let places = [
        format!("/boot/vmlinuz-{release}"),
        format!("/lib/modules/{release}/vmlinuz"),
        format!("/usr/lib/modules/{release}/vmlinuz"),
        format!("/boot/kernel-{release}"),
    ];
    let Some(image) = places.iter().map(PathBuf::from).find(|path| path.exists()) else {
        return Err(KernelError::NoHostImage {
            release,
            places: places.join(", "),
        });
    };
    let tree = PathBuf::from(format!("/lib/modules/{release}"));
    locate(&image, tree.is_dir().then_some(tree.as_path()), None, arch)
}

fn running_release() -> Result<String, KernelError> {
    let path = "/proc/sys/kernel/osrelease";
    Ok(fs::read_to_string(path)
        .map_err(KernelError::io("read", path))?
        .trim()
        .to_string())
}
