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
