//! Recipes: how to build a box from packages.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kdl::{KdlDocument, KdlNode, KdlValue};

use crate::{
    host::{
        self, file,
        names::{check_user, is_name},
        open,
    },
    report::clean::{Shown, is_unseen},
};

use super::{error::BoxError, manifest::DiskFormat, seed::SeedKind};

/// The file by which a folder is a recipe.
const RECIPE: &str = "recipe.kdl";

/// Largest recipe in bytes; the built-in ones have 1 KiB.
const LARGEST: u64 = 1 << 20;

/// A parsed recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Where recipe.kdl, customize.sh and files/ are.
    pub folder: PathBuf,
    pub name: String,
    /// The distribution's suite.
    pub suite: String,
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

impl Recipe {
    /// Format of every box that is built: QEMU's own, so that overlays can be backed by it.
    pub const DISK_FORMAT: DiskFormat = DiskFormat::Qcow2;

    pub fn read(folder: &Path) -> Result<Self, BoxError> {
        let path = folder.join(RECIPE);
        // A symlink that leads out of the recipe could show any file of this computer in errors.
        let text = (folder.canonicalize())
            .and_then(|folder| open::text_within(&path, LARGEST, &folder))
            .map_err(BoxError::io("read", &path))?;
        parse(&text, folder).map_err(|message| BoxError::Recipe {
            recipe: path.shown(),
            message,
        })
    }

    pub fn is_recipe(folder: &Path) -> bool {
        folder.join(RECIPE).symlink_metadata().is_ok()
    }
}

