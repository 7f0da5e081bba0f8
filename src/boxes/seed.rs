//! How a machine gets its keys, its host name and its user-data.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of seed that a box reads at its first boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeedKind {
    /// systemd system credentials.
    Credentials,
    /// cloud-init's NoCloud.
    CloudInit,
    /// No seed: the key that all Vagrant boxes accept, replaced at the first login.
    Vagrant,
}

impl SeedKind {
    /// Whether the guest runs the user-data of a Machinefile.
    pub fn runs_user_data(self) -> bool {
        match self {
            SeedKind::CloudInit => true,
            SeedKind::Credentials | SeedKind::Vagrant => false,
        }
    }

    /// Whether the guest reads the seed from the firmware, which its kernel must be able to.
    pub fn is_in_firmware(self) -> bool {
        match self {
            SeedKind::Credentials => true,
            SeedKind::CloudInit | SeedKind::Vagrant => false,
        }
    }

    /// Whether the guest first accepts a key that everybody has, and gets its own keys at the first login.
    pub fn begins_with_public_key(self) -> bool {
        match self {
            SeedKind::Vagrant => true,
            SeedKind::Credentials | SeedKind::CloudInit => false,
        }
    }
}

impl fmt::Display for SeedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SeedKind::Credentials => "credentials",
            SeedKind::CloudInit => "cloud-init",
            SeedKind::Vagrant => "vagrant",
        })
    }
}
