//! `stead box build` with dnf, zypper and pacman: real repositories of a small distribution, made and signed here, on a
//! server on 127.0.0.1. The boxes are not booted.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on panics"
)]

mod mirror;
mod server;
#[path = "../fetch/signer.rs"]
#[expect(dead_code, reason = "tests/fetch uses the rest of it")]
mod signer;
mod world;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use mirror::{packages, run};
use signer::Signer;
use world::KERNEL;

/// What the tests have in common: it takes a while to make, and nothing changes it. It goes with the last test that has
/// it.
struct World {
    signer: Signer,
    /// Has signed nothing that a repository has, but in pacman's the packages other than the keyring.
    other: Signer,
    address: String,
    /// Removed after the signers have ended their agents.
    folder: tempfile::TempDir,
}

fn world() -> Arc<World> {
    static WORLD: Mutex<Weak<World>> = Mutex::new(Weak::new());
    let mut known = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    known.upgrade().unwrap_or_else(|| {
        let made = Arc::new(World::new());
        *known = Arc::downgrade(&made);
        made
    })
}

impl World {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("stead-recipes-")
            .tempdir_in("/var/tmp")
            .unwrap();
        // Ordinary users make packages, and build.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let below = |name: &str| folder.path().join(name);
        let signer = Signer::new(&below("signer"));
        let other = Signer::new(&below("other"));
        let rpms = world::trees(
            &below("rpm-trees"),
            "dracut",
            "ID=\"almalinux\"\nVERSION_ID=\"9.6\"\n",
        );
        mirror::rpm(&below("served/rpm"), &rpms, &signer);
        let mut trees = world::trees(&below("pacman-trees"), "mkinitcpio", "ID=arch\n");
        // The keyring comes as a package that the older key has signed; the newer one has signed the rest.
        let keyring = world::keyring(&below("pacman-trees"), &[&signer, &other]);
        mirror::pacman(&below("served/pacman"), "core", &trees, &other);
        trees.clear();
        trees.push(keyring);
        mirror::pacman(&below("served/keyring"), "core", &trees, &signer);
        for file in packages(&below("served/keyring"), "") {
            let name = file.file_name().unwrap().to_str().unwrap().to_string();
            if name.contains(".pkg.tar.zst") {
                fs::copy(&file, below("served/pacman").join(name)).unwrap();
            }
        }
        mirror::list_pacman(&below("served/pacman"), "core", &signer);
        let address = server::serve(&below("served"));
        World {
            folder,
            signer,
            other,
            address,
        }
    }

    /// A copy of a repository, to spoil. Returns its folder and its address.
    fn copy(&self, of: &str, name: &str) -> (PathBuf, String) {
        let to = self.folder.path().join("served").join(name);
        run(Command::new("cp")
            .arg("-a")
            .arg(self.folder.path().join("served").join(of))
            .arg(&to));
        (to, format!("{}{name}/", self.address))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Dnf,
    Zypper,
    Pacman,
}

impl Tool {
    fn repository(self) -> &'static str {
        match self {
            Tool::Dnf | Tool::Zypper => "rpm",
            Tool::Pacman => "pacman",
        }
    }
}

/// A recipe in a folder of its own, and where its box goes.
struct Build {
    place: tempfile::TempDir,
}

