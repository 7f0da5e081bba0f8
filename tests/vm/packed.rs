//! Machines as boxes, and what others than stead take.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    project::{Project, text, virsh},
    registry::Registry,
};

/// What is to stay, and what is not.
const PROVISION: &str = r#"#!/bin/sh
set -e
mkdir -p /srv/app
echo marker >/srv/app/marker
for home in /root /home/stead; do
    echo secret >$home/.bash_history
    mkdir -p $home/.ssh
    echo 'ssh-ed25519 AAAAC3somebody somebody' >$home/.ssh/authorized_keys
done
cat /etc/ssh/authorized_keys.d/stead >>/home/stead/.ssh/authorized_keys
echo line >/var/log/app.log
echo line >/var/log/app.log.1
echo left >/tmp/left
echo left >/var/tmp/left
"#;

/// Everything that is looked at in a guest, in one connection.
const LOOK: &str = r#"
cat /etc/machine-id
cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub
cat /srv/app/marker
for file in /root/.bash_history /home/stead/.bash_history /var/log/app.log.1 /tmp/left /var/tmp/left; do
    [ ! -e "$file" ] || echo "left: $file"
done
[ ! -s /var/log/app.log ] || echo "left: /var/log/app.log"
grep -c . /home/stead/.ssh/authorized_keys
"#;

fn look(project: &Project) -> Vec<String> {
    let said = project.ok(&["exec", "--", "sudo", "sh", "-c", LOOK]).out;
    said.lines().map(str::to_string).collect()
}

/// A copy has neither a domain nor a disk.
#[track_caller]
fn assert_no_copy(project: &Project, machine: &str) {
    let domain = project.domain(machine);
    let start = domain.rsplit_once('-').unwrap().0;
    let copy = format!("{start}.pack-");
    let listed = virsh(&["list", "--all", "--name"]);
    assert!(!listed.contains(&copy), "{listed}");
    for entry in fs::read_dir(project.data.join("images")).unwrap().flatten() {
        let name = entry.file_name();
        assert!(!name.to_string_lossy().contains(&copy), "{name:?} is left");
    }
}

/// The folder of the copy that `status` shows.
#[track_caller]
fn copy_folder(project: &Project, machine: &str) -> PathBuf {
    let uuid = project.field(&format!("{machine}.pack"), "uuid");
    project.data.join("machines").join(uuid.as_str().unwrap())
}

fn is_copied(project: &Project, machine: &str) -> bool {
    let status = project.json(&["status", "--json"]);
    status["machines"]
        .as_array()
        .unwrap()
        .iter()
        .any(|row| row["machine"] == format!("{machine}.pack"))
}

fn killed_at(project: &Project, arguments: &[&str], at: &str) {
    let output = project
        .stead(arguments)
        .env("STEAD_TEST_KILL_AT", at)
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(9), "{}", text(&output));
}

