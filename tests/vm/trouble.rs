//! What goes wrong around a machine: ports in use, guests that do not boot, scripts that fail.

use std::{
    net::{TcpListener, UdpSocket},
    process::{Command, Stdio},
};

use crate::project::{Project, archive, data, is_system, stead_in, text, virsh};

/// SSH's port is taken while the machine is off: it moves. A port of the Machinefile is taken:
/// an error that names it, or another port, if that is allowed.
#[test]
fn busy_ports() {
    let project = Project::new(
        "ports",
        "project \"ports\"\nmachine \"vm\" { box \"debian-12\"; cpus 1; memory \"384MiB\"; forward 18462 to=80; forward 18464 to=81 protocol=\"udp\" auto-correct=#true; forward 18465; }\n",
    );
    {
        let _taken = TcpListener::bind("127.0.0.1:18462").unwrap();
        project
            .run(&["up"], 1)
            .says(&["port 18462 of 127.0.0.1 is in use", "auto-correct=#true"]);
    }
    let file = std::fs::read_to_string(project.folder.join("Machinefile")).unwrap();
    project.write("Machinefile", &file.replace("18462", "80"));
    project
        .run(&["up"], 2)
        .says(&["only root may listen on port 80 of 127.0.0.1", "8080"]);
    project.write("Machinefile", &file);
    let output = project
        .stead(&["up"])
        .env("STEAD_TEST_KILL_AT", "vm/start")
        .output()
        .unwrap();
    assert!(!output.status.success(), "{}", text(&output));
    let port = project.field("vm", "ssh_port").as_u64().unwrap();
    let _taken = TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:18464").unwrap();
    // The next one is the project's by TCP only.
    project.ok(&["up"]).says(&[
        "UDP port 18464 of 127.0.0.1 was in use, so port 18465 leads to port 81 of the guest",
    ]);
    assert_ne!(project.field("vm", "ssh_port").as_u64().unwrap(), port);
    drop(udp);
    let moved = &project.field("vm", "ports")[1];
    assert_eq!(
        (&moved["host"], &moved["instead_of"], &moved["protocol"]),
        (&18465.into(), &18464.into(), &"udp".into())
    );
    // The machine has this port as long as it runs.
    let plan = project.ok(&["plan"]).out;
    assert!(!plan.contains("forward"), "{plan}");
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

    // A prompt is there for who types at its console.
    let typed = project.with_input(&["console"], b"\r");
    assert!(
        typed.status.success() && String::from_utf8_lossy(&typed.stdout).contains("login:"),
        "{}",
        text(&typed)
    );

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

/// A failing provisioner leaves the machine up and is run again; what was asked of the guest and
/// cannot be is told.
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
    provision "slow" run="never" { shell timeout="2s" inline="setsid sleep 7771.5 & (trap '' TERM; sleep 7772.5) & sleep 7773.5"; }
    provision "long" run="never" { shell inline="echo begun; sleep 7774.5"; }
    provision "folder" run="never" { shell inline="true" workdir="/srv/none"; }
    provision "nobody" run="never" { shell inline="true" user="nobodyhere"; }
    provision "python" run="never" { shell inline="true" interpreter="python9"; }
    provision "onto" run="never" { file "bad.sh" to="/var/lib/dpkg"; }
    provision "owner" run="never" { file "bad.sh" to="/srv/bad" owner="nobodyhere"; }
    provision "tree" run="never" { file "tree" to="/srv/deep/tree" mode="0640" owner="www-data"; }
    ready { exec "test -e /tmp/good"; timeout "200s"; }
    after "up" { guest inline="echo all is well; test -e /tmp/hook"; }
}
machine "other" { depends-on "vm"; }
"#,
    );
    project.write(
        "bad.sh",
        "#!/bin/bash\nset -e\necho about to fail >&2\ntest -e /tmp/nothing\n",
    );
    project.write("tree/it's odd/$x", "odd\n");
    std::os::unix::fs::symlink("nowhere", project.folder.join("tree/link")).unwrap();
    project.run(&["up"], 1).says(&[
        "provisioner bad ended with exit code 1 at bad.sh:4: test -e /tmp/nothing",
        "about to fail",
        "stead provision vm --from bad",
        "other",
        "not tried",
    ]);
    assert_eq!(project.state("vm"), "booted");
    assert_eq!(project.state("other"), "absent");
    project.write("bad.sh", "#!/bin/sh\ntouch /tmp/good\n");
    let steps = project.steps("vm", &["vm"]);
    assert_eq!(steps, ["reach", "provision:bad", "ready", "after-up:1"]);
    // The rest of `up`, its hooks included; those are owed until they have run.
    project
        .run(&["provision", "vm", "--from", "bad"], 1)
        .says(&[
            "| all is well",
            "the hook after up (an inline script) ended with exit code 1",
        ]);
    project.ok(&["exec", "vm", "--", "touch", "/tmp/hook"]);
    assert_eq!(project.steps("vm", &["vm"]), ["after-up:1"]);
    project.ok(&["up", "vm"]);
    assert!(project.steps("vm", &["vm"]).is_empty());
    project.ok(&["provision", "vm"]).says(&["nothing to do"]);
    project
        .ok(&["provision", "vm", "--only", "first"])
        .says(&["| first"]);
    what_the_guest_lacks(&project);
    what_is_ended(&project);
    what_changes_while_it_runs(&project);
    project.ok(&["destroy", "-y"]);
}

