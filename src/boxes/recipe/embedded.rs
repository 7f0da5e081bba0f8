//! The recipes that stead carries, and the files that it puts into boxes.

use std::{fs, io, path::Path};

use crate::host::file;

use super::Recipe;

/// A file of a recipe: its path, its content, and whether it is a program.
type Embedded = (&'static str, &'static str, bool);

macro_rules! embedded {
    ($recipe:literal: $($(#$program:ident)? $path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../boxes/", $recipe, "/", $path)), embedded!(@ $($program)?))),*]
    };
    (@ program) => { true };
    (@) => { false };
}

/// The files of a Debian that QEMU loads the kernel of.
macro_rules! debian {
    ($recipe:literal) => {
        embedded!($recipe:
            "recipe.kdl",
            #program "customize.sh",
            "files/etc/fstab",
            "files/etc/initramfs-tools/conf.d/stead",
            #program "files/etc/initramfs-tools/hooks/fsck",
            #program "files/etc/initramfs-tools/hooks/udev",
            "files/etc/initramfs-tools/modules",
            #program "files/etc/initramfs-tools/scripts/init-bottom/udev",
            #program "files/etc/initramfs-tools/scripts/init-top/udev",
            "files/etc/ssh/sshd_config.d/10-stead.conf",
            "files/etc/systemd/network/80-ethernet.network",
        )
    };
}

/// The built-in recipes, so that `stead box build debian-12` works anywhere.
const RECIPES: &[(&str, &[Embedded])] = &[
    ("debian-12", debian!("debian-12")),
    ("debian-13", debian!("debian-13")),
    (
        "debian-12-cloud",
        embedded!("debian-12-cloud":
            "recipe.kdl",
            #program "customize.sh",
            "files/boot/grub/grub.cfg",
            "files/etc/cloud/cloud.cfg.d/90-datasource.cfg",
            "files/etc/fstab",
            "files/etc/initramfs-tools/conf.d/stead",
            "files/etc/initramfs-tools/modules",
        ),
    ),
    (
        "almalinux-9",
        embedded!("almalinux-9":
            "recipe.kdl",
            #program "customize.sh",
            "files/etc/fstab",
            "files/etc/ssh/sshd_config.d/10-stead.conf",
            "keys/almalinux-9.asc",
        ),
    ),
    (
        "opensuse-leap-16",
        embedded!("opensuse-leap-16":
            "recipe.kdl",
            #program "customize.sh",
            "files/etc/fstab",
            "files/etc/ssh/sshd_config.d/10-stead.conf",
            "keys/opensuse.asc",
        ),
    ),
    (
        "arch",
        embedded!("arch":
            "recipe.kdl",
            #program "customize.sh",
            "files/etc/fstab",
            "files/etc/ssh/sshd_config.d/10-stead.conf",
            "files/etc/systemd/network/80-ethernet.network",
        ),
    ),
];

/// Files that stead installs in guests: provisioners/guest.
const GUEST: &[Embedded] = &[
    (
        "stead-seed",
        include_str!("../../../provisioners/guest/stead-seed"),
        true,
    ),
    (
        "stead-seed.service",
        include_str!("../../../provisioners/guest/stead-seed.service"),
        false,
    ),
    (
        "stead-time.timer",
        include_str!("../../../provisioners/guest/stead-time.timer"),
        false,
    ),
    (
        "stead-resolver",
        include_str!("../../../provisioners/guest/stead-resolver"),
        true,
    ),
    (
        "stead-resolver.path",
        include_str!("../../../provisioners/guest/stead-resolver.path"),
        false,
    ),
    (
        "stead-resolver.service",
        include_str!("../../../provisioners/guest/stead-resolver.service"),
        false,
    ),
];

pub(in crate::boxes) const ASSEMBLE: &str = include_str!("../../../boxes/assemble.sh");
pub(in crate::boxes) const BOOTSTRAP: &str = include_str!("../../../boxes/bootstrap.sh");

fn guest_file(name: &str) -> Option<&'static Embedded> {
    GUEST.iter().find(|(known, _, _)| *known == name)
}

/// Returns the names that `guest` of a recipe may have.
pub(super) fn guest_names() -> impl Iterator<Item = &'static str> {
    GUEST.iter().map(|(name, ..)| *name)
}

