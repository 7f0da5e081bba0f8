//! A Vagrant box, packed from a machine: Vagrant takes it, and so does stead.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::project::{Project, text};

/// What the Vagrant boxes that people publish have: a user whom the well-known key lets in, who may
/// become root, and nothing that configures the machine from outside.
const MAKE_IT_ONE: &str = r#"
set -eu
useradd --create-home --shell /bin/bash vagrant
echo 'vagrant ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/vagrant
install -d -m 700 -o vagrant -g vagrant ~vagrant/.ssh
echo "$KEY" >~vagrant/.ssh/authorized_keys
chown vagrant: ~vagrant/.ssh/authorized_keys
printf '[Match]\\nName=en*\\n[Network]\\nDHCP=yes\\n' >/etc/systemd/network/05-dhcp.network
touch /etc/cloud/cloud-init.disabled
# A box has no host keys until it boots.
mkdir -p /etc/systemd/system/ssh.service.d
cat >/etc/systemd/system/ssh.service.d/keys.conf <<END
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
END
echo marked >/etc/vagrant-box
"#;

/// Vagrant's own.
const INSECURE_KEY: &str = include_str!("../../src/guest/vagrant_keys/rsa.pub").trim_ascii_end();

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What is in the box, and that nothing of the machine that it was made of is.
fn look_into(file: &Path, folder: &Path) {
    fs::create_dir(folder).unwrap();
    run(Command::new("tar")
        .arg("-xzf")
        .arg(file)
        .arg("-C")
        .arg(folder));
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["Vagrantfile", "box.img", "metadata.json"]);
    let metadata = fs::read(folder.join("metadata.json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).unwrap();
    assert_eq!(
        metadata,
        serde_json::json!({"provider": "libvirt", "format": "qcow2", "virtual_size": 3})
    );
    // The disk is whole and clean: the root file system begins at sector 4096.
    let qemu_img = || {
        let mut command = Command::new("qemu-img");
        command.current_dir(folder);
        command
    };
    run(qemu_img().args(["check", "-q", "box.img"]));
    run(qemu_img().args(["convert", "-O", "raw", "box.img", "box.raw"]));
    let in_image = |request: &str| {
        run(Command::new("/sbin/debugfs").current_dir(folder).args([
            "-R",
            request,
            &format!("box.raw?offset={}", 4096 * 512),
        ]))
    };
    assert_eq!(in_image("cat /etc/machine-id"), "");
    assert_eq!(in_image("cat /etc/hostname"), "localhost\n");
    assert!(in_image("ls -l /etc/ssh").contains("sshd_config"));
    assert!(!in_image("ls -l /etc/ssh").contains("ssh_host_"));
    assert!(in_image("ls -l /home").contains("debian"));
    assert!(!in_image("ls -l /home/debian/.ssh").contains("authorized_keys"));
    assert!(!in_image("ls -l /var/lib/cloud").contains("instance"));
    fs::remove_dir_all(folder).unwrap();
}

fn with_a_second_disk(file: &Path, folder: &Path) -> PathBuf {
    fs::create_dir(folder).unwrap();
    run(Command::new("tar")
        .arg("-xzf")
        .arg(file)
        .arg("-C")
        .arg(folder));
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "data.img", "64M"])
        .current_dir(folder));
    fs::write(
        folder.join("metadata.json"),
        r#"{"provider":"libvirt","disks":[{"path":"box.img","format":"qcow2"},{"path":"data.img","format":"qcow2"}]}"#,
    )
    .unwrap();
    let two = folder.join("two.box");
    run(Command::new("tar")
        .arg("-cf")
        .arg(&two)
        .args([
            "./data.img",
            "./metadata.json",
            "./box.img",
            "./Vagrantfile",
        ])
        .current_dir(folder));
    two
}