pub(super) fn parse(text: &str, folder: &Path) -> Result<Recipe, String> {
    let document: KdlDocument = host::kdl::parse(text).map_err(|mistakes| {
        let line = mistakes.first.line(text);
        format!("line {line}: {}", mistakes.first.sentence())
    })?;
    let known = [
        "name",
        "suite",
        "seed",
        "login-user",
        "boot",
        "disk",
        "packages",
        "guest",
    ];
    for node in document.nodes() {
        let name = node.name().value();
        if !known.contains(&name) {
            return Err(format!(
                "unknown node {name:?}, expected one of: {}",
                known.join(", ")
            ));
        }
    }
    let one = |name: &str| -> Result<String, String> {
        let node = document.get(name).ok_or(format!("it has no `{name}`"))?;
        words(node)?
            .into_iter()
            .next()
            .ok_or(format!("`{name}` needs a value"))
    };
    let all = |name: &str| -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        for node in document
            .nodes()
            .iter()
            .filter(|node| node.name().value() == name)
        {
            found.extend(words(node)?);
        }
        Ok(found)
    };
    for name in known
        .iter()
        .filter(|name| !["packages", "guest"].contains(name))
    {
        let count = (document.nodes().iter())
            .filter(|node| node.name().value() == *name)
            .count();
        if count > 1 {
            return Err(format!("`{name}` occurs {count} times, expected once"));
        }
    }
    let seed = match one("seed")?.as_str() {
        "credentials" => SeedKind::Credentials,
        "cloud-init" => SeedKind::CloudInit,
        other => {
            return Err(format!(
                "unknown seed {other:?}, expected credentials or cloud-init"
            ));
        }
    };
    let cmdline = match one("boot")?.as_str() {
        "bootloader" => None,
        "direct" => Some(
            document
                .get("boot")
                .and_then(|node| node.get("cmdline"))
                .and_then(KdlValue::as_string)
                .ok_or("`boot \"direct\"` needs cmdline=\"…\"")?
                .to_string(),
        ),
        other => {
            return Err(format!(
                "unknown boot {other:?}, expected direct or bootloader"
            ));
        }
    };
    if let Some(cmdline) = &cmdline
        && cmdline.contains(is_unseen)
    {
        return Err(format!(
            "the cmdline {cmdline:?} has characters that cannot be seen"
        ));
    }
    let disk = one("disk")?;
    let disk = disk
        .strip_suffix("GiB")
        .and_then(|number| number.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(1 << 30))
        .ok_or(format!("disk {disk:?} is not a size such as \"10GiB\""))?;
    let packages = all("packages")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.:".contains(c);
    for package in &packages {
        if package.is_empty() || !package.chars().all(plain) {
            return Err(format!("{package:?} is not a package name"));
        }
    }
    let guest = all("guest")?;
    for name in &guest {
        if guest_file(name).is_none() {
            return Err(format!(
                "stead has no guest file {name:?}, expected one of: {}",
                (GUEST.iter().map(|(known, ..)| *known))
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
    }
    let login_user = one("login-user")?;
    check_user("login-user", &login_user)?;
    // It is an argument of mmdebstrap, which runs what some of its options say.
    let suite = one("suite")?;
    let name = one("name")?;
    for (what, word) in [("suite", &suite), ("name", &name)] {
        if !is_name(word) {
            return Err(format!(
                "{what} {word:?} is not valid: letters, digits and - . _ + ~ are allowed, but not - or . at the start"
            ));
        }
    }
    Ok(Recipe {
        folder: folder.to_path_buf(),
        name,
        suite,
        seed,
        login_user,
        cmdline,
        disk,
        packages,
        guest,
    })
}

fn words(node: &KdlNode) -> Result<Vec<String>, String> {
    node.entries()
        .iter()
        .filter(|entry| entry.name().is_none())
        .map(|entry| {
            entry
                .value()
                .as_string()
                .map(str::to_string)
                .ok_or(format!("`{}` takes strings", node.name().value()))
        })
        .collect()
}

/// A file of a recipe: its path, its content, and whether it is a program.
type Embedded = (&'static str, &'static str, bool);

macro_rules! embedded {
    ($recipe:literal: $($(#$program:ident)? $path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../boxes/", $recipe, "/", $path)), embedded!(@ $($program)?))),*]
    };
    (@ program) => { true };
    (@) => { false };
}

/// The built-in recipes, so that `stead box build debian-12` works anywhere.
const RECIPES: &[(&str, &[Embedded])] = &[
    (
        "debian-12",
        embedded!("debian-12":
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
        ),
    ),
    (
        "debian-13",
        embedded!("debian-13":
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
        ),
    ),
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
];

/// Files that stead installs in guests: provisioners/guest.
const GUEST: &[Embedded] = &[
    (
        "stead-seed",
        include_str!("../../provisioners/guest/stead-seed"),
        true,
    ),
    (
        "stead-seed.service",
        include_str!("../../provisioners/guest/stead-seed.service"),
        false,
    ),
    (
        "stead-time.timer",
        include_str!("../../provisioners/guest/stead-time.timer"),
        false,
    ),
    (
        "stead-resolver",
        include_str!("../../provisioners/guest/stead-resolver"),
        true,
    ),
    (
        "stead-resolver.path",
        include_str!("../../provisioners/guest/stead-resolver.path"),
        false,
    ),
    (
        "stead-resolver.service",
        include_str!("../../provisioners/guest/stead-resolver.service"),
        false,
    ),
];

pub(super) const ASSEMBLE: &str = include_str!("../../boxes/assemble.sh");

fn guest_file(name: &str) -> Option<&'static Embedded> {
    GUEST.iter().find(|(known, _, _)| *known == name)
}

/// Returns the names of the built-in recipes.
pub fn embedded_names() -> Vec<&'static str> {
    RECIPES.iter().map(|(name, _)| *name).collect()
}

/// Writes a built-in recipe into a folder. `None` if there is no recipe of that name.
pub(super) fn unpack(name: &str, folder: &Path) -> Option<io::Result<()>> {
    let (_, files) = RECIPES.iter().find(|(known, _)| *known == name)?;
    Some(
        files
            .iter()
            .try_for_each(|(path, content, program)| write(&folder.join(path), content, *program)),
    )
}

/// Writes the guest-side files of a recipe into an overlay of the root file system.
pub(super) fn write_guest_files(recipe: &Recipe, overlay: &Path) -> io::Result<()> {
    for name in &recipe.guest {
        if let Some((name, content, program)) = guest_file(name) {
            let folder = if *program {
                "usr/lib/stead"
            } else {
                "etc/systemd/system"
            };
            write(&overlay.join(folder).join(name), content, *program)?;
        }
    }
    Ok(())
}

pub(super) fn write(path: &Path, content: &str, program: bool) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mode = if program { 0o755 } else { file::READABLE };
    file::replace(path, content.as_bytes(), mode)
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

    #[test]
    fn an_invalid_recipe_is_reported() {
        let error = parse("name \"x\"\ncolour \"red\"\n", Path::new("/r")).unwrap_err();
        assert!(
            error.contains("colour") && error.contains("packages"),
            "{error}"
        );
        let error = parse("name \"x\"\n", Path::new("/r")).unwrap_err();
        assert!(error.contains("seed"), "{error}");
        let user = "name \"x\"\nsuite \"s\"\nseed \"cloud-init\"\nboot \"bootloader\"\ndisk \"1GiB\"\nlogin-user \"{{x}}\"\n";
        let error = parse(user, Path::new("/r")).unwrap_err();
        assert!(error.contains("not a valid user name"), "{error}");
        let valid = "name \"x\"\nsuite \"bookworm\"\nseed \"cloud-init\"\nboot \"direct\" cmdline=\"quiet\"\ndisk \"1GiB\"\nlogin-user \"me\"\n";
        parse(valid, Path::new("/r")).unwrap();
        for (good, bad, says) in [
            (
                "bookworm",
                "--setup-hook=id",
                "suite \"--setup-hook=id\" is not valid",
            ),
            ("bookworm", "a b", "suite \"a b\" is not valid"),
            ("\"x\"", "\"../../x\"", "name \"../../x\" is not valid"),
            ("\"x\"", "\"x\\u{1b}[31m\"", "is not valid"),
            ("quiet", "quiet\\n", "cannot be seen"),
            (
                "login-user",
                "name \"y\"\nlogin-user",
                "`name` occurs 2 times",
            ),
        ] {
            let error = parse(&valid.replacen(good, bad, 1), Path::new("/r")).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
        let error = parse("name \"x\"\nseed = \"y\"\n", Path::new("/r")).unwrap_err();
        assert_eq!(
            error,
            "line 2: `seed` takes its value without `=`: write `seed \"y\"`"
        );
    }
}