impl Build {
    fn new(tool: Tool, address: &str, key: &Signer) -> Self {
        let place = tempfile::Builder::new()
            .prefix("stead-recipe-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let boxes = Path::new(env!("CARGO_MANIFEST_DIR")).join("boxes");
        let recipe = place.path().join("recipe");
        fs::create_dir_all(recipe.join("keys")).unwrap();
        let (distribution, like, more) = match tool {
            Tool::Dnf => (
                "\"almalinux\" release=\"9\"",
                "almalinux-9",
                "\"kernel-core\" \"dracut\" \"rpm\"",
            ),
            Tool::Zypper => (
                "\"opensuse-leap\" release=\"16.0\"",
                "opensuse-leap-16",
                "\"kernel-core\" \"dracut\" \"rpm\"",
            ),
            Tool::Pacman => (
                "\"arch\"",
                "arch",
                "\"kernel-core\" \"mkinitcpio\" \"archlinux-keyring\"",
            ),
        };
        let guest = match tool {
            Tool::Pacman => {
                "guest \"stead-resolver\" \"stead-resolver.path\" \"stead-resolver.service\"\n"
            }
            Tool::Dnf | Tool::Zypper => "",
        };
        // What stead's own recipe does is done here.
        for name in ["files", "customize.sh"] {
            run(Command::new("cp")
                .arg("-rL")
                .arg(boxes.join(like).join(name))
                .arg(&recipe));
        }
        fs::write(recipe.join("keys/test.asc"), &key.armoured).unwrap();
        fs::write(
            recipe.join("recipe.kdl"),
            format!(
                "name \"small\"\ndistribution {distribution}\nrepository \"core\" \"{address}\"\n\
                 key \"keys/test.asc\" \"{}\"\nseed \"credentials\"\nlogin-user \"stead\"\n\
                 boot \"direct\" cmdline=\"root=/dev/vda\"\ndisk \"1GiB\"\n\
                 packages \"filesystem\" \"glibc\" \"bash\" \"coreutils\" \"sed\" \"shadow\" \"systemd\" {more}\n\
                 guest \"stead-seed\" \"stead-seed.service\" \"stead-time.timer\"\n{guest}",
                key.fingerprint
            ),
        )
        .unwrap();
        Build { place }
    }

    fn archive(&self) -> PathBuf {
        self.place.path().join("small.tar.zst")
    }

    /// Whether it was built, and what stead said.
    fn run(&self) -> (bool, String) {
        let home = self.place.path().join("home");
        fs::create_dir_all(&home).unwrap();
        // Settings of a user's, by which nothing would work.
        fs::write(
            home.join(".rpmmacros"),
            "%_dbpath /nowhere\n%_netsharedpath /usr\n",
        )
        .unwrap();
        fs::write(home.join(".zypper.conf"), "[main]\nshowAlias = nonsense\n").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_stead"))
            .args(["box", "build", "./recipe", "--output"])
            .arg(self.archive())
            .current_dir(self.place.path())
            .env("HOME", home)
            .env("STEAD_DATA_DIR", self.place.path().join("data"))
            .env("GNUPGHOME", "/nonexistent")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    }

    /// The box, unpacked, with its disk as raw.
    fn unpacked(&self) -> PathBuf {
        let (built, said) = self.run();
        assert!(built, "{said}\n{}", self.log());
        let folder = self.place.path().join("box");
        fs::create_dir(&folder).unwrap();
        run(Command::new("tar")
            .arg("-C")
            .arg(&folder)
            .arg("-xf")
            .arg(self.archive()));
        run(Command::new("qemu-img")
            .args(["convert", "-O", "raw"])
            .arg(folder.join("disk.qcow2"))
            .arg(folder.join("disk.raw")));
        folder
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.path().join("data/logs/box-build.log")).unwrap_or_default()
    }
}

/// Asks debugfs(8) about the file system of a box.
fn ask(folder: &Path, request: &str) -> String {
    run(Command::new("/usr/sbin/debugfs")
        .args(["-R", request])
        .arg(folder.join("disk.raw")))
}

