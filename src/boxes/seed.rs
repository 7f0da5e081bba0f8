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

impl fmt::Display for SeedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SeedKind::Credentials => "credentials",
            SeedKind::CloudInit => "cloud-init",
            SeedKind::Vagrant => "vagrant",
        })
    }
}
