//! The CPU that a machine has.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::machinefile::CpuLike;

/// A CPU that a machine gets instead of the host's own, or of all that QEMU can emulate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuSpec {
    pub like: CpuLike,
    /// libvirt's name.
    pub model: String,
    /// libvirt's names of features, beside and in spite of the model's.
    pub require: BTreeSet<String>,
    pub disable: BTreeSet<String>,
    /// What the other CPU has, and this one has not.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missing: BTreeSet<String>,
    /// The vendor, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
}

impl std::fmt::Display for CpuSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = self.like.word();
        write!(f, "{word} ({} with {})", self.model, self.require.len())
    }
}