#[test]
#[ignore = "boots four times, one after the other: ./dev test --full"]
fn a_machine_becomes_a_box() {
    let project = Project::new(
        "packing",
        "project \"packing\"\nmachine \"vm\" { box \"debian-12\"; cpus 1; memory \"384MiB\"; provision \"app\" { shell \"app.sh\"; }; }\n",
    );
    project.write("app.sh", PROVISION);
    project
        .run(&["box", "pack", "vm"], 1)
        .says(&["machine vm has not been made yet", "stead up vm"]);
    project.ok(&["up"]);
    let before = look(&project);
    assert_eq!(before[2], "marker");
    assert_eq!(before.len(), 3 + 6 + 1, "{before:?}");

    // What an upgrade does that removes the kernel that stead boots.
    let modules = |from: &str, to: &str| {
        let script = format!("mv /lib/modules/$(uname -r){from} /lib/modules/$(uname -r){to}");
        project.ok(&["exec", "--", "sudo", "sh", "-c", &script]);
    };
    modules("", ".away");
    project
        .run(&["box", "pack", "vm"], 1)
        .says(&["machine vm has no /lib/modules/6", "debian-12-cloud"]);
    assert_no_copy(&project, "vm");
    modules(".away", "");

    // While it runs; it goes on as it was.
    project
        .run(&["box", "pack", "vm", "--name", "a b"], 2)
        .says(&["a b", "--name"]);
    project
        .ok(&[
            "box",
            "pack",
            "vm",
            "--version",
            "1",
            "--label",
            "team=db",
            "--label",
            "tier=1",
        ])
        .says(&["packed vm as packing-vm:1"]);
    assert_no_copy(&project, "vm");
    assert_eq!(project.state("vm"), "ready");
    assert_eq!(look(&project), before);
    project
        .run(&["box", "pack", "vm", "--version", "1"], 2)
        .says(&["packing-vm:1 is in the store already", "--version"]);

    // What it says of itself.
    let shown = project.json(&["box", "show", "packing-vm", "--json"]);
    let parent = project.json(&["box", "show", "debian-12", "--json"]);
    assert_eq!(shown["parent"], parent["digest"]);
    assert_eq!(shown["labels"]["team"], "db");
    assert_eq!(shown["manifest"]["boot"], parent["manifest"]["boot"]);
    let shown = project.ok(&["box", "show", "packing-vm:1"]).out;
    assert!(shown.contains("packed from debian-12:"), "{shown}");
    assert!(shown.contains("label       team=db"), "{shown}");

    // Somebody else's project, on another host, begins where this one is, as another machine.
    let registry = Registry::start();
    let place = format!("oci://{}/team/base:1", registry.host());
    project.ok(&["box", "push", "packing-vm", &place]);
    let theirs = project.data.parent().unwrap().join("packed-data");
    let other = Project::with_data(
        "packed",
        &format!(
            "project \"packed\"\nmachine \"next\" {{ box \"{place}\"; cpus 1; memory \"384MiB\"; }}\n"
        ),
        &theirs,
    );
    other.ok(&["up"]);
    let pulled = other.json(&["box", "show", "packing-vm", "--json"]);
    let packed = project.json(&["box", "show", "packing-vm", "--json"]);
    assert_eq!(pulled["digest"], packed["digest"]);
    let lock = fs::read_to_string(other.folder.join("Machinefile.lock")).unwrap();
    assert!(lock.contains(&place), "{lock}");
    let after = look(&other);
    assert_eq!(after[2], "marker");
    assert_ne!(after[0], before[0], "the machine id is the same");
    assert_ne!(after[1], before[1], "the host key is the same");
    // Somebody's key stayed, stead's did not.
    assert_eq!(after[3..], ["1".to_string()], "{after:?}");
    assert_eq!(other.ok(&["exec", "--", "hostname"]).out, "next\n");
    let release = other.ok(&["exec", "--", "uname", "-r"]).out;
    assert_eq!(
        parent["manifest"]["boot"]["direct"]["kernel_release"],
        release.trim()
    );
    other.ok(&["destroy", "-y"]);
    project.ok(&["box", "remove", "packing-vm:1"]);

    halted(&project);
    project.ok(&["destroy", "-y"]);
    project.assert_gone("vm");
    assert_no_copy(&project, "vm");
}

/// A machine that is off: killed, interrupted, and packed as an archive.
fn halted(project: &Project) {
    project.ok(&["halt"]);
    // A copy runs on the machine's disk and would keep it from being started.
    killed_at(project, &["box", "pack", "vm"], "vm.pack/reach");
    assert_eq!(project.field("vm.pack", "state"), "packing");
    let folder = copy_folder(project, "vm");
    assert!(folder.exists());
    killed_at(project, &["up"], "vm/box");
    assert_no_copy(project, "vm");
    assert!(!folder.exists());

    let child = project
        .stead(&["box", "pack", "vm"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !is_copied(project, "vm") {
        std::thread::sleep(Duration::from_millis(50));
    }
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(
        text(&output).contains("no box was made"),
        "{}",
        text(&output)
    );
    assert_no_copy(project, "vm");
    assert!(!folder.exists());

    killed_at(project, &["box", "pack", "vm"], "vm.pack/copy-disk");
    project.ok(&["box", "pack", "vm", "--output", "vm.stead.tar.zst"]);
    assert_no_copy(project, "vm");
    assert_eq!(project.state("vm"), "off");
    // It is in the archive, and only there.
    project.run(&["box", "show", "packing-vm"], 1);
    project.ok(&["box", "add", "vm.stead.tar.zst"]);
    project.ok(&["box", "verify", "packing-vm"]);
    project.ok(&["box", "remove", "packing-vm"]);
    project
        .run(
            &[
                "box", "pack", "vm", "--format", "vagrant", "--output", "x.box",
            ],
            1,
        )
        .says(&["debian-12", "bootloader", "debian-12-cloud"]);
    assert!(!project.folder.join("x.box").exists());
}

/// What others than stead take.
#[test]
fn a_box_in_other_forms() {
    let project = Project::new(
        "forms",
        "project \"forms\"\nmachine \"vm\" { box \"b\"; }\n",
    );
    project.ok(&[
        "box",
        "export",
        "debian-12-cloud",
        "--format",
        "vmdk",
        "--output",
        "vm.vmdk",
    ]);
    let content = fs::read(project.folder.join("vm.vmdk")).unwrap();
    assert!(content.starts_with(b"KDMV"));
    project.ok(&[
        "box",
        "export",
        "debian-12-cloud",
        "--format",
        "vhd",
        "--output",
        "vm.vhd",
    ]);
    // Azure wants whole MiB and a footer of 512 bytes.
    let size = fs::metadata(project.folder.join("vm.vhd")).unwrap().len();
    assert_eq!(size, (3 << 30) + 512);
}