fn it_builds(tool: Tool, version: &str) {
    let world = world();
    let address = format!("{}{}/", world.address, tool.repository());
    let build = Build::new(tool, &address, &world.signer);
    let folder = build.unpacked();

    let manifest = fs::read_to_string(folder.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["version"], version);
    assert!(manifest.to_string().contains(KERNEL), "{manifest}");
    assert_eq!(
        fs::read_to_string(folder.join("vmlinuz")).unwrap(),
        "a kernel"
    );
    let initrd = fs::read_to_string(folder.join("initrd.img")).unwrap();
    assert!(initrd.contains(KERNEL), "{initrd}");

    let passwd = ask(&folder, "cat /etc/passwd");
    assert!(passwd.contains("stead:x:1000:1000:"), "{passwd}");
    let sudoers = ask(&folder, "cat /etc/sudoers.d/90-stead-stead");
    assert!(sudoers.contains("NOPASSWD"), "{sudoers}");
    for unit in ["stead-seed.service", "sshd.service"] {
        let link = ask(
            &folder,
            &format!("stat /etc/systemd/system/multi-user.target.wants/{unit}"),
        );
        assert!(link.contains("Type: symlink"), "{unit}: {link}");
    }
    let sshd = ask(&folder, "cat /etc/ssh/sshd_config");
    assert!(
        sshd.starts_with("Include /etc/ssh/sshd_config.d/"),
        "{sshd}"
    );
    let home = ask(&folder, "stat /home/stead");
    assert!(home.contains("User:  1000"), "{home}");

    // Scripts of packages saw nothing outside of the root file system. CAP_SYS_ADMIN and CAP_MKNOD are 21 and 27.
    assert_eq!(ask(&folder, "cat /root/script-saw"), "");
    let may = ask(&folder, "cat /root/script-may");
    assert!(may.contains('\t'), "{}", build.log());
    let may = u64::from_str_radix(may.trim().rsplit_once('\t').unwrap().1, 16).unwrap();
    assert_eq!(may & (1 << 21 | 1 << 27), 0, "{may:x}");
    assert_ne!(may & 1, 0, "{may:x}");

    if tool == Tool::Pacman {
        assert!(ask(&folder, "ls /var/lib/pacman/local").contains("archlinux-keyring-1-1"));
    } else {
        // The guest's rpm found them in its own database before the box was packed.
        assert!(build.log().contains("filesystem-1-1"), "{}", build.log());
        let database = match tool {
            Tool::Zypper => "/usr/lib/sysimage/rpm",
            _ => "/var/lib/rpm",
        };
        assert!(ask(&folder, &format!("ls {database}")).contains("rpmdb.sqlite"));
        assert!(!ask(&folder, "ls /root").contains(".rpmdb"));
    }
}

#[test]
#[ignore = "needs dnf, rpm and createrepo_c: ./dev test --full"]
fn dnf_builds_a_box() {
    it_builds(Tool::Dnf, "9.6");
}

#[test]
#[ignore = "needs zypper, rpm and createrepo_c: ./dev test --full"]
fn zypper_builds_a_box() {
    it_builds(Tool::Zypper, "9.6");
}

#[test]
#[ignore = "needs pacman and makepkg: ./dev test --full"]
fn pacman_builds_a_box_with_keys_that_a_package_brings() {
    it_builds(Tool::Pacman, "2025.01.01");
}

/// Expects that no box comes from this recipe, and that stead says why.
fn refused(build: &Build, says: &[&str]) {
    let (built, said) = build.run();
    assert!(!built, "{said}");
    for words in says {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(
        said.contains("building small failed while installing packages"),
        "{said}"
    );
    assert!(!build.archive().exists());
}

/// Changes a byte in the middle of a package.
fn tamper(folder: &Path, package: &str, end: &str) {
    let path = (packages(folder, end).into_iter())
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(package)
        })
        .unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(path, bytes).unwrap();
}

#[test]
#[ignore = "needs dnf, zypper, rpm and createrepo_c: ./dev test --full"]
fn a_tampered_rpm_is_refused() {
    let world = world();
    let (folder, address) = world.copy("rpm", "tampered-rpm");
    tamper(&folder, "coreutils", ".rpm");
    refused(
        &Build::new(Tool::Dnf, &address, &world.signer),
        &["coreutils", "checksum"],
    );
    refused(
        &Build::new(Tool::Zypper, &address, &world.signer),
        &["coreutils", "corrupted"],
    );
    // The list says so too, but only its owner can sign it: then the package's own signature counts.
    mirror::list_rpm(&folder, &world.signer);
    refused(
        &Build::new(Tool::Dnf, &address, &world.signer),
        &["coreutils", "GPG"],
    );
}

