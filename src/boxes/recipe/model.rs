//! What a recipe says.

use std::path::PathBuf;

use reqwest::Url;

use crate::boxes::{manifest::DiskFormat, seed::SeedKind};

use super::distribution::Tool;

/// A parsed recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Where recipe.kdl, customize.sh and files/ are.
    pub folder: PathBuf,
    pub name: String,
    /// ID in os-release(5).
    pub distribution: String,
    pub(in crate::boxes) tool: Tool,
    /// The suite of Debian and Ubuntu ("bookworm"), VERSION_ID in os-release(5) of others ("9"). Empty for a distribution
    /// without releases.
    pub release: String,
    /// Empty if the tool is mmdebstrap, which knows its distributions' servers; otherwise at least one.
    pub(in crate::boxes) repositories: Vec<PackageSource>,
    /// Empty if the tool is mmdebstrap, which knows its distributions' keys; otherwise at least one.
    pub(in crate::boxes) keys: Vec<KeyFile>,
    pub seed: SeedKind,
    pub login_user: String,
    /// The kernel's command line if QEMU loads the kernel; `None` if the box boots by its bootloader.
    pub cmdline: Option<String>,
    /// Bytes that the guest sees.
    pub disk: u64,
    pub packages: Vec<String>,
    /// Names in provisioners/guest that go into the box.
    pub guest: Vec<String>,
}

/// A repository of packages.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::boxes) struct PackageSource {
    pub name: String,
    /// An http or https address.
    pub url: Url,
}

impl PackageSource {
    /// Whether its list of packages must be signed. Over https, the server itself is who it says it is; each package is
    /// signed anyway.
    pub(in crate::boxes) fn needs_signed_list(&self) -> bool {
        self.url.scheme() != "https"
    }
}

/// A file with keys that may have signed packages.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::boxes) struct KeyFile {
    /// Relative to the recipe's folder, or absolute.
    pub path: PathBuf,
    /// In lower-case hex digits: the keys of the file that count. Empty: all count, and the file is in the recipe's folder.
    pub fingerprints: Vec<String>,
}

impl Recipe {
    /// Format of every box that is built: QEMU's own, so that overlays can be backed by it.
    pub const DISK_FORMAT: DiskFormat = DiskFormat::Qcow2;
}
