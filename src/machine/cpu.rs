//! The CPU that a machine has.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{machinefile::CpuLike, report::counted};

/// A machine's CPU, if it is neither the host's own nor everything that QEMU can emulate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuSpec {
    pub like: CpuLike,
    /// libvirt's name of the model.
    pub model: String,
    /// libvirt's names of the features to add to the model.
    pub require: BTreeSet<String>,
    /// libvirt's names of the features to take away from the model.
    pub disable: BTreeSet<String>,
    /// Features of the other CPU that this one lacks.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missing: BTreeSet<String>,
    /// The other CPU's vendor, if this one has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
}

impl std::fmt::Display for CpuSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = self.like.word();
        let features = counted(self.require.len(), "feature");
        write!(f, "{word} ({} with {features})", self.model)
    }
}