/// Other checks and another folder are drift of a machine that runs, and `up` applies them.
fn what_changes_while_it_runs(project: &Project) {
    let machinefile = std::fs::read_to_string(project.folder.join("Machinefile")).unwrap();
    project.write(
        "Machinefile",
        &machinefile.replace(
            "ready { exec \"test -e /tmp/good\";",
            "sync \"tree\" to=\"/srv/tree\"\n    ready { exec \"test -d /srv/tree/it*\";",
        ),
    );
    assert_eq!(project.steps("vm", &["vm"]), ["sync:/srv/tree", "ready"]);
    let said = project.ok(&["status"]).out;
    assert!(
        said.contains("`stead up` would sync to /srv/tree"),
        "{said}"
    );
    project.ok(&["up", "vm"]);
    assert!(project.steps("vm", &["vm"]).is_empty());
    project.ok(&["exec", "vm", "--", "test", "-e", "/srv/tree/it's odd/$x"]);
}

fn what_the_guest_lacks(project: &Project) {
    let only = |name: &str, code: i32| project.run(&["provision", "vm", "--only", name], code);
    only("folder", 1).says(&["cannot run in /srv/none: machine vm has no such folder"]);
    only("nobody", 1).says(&["cannot run as user nobodyhere: machine vm has no such user"]);
    only("python", 1).says(&["needs python9, which machine vm does not have"]);
    only("onto", 1).says(&["cannot copy a file to /var/lib/dpkg: in machine vm that is a folder"]);
    only("owner", 1).says(&["machine vm has no user nobodyhere"]);
    only("tree", 0);
    let said = project.ok(&[
        "ssh",
        "vm",
        "-c",
        "cd /srv/deep && sudo find tree -printf '%M %u:%g %p\\n' | sort",
    ]);
    assert_eq!(
        said.out,
        "-rw-r----- www-data:www-data tree/it's odd/$x\n\
         drwxr-x--- www-data:www-data tree\n\
         drwxr-x--- www-data:www-data tree/it's odd\n\
         lrwxrwxrwx www-data:www-data tree/link\n"
    );
}

