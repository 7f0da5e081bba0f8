//! Boxes in Vagrant's format, made here from a machine's disk.

use std::{fs, path::PathBuf, process::Command};

use crate::project::{Project, text};

/// What the Vagrant boxes that people publish have: a user whom the well-known key lets in, who may
/// become root, and nothing that configures the machine from outside.
const MAKE_IT_ONE: &str = r#"
set -eu
useradd --create-home --shell /bin/bash vagrant
echo 'vagrant ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/vagrant
install -d -m 700 -o vagrant -g vagrant ~vagrant/.ssh
echo "$KEY vagrant insecure public key" >~vagrant/.ssh/authorized_keys
chown vagrant: ~vagrant/.ssh/authorized_keys
printf '[Match]\\nName=en*\\n[Network]\\nDHCP=yes\\n' >/etc/systemd/network/05-dhcp.network
touch /etc/cloud/cloud-init.disabled
rm -f /etc/ssh/ssh_host_*
ssh-keygen -q -A
echo marked >/etc/vagrant-box
"#;

/// Vagrant's `keys/vagrant.pub`.
const INSECURE_KEY: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ==";

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
}

/// A box of a machine's disk.
fn make_box(from: &Project) -> PathBuf {
    let domain = from.domain("vm");
    let disk = from.data.join("images").join(format!("{domain}.qcow2"));
    let folder = from.folder.join("box");
    fs::create_dir_all(&folder).unwrap();
    run(Command::new("qemu-img")
        .args(["convert", "-O", "qcow2"])
        .arg(&disk)
        .arg(folder.join("box.img")));
    fs::write(
        folder.join("metadata.json"),
        r#"{"provider":"libvirt","format":"qcow2","virtual_size":10}"#,
    )
    .unwrap();
    fs::write(
        folder.join("Vagrantfile"),
        "Vagrant.configure(\"2\") do |config|\n  config.ssh.username = \"vagrant\"\nend\n",
    )
    .unwrap();
    let file = from.folder.join("team.box");
    run(Command::new("tar")
        .arg("-czf")
        .arg(&file)
        .arg("-C")
        .arg(&folder)
        .args(["./metadata.json", "./Vagrantfile", "./box.img"]));
    file
}

#[test]
fn a_vagrant_box_comes_up_with_keys_of_its_own() {
    let maker = Project::new(
        "vagrant-maker",
        &format!(
            "project \"vagrant-maker\"\nmachine \"vm\" {{ box \"debian-12-cloud\"; cpus 1; memory \"768MiB\"; provision \"make\" {{ shell inline=#\"\"\"\n{MAKE_IT_ONE}\n\"\"\"# {{ env KEY=\"{INSECURE_KEY}\"; }}; }}; ready {{ timeout \"600s\"; }}; }}\n"
        ),
    );
    maker.ok(&["up"]);
    maker.ok(&["halt"]);
    let file = make_box(&maker);
    maker.ok(&["destroy", "-y"]);

    // Vagrant itself takes it for one.
    let home = maker.folder.join("vagrant-home");
    run(Command::new("vagrant")
        .args(["box", "add", "--name", "team/base", "--provider", "libvirt"])
        .arg(&file)
        .env("VAGRANT_HOME", &home)
        .env("HOME", &maker.folder));
    let boxes = fs::read_dir(home.join("boxes")).unwrap().count();
    assert!(boxes > 0);

    let project = Project::new(
        "vagrant-box",
        &format!(
            "project \"vagrant-box\"\nmachine \"vm\" {{ box \"{}\"; cpus 1; memory \"768MiB\"; hostname \"own.test\"; sync \"files\" to=\"/srv/files\"; ready {{ timeout \"600s\"; }}; }}\n",
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
    project.ok(&["halt"]);
    project.ok(&["up"]);
    assert_eq!(exec(&["hostname"]), "own.test");
    project.ok(&["destroy", "-y"]);
    project.assert_gone("vm");
}
