use std::{net::TcpListener, process::Command};

use crate::project::{Project, archive, data, is_system, stead_in, text, virsh};

/// SSH's port is taken while the machine is off: it moves. A port of the Machinefile is taken:
/// an error that names it.
#[test]
fn busy_ports() {
    let project = Project::new(
        "ports",
        "project \"ports\"\nmachine \"vm\" { box \"debian-12\"; cpus 1; memory \"384MiB\"; forward 18462 to=80; }\n",
    );
    {
        let _taken = TcpListener::bind("127.0.0.1:18462").unwrap();
        project
            .run(&["up"], 1)
            .says(&["port 18462 of 127.0.0.1 is taken", "forward"]);
    }
    let output = project
        .stead(&["up"])
        .env("STEAD_TEST_KILL_AT", "vm/start")
        .output()
        .unwrap();
    assert!(!output.status.success(), "{}", text(&output));
    let port = project.field("vm", "ssh_port").as_u64().unwrap();
    let _taken = TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
    project.ok(&["up"]);
    assert_ne!(project.field("vm", "ssh_port").as_u64().unwrap(), port);
    project.ok(&["exec", "--", "true"]);
    project.ok(&["destroy", "-y"]);
}

/// A machine that does not get to SSH in time is kept, with the end of its console in the error,
/// and `up` goes on waiting for it.
#[test]
fn no_ssh_in_time() {
    let machinefile = |timeout| {
        format!(
            "project \"slow\"\nmachine \"vm\" {{ box \"debian-12\"; cpus 1; memory \"384MiB\"; ready {{ timeout \"{timeout}\"; }}; }}\n"
        )
    };
    let project = Project::new("slow", &machinefile("4s"));
    project.run(&["up"], 1).says(&[
        "no SSH login within 4.0s",
        "the end of its console:",
        "it is left running",
        "stead logs vm",
    ]);
    assert_eq!(project.state("vm"), "booting");
    project.write("Machinefile", &machinefile("300s"));
    project.ok(&["up"]);
    assert_eq!(project.state("vm"), "ready");

    // A guest that powers itself off is off, whatever was recorded.
    project.ok(&["ssh", "-c", "sudo systemctl poweroff || true"]);
    for _ in 0..300 {
        if project.state("vm") == "off" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(project.state("vm"), "off");
    project.ok(&["destroy", "-y"]);
    project.assert_gone("vm");
}

/// A failing provisioner leaves the machine up and is run again.
#[test]
fn a_failing_provisioner() {
    let project = Project::new(
        "failing",
        r#"
project "failing"
defaults { box "debian-12"; cpus 1; memory "384MiB"; }
machine "vm" {
    provision "first" { shell inline="echo first"; }
    provision "bad" { shell "bad.sh"; }
    ready { exec "test -e /tmp/good"; timeout "200s"; }
}
machine "other" { depends-on "vm"; }
"#,
    );
    project.write("bad.sh", "#!/bin/sh\necho about to fail >&2\nexit 3\n");
    project
        .run(&["up"], 1)
        .says(&["provisioner bad ended with exit code 3", "about to fail", "stead provision vm", "other", "not tried"]);
    assert_eq!(project.state("vm"), "booting");
    assert_eq!(project.state("other"), "absent");
    project.write("bad.sh", "#!/bin/sh\ntouch /tmp/good\n");
    let steps = project.steps("vm", &["vm"]);
    assert_eq!(steps, ["reach", "provision:bad", "ready"]);
    project.ok(&["up", "vm"]);
    project.ok(&["provision", "vm", "--only", "first"]).says(&["| first"]);
    project.ok(&["destroy", "-y"]);
}

/// A domain of the same name that stead did not make is left alone.
#[test]
fn a_strangers_domain_is_left_alone() {
    let project = Project::new(
        "stranger",
        "project \"stranger\"\nmachine \"vm\" { box \"debian-12\"; cpus 1; memory \"384MiB\"; }\n",
    );
    let domain = project.domain("vm");
    let xml = project.folder.join("stranger.xml");
    std::fs::write(
        &xml,
        format!("<domain type='qemu'><name>{domain}</name><memory>1024</memory><os><type>hvm</type></os></domain>"),
    )
    .unwrap();
    virsh(&["define", xml.to_str().unwrap()]);
    let up = project.stead(&["up"]).output().unwrap();
    let destroy = project.stead(&["destroy", "-y"]).output().unwrap();
    let left = virsh(&["list", "--all", "--name"]);
    virsh(&["undefine", &domain]);
    assert_eq!(up.status.code(), Some(1), "{}", text(&up));
    let said = String::from_utf8_lossy(&up.stderr);
    assert!(said.contains(&domain) && said.contains("stead did not make"), "{said}");
    assert!(left.contains(&domain), "{left}\n{}", text(&destroy));
}

/// No space for the overlay: a clear error, and the same command works when there is.
#[test]
fn no_space_for_the_disk() {
    // A small file system wants root.
    if !is_system() {
        return;
    }
    let folder = data().parent().unwrap().join("full");
    std::fs::create_dir_all(&folder).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3g,mode=755", "stead-full"])
        .arg(&folder)
        .status()
        .unwrap();
    assert!(mounted.success());
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(folder.clone());
    let output = stead_in(&folder, &folder)
        .args(["box", "add"])
        .arg(archive("debian-12"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let project = Project::with_data(
        "no-space",
        "project \"no-space\"\nmachine \"vm\" { box \"debian-12\"; cpus 1; memory \"384MiB\"; }\n",
        &folder,
    );
    let filler = folder.join("filler");
    let _ = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M"])
        .arg(format!("of={}", filler.display()))
        .output();
    let said = project.run(&["up"], 1);
    said.says(&["No space left on device"]);
    std::fs::remove_file(&filler).unwrap();
    let output = project
        .stead(&["up"])
        .env("STEAD_TEST_KILL_AT", "vm/start")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("seeding"), "{}", text(&output));
    project.ok(&["destroy", "-y"]);
    project.assert_gone("vm");
}
