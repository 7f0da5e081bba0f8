//! Kernels of this host: where they are, and a key that identifies their current files.

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

/// Returns a key that changes whenever a file of the kernel does. It is made of names, sizes, inodes and times
/// of change, because a build is too large to be hashed every time.
pub fn found_key(found: &KernelFiles) -> Result<String, KernelError> {
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

/// Returns the distribution and version that the name of a box contains: `debian/12`, `debian-12-cloud`, `ubuntu/24.04`.
pub fn distribution_in(name: &str) -> Option<(String, String)> {
    const KNOWN: [&str; 7] = [
        "debian",
        "ubuntu",
        "fedora",
        "almalinux",
        "rocky",
        "centos",
        "opensuse",
    ];
    let start = name.rsplit('/').next().unwrap_or(name);
    let of = |text: &str| {
        KNOWN.iter().find_map(|id| {
            let rest = text
                .strip_prefix(id)?
                .trim_start_matches(['-', '/', ':', '_']);
            let end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let version = rest[..end].trim_end_matches('.');
            (!version.is_empty()).then(|| ((*id).to_string(), version.to_string()))
        })
    };
    of(name).or_else(|| of(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_boxes_say_their_distribution() {
        let is = |id: &str, version: &str| Some((id.to_string(), version.to_string()));
        assert_eq!(distribution_in("debian/12"), is("debian", "12"));
        assert_eq!(distribution_in("debian-12-cloud"), is("debian", "12"));
        assert_eq!(distribution_in("ubuntu/24.04"), is("ubuntu", "24.04"));
        assert_eq!(distribution_in("acme/debian-12"), is("debian", "12"));
        assert_eq!(distribution_in("debian"), None);
        assert_eq!(distribution_in("shop-base"), None);
    }
}
