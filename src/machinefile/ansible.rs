//! Ansible in a Machinefile: playbooks to run, and the inventory.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Serialize, Serializer};
use serde_json::Value;

/// Variables of Ansible: text, numbers, booleans and null, as written.
///
/// Values may be secrets, so they serialise as names only. [`Vars::to_json`] returns the values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vars(pub BTreeMap<String, Value>);

impl Vars {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns names and values, in the form that Ansible reads.
    pub fn to_json(&self) -> serde_json::Map<String, Value> {
        (self.0.iter())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Returns these, completed by `under`.
    pub fn over(mut self, under: &Vars) -> Vars {
        for (name, value) in &under.0 {
            self.0.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self
    }
}

impl Serialize for Vars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.keys())
    }
}

/// A playbook and its settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Playbook {
    /// Absolute, inside the project.
    pub playbook: PathBuf,
    /// The project's root.
    #[serde(skip)]
    pub root: PathBuf,
    /// Extra variables.
    pub vars: Vars,
    /// Files of extra variables, absolute.
    pub vars_files: Vec<PathBuf>,
    pub tags: Vec<String>,
    pub skip_tags: Vec<String>,
    pub r#become: bool,
    pub become_user: Option<String>,
    /// How secrets are decrypted, in the order to try.
    pub vault: Vec<VaultPassword>,
    /// The number of `v` in `-vvv`.
    pub verbosity: u8,
    /// Passed to ansible-playbook unchanged.
    pub arguments: Vec<String>,
    /// Roles and collections to install first, absolute.
    pub requirements: Option<PathBuf>,
    /// The named `ansible.cfg`, absolute.
    pub config: Option<PathBuf>,
    /// Groups that the machine is in. Empty if the whole project is provisioned.
    pub groups: Vec<String>,
    /// Its position, such as `Machinefile:12:5`.
    #[serde(skip)]
    pub at: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VaultPassword {
    /// The label of this password.
    pub id: Option<String>,
    /// Absolute. It may be outside the project, and need not exist before it is used.
    pub file: PathBuf,
}

/// How Ansible is installed in a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AnsibleInstall {
    /// It must be installed already.
    No,
    /// By the guest's package manager, if it is missing.
    Package,
    /// By pip, into a folder of its own, if it is missing.
    Pip,
}

/// A group of the inventory from the Machinefile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    pub name: String,
    /// Names of machines, `count` expanded.
    pub machines: Vec<String>,
    /// Groups whose machines are in this one too.
    pub children: Vec<String>,
    pub vars: Vars,
}

/// The group of all machines.
pub const ALL: &str = "all";

/// Returns the group of machines with a label: `role="db"` is `role_db`. Characters that Ansible refuses in a group's
/// name become `_`.
pub(super) fn label_group(key: &str, value: &str) -> String {
    group_name(&format!("{key}_{value}"))
}

/// Letters, digits and `_`, not starting with a digit
/// (docs.ansible.com, "Creating valid variable names").
pub fn group_name(text: &str) -> String {
    let mut name: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_names_of_groups() {
        assert_eq!(label_group("role", "db"), "role_db");
        assert_eq!(label_group("tier", "front-end 2"), "tier_front_end_2");
        assert_eq!(label_group("2nd", "ü"), "_2nd__");
        assert_eq!(group_name("web-app"), "web_app");
    }

    #[test]
    fn values_do_not_serialise() {
        let vars = Vars(BTreeMap::from([("token".into(), "s3cret".into())]));
        assert_eq!(serde_json::to_string(&vars).unwrap(), "[\"token\"]");
        assert_eq!(vars.to_json()["token"], "s3cret");
    }
}
