//! The packages of a small distribution: programs of this computer, with the libraries that they need. What makes an
//! initramfs, and the kernel, only stand in: nothing here is booted.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use crate::signer::Signer;

pub(crate) const KERNEL: &str = "6.12.0-test";

/// A package: its name, and the folder with its files.
pub(crate) struct Tree {
    pub name: &'static str,
    pub folder: PathBuf,
}

/// Programs of this computer, by package.
const PROGRAMS: [(&str, &[&str]); 5] = [
    ("bash", &["bash"]),
    (
        "coreutils",
        &["cat", "chmod", "id", "ln", "ls", "mkdir", "mv", "rm"],
    ),
    ("sed", &["sed", "grep"]),
    ("shadow", &["useradd", "usermod"]),
    ("rpm", &["rpm", "rpmdb"]),
];

const UNITS: [&str; 7] = [
    "multi-user.target",
    "serial-getty@.service",
    "getty@.service",
    "sshd.service",
    "NetworkManager.service",
    "systemd-networkd.service",
    "chronyd.service",
];

/// Makes the trees of all packages below a folder. `initramfs` is the program that makes one ("dracut"), `id` and
/// `version` are those of os-release(5).
pub(crate) fn trees(below: &Path, initramfs: &'static str, os_release: &str) -> Vec<Tree> {
    let mut all = Vec::new();
    let mut make = |name: &'static str| {
        let folder = below.join(name);
        fs::create_dir_all(&folder).unwrap();
        all.push(Tree {
            name,
            folder: folder.clone(),
        });
        folder
    };

    let base = make("filesystem");
    for folder in [
        "etc/default",
        "etc/ssh",
        "boot",
        "dev",
        "home",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr/bin",
        "usr/lib",
        "usr/lib64",
        "usr/sbin",
        "var/lib",
        "var/log",
        "var/tmp",
    ] {
        fs::create_dir_all(base.join(folder)).unwrap();
    }
    for folder in ["tmp", "var/tmp"] {
        fs::set_permissions(base.join(folder), fs::Permissions::from_mode(0o1777)).unwrap();
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        symlink(format!("usr/{name}"), base.join(name)).unwrap();
    }
    write(&base, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\n");
    write(&base, "etc/group", "root:x:0:\n");
    write(&base, "etc/shadow", "root:*:20000:0:99999:7:::\n");
    write(&base, "etc/gshadow", "root:*::\n");
    write(
        &base,
        "etc/login.defs",
        "UID_MIN 1000\nGID_MIN 1000\nUSERGROUPS_ENAB yes\n",
    );
    write(&base, "etc/default/useradd", "SHELL=/bin/bash\n");
    write(&base, "etc/ssh/sshd_config", "Port 22\n");
    write(&base, "usr/lib/os-release", os_release);

    let mut libraries = BTreeSet::new();
    for (package, programs) in PROGRAMS {
        let folder = make(package);
        for program in programs {
            copy_program(program, &folder, &mut libraries);
        }
        if package == "bash" {
            symlink("bash", folder.join("usr/bin/sh")).unwrap();
        }
        if package == "rpm" {
            copy(
                Path::new("/usr/lib/rpm/macros"),
                &folder.join("usr/lib/rpm/macros"),
            );
            copy(
                Path::new("/usr/lib/rpm/rpmrc"),
                &folder.join("usr/lib/rpm/rpmrc"),
            );
            // As Enterprise Linux 9 has it.
            write(&folder, "etc/rpm/macros", "%_dbpath /var/lib/rpm\n");
        }
    }

    let systemd = make("systemd");
    copy_program("systemctl", &systemd, &mut libraries);
    for unit in UNITS {
        let text = "[Unit]\nDescription=x\n[Install]\nWantedBy=multi-user.target\n";
        write(&systemd, &format!("usr/lib/systemd/system/{unit}"), text);
    }

    let kernel = make("kernel-core");
    write(
        &kernel,
        &format!("usr/lib/modules/{KERNEL}/vmlinuz"),
        "a kernel",
    );

    let maker = make(initramfs);
    let path = format!("usr/bin/{initramfs}");
    write(
        &maker,
        &path,
        "#!/bin/sh\nset -eu\nfor last; do :; done\necho \"$0 $*\" >\"$last\"\n",
    );
    fs::set_permissions(maker.join(&path), fs::Permissions::from_mode(0o755)).unwrap();

    let libc = make("glibc");
    for library in libraries {
        copy(&library, &libc.join(merged(&library)));
    }
    all
}

fn write(tree: &Path, path: &str, text: &str) {
    let path = tree.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

/// Where /lib and /bin lead into /usr.
fn merged(path: &Path) -> PathBuf {
    let below = path.strip_prefix("/").unwrap();
    match below.strip_prefix("usr") {
        Ok(_) => below.to_path_buf(),
        Err(_) => Path::new("usr").join(below),
    }
}

fn copy_program(name: &str, tree: &Path, libraries: &mut BTreeSet<PathBuf>) {
    let folders = ["/usr/bin", "/usr/sbin"];
    let path = (folders.iter().map(|folder| Path::new(folder).join(name)))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed"));
    copy(&path, &tree.join(merged(&path)));
    let listed = Command::new("ldd").arg(&path).output().unwrap();
    for word in String::from_utf8(listed.stdout).unwrap().split_whitespace() {
        if word.starts_with('/') {
            libraries.insert(PathBuf::from(word));
        }
    }
}

/// Makes the tree of the package archlinux-keyring, with keys that are all trusted.
pub(crate) fn keyring(below: &Path, keys: &[&Signer]) -> Tree {
    let folder = below.join("archlinux-keyring");
    let armoured: String = keys.iter().map(|key| key.armoured.as_str()).collect();
    let trusted: String = (keys.iter())
        .map(|key| format!("{}:4:\n", key.fingerprint))
        .collect();
    write(
        &folder,
        "usr/share/pacman/keyrings/archlinux.gpg",
        &armoured,
    );
    write(
        &folder,
        "usr/share/pacman/keyrings/archlinux-trusted",
        &trusted,
    );
    write(&folder, "usr/share/pacman/keyrings/archlinux-revoked", "");
    Tree {
        name: "archlinux-keyring",
        folder,
    }
}
