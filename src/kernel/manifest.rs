//! The manifest of a kernel in the store: its fields, and what is checked when one is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    host::names::{check_file_name, check_name, check_release},
    packages::PinnedPackage,
    store::FileEntry,
};

use super::{config::Presence, error::KernelError};

/// The version of the manifest that this stead writes and reads.
pub(super) const FORMAT_VERSION: u32 = 1;

/// The description of a kernel in the store. The sha256 of its bytes identifies the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelManifest {
    pub format_version: u32,
    /// The name of the package or capture, otherwise the release.
    pub name: String,
    /// As `uname -r` prints it.
    pub release: String,
    /// Release, builder and date, from the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub banner: Option<String>,
    /// As `uname -m` prints it.
    pub arch: String,
    pub from: Provenance,
    pub image: FileEntry,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<FileEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_map: Option<FileEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<ModuleTree>,
    /// Presence of the options that src/kernel/check.rs checks.
    pub options: BTreeMap<String, Presence>,
    /// Drivers that the initramfs loads, by group (`base`, a file system).
    pub drivers: BTreeMap<String, Drivers>,
    /// The facts of the captured host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<FileEntry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Provenance {
    /// A file or a build on this host.
    Path {},
    Package(PinnedPackage),
    /// The kernel that this host runs.
    Host {},
    /// Another host, with its name.
    Capture {
        host: String,
    },
}

/// How the guest gets all of the kernel's modules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ModuleTree {
    /// A squashfs, as a read-only disk.
    Disk(FileEntry),
    /// An archive in the initramfs, for a kernel that cannot read a squashfs.
    Memory(FileEntry),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drivers {
    /// A part of the initramfs; `None` if no driver has to be loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<FileEntry>,
    /// Drivers that are neither built in nor available as a module.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// The role of a file in its kernel; it is part of the file's name in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFileRole {
    /// Loaded by QEMU, as is `ModulesDisk`.
    Image,
    ModulesDisk,
    /// Read only by stead.
    Other,
}

impl KernelManifest {
    /// Reads and checks a manifest. Errors name it `source`.
    pub fn parse(bytes: &[u8], source: &str) -> Result<Self, KernelError> {
        let manifest = Self::kept(bytes, source)?;
        (manifest.check_words()).map_err(|message| KernelError::Manifest {
            source_name: source.to_string(),
            message,
        })?;
        Ok(manifest)
    }

    /// Like [`Self::parse`], for a manifest in the store: a kernel with an old name must still be listed and
    /// removed.
    pub fn kept(bytes: &[u8], source: &str) -> Result<Self, KernelError> {
        let bad = |message: String| KernelError::Manifest {
            source_name: source.to_string(),
            message,
        };
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let version: Version =
            serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        if version.format_version != FORMAT_VERSION {
            return Err(bad(format!(
                "its format_version is {}, but this version of stead reads {FORMAT_VERSION}",
                version.format_version
            )));
        }
        let manifest: KernelManifest =
            serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        manifest.check().map_err(bad)?;
        Ok(manifest)
    }

    fn check_words(&self) -> Result<(), String> {
        check_name("name", &self.name)?;
        check_name("architecture", &self.arch)?;
        for (entry, _) in self.files() {
            check_file_name(&entry.name)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        check_release(&self.release)?;
        for group in self.drivers.keys() {
            if !group.chars().all(|c| c.is_ascii_alphanumeric()) || group.is_empty() {
                return Err(format!("{group:?} is not a group of drivers"));
            }
        }
        for (entry, _) in self.files() {
            entry.check_digest()?;
        }
        Ok(())
    }

    /// Returns every file of the kernel with its role.
    pub fn files(&self) -> Vec<(&FileEntry, KernelFileRole)> {
        let mut files = vec![(&self.image, KernelFileRole::Image)];
        let others = [&self.config, &self.system_map, &self.facts];
        files.extend(
            others
                .into_iter()
                .flatten()
                .map(|it| (it, KernelFileRole::Other)),
        );
        match &self.modules {
            Some(ModuleTree::Disk(entry)) => files.push((entry, KernelFileRole::ModulesDisk)),
            Some(ModuleTree::Memory(entry)) => files.push((entry, KernelFileRole::Other)),
            None => {}
        }
        let archives = self.drivers.values().filter_map(|it| it.archive.as_ref());
        files.extend(archives.map(|it| (it, KernelFileRole::Other)));
        files
    }

    /// Returns the bytes that the kernel's digest is computed from.
    pub fn to_bytes(&self) -> Result<Vec<u8>, KernelError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| KernelError::Manifest {
            source_name: self.name.clone(),
            message: error.to_string(),
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}
