//! Ctrl-C, SIGTERM, the end of the terminal, and readers that go away.

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::Place;

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Until stead waits on its standard input.
fn until_it_reads(child: &Child) {
    let waits = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        assert!(!status.contains("State:\tZ"), "it has ended: {status}");
        let caught = (status.lines())
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        // SIGTERM, and the main thread sleeps.
        caught & (1 << 14) != 0 && status.contains("State:\tS")
    };
    while !waits() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_signal_ends_what_only_waits() {
    let place = Place::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut child = place
            .stead(&["fmt", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        until_it_reads(&child);
        // `wait` would close it, and the end of the input is an end too.
        let _open = child.stdin.take();
        kill(pid(&child), signal).unwrap();
        // As the signal ends a program without a handler, which is what shells look at.
        assert_eq!(child.wait().unwrap().signal(), Some(signal as i32));
    }
}

#[test]
fn a_signal_ends_a_download_of_which_nothing_comes() {
    let place = Place::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.qcow2", server.local_addr().unwrap());
    let mut child = place
        .stead(&["box", "add", &url, "--sha256", &"0".repeat(64)])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut connection, _) = server.accept().unwrap();
    assert!(connection.read(&mut [0; 64]).unwrap() > 0);
    kill(pid(&child), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGINT as i32));
}

/// Starts a build whose mmdebstrap is a script that leaves a file, starts another program and runs for ever.
fn build(place: &Place) -> Child {
    let bin = place.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let script = "#!/bin/sh\necho installing >&2\ntouch \"$TMPDIR/left\"\nsleep 1000 &\necho $$ $! >\"$HOME/pids.new\"\nmv \"$HOME/pids.new\" \"$HOME/pids\"\nwait\n";
    std::fs::write(bin.join("mmdebstrap"), script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bin.join("mmdebstrap"), mode).unwrap();
    for folder in ["home", "tmp"] {
        std::fs::create_dir_all(place.path().join(folder)).unwrap();
    }
    let pids = place.path().join("home/pids");
    let _ = std::fs::remove_file(&pids);
    let path = std::env::var("PATH").unwrap();
    let child = place
        .stead(&["box", "build", "debian-12"])
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("TMPDIR", place.path().join("tmp"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !pids.exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child
}

fn pids(place: &Place) -> Vec<String> {
    let text = std::fs::read_to_string(place.path().join("home/pids")).unwrap();
    text.split_whitespace().map(String::from).collect()
}

/// Whether it runs: a process that has ended, but whose parent has not looked yet, does not.
fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with(['Z', 'X']))
}

fn folders(place: &Place) -> usize {
    std::fs::read_dir(place.path().join("tmp")).unwrap().count()
}

#[test]
fn a_signal_ends_a_build_with_its_tools_and_folders() {
    let place = Place::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut child = build(&place);
        assert_eq!(folders(&place), 1);
        kill(pid(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(signal as i32));
        let left: Vec<String> = pids(&place).into_iter().filter(|pid| runs(pid)).collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(folders(&place), 0);
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(said.starts_with("building debian-12"), "{said}");
        assert!(!said.contains("error"), "{said}");
    }
}

#[test]
fn a_build_removes_what_a_killed_one_left() {
    let place = Place::new();
    let mut child = build(&place);
    child.kill().unwrap();
    child.wait().unwrap();
    let left = pids(&place);
    // Made by hand, or by another program: the name alone does not make a folder stead's.
    std::fs::create_dir(place.path().join("tmp/stead-build-mine")).unwrap();
    assert_eq!(folders(&place), 2);
    let prune = || {
        let mut prune = place.stead(&["--connect", "test:///default", "box", "prune", "-y"]);
        let output = prune
            .env("TMPDIR", place.path().join("tmp"))
            .output()
            .unwrap();
        place.said(&output)
    };
    // While another one works, only the folder of the killed one goes.
    let mut child = build(&place);
    assert_eq!(folders(&place), 2);
    assert!(prune().contains("nothing to remove"));
    child.kill().unwrap();
    child.wait().unwrap();
    let said = prune();
    assert!(
        said.contains("tmp/stead-build-") && said.contains("freed"),
        "{said}"
    );
    assert_eq!(folders(&place), 1);
    for pid in left.iter().chain(&pids(&place)).filter(|pid| runs(pid)) {
        // The kernel ends mmdebstrap with stead, but not what that has started.
        kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn what_is_ignored_from_the_start_stays_so() {
    let place = Place::new();
    let stead = place.stead(&[]);
    let mut child = Command::new("sh")
        .args(["-c", "trap '' HUP INT; exec \"$STEAD\" fmt -"])
        .env("STEAD", stead.get_program())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    until_it_reads(&child);
    kill(pid(&child), Signal::SIGHUP).unwrap();
    kill(pid(&child), Signal::SIGINT).unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"project \"shop\"\n").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"project \"shop\"\n");
}
