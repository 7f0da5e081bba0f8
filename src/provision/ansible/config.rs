//! Settings of an `ansible.cfg` that a run of stead has to complete.

use std::{fs, path::Path};

/// Returns a setting of a section in an INI file.
pub(super) fn setting(text: &str, section: &str, key: &str) -> Option<String> {
    let mut current = "";
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            current = name.trim();
        } else if current == section
            && !line.starts_with(['#', ';'])
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            // In Ansible's configuration, ` ;` starts a comment.
            let value = value.split(" ;").next().unwrap_or(value);
            return Some(value.trim().to_string());
        }
    }
    None
}

/// The variable that chooses how Ansible reads inventories (docs.ansible.com, "Ansible Configuration Settings").
pub(super) const INVENTORY_ENABLED: &str = "ANSIBLE_INVENTORY_ENABLED";

/// Returns a value of [`INVENTORY_ENABLED`] with which Ansible can read stead's inventory: `yaml`, and then what `set`, that
/// variable, or the configuration has. `None`: neither has anything, and Ansible's default has it.
pub(super) fn inventory_enabled(set: Option<&str>, config: Option<&Path>) -> Option<String> {
    let of_config = || {
        let text = fs::read_to_string(config?).ok()?;
        setting(&text, "inventory", "enable_plugins")
    };
    let theirs = (set.map(ToString::to_string).filter(|it| !it.is_empty())).or_else(of_config)?;
    Some(format!("yaml,{theirs}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_of_inventory_plugins_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("ansible.cfg");
        fs::write(
            &config,
            "[defaults]\nenable_plugins = no\n[inventory]\nenable_plugins = ini, script ; why\n",
        )
        .unwrap();
        let enabled = |set, config| inventory_enabled(set, config);
        assert_eq!(enabled(None, None), None);
        assert_eq!(
            enabled(None, Some(config.as_path())).as_deref(),
            Some("yaml,ini, script")
        );
        assert_eq!(
            enabled(Some("auto"), Some(config.as_path())).as_deref(),
            Some("yaml,auto")
        );
    }
}