/// When its time is up, and when stead is interrupted or killed, nothing of a script goes on.
fn what_is_ended(project: &Project) {
    let wait_until_gone = || {
        project.ok(&["ssh", "vm", "-c", "while pgrep -f '[s]leep 777|/tmp/[s]tead' >/dev/null || ls /tmp | grep -q stead; do sleep 0.2; done"]);
    };
    let slow = project.run(&["provision", "vm", "--only", "slow"], 1);
    slow.says(&["provisioner slow timed out after 2.0s, and was killed"]);
    let left = project
        .ok(&["ssh", "vm", "-c", "pgrep -fc '[s]leep 777'; true"])
        .out;
    assert_eq!(left, "0\n");
    wait_until_gone();
    for (signal, ends) in [("-INT", Some(130)), ("-KILL", None)] {
        let mut child = project
            .stead(&["provision", "vm", "--only", "long"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        project.ok(&[
            "ssh",
            "vm",
            "-c",
            "until pgrep -f '[s]leep 7774' >/dev/null; do sleep 0.1; done",
        ]);
        let state = || {
            let all = project.field("vm", "provisioners");
            let rows = all.as_array().unwrap();
            let long = rows.iter().find(|row| row["name"] == "long").unwrap();
            long["state"].as_str().unwrap().to_string()
        };
        assert_eq!(state(), "running");
        let id = child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(child.wait().unwrap().code(), ends);
        assert_eq!(state(), "failed");
        wait_until_gone();
    }
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
    assert!(
        said.contains(&domain) && said.contains("stead did not make"),
        "{said}"
    );
    assert!(left.contains(&domain), "{left}\n{}", text(&destroy));
}

/// No space for the overlay: a clear error, and the same command works when there is.
#[test]
fn no_space_for_the_disk() {
    assert!(is_system(), "a small file system wants root");
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
        "project \"no-space\"\nmachine \"vm\" { box \"debian-12\"; cpus 1; memory \"384MiB\"; ready { timeout \"900s\"; }; }\n",
        &folder,
    );
    let filler = folder.join("filler");
    fill(&filler);
    let said = project.run(&["up"], 1);
    said.says(&["No space left on device"]);
    // A little more room each time: it is full at another moment, and each `up` goes on.
    let size = std::fs::metadata(&filler).unwrap().len();
    let mut failed = 0;
    for free in [4, 8, 12, 20, 28, 44, 60, 100, 200, 400, 4096] {
        std::fs::File::options()
            .write(true)
            .open(&filler)
            .unwrap()
            .set_len(size.saturating_sub(free << 10))
            .unwrap();
        let output = project
            .stead(&["up"])
            .env("STEAD_TEST_KILL_AT", "vm/start")
            .output()
            .unwrap();
        let said = text(&output);
        println!("{free} KiB free: {said}");
        assert!(!said.contains("panicked"), "{said}");
        if output.status.code().is_none() {
            assert!(said.contains("seeding"), "{said}");
            break;
        }
        // What was said by ssh-keygen or libvirt is as they say it.
        assert!(said.contains("No space left on device"), "{said}");
        project.ok(&["status"]);
        failed += 1;
        assert!(free < 4096, "{said}");
    }
    assert!(failed >= 2, "only {failed} moments were tried");
    std::fs::remove_file(&filler).unwrap();
    fills_up_under_a_guest(&project, &filler);
    project.ok(&["destroy", "-y"]);
    project.assert_gone("vm");
}

/// The host's disk fills up while the guest writes: nothing hangs, the guest is not killed, and it
/// goes on when there is room.
fn fills_up_under_a_guest(project: &Project, filler: &std::path::Path) {
    project.ok(&["up"]);
    // It begins before the disk is full: from then on, the guest may stop at whatever it writes.
    project.ok(&["ssh", "vm", "-c", "sudo setsid sh -c 'for i in $(seq 1000); do [ -e /run/enough ] && break; dd if=/dev/urandom of=/var/tmp/much.$i bs=1M count=1 oflag=direct; done && touch /run/done' >/dev/null 2>&1 </dev/null &"]);
    fill(filler);
    for _ in 0..600 {
        if project.state("vm") == "paused" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let status = project.ok(&["status"]).out;
    let mounted = filler.parent().unwrap().display().to_string();
    let free = format!("free at least 512 MiB on {mounted} (");
    assert!(
        status.contains("is paused: there is no space left for its disk vda")
            && status.contains(&free),
        "{status}"
    );
    let why = project.field("vm", "paused");
    assert_eq!(why["reason"], "disk-error");
    assert_eq!(why["disks"][0]["full"], true);
    const SAID: &str = "machine vm is paused: there is no space left for its disk vda";
    project
        .run(&["exec", "vm", "--", "true"], 1)
        .says(&[SAID, &free]);
    project.run(&["up"], 1).says(&[SAID, &free]);
    // Not asked, so not killed.
    project.run(&["halt"], 1).says(&[SAID, &free]);
    assert_eq!(project.state("vm"), "paused");
    std::fs::remove_file(filler).unwrap();
    project.ok(&["up"]);
    assert_eq!(project.state("vm"), "ready");
    project.ok(&[
        "ssh",
        "vm",
        "-c",
        "sudo touch /run/enough; until [ -e /run/done ]; do sleep 0.2; done",
    ]);
    project.ok(&["halt"]);
    assert_eq!(project.state("vm"), "off");
}

fn fill(filler: &std::path::Path) {
    let _ = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M"])
        .arg(format!("of={}", filler.display()))
        .output();
}