/// Returns the names of the built-in recipes.
pub fn embedded_names() -> Vec<&'static str> {
    RECIPES.iter().map(|(name, _)| *name).collect()
}

/// Writes a built-in recipe into a folder. `None` if there is no recipe of that name.
pub(in crate::boxes) fn unpack(name: &str, folder: &Path) -> Option<io::Result<()>> {
    let (_, files) = RECIPES.iter().find(|(known, _)| *known == name)?;
    Some(files.iter().try_for_each(|(path, content, program)| {
        write(&folder.join(path), content.as_bytes(), *program)
    }))
}

/// Writes the guest-side files of a recipe into an overlay of the root file system.
pub(in crate::boxes) fn write_guest_files(recipe: &Recipe, overlay: &Path) -> io::Result<()> {
    for name in &recipe.guest {
        if let Some((name, content, program)) = guest_file(name) {
            let folder = if *program {
                "usr/lib/stead"
            } else {
                "etc/systemd/system"
            };
            write(
                &overlay.join(folder).join(name),
                content.as_bytes(),
                *program,
            )?;
        }
    }
    Ok(())
}

pub(in crate::boxes) fn write(path: &Path, content: &[u8], program: bool) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mode = if program { 0o755 } else { file::READABLE };
    file::replace(path, content, mode)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_built_in_recipe_is_complete() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("boxes");
        for (name, files) in RECIPES {
            let folder = tempfile::tempdir().unwrap();
            unpack(name, folder.path()).unwrap().unwrap();
            let recipe = Recipe::read(folder.path()).unwrap();
            assert_eq!(recipe.name, *name);
            // The list above has every file of the folder.
            let mut count = 0;
            let mut open = vec![repository.join(name)];
            while let Some(folder) = open.pop() {
                for entry in fs::read_dir(folder).unwrap().flatten() {
                    if entry.path().is_dir() {
                        open.push(entry.path());
                    } else {
                        count += 1;
                        let program = entry.metadata().unwrap().permissions().mode() & 0o100 != 0;
                        let relative = entry.path();
                        let relative = relative.strip_prefix(repository.join(name)).unwrap();
                        let known = files
                            .iter()
                            .find(|(path, _, _)| Path::new(path) == relative)
                            .unwrap_or_else(|| panic!("{} is not built in", relative.display()));
                        assert_eq!(known.2, program, "{}", relative.display());
                    }
                }
            }
            assert_eq!(count, files.len());
        }
    }

    /// A recipe's folder has all that it needs, so that people can copy it.
    #[test]
    fn what_recipes_share_is_the_same() {
        let content = |recipe: &str, path: &str| {
            let (_, files) = RECIPES.iter().find(|(name, _)| *name == recipe).unwrap();
            (files.iter())
                .find(|(known, ..)| *known == path)
                .map(|(_, content, _)| *content)
        };
        for (path, least) in [
            ("files/etc/fstab", 5),
            ("files/etc/ssh/sshd_config.d/10-stead.conf", 5),
            ("files/etc/systemd/network/80-ethernet.network", 3),
        ] {
            let all: Vec<&str> = (embedded_names().iter())
                .filter(|name| **name != "debian-12-cloud")
                .filter_map(|name| content(name, path))
                .collect();
            assert!(all.len() >= least, "{path}");
            assert!(all.iter().all(|one| *one == all[0]), "{path}");
        }
    }

    /// The keys of the built-in recipes are those that stead knows from elsewhere too.
    #[test]
    fn keys_are_those_of_the_distributions() {
        let packages = include_str!("../../packages/keys/README.md");
        let catalogue = include_str!("../../../boxes/catalogue.kdl");
        for name in ["almalinux-9", "opensuse-leap-16"] {
            let folder = tempfile::tempdir().unwrap();
            unpack(name, folder.path()).unwrap().unwrap();
            let recipe = Recipe::read(folder.path()).unwrap();
            for accepted in crate::boxes::bootstrap::read_keys(&recipe).unwrap() {
                assert_eq!(accepted.keys.len(), 1, "{name}");
                let fingerprint = accepted.keys[0].fingerprint().to_uppercase();
                assert!(
                    packages.contains(&fingerprint) || catalogue.contains(&fingerprint),
                    "{name}"
                );
            }
        }
    }
}
