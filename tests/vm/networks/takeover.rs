//! The network of an older stead, built from this repository's history: `./dev` does so, and says by `STEAD_TEST_OLD_BIN`
//! where it is.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{in_guest, process, state_file};
use crate::project::{Project, archive, own_data, text, variable};

/// Answers datagrams.
const ECHO: &str = r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 5000))
while True:
    data, who = s.recvfrom(2000)
    s.sendto(data, who)
"#;

/// Asks for ever, and writes down how many answers came and what was lost.
const ASK: &str = r#"
import os, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)
s.connect((socket.gethostbyname("web"), 5000))
n = lost = 0
while True:
    n += 1
    try:
        s.send(str(n).encode())
        while s.recv(100) != str(n).encode(): pass
    except OSError: lost += 1
    with open("/tmp/new", "w") as file: print(n, lost, file=file)
    os.rename("/tmp/new", "/tmp/asked")
    time.sleep(0.1)
"#;

fn old(project: &Project, arguments: &[&str]) -> Output {
    let old = variable("STEAD_TEST_OLD_BIN");
    assert!(
        Path::new(&old).exists(),
        "{old} is not there: it is built from the history of the repository (`git fetch --unshallow`)"
    );
    let new = project.stead(arguments);
    let mut command = Command::new(old);
    command.args(new.get_args()).current_dir(&project.folder);
    for (name, value) in new.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null()).arg0("stead").output().unwrap()
}

#[track_caller]
fn old_ok(project: &Project, arguments: &[&str]) -> String {
    let output = old(project, arguments);
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits for so many more answers. Returns how many were lost so far.
fn asked(project: &Project, more: u32) -> u32 {
    let read = || -> (u32, u32) {
        let said = in_guest(project, "db", "cat /tmp/asked");
        let mut words = said.split_ascii_whitespace().map(|it| it.parse().unwrap());
        (words.next().unwrap(), words.next().unwrap())
    };
    let first = read();
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let now = read();
        if now.0 - now.1 >= first.0 - first.1 + more {
            return now.1;
        }
        assert!(
            Instant::now() < deadline,
            "no answers come: {first:?}, {now:?}"
        );
        sleep(Duration::from_millis(200));
    }
}

#[test]
#[ignore = "builds an older stead, which takes minutes: ./dev test --full"]
fn an_older_network_is_taken_over_and_a_newer_one_is_not() {
    let machinefile = r#"
        project "takeover"
        defaults { box "debian-12"; cpus 1; memory "384MiB"; ready { timeout "900s"; }; }
        machine "db"
        machine "web"
    "#;
    let project = Project::with_data("takeover", machinefile, &own_data("takeover-data"));
    old_ok(
        &project,
        &["box", "add", archive("debian-12").to_str().unwrap()],
    );
    old_ok(&project, &["up"]);
    let unit = |machine: &str, name: &str, script: &str| {
        let unit = format!("--unit={name}");
        let all = [
            "exec",
            machine,
            "--",
            "sudo",
            "systemd-run",
            "--quiet",
            &unit,
            "python3",
            "-c",
            script,
        ];
        project.ok(&all);
    };
    unit("web", "echo", ECHO);
    unit("db", "ask", ASK);
    let begun = Instant::now() + Duration::from_secs(60);
    while !project
        .stead(&["exec", "db", "--", "test", "-e", "/tmp/asked"])
        .output()
        .unwrap()
        .status
        .success()
    {
        assert!(Instant::now() < begun, "it does not begin");
    }
    old_ok(&project, &["link", "set", "db", "web", "latency=20ms"]);
    let program = || std::fs::read_link(format!("/proc/{}/exe", process(&project))).unwrap();
    let (older, newer) = (variable("STEAD_TEST_OLD_BIN"), variable("STEAD_BIN"));
    let beside = |stead: &str| {
        Path::new(stead)
            .with_file_name("stead-net")
            .canonicalize()
            .unwrap()
    };
    assert_eq!(program(), beside(&older));
    let mut lost = asked(&project, 5);

    // Whoever asks for something that the network knows replaces it.
    let boots = || ["db", "web"].map(|it| project.boot_id(it).unwrap());
    let booted = boots();
    project.ok(&["status"]);
    project.ok(&["port"]);
    assert_eq!(program(), beside(&newer));
    project.ok(&["up"]);
    let now = asked(&project, 5);
    assert!(now - lost <= 5, "{lost}, then {now}");
    lost = now;
    let link = project.ok(&["link"]).out;
    assert!(link.contains("by hand: latency 20ms"), "{link}");
    assert_eq!(boots(), booted);

    // The other way round, nothing is touched.
    let state = std::fs::read(state_file(&project)).unwrap();
    for refused in [&["up"][..], &["port"], &["link"], &["link", "cut", "db"]] {
        let output = old(&project, refused);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(
            text(&output).contains("a newer stead runs the network of the project"),
            "{}",
            text(&output)
        );
    }
    assert!(old_ok(&project, &["status"]).contains("ready"));
    assert_eq!(std::fs::read(state_file(&project)).unwrap(), state);
    assert_eq!(program(), beside(&newer));
    let link = project.ok(&["link"]).out;
    assert!(link.contains("by hand: latency 20ms"), "{link}");
    assert_eq!(asked(&project, 5), lost);
    project.ok(&["destroy", "-y"]);
    project.assert_gone("db");
}
