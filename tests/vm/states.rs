//! Machines that others than stead paused, saved, put a snapshot on or ended; and what a guest reaches.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::project::{Project, each_process, text, virsh};

const MACHINEFILE: &str = r#"
project "states"
machine "vm" {
    box "debian-12"
    cpus 1
    memory "384MiB"
    forward 18471 to=8000
    sync "src" to="/srv/src"
    provision "long" run="never" { shell inline="echo begun; sleep 7775.5"; }
    ready { timeout "900s"; }
}
"#;

/// A state is for a moment only: `virsh` returns before libvirt has told everybody.
#[track_caller]
fn wait_for_state(project: &Project, state: &str) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while project.state("vm") != state {
        assert!(Instant::now() < deadline, "vm does not become {state}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// `stead provision`, at work in the guest.
fn provisions(project: &Project) -> Child {
    let child = project
        .stead(&["provision", "vm", "--only", "long"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    project.ok(&[
        "ssh",
        "vm",
        "-c",
        "until pgrep -f '[s]leep 7775' >/dev/null; do sleep 0.1; done",
    ]);
    child
}

#[track_caller]
fn ends_with(child: Child, parts: &[&str]) {
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
}

#[test]
fn states_that_stead_did_not_bring_about() {
    let project = Project::new("states", MACHINEFILE);
    project.write("src/file", "one\n");
    project.ok(&["up"]);
    let domain = project.domain("vm");

    undefined(&project, &domain);
    paused(&project, &domain);
    reaches_no_host(&project, true);
    saved(&project, &domain);
    forwards_change(&project);
    ready_is_what_a_forward_reaches(&project);
    // From now on without a way out.
    let isolated = fs::read_to_string(project.folder.join("Machinefile"))
        .unwrap()
        .replace("cpus 1", "cpus 1\n    internet #false");
    project.write("Machinefile", &isolated);
    let plan = project.ok(&["plan"]).out;
    assert!(plan.contains("internet #true → #false"), "{plan}");
    snapshot(&project, &domain);
    added_devices(&project, &domain);
    reaches_no_host(&project, false);
    forwards_lead_in(&project);

    reboots(&project);

    // QEMU dies in the middle of something.
    let child = provisions(&project);
    let command = executes(&project, "sleep 7776");
    kill_qemu(&domain);
    ends_with(child, &["the machine stopped"]);
    let output = command.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{}", text(&output));
    let status = project.ok(&["status"]).out;
    assert!(status.contains("QEMU was killed or crashed"), "{status}");

    still_boots(&project, &domain);

    // Nothing of a snapshot is left, either.
    virsh(&["start", &domain]);
    virsh(&["snapshot-create-as", &domain, "--disk-only", "last"]);
    let file = project.data.join("images").join(format!("{domain}.last"));
    assert!(file.exists());
    project
        .ok(&["destroy", "-y"])
        .says(&["has a snapshot, whose file is deleted too", ".last"]);
    assert!(!file.exists());
    project.assert_gone("vm");
}

/// A machine that lost its definition while it runs gets one again, and outlasts the run.
fn undefined(project: &Project, domain: &str) {
    virsh(&["undefine", domain]);
    assert_eq!(project.steps("vm", &[])[0], "persist");
    project.ok(&["up"]);
    assert!(project.steps("vm", &[]).is_empty());
    assert_eq!(project.state("vm"), "ready");
    project.ok(&["exec", "vm", "--", "true"]);
    virsh(&["undefine", domain]);
    project.ok(&["halt"]);
    assert_eq!(project.state("vm"), "off");
    project.ok(&["up"]);
    assert_eq!(project.state("vm"), "ready");
}

/// Nobody waits for a guest that stands still, and nobody pulls its plug.
fn paused(project: &Project, domain: &str) {
    virsh(&["suspend", domain]);
    wait_for_state(project, "paused");
    let status = project.ok(&["status"]).out;
    assert!(
        status.contains("is paused: something other than stead paused it")
            && status.contains("`stead up vm` resumes it"),
        "{status}"
    );
    assert_eq!(project.field("vm", "paused")["reason"], "asked");
    const SAID: [&str; 2] = ["machine vm is paused", "`stead up vm` resumes it"];
    project.run(&["exec", "vm", "--", "true"], 1).says(&SAID);
    project.run(&["ssh", "vm", "-c", "true"], 1).says(&SAID);
    project.run(&["sync"], 1).says(&SAID);
    project.run(&["copy", "src/file", "vm:/tmp"], 1).says(&SAID);
    project
        .run(&["provision", "vm", "--only", "long"], 1)
        .says(&SAID);
    project.run(&["box", "pack", "vm"], 1).says(&SAID);
    assert_eq!(project.steps("vm", &[])[0], "resume");
    project.ok(&["up"]);
    assert_eq!(project.state("vm"), "ready");

    // Its clock stood still meanwhile, whoever has resumed it.
    virsh(&["suspend", domain]);
    std::thread::sleep(Duration::from_secs(6));
    virsh(&["resume", domain]);
    let clock = project.ok(&["exec", "vm", "--", "date", "+%s"]);
    clock.says(&["its clock was", "behind, and is right now"]);
    let guest: i64 = clock.out.trim().parse().unwrap();
    assert!((jiff::Timestamp::now().as_second() - guest).abs() <= 2);
    let again = project.ok(&["exec", "vm", "--", "true"]);
    assert!(!again.err.contains("its clock"), "{}", again.err);

    // In the middle of something.
    let child = provisions(project);
    virsh(&["suspend", domain]);
    ends_with(
        child,
        &["machine vm is paused", "run the same command again"],
    );
    project.ok(&["up"]);
    a_command_waits(project, domain);

    // The guest is asked to shut down, and does so.
    virsh(&["suspend", domain]);
    let halt = project.ok(&["halt"]);
    assert!(!halt.err.contains("did not shut down"), "{}", halt.err);
    let state = virsh(&["domstate", domain, "--reason"]);
    assert!(state.contains("shut off (shutdown)"), "{state}");
    project.ok(&["up"]);
}

/// Runs a command in the guest, and returns once it runs.
fn executes(project: &Project, command: &str) -> Child {
    let line = format!("touch /tmp/runs; {command}");
    let child = project
        .stead(&["exec", "vm", "--", "sh", "-c", &line])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let runs = "until rm /tmp/runs 2>/dev/null; do sleep 0.1; done";
    project.ok(&["ssh", "vm", "-c", runs]);
    child
}

/// A command that runs goes on after a pause, and its caller is told why it says nothing.
fn a_command_waits(project: &Project, domain: &str) {
    let mut child = executes(project, "sleep 3; echo done");
    virsh(&["suspend", domain]);
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut line = || said.next().unwrap().unwrap();
    let first = line();
    assert!(
        first.starts_with("waiting: machine vm is paused"),
        "{first}"
    );
    assert_eq!(line(), "hint: `stead up vm` resumes it");
    project.ok(&["up"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), &*output.stdout),
        (Some(0), &b"done\n"[..])
    );
}

/// What was saved goes on as it was, and what is shown is what is so.
fn saved(project: &Project, domain: &str) {
    project.ok(&["ssh", "vm", "-c", "echo in memory >/dev/shm/kept"]);
    virsh(&["managedsave", domain]);
    let edited = MACHINEFILE
        .replace("384MiB", "448MiB")
        .replace("18471", "18472");
    project.write("Machinefile", &edited);
    assert_eq!(project.state("vm"), "saved");
    let status = project.ok(&["status"]).out;
    assert!(
        status.contains("384MiB") && status.contains("18471→8000"),
        "{status}"
    );
    assert!(
        status.contains("is saved with its memory")
            && status.contains("memory is 384MiB, wanted 448MiB"),
        "{status}"
    );
    project
        .run(&["exec", "vm", "--", "true"], 1)
        .says(&["it is saved", "`stead up vm` continues from there"]);
    project
        .run(&["box", "pack", "vm"], 1)
        .says(&["machine vm is saved"]);
    let steps = project.steps("vm", &[]);
    assert_eq!(steps[0], "restore", "{steps:?}");
    project
        .ok(&["up"])
        .says(&["memory is 384MiB, wanted 448MiB"]);
    let kept = project
        .ok(&["exec", "vm", "--", "cat", "/dev/shm/kept"])
        .out;
    assert_eq!(kept, "in memory\n");
    let ports = project.ok(&["port"]).out;
    assert!(ports.contains("127.0.0.1:18471"), "{ports}");
    assert!(!ports.contains("18472"), "{ports}");
    project.write("Machinefile", MACHINEFILE);
    assert!(project.steps("vm", &[]).is_empty());
}

/// Other forwards are there at once, while connections go on.
fn forwards_change(project: &Project) {
    let is_open = |port: u16| TcpStream::connect(("127.0.0.1", port)).is_ok();
    let mut connected = TcpStream::connect((
        "127.0.0.1",
        u16::try_from(project.field("vm", "ssh_port").as_u64().unwrap()).unwrap(),
    ))
    .unwrap();
    let mut byte = [0];
    while byte != *b"\n" {
        std::io::Read::read_exact(&mut connected, &mut byte).unwrap();
    }
    project.write("Machinefile", &MACHINEFILE.replace("18471", "18473"));
    let plan = project.ok(&["plan"]).out;
    assert!(
        plan.contains("change while it runs: forward 18471→8000 → 18473→8000"),
        "{plan}"
    );
    project.ok(&["up"]);
    assert!(is_open(18473) && !is_open(18471));
    // sshd answers to what is no SSH.
    std::io::Write::write_all(&mut connected, b"\n\n").unwrap();
    assert!(std::io::Read::read(&mut connected, &mut [0; 99]).unwrap() > 0);
    // A port that is taken leaves everything as it is.
    let taken = TcpListener::bind("127.0.0.1:18474").unwrap();
    project.write("Machinefile", &MACHINEFILE.replace("18471", "18474"));
    project.run(&["up"], 1).says(&["port 18474 of 127.0.0.1"]);
    drop(taken);
    assert!(is_open(18473));
    project.write("Machinefile", MACHINEFILE);
    project.ok(&["up"]);
    assert!(is_open(18471) && !is_open(18473));
}

/// A snapshot that somebody made is never written under, and the way out that stead names works.
fn snapshot(project: &Project, domain: &str) {
    virsh(&["snapshot-create-as", domain, "--disk-only", "before"]);
    project.ok(&["ssh", "vm", "-c", "echo since >since; sync"]);
    assert_eq!(project.field("vm", "own_disk"), false);
    const SAID: &str = "machine vm has a snapshot that stead did not make";
    let status = project.ok(&["status"]).out;
    assert!(status.contains(SAID), "{status}");
    // Before it is halted: the way out is shortest while it runs.
    project.run(&["restart"], 1).says(&[SAID, "blockcommit"]);
    assert_eq!(project.state("vm"), "ready");
    project.run(&["box", "pack", "vm"], 1).says(&[SAID]);
    project.ok(&["halt"]).says(&[SAID, "before its next boot"]);
    let images = project.data.join("images");
    let own = images.join(format!("{domain}.qcow2"));
    let before = fs::read(&own).unwrap();
    let said = project.run(&["up"], 1);
    said.says(&[SAID, "--base", "docs/guides/troubleshooting.md"]);
    assert!(fs::read(&own).unwrap() == before, "the disk was written to");

    // The words of the message, as they stand.
    let hint = said.err.split("hint:").nth(1).unwrap();
    let start = format!("virsh start {domain}");
    let commit = hint
        .split('`')
        .find(|words| words.starts_with("virsh blockcommit"))
        .unwrap();
    assert!(hint.contains(&start), "{hint}");
    for line in [start.as_str(), commit] {
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        virsh(&words);
    }
    virsh(&["snapshot-delete", domain, "before", "--metadata"]);
    assert!(!images.join(format!("{domain}.before")).exists());
    assert_eq!(project.field("vm", "own_disk"), true);
    project.ok(&["up"]);
    let since = project.ok(&["exec", "vm", "--", "cat", "since"]).out;
    assert_eq!(since, "since\n");
}

/// What somebody put into the domain is there after a boot by stead, and said before it.
fn added_devices(project: &Project, domain: &str) {
    let disk = project.folder.join("added.img");
    let file = fs::File::create(&disk).unwrap();
    file.set_len(8 << 20).unwrap();
    let path = disk.to_str().unwrap();
    virsh(&[
        "attach-disk",
        domain,
        path,
        "vdb",
        "--subdriver",
        "raw",
        "--config",
    ]);
    virsh(&["desc", domain, "--config", "mine & yours"]);
    let said = format!("keeps what was added to its domain by hand: disk vdb ({path})");
    let status = project.ok(&["status"]).out;
    assert!(status.contains(&said), "{status}");
    project.ok(&["restart"]).says(&[&said]);
    let size = project.ok(&["exec", "vm", "--", "lsblk", "-bndo", "SIZE", "/dev/vdb"]);
    assert_eq!(size.out.trim(), (8 << 20).to_string());
    assert!(virsh(&["desc", domain, "--config"]).contains("mine & yours"));
    virsh(&["detach-disk", domain, "vdb", "--config"]);
}

/// A service that listens on the guest's own 127.0.0.1 only is not ready where a forward leads to it.
fn ready_is_what_a_forward_reaches(project: &Project) {
    let serve = |address: &str| {
        project.ok(&["ssh", "vm", "-c", "pkill -f '[h]ttp.server' || true"]);
        let script = format!(
            "setsid python3 -m http.server 8000 --bind {address} >/dev/null 2>&1 </dev/null & until grep -q :1F40 /proc/net/tcp; do sleep 0.1; done"
        );
        project.ok(&["ssh", "vm", "-c", &script]);
    };
    let checked = MACHINEFILE.replace("timeout \"900s\"", "tcp 8000; timeout \"8s\"");
    project.write("Machinefile", &checked);
    serve("127.0.0.1");
    project.run(&["up"], 1).says(&[
        "not ready within 8.0s",
        "what listens on port 8000 does so on 127.0.0.1 of the guest only; the forward of port 18471 cannot reach it: let it listen on 0.0.0.0",
    ]);
    serve("0.0.0.0");
    project.ok(&["up"]);
    assert_eq!(project.state("vm"), "ready");
    project.ok(&["ssh", "vm", "-c", "pkill -f '[h]ttp.server'"]);
    project.write("Machinefile", MACHINEFILE);
    project.ok(&["up"]);
}

/// What is tried from inside: an address of bash's, and whether somebody answers.
fn tries(project: &Project, address: &str, port: u16) -> bool {
    let script = format!("timeout 10 bash -c 'exec 3<>/dev/tcp/{address}/{port}' 2>/dev/null");
    let said = project
        .stead(&["exec", "vm", "--", "sh", "-c", &script])
        .output()
        .unwrap();
    said.status.success()
}

/// No service of the host's own addresses is reached, nor another machine's way in, by whatever address. `internet`:
/// whether others are.
fn reaches_no_host(project: &Project, internet: bool) {
    let four = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = four.local_addr().unwrap().port();
    let ssh = u16::try_from(project.field("vm", "ssh_port").as_u64().unwrap()).unwrap();
    // The network's own, what was QEMU's, and those of the host's interfaces.
    let mut addresses = vec!["10.0.2.1".to_string(), "10.0.2.2".into()];
    let own = nix::ifaddrs::getifaddrs().unwrap();
    addresses.extend(
        own.filter_map(|it| Some(it.address?.as_sockaddr_in()?.ip()))
            .filter(|address| !address.is_loopback())
            .map(|address| address.to_string()),
    );
    for address in addresses {
        // A forwarded port of a machine is a port of the host, whichever machine's.
        for port in [port, ssh] {
            assert!(!tries(project, &address, port), "{address}:{port}");
        }
    }
    if let Ok(six) = TcpListener::bind("[::1]:0") {
        let port = six.local_addr().unwrap().port();
        assert!(!tries(project, "fec0::2", port), "::1");
    }
    // Names are asked for at the network's own address, which answers in either case.
    assert!(tries(project, "10.0.2.1", 53), "DNS");
    if !internet {
        let asks = "timeout 10 getent hosts example.org || timeout 3 bash -c 'exec 3<>/dev/tcp/192.0.2.1/9'";
        let said = project
            .stead(&["exec", "vm", "--", "sh", "-c", asks])
            .output()
            .unwrap();
        assert!(!said.status.success(), "{}", text(&said));
    }
}

/// What leads in works without a way out.
fn forwards_lead_in(project: &Project) {
    const SERVE: &str = "setsid python3 -c 'import socket as s; l = s.create_server((\"\", 8000)); c = l.accept()[0]; c.sendall(b\"hello\"); c.close()' >/dev/null 2>&1 </dev/null & until grep -q :1F40 /proc/net/tcp; do sleep 0.1; done";
    project.ok(&["ssh", "vm", "-c", SERVE]);
    let mut stream = TcpStream::connect("127.0.0.1:18471").unwrap();
    let mut hello = String::new();
    std::io::Read::read_to_string(&mut stream, &mut hello).unwrap();
    assert_eq!(hello, "hello");
    project.write("src/file", "two\n");
    project.ok(&["sync"]);
    let said = project
        .ok(&["exec", "vm", "--", "cat", "/srv/src/file"])
        .out;
    assert_eq!(said, "two\n");
}

/// A guest that reboots by itself is not ready meanwhile, and what runs in it ends at once.
fn reboots(project: &Project) {
    assert_eq!(project.state("vm"), "ready");
    let child = provisions(project);
    // The connection ends with it.
    let _ = project
        .stead(&["ssh", "vm", "-c", "sudo systemctl reboot"])
        .output()
        .unwrap();
    ends_with(
        child,
        &[
            "the guest rebooted while provisioner long ran",
            "run `stead restart vm` after `stead up`",
        ],
    );
    wait_for_state(project, "rebooting");
    let status = project.ok(&["status"]).out;
    assert!(status.contains("vm: does not answer any more"), "{status}");
    let top = project.ok(&["top", "--once", "--interval", "200ms"]).out;
    assert!(top.contains("rebooting"), "{top}");
    assert_eq!(project.steps("vm", &[])[0], "reach");
    // What has to reach it waits, by a new connection.
    project.ok(&["exec", "vm", "--", "true"]);
    wait_for_state(project, "ready");
    project.ok(&["up"]);
}

/// A guest that has not booted yet: what waits for it ends when it cannot come, and it is shut down as soon as it hears that.
fn still_boots(project: &Project, domain: &str) {
    virsh(&["start", domain]);
    assert_eq!(project.state("vm"), "booting");
    let waits: Vec<Child> = [&["sync", "vm"][..], &["copy", "src/file", "vm:/tmp"]]
        .iter()
        .map(|words| {
            let mut command = project.stead(words);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    virsh(&["suspend", domain]);
    for child in waits {
        ends_with(child, &["machine vm is paused", "`stead up vm` resumes it"]);
    }
    virsh(&["resume", domain]);
    let halt = project.ok(&["halt"]);
    assert!(!halt.err.contains("powering it off"), "{}", halt.err);
    let state = virsh(&["domstate", domain, "--reason"]);
    assert!(state.contains("shut off (shutdown)"), "{state}");
}

/// QEMU of that domain, and of no other.
fn kill_qemu(domain: &str) {
    let guest = format!("guest={domain},");
    let mut found = 0;
    each_process(|pid, line| {
        if line.contains(&guest) {
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            found += 1;
        }
    });
    assert_eq!(found, 1);
}
