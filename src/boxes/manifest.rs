//! The manifest of a box: its fields, and what is checked when one is read.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    host::{
        firmware::Firmware,
        names::{check_file_name, check_name, check_name_in_parts, check_user, not_valid},
    },
    report::clean::is_unseen,
    store::{FileEntry, is_sha256},
};

use super::{error::BoxError, seed::SeedKind};

/// The version of the manifest that this stead writes and reads.
pub(super) const FORMAT_VERSION: u32 = 1;

/// The name of this file in a box.
pub(super) const MANIFEST: &str = "manifest.json";

/// The most disks that a box may have: devices are `vda` to `vdz`, and one may be the seed.
const MOST_DISKS: usize = 16;

/// Largest file of a box, in bytes: 1 PiB. Sums of such sizes cannot overflow.
const LARGEST: u64 = 1 << 50;

/// The description of a box: `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format_version: u32,
    pub name: String,
    pub version: String,
    /// As in `uname -m`.
    pub arch: String,
    pub disk: Disk,
    /// Further disks, in the guest's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_disks: Vec<Disk>,
    pub boot: Boot,
    pub seed: SeedKind,
    /// Login user unless the Machinefile sets another.
    pub login_user: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Digest of the box that this one was packed from; `None` for a box that was built or imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    pub file: FileEntry,
    pub format: DiskFormat,
    /// Bytes that the guest sees.
    pub virtual_size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    Qcow2,
    Raw,
}

impl DiskFormat {
    /// Returns the name that QEMU has for it.
    pub fn name(self) -> &'static str {
        match self {
            DiskFormat::Qcow2 => "qcow2",
            DiskFormat::Raw => "raw",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Boot {
    /// QEMU loads the kernel itself.
    Direct {
        kernel: FileEntry,
        /// As `uname -r` prints it.
        kernel_release: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initrd: Option<FileEntry>,
        /// Without `console=`, which stead adds.
        cmdline: String,
    },
    /// The disk's own bootloader.
    Bootloader {
        /// What starts it. `None`: a BIOS, unless the disk can only boot by UEFI.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        firmware: Option<Firmware>,
    },
}

/// What a box uses a file for. It is part of the file's name in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    Disk(DiskFormat),
    Kernel,
    Initrd,
}

impl Manifest {
    /// Reads and checks a manifest. Errors name it `source`.
    pub fn parse(bytes: &[u8], source: &str) -> Result<Self, BoxError> {
        let manifest = Self::kept(bytes, source)?;
        manifest
            .check_words()
            .map_err(|message| BoxError::Manifest {
                source_name: source.to_string(),
                message,
            })?;
        Ok(manifest)
    }

    /// Like [`Self::parse`], for a manifest in the store: older versions of stead accepted more names, and such
    /// a box must still be listed and removed.
    pub fn kept(bytes: &[u8], source: &str) -> Result<Self, BoxError> {
        let bad = |message: String| BoxError::Manifest {
            source_name: source.to_string(),
            message,
        };
        // The version first: a later format may have fields that this one does not know.
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
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        manifest.check().map_err(bad)?;
        Ok(manifest)
    }

    /// Checks names that are not part of any path on the host.
    fn check_words(&self) -> Result<(), String> {
        check_name_in_parts("name", &self.name)?;
        check_name("version", &self.version)?;
        check_name("architecture", &self.arch)?;
        for (entry, _) in self.files() {
            check_file_name(&entry.name)?;
        }
        if let Boot::Direct {
            kernel_release,
            cmdline,
            ..
        } = &self.boot
        {
            check_name("kernel release", kernel_release)?;
            if cmdline.contains(is_unseen) {
                return Err(not_valid(
                    "kernel command line",
                    cmdline,
                    "one line without control characters",
                ));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        check_user("login_user", &self.login_user)?;
        if self.more_disks.len() >= MOST_DISKS {
            return Err(format!("it has more than {MOST_DISKS} disks"));
        }
        for disk in self.disks() {
            if disk.virtual_size == 0 || disk.virtual_size > LARGEST {
                return Err(format!(
                    "its disk size is invalid ({} bytes)",
                    disk.virtual_size
                ));
            }
        }
        if let Some(parent) = &self.parent
            && !parent.strip_prefix("sha256:").is_some_and(is_sha256)
        {
            return Err(format!("its parent {parent:?} is not a digest"));
        }
        let mut names = BTreeSet::new();
        for (entry, _) in self.files() {
            if entry.name == MANIFEST {
                return Err(format!(
                    "one of its files is called {MANIFEST}, like the manifest itself"
                ));
            }
            if !names.insert(&entry.name) {
                return Err(format!("the file {} is listed twice", entry.name));
            }
            if entry.size > LARGEST {
                return Err(format!(
                    "the size of {} is invalid ({} bytes)",
                    entry.name, entry.size
                ));
            }
            entry.check_digest()?;
        }
        Ok(())
    }

    /// Returns every disk, the boot disk first.
    pub fn disks(&self) -> impl Iterator<Item = &Disk> {
        std::iter::once(&self.disk).chain(&self.more_disks)
    }

    /// Returns every file of the box with its role.
    pub fn files(&self) -> Vec<(&FileEntry, FileRole)> {
        let mut files: Vec<_> = self
            .disks()
            .map(|disk| (&disk.file, FileRole::Disk(disk.format)))
            .collect();
        if let Boot::Direct { kernel, initrd, .. } = &self.boot {
            files.push((kernel, FileRole::Kernel));
            files.extend(initrd.iter().map(|initrd| (initrd, FileRole::Initrd)));
        }
        files
    }

    /// Returns the bytes that the box's digest is computed from.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BoxError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| BoxError::Manifest {
            source_name: self.name.clone(),
            message: error.to_string(),
        })?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}
