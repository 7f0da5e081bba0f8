//! Boxes of other kinds: with a bootloader, raw, with several disks, Vagrant's.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use crate::project::{Project, archive, data, stead_in, text};

// It takes minutes, most of them for one guest. Tests begin by their names, and the last of them would have the
// machine to itself.
#[path = "vagrant.rs"]
mod vagrant;

/// A box that boots by its own bootloader, seeded by cloud-init, with the user's own user-data.
#[test]
fn a_cloud_image_comes_up() {
    let project = Project::new(
        "cloud",
        r#"
project "cloud"
machine "vm" {
    box "debian-12-cloud"
    cpus 1
    memory "768MiB"
    disk "4GiB"
    hostname "cloudy"
    user-data "user-data.gz"
    provision "who" { shell inline="id -un; sudo -n id -un" privileged=#false; }
    ready { timeout "600s"; }
}
"#,
    );
    // An archive in an archive, compressed: as EC2 takes it.
    project.write(
        "user-data",
        "Content-Type: multipart/mixed; boundary=\"==outer==\"\nMIME-Version: 1.0\n\n\
         --==outer==\nContent-Type: multipart/mixed; boundary=inner\n\n\
         --inner\nContent-Type: text/x-shellscript\n\n#!/bin/sh\necho script >/var/tmp/script\nexit 3\n\
         --inner\nContent-Type: text/cloud-boothook\n\n#cloud-boothook\n#!/bin/sh\necho hook >/var/tmp/boothook\n\
         --inner--\n\
         --==outer==\nContent-Type: text/cloud-config\n\n#cloud-config\nhostname: theirs\nusers:\n  - name: alice\n\
         write_files:\n  - path: /etc/from-user-data\n    content: yes it was\nruncmd:\n  - [touch, /var/tmp/runcmd]\n\
         --==outer==\nContent-Type: text/jinja2\n\n## template: jinja\n#cloud-config\n\
         bootcmd:\n  - echo {{ v1.instance_id }} >/var/tmp/template\n\
         --==outer==--\n",
    );
    let compressed = Command::new("gzip")
        .arg(project.folder.join("user-data"))
        .status()
        .unwrap();
    assert!(compressed.success());
    project.ok(&["up"]).says(&[
        "| debian",
        "| root",
        "cloud-init reports an error: module scripts-user failed",
    ]);
    assert_eq!(project.ok(&["exec", "--", "hostname"]).out, "cloudy\n");
    assert_eq!(
        project
            .ok(&["exec", "--", "cat", "/etc/from-user-data"])
            .out
            .trim(),
        "yes it was"
    );
    project.ok(&["exec", "--", "test", "-e", "/var/tmp/runcmd"]);
    let uuid = project.field("vm", "uuid");
    let said = project.ok(&[
        "exec",
        "--",
        "sudo",
        "sh",
        "-c",
        "cat /var/tmp/script /var/tmp/boothook /var/tmp/template; id -un alice",
    ]);
    // Their user is there beside stead's, and stead's hostname holds.
    assert_eq!(
        said.out,
        format!("script\nhook\n{}\nalice\n", uuid.as_str().unwrap())
    );
    let size = project
        .ok(&["exec", "--", "df", "--output=size", "-BM", "/"])
        .out;
    let size: u64 = size
        .lines()
        .last()
        .unwrap()
        .trim()
        .trim_end_matches('M')
        .parse()
        .unwrap();
    assert!(size > 3500, "{size} MiB: the partition was not grown");
    project.ok(&["halt"]);
    project.ok(&["up"]);
    project.ok(&["destroy", "-y"]);
    project.assert_gone("vm");
}

/// While its SSH server is away for three minutes, many commands wait for it. None of them fails, and the server, whose
/// log says so, sees one login at a time.
#[ignore = "the boot is slow on purpose"]
#[test]
fn a_slow_ssh_server_is_asked_by_one_at_a_time() {
    let project = Project::new(
        "slow-ssh",
        r#"
project "slow-ssh"
machine "vm" {
    box "debian-12-cloud"
    cpus 1
    memory "768MiB"
    user-data "user-data"
    provision "done" { shell inline="true"; }
    ready { timeout "30m"; }
}
"#,
    );
    project.write(
        "user-data",
        "#cloud-config\nbootcmd:\n  - echo LogLevel VERBOSE >/etc/ssh/sshd_config.d/loud.conf\n  - [sleep, 180]\n",
    );
    let start = |arguments: &[&str]| {
        project
            .stead(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let up = start(&["up"]);
    while project.state("vm") != "booting" {
        std::thread::sleep(Duration::from_millis(300));
    }
    std::thread::sleep(Duration::from_secs(60));
    let mut waiting: Vec<_> = (0..6)
        .map(|_| start(&["exec", "vm", "--", "echo", "there"]))
        .collect();
    waiting.push(start(&["ssh", "vm", "-c", "echo there"]));
    let up = up.wait_with_output().unwrap();
    assert!(up.status.success(), "{}", text(&up));
    for child in waiting {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"there\n", "{}", text(&output));
    }
    let log = project
        .ok(&[
            "exec",
            "vm",
            "--",
            "sudo",
            "journalctl",
            "-b",
            "-u",
            "ssh",
            "-o",
            "cat",
        ])
        .out;
    let mut open: Vec<&str> = Vec::new();
    let mut connections = 0;
    for line in log.lines() {
        for bad in [
            "throttling",
            "drop connection",
            "exceeded",
            "Timeout before",
        ] {
            assert!(!line.contains(bad), "{log}");
        }
        // `Connection from 10.77.0.1 port 51234 on …`, `Accepted publickey for stead from 10.77.0.1 port 51234 …`
        let port = line.split_once(" port ").map(|(_, rest)| rest);
        let Some(port) = port.and_then(|rest| rest.split([' ', ':']).next()) else {
            continue;
        };
        if line.starts_with("Connection from ") {
            open.push(port);
            connections += 1;
        } else if line.starts_with("Accepted ")
            || line.contains("closed by")
            || line.contains("reset by")
            || line.contains("Connection closed")
        {
            open.retain(|it| *it != port);
        }
        assert!(open.len() <= 1, "{open:?} wait at once:\n{log}");
    }
    assert!(connections > 0, "the log has no connections:\n{log}");
    project.ok(&["destroy", "-y"]);
}

#[test]
fn user_data_wants_cloud_init() {
    let project = Project::new(
        "no-cloud-init",
        "project \"nci\"\nmachine \"vm\" { box \"debian-12\"; cpus 1; memory \"384MiB\"; user-data \"u.yaml\"; }\n",
    );
    project.write("u.yaml", "#cloud-config\n{}\n");
    project.run(&["up"], 2).says(&[
        "`user-data` needs cloud-init, but debian-12, the box of vm, does not have it",
        "Machinefile:2:",
    ]);
    project.assert_gone("vm");
}

#[test]
fn a_box_in_use_stays() {
    // With a store of its own, since boxes that are not in use are removed; and a box of its own,
    // since machines of all stores on this connection count, those of other tests too.
    let own = data().parent().unwrap().join("in-use-data");
    let project = Project::with_data(
        "in-use",
        "project \"in-use\"\nmachine \"vm\" { box \"./in-use-only.img\"; cpus 1; memory \"384MiB\"; }\n",
        &own,
    );
    let image = project.folder.join("in-use-only.img");
    let mut disk = b"no other test has this\n".repeat(50_000);
    disk.truncate(1 << 20);
    // By which a raw disk is known.
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(&image, disk).unwrap();
    project.ok(&["box", "add", image.to_str().unwrap()]);
    // Defined and no further: that is enough to need the box.
    let status = project
        .stead(&["up"])
        .env("STEAD_TEST_KILL_AT", "vm/start")
        .status()
        .unwrap();
    assert!(!status.success());
    project
        .run(&["box", "remove", "in-use-only"], 1)
        .says(&["in-use-only", "in-use"]);
    // Told to look elsewhere, it looks here too.
    let elsewhere = [
        "--connect",
        "test:///default",
        "box",
        "remove",
        "in-use-only",
    ];
    for force in [&[][..], &["--force"]] {
        project
            .run(&[&elsewhere[..], force].concat(), 1)
            .says(&["machine vm of project in-use"]);
    }
    project.ok(&["box", "verify", "in-use-only"]);
    let prune = ["box", "prune", "--days", "0"];
    project
        .ok(&[&prune[..], &["-y"]].concat())
        .says(&["nothing to remove"]);
    project.ok(&["destroy", "-y"]);
    // Used a moment ago.
    project
        .ok(&["box", "prune", "-y"])
        .says(&["nothing to remove"]);
    project
        .ok(&[&prune[..], &["--dry-run"]].concat())
        .says(&["keeping box in-use-only", "cannot be fetched again"]);
    project
        .ok(&[&prune[..], &["-y"]].concat())
        .says(&["nothing to remove"]);
    let list = project.ok(&["box", "list"]).out;
    assert!(list.contains("in-use-only"), "{list}");
    // Where it came from names it too.
    project
        .ok(&["box", "remove", image.to_str().unwrap()])
        .says(&["freed"]);
    assert_eq!(fs::read_dir(own.join("images")).unwrap().count(), 0);
}

/// A box file altered or cut after `add` is noticed, and nothing boots from it.
#[test]
fn an_altered_box_does_not_boot() {
    let data = data().parent().unwrap().join("altered-data");
    fs::create_dir_all(&data).unwrap();
    let output = stead_in(&data, &data)
        .args(["box", "add"])
        .arg(archive("debian-12"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let project = Project::with_data(
        "altered",
        "project \"altered\"\nmachine \"vm\" { box \"debian-12\"; cpus 1; memory \"384MiB\"; }\n",
        &data,
    );
    let disk = fs::read_dir(data.join("images"))
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("box-")
        })
        .unwrap();
    let mut permissions = fs::metadata(&disk).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a test's own file")]
    permissions.set_readonly(false);
    fs::set_permissions(&disk, permissions).unwrap();
    // One byte, the size as before.
    {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(&disk)
            .unwrap();
        let mut byte = [0u8];
        file.read_exact_at(&mut byte, 1_000_000).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 1_000_000).unwrap();
    }
    project.run(&["up"], 1).says(&["debian-12", "sha256"]);
    project.run(&["box", "verify", "debian-12"], 1);
    let file = fs::File::options().write(true).open(&disk).unwrap();
    file.set_len(1_000_000).unwrap();
    project.run(&["up"], 1).says(&["debian-12"]);
    assert_ne!(project.state("vm"), "ready");
    project.assert_gone("vm");
}