#[test]
#[ignore = "needs dnf, zypper, rpm and createrepo_c: ./dev test --full"]
fn an_rpm_repository_of_another_key_is_refused() {
    let world = world();
    let address = format!("{}rpm/", world.address);
    refused(
        &Build::new(Tool::Dnf, &address, &world.other),
        &["repo 'core'", "GPG signature"],
    );
    refused(
        &Build::new(Tool::Zypper, &address, &world.other),
        &["'core'", "reject the key"],
    );
    // Nor does a list of the right key make packages right.
    let (folder, address) = world.copy("rpm", "other-list");
    mirror::list_rpm(&folder, &world.other);
    refused(
        &Build::new(Tool::Dnf, &address, &world.other),
        &["Public key for", "GPG check FAILED"],
    );
}

#[test]
#[ignore = "needs dnf, zypper, rpm and createrepo_c: ./dev test --full"]
fn an_unsigned_rpm_repository_is_refused() {
    let world = world();
    let (folder, address) = world.copy("rpm", "unsigned-rpm");
    fs::remove_file(folder.join("repodata/repomd.xml.asc")).unwrap();
    refused(
        &Build::new(Tool::Dnf, &address, &world.signer),
        &["repo 'core'", "repomd.xml.asc"],
    );
    refused(
        &Build::new(Tool::Zypper, &address, &world.signer),
        &["'core'", "is unsigned"],
    );
    // A signed list of unsigned packages.
    let (folder, address) = world.copy("rpm", "unsigned-packages");
    run(Command::new("rpmsign")
        .arg("--delsign")
        .args(packages(&folder, ".rpm")));
    mirror::list_rpm(&folder, &world.signer);
    refused(
        &Build::new(Tool::Dnf, &address, &world.signer),
        &["is not signed", "GPG check FAILED"],
    );
}

#[test]
#[ignore = "needs pacman and makepkg: ./dev test --full"]
fn what_is_wrong_in_a_repository_of_pacman_is_refused() {
    let world = world();
    let (folder, address) = world.copy("pacman", "tampered-pacman");
    tamper(&folder, "coreutils", ".pkg.tar.zst");
    refused(
        &Build::new(Tool::Pacman, &address, &world.signer),
        &["coreutils", "is invalid"],
    );

    let address = format!("{}pacman/", world.address);
    refused(
        &Build::new(Tool::Pacman, &address, &world.other),
        &["core", "is unknown"],
    );

    let (folder, address) = world.copy("pacman", "unsigned-pacman");
    fs::remove_file(folder.join("core.db.sig")).unwrap();
    refused(
        &Build::new(Tool::Pacman, &address, &world.signer),
        &["core.db.sig", "404"],
    );

    let (folder, address) = world.copy("pacman", "unsigned-package");
    for package in packages(&folder, ".sig") {
        if package.to_str().unwrap().contains("/coreutils-") {
            fs::remove_file(package).unwrap();
        }
    }
    mirror::list_pacman(&folder, "core", &world.signer);
    refused(
        &Build::new(Tool::Pacman, &address, &world.signer),
        &["coreutils", "sig"],
    );
}

#[test]
#[ignore = "needs dnf, zypper, pacman and what makes packages: ./dev test --full"]
fn a_server_that_is_away_is_named() {
    let world = world();
    // A port on which nothing listens: it was free just now.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let address = format!("http://127.0.0.1:{port}/");
    for tool in [Tool::Dnf, Tool::Zypper, Tool::Pacman] {
        refused(
            &Build::new(tool, &address, &world.signer),
            &[&format!("127.0.0.1:{port}"), "connect"],
        );
    }
}

#[test]
#[ignore = "needs dnf, zypper, pacman and what makes packages: ./dev test --full"]
fn a_package_that_is_not_there_is_named() {
    let world = world();
    for tool in [Tool::Dnf, Tool::Zypper, Tool::Pacman] {
        let address = format!("{}{}/", world.address, tool.repository());
        let build = Build::new(tool, &address, &world.signer);
        let recipe = build.place.path().join("recipe/recipe.kdl");
        let text = fs::read_to_string(&recipe).unwrap();
        fs::write(recipe, text.replace("\"sed\"", "\"sed\" \"nonesuch\"")).unwrap();
        refused(&build, &["nonesuch"]);
    }
}
