//! Everything that a tool finds in /etc.

use crate::boxes::{
    error::BoxError,
    recipe::{Recipe, Tool},
};

use super::{dnf, keys::AcceptedKeys, pacman, setting::Setting, zypper};

/// Returns the settings of a recipe's tool. None for mmdebstrap, which gets all by its arguments.
pub(in crate::boxes) fn of(
    recipe: &Recipe,
    keys: &[AcceptedKeys],
) -> Result<Vec<Setting>, BoxError> {
    // The users that packages have are in the root file system.
    let mut all = vec![
        Setting::text("passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        Setting::text("group", "root:x:0:\n"),
        Setting::text(
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n",
        ),
    ];
    all.extend(match recipe.tool {
        Tool::Mmdebstrap => return Ok(Vec::new()),
        Tool::Dnf => dnf::settings(recipe, keys)?,
        Tool::Zypper => zypper::settings(recipe, keys)?,
        Tool::Pacman => pacman::settings(recipe, keys),
    });
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::boxes::{bootstrap::read_keys, recipe::unpack};

    /// What a recipe's tool finds in /etc, without the keys themselves.
    fn shown(name: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        unpack(name, folder.path()).unwrap().unwrap();
        shown_of(&Recipe::read(folder.path()).unwrap())
    }

    fn shown_of(recipe: &Recipe) -> String {
        let keys = read_keys(recipe).unwrap();
        let mut text = String::new();
        for setting in of(recipe, &keys).unwrap() {
            let content = match setting.path.ends_with(".asc") || setting.path.ends_with(".gpg") {
                true => "(keys)\n".into(),
                false => String::from_utf8(setting.content).unwrap(),
            };
            text.push_str(&format!("--- {}\n{content}", setting.path));
        }
        text
    }

    #[test]
    fn the_settings_of_dnf() {
        insta::assert_snapshot!(shown("almalinux-9"));
    }

    #[test]
    fn the_settings_of_zypper() {
        insta::assert_snapshot!(shown("opensuse-leap-16"));
    }

    fn recipe(folder: &Path, distribution: &str, address: &str, fingerprint: &str) -> Recipe {
        let key = include_str!("../../../boxes/almalinux-9/keys/almalinux-9.asc");
        std::fs::write(folder.join("key.asc"), key).unwrap();
        let text = format!(
            "name \"x\"\ndistribution {distribution}\nrepository \"core\" \"{address}\"\n\
             key \"key.asc\"{fingerprint}\nseed \"credentials\"\nboot \"bootloader\"\ndisk \"1GiB\"\n\
             login-user \"me\"\n"
        );
        std::fs::write(folder.join("recipe.kdl"), text).unwrap();
        Recipe::read(folder).unwrap()
    }

    #[test]
    fn the_settings_of_pacman() {
        let folder = tempfile::tempdir().unwrap();
        let arch = recipe(folder.path(), "\"arch\"", "https://e.org/$repo/os/", "");
        insta::assert_snapshot!(shown_of(&arch));
    }

    /// Only over https is a list trusted without a signature, and never by zypper.
    #[test]
    fn lists_of_other_servers_must_be_signed() {
        let folder = tempfile::tempdir().unwrap();
        let dnf = recipe(
            folder.path(),
            "\"fedora\" release=\"43\"",
            "http://e.org/",
            "",
        );
        assert!(shown_of(&dnf).contains("repo_gpgcheck=1"));
        assert!(shown_of(&dnf).contains("module_platform_id=platform:f43"));
        let arch = recipe(folder.path(), "\"arch\"", "http://e.org/", "");
        assert!(!shown_of(&arch).contains("DatabaseOptional"));
        for name in ["almalinux-9", "opensuse-leap-16"] {
            let text = shown(name);
            assert!(
                text.contains("\ngpgcheck=1") && !text.contains("\ngpgcheck=0"),
                "{text}"
            );
        }
    }

    #[test]
    fn only_keys_with_the_fingerprints_count() {
        let folder = tempfile::tempdir().unwrap();
        let other = " \"AD485664E901B867051AB15F35A2F86E29B700A4\"";
        let wrong = recipe(folder.path(), "\"arch\"", "https://e.org/", other);
        let error = read_keys(&wrong).err().unwrap().to_string();
        assert!(
            error.contains("key key.asc: it has no usable key ad48"),
            "{error}"
        );
        assert!(error.contains("it has bf18ac28"), "{error}");
        std::fs::write(folder.path().join("key.asc"), "no key").unwrap();
        let error = read_keys(&wrong).err().unwrap().to_string();
        assert!(error.contains("not a usable OpenPGP keyring"), "{error}");
        std::fs::remove_file(folder.path().join("key.asc")).unwrap();
        let error = read_keys(&wrong).err().unwrap().to_string();
        assert!(
            error.contains("key key.asc: there is no such file"),
            "{error}"
        );
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("key.asc")).unwrap();
        let error = read_keys(&wrong).err().unwrap().to_string();
        assert!(error.contains("it is a symlink to"), "{error}");
    }
}
