//! Repositories of the small distribution, made and signed by the tools that distributions use.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{signer::Signer, world::Tree};

/// Makes a repository of .rpm packages in a folder.
pub(crate) fn rpm(folder: &Path, trees: &[Tree], signer: &Signer) {
    let work = tempfile::tempdir().unwrap();
    let mut spec = String::from(
        "Name: world\nVersion: 1\nRelease: 1\nSummary: x\nLicense: x\n\
         %global debug_package %{nil}\n%global __os_install_post %{nil}\n\
         %global _binary_payload w1.gzdio\n%description\nx\n",
    );
    let mut files = String::new();
    for Tree { name, folder } in trees {
        let after = match *name {
            "filesystem" => "",
            "glibc" => "Requires: filesystem\n",
            // What its script runs.
            "systemd" => "Requires(post): bash sed\n",
            _ => "Requires: glibc\n",
        };
        let shell = if *name == "bash" {
            "Provides: /bin/sh\n"
        } else {
            ""
        };
        write!(
            spec,
            "%package -n {name}\nSummary: x\nAutoReqProv: no\n{after}{shell}%description -n {name}\nx\n"
        )
        .unwrap();
        if *name == "systemd" {
            // What a script sees, and may do.
            write!(spec, "%post -n systemd\n{SCRIPT}").unwrap();
        }
        write!(
            files,
            "%files -n {name}\n%defattr(-,root,root)\n{}",
            listed(folder)
        )
        .unwrap();
    }
    spec.push_str("%install\n");
    for Tree { folder, .. } in trees {
        writeln!(spec, "cp -a {}/. %{{buildroot}}/", folder.display()).unwrap();
    }
    spec.push_str(&files);
    let spec_file = work.path().join("world.spec");
    fs::write(&spec_file, spec).unwrap();
    let define = |name: &str, path: &Path| format!("{name} {}", path.display());
    fs::create_dir_all(folder).unwrap();
    run(Command::new("rpmbuild")
        .args([
            "-bb",
            "--quiet",
            "--define",
            &define("_topdir", work.path()),
        ])
        .args(["--define", &define("_rpmdir", folder)])
        .arg(spec_file));
    let mut sign = Command::new("rpmsign");
    sign.args(["--define", &format!("_gpg_name {}", signer.fingerprint)])
        .args(["--define", &define("_gpg_path", &signer.home)])
        .args(["--define", "__gpg /usr/bin/gpg"])
        .arg("--addsign");
    for package in packages(folder, ".rpm") {
        sign.arg(package);
    }
    run(&mut sign);
    list_rpm(folder, signer);
}

/// A script that a package brings. It leaves in /root what it could do and see.
const SCRIPT: &str = "\
grep ^CapEff: /proc/self/status >/root/script-may
for path in etc/shadow home old usr/bin/sh; do
    [ ! -e \"/proc/1/root/$path\" ] || echo \"$path\"
done >/root/script-saw
";

/// Makes the signed list of a repository of .rpm packages.
pub(crate) fn list_rpm(folder: &Path, signer: &Signer) {
    run(Command::new("createrepo_c").arg("--quiet").arg(folder));
    let repomd = folder.join("repodata/repomd.xml");
    let signature = signer.sign("--detach-sign", &fs::read(&repomd).unwrap());
    let armoured = {
        let binary = folder.join("repodata/repomd.xml.sig");
        fs::write(&binary, signature).unwrap();
        let text = run(Command::new("gpg")
            .args(["--batch", "--enarmor", "--output", "-"])
            .arg(&binary));
        fs::remove_file(binary).unwrap();
        text.replace("ARMORED FILE", "SIGNATURE")
    };
    fs::write(folder.join("repodata/repomd.xml.asc"), armoured).unwrap();
    // As openSUSE's servers offer it. It must not be taken.
    fs::write(folder.join("repodata/repomd.xml.key"), &signer.armoured).unwrap();
}

/// Makes a repository of pacman's packages in a folder, as NAME.db.
pub(crate) fn pacman(folder: &Path, name: &str, trees: &[Tree], signer: &Signer) {
    fs::create_dir_all(folder).unwrap();
    let work = tempfile::tempdir().unwrap();
    // makepkg does not run as root.
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for Tree { name, folder: tree } in trees {
        let place = work.path().join(name);
        fs::create_dir(&place).unwrap();
        let install = if *name == "systemd" {
            fs::write(
                place.join("script"),
                format!("post_install() {{\n{SCRIPT}}}\n"),
            )
            .unwrap();
            "install=script\n"
        } else {
            ""
        };
        fs::write(
            place.join("PKGBUILD"),
            format!(
                "pkgname={name}\npkgver=1\npkgrel=1\npkgdesc=x\narch=({})\nlicense=(x)\noptions=(!strip !debug !purge)\n\
                 {install}package() {{ cp -a {}/. \"$pkgdir\"; }}\n",
                std::env::consts::ARCH,
                tree.display()
            ),
        )
        .unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
        let mut make = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "makepkg",
            ]);
            command
        } else {
            Command::new("makepkg")
        };
        run(make
            .args(["--nodeps", "--noconfirm"])
            .env("HOME", &place)
            .env("PKGEXT", ".pkg.tar.zst")
            .current_dir(&place));
        for package in packages(&place, ".pkg.tar.zst") {
            fs::copy(&package, folder.join(package.file_name().unwrap())).unwrap();
        }
    }
    for package in packages(folder, ".pkg.tar.zst") {
        sign_beside(&package, signer);
    }
    list_pacman(folder, name, signer);
}

/// Makes the signed list of a repository of pacman's packages.
pub(crate) fn list_pacman(folder: &Path, name: &str, signer: &Signer) {
    let list = folder.join(format!("{name}.db.tar.gz"));
    run(Command::new("repo-add")
        .args(["--quiet", "--nocolor"])
        .arg(&list)
        .args(packages(folder, ".pkg.tar.zst")));
    let plain = folder.join(format!("{name}.db"));
    fs::remove_file(&plain).unwrap();
    fs::copy(&list, &plain).unwrap();
    sign_beside(&plain, signer);
}

pub(crate) fn sign_beside(file: &Path, signer: &Signer) {
    let signature = signer.sign("--detach-sign", &fs::read(file).unwrap());
    fs::write(format!("{}.sig", file.display()), signature).unwrap();
}

/// All files below a folder whose names end so.
pub(crate) fn packages(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                packages(&path, end)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.to_str().unwrap().ends_with(end))
        .collect();
    found.sort();
    found
}

/// The %files of a tree.
fn listed(tree: &Path) -> String {
    let mut text = String::new();
    let mut open = vec![tree.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let kind = entry.file_type().unwrap();
            let is_folder = kind.is_dir();
            let below = path.strip_prefix(tree).unwrap().display().to_string();
            if is_folder {
                open.push(path);
                // Others put files there too; the tree of folders itself is of one package.
                if tree.ends_with("filesystem") {
                    writeln!(text, "%dir \"/{below}\"").unwrap();
                }
            } else {
                writeln!(text, "\"/{below}\"").unwrap();
            }
        }
    }
    text
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}\n`./dev test --full` installs it"));
    assert!(
        output.status.success(),
        "{command:?}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