#[test]
#[ignore = "boots a slow image four times; packed:: tries its making: ./dev test --full"]
fn a_vagrant_box_comes_up_with_keys_of_its_own() {
    let maker = Project::new(
        "vagrant-maker",
        &format!(
            "project \"vagrant-maker\"\nmachine \"vm\" {{ box \"debian-12-cloud\"; cpus 1; memory \"768MiB\"; provision \"make\" {{ shell inline=#\"\"\"\n{MAKE_IT_ONE}\n\"\"\"# {{ env KEY=\"{INSECURE_KEY}\"; }}; }}; ready {{ timeout \"600s\"; }}; }}\n"
        ),
    );
    maker.ok(&["up"]);
    maker
        .run(&["box", "pack", "vm", "--format", "vagrant"], 2)
        .says(&["--output"]);
    maker.ok(&[
        "box", "pack", "vm", "--format", "vagrant", "--output", "team.box",
    ]);
    maker.ok(&["destroy", "-y"]);
    let file = maker.folder.join("team.box");
    look_into(&file, &maker.folder.join("unpacked"));

    // Vagrant itself takes it for one.
    let home = maker.folder.join("vagrant-home");
    run(Command::new("vagrant")
        .args(["box", "add", "--name", "team/base", "--provider", "libvirt"])
        .arg(&file)
        .env("VAGRANT_HOME", &home)
        .env("HOME", &maker.folder));
    let boxes = fs::read_dir(home.join("boxes")).unwrap().count();
    assert!(boxes > 0);

    // The same with a second disk, as boxes of version 2 may have.
    let file = with_a_second_disk(&file, &maker.folder.join("two"));
    let project = Project::new(
        "vagrant-box",
        &format!(
            "project \"vagrant-box\"\nnetwork \"default\" subnet=\"10.77.2.0/24\"\nmachine \"vm\" {{ network \"default\" address=\"10.77.2.9\"; box \"{}\"; cpus 1; memory \"768MiB\"; hostname \"own.test\"; sync \"files\" to=\"/srv/files\"; ready {{ timeout \"600s\"; }}; }}\n",
            file.display()
        ),
    );
    project.write("files/a", "a\n");
    project.ok(&["up"]);
    let exec = |arguments: &[&str]| {
        project
            .ok(&[&["exec", "--"], arguments].concat())
            .out
            .trim()
            .to_string()
    };
    assert!(exec(&["uname", "-r"]).ends_with("-cloud-amd64"));
    assert_eq!(exec(&["id", "-un"]), "vagrant");
    assert_eq!(exec(&["hostname"]), "own.test");
    // Its card on the project's network is up, and the project's names are found by it.
    let name = exec(&["getent", "ahostsv4", "vm.vagrant-box.internal"]);
    assert!(name.starts_with("10.77.2.9 "), "{name}");
    assert_eq!(
        exec(&["cat", "/etc/vagrant-box", "/srv/files/a"]),
        "marked\na"
    );
    // Nobody gets in by the key that everybody has, and the host key is the one made here.
    let keys = exec(&["cat", ".ssh/authorized_keys"]);
    assert!(
        !keys.contains("NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr") && keys.contains("stead client"),
        "{keys}"
    );
    assert_eq!(
        exec(&["sh", "-c", "ls /etc/ssh/ssh_host_*_key"]),
        "/etc/ssh/ssh_host_ed25519_key"
    );
    project.ok(&["up"]).says(&["is up"]);
    let size = ["sudo", "blockdev", "--getsize64", "/dev/vdb"];
    assert_eq!(exec(&size), (64 << 20).to_string());
    exec(&["sudo", "mkfs.ext4", "-q", "-L", "data", "/dev/vdb"]);
    project.ok(&["halt"]);
    project.ok(&["up"]);
    assert_eq!(
        exec(&["sudo", "blkid", "-s", "LABEL", "-o", "value", "/dev/vdb"]),
        "data"
    );
    assert_eq!(exec(&["hostname"]), "own.test");
    let domain = project.domain("vm");
    project.ok(&["destroy", "-y"]);
    project.assert_gone("vm");
    let left = fs::read_dir(project.data.join("images")).unwrap();
    let left: Vec<_> = (left.flatten().map(|entry| entry.file_name()))
        .filter(|name| name.to_string_lossy().starts_with(&domain))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
