//! A host in production is played by a machine with a bootloader of its own; another one boots its
//! kernel with its settings.

use std::fs;

use crate::project::{Project, text};

const MACHINEFILE: &str = r#"
project "capture"
machine "prod" {
    box "debian-12-cloud"
    cpus 2
    memory "1GiB"
}
machine "dev" {
    box "debian-12"
    memory "768MiB"
    cpu "nearest"
    kernel { capture "prod-db"; }
}
"#;

/// As an administrator does it: the boot loader's options, files of sysctl.d and modprobe.d, and a
/// setting that is in no file.
const SETTINGS: &str = "set -e
sed -i 's/loglevel=4/loglevel=4 mitigations=off transparent_hugepage=never isolcpus=1/' /boot/grub/grub.cfg
printf 'vm.swappiness = 7\\nnet.core.somaxconn = 8192\\n' >/etc/sysctl.d/50-db.conf
echo 'options dm_mod dm_numa_node=0' >/etc/modprobe.d/db.conf
echo tcp_bbr >/etc/modules-load.d/db.conf
sync";

#[test]
#[ignore = "boots five times, one after the other: ./dev test --full"]
fn a_captured_host_is_booted_and_compared() {
    let project = Project::new("capture", MACHINEFILE);
    // Not yet captured: said before anything is made.
    project.run(&["up", "dev"], 1).says(&[
        "Machinefile:12:5",
        "no kernel in the store is called prod-db",
    ]);
    assert_eq!(project.state("dev"), "absent");

    project.ok(&["up", "prod"]);
    project.ok(&["exec", "prod", "--", "sudo", "sh", "-c", SETTINGS]);
    project.reboot("prod", || {});
    project.ok(&[
        "exec",
        "prod",
        "--",
        "sudo",
        "sysctl",
        "-w",
        "vm.max_map_count=262144",
    ]);

    // The user's own ssh, with a configuration that knows the host.
    let config = project.folder.join("ssh.conf");
    fs::write(&config, project.ok(&["ssh-config", "prod"]).out).unwrap();
    let config = config.to_str().unwrap();
    let refused = project.run(&["kernel", "capture", "prod", "--", "-F", config], 2);
    refused.says(&[
        "/boot/vmlinuz-6.1",
        "cannot ask: standard input is not a terminal",
    ]);
    project.run(&["kernel", "show", "prod-db"], 1);

    // Where the image is root's, it is got by sudo, and where that asks for a password, not at all.
    project.ok(&[
        "exec",
        "prod",
        "--",
        "sudo",
        "sh",
        "-c",
        "chmod 0600 /boot/vmlinuz-*",
    ]);
    project.ok(&["exec", "prod", "--", "sudo", "touch", "/run/stamp"]);
    let captured = project.ok(&[
        "kernel", "capture", "prod", "--name", "prod-db", "-y", "--full", "--", "-F", config,
    ]);
    captured.says(&["with sudo: only root can read it", "captured prod-db"]);
    for part in [
        "mitigations=off",
        "vm.swappiness",
        "isolcpus=1",
        "names disks of that host",
    ] {
        assert!(
            captured.out.contains(part),
            "{part} is not in:\n{}",
            captured.out
        );
    }
    let written = "find /boot /etc /home /lib/modules /root /usr /var/tmp /tmp -newer /run/stamp";
    let said = project.ok(&["exec", "prod", "--", "sudo", "sh", "-c", written]);
    assert_eq!(said.out, "", "written on prod");
    let show = project.ok(&["kernel", "show", "prod-db"]);
    assert!(
        show.out.contains("captured from prod") && show.out.contains("vm.swappiness"),
        "{}",
        show.out
    );

    project.ok(&["up", "dev"]);
    let said = project.ok(&["exec", "dev", "--", "cat", "/proc/cmdline"]);
    assert!(said.out.contains("mitigations=off"), "{}", said.out);
    assert!(
        !said.out.contains("isolcpus") && !said.out.contains("BOOT_IMAGE"),
        "{}",
        said.out
    );
    let settings = |machine: &str| {
        let read = "cd /proc/sys && cat vm/swappiness net/core/somaxconn vm/max_map_count";
        let said = project.ok(&["exec", machine, "--", "sh", "-c", read]);
        said.out
    };
    assert_eq!(settings("dev"), "7\n8192\n262144\n");
    let same = project
        .stead(&["kernel", "compare", "dev"])
        .output()
        .unwrap();
    assert!(same.status.success(), "{}", text(&same));
    let told = project.json(&["kernel", "compare", "dev", "prod-db", "--json"]);
    assert_eq!(told["same"], true);

    // It holds at the next boot too, and leaves nothing on the machine's disk.
    project.ok(&["restart", "dev"]);
    assert_eq!(settings("dev"), "7\n8192\n262144\n");
    project.ok(&[
        "exec",
        "dev",
        "--",
        "sh",
        "-c",
        "! grep -rq swappiness /etc/sysctl.d /usr/lib/sysctl.d",
    ]);

    // What nobody announced is told apart.
    project.ok(&[
        "exec",
        "dev",
        "--",
        "sudo",
        "sysctl",
        "-qw",
        "vm.swappiness=60",
    ]);
    let said = project.run(&["kernel", "compare", "dev"], 1);
    assert!(said.out.contains("vm.swappiness: 7 → 60"), "{}", said.out);
    said.says(&["dev differs from prod-db: sysctl"]);
}
