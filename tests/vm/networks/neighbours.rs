//! Two projects whose networks have the same subnet, and whose machines have the same address.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{in_guest, interfaces, process, state_file};
use crate::project::{Project, archive, is_system, own_data};

const MACHINEFILE: &str = r#"
project "NAME"
defaults { box "debian-12"; cpus 1; memory "384MiB"; ready { timeout "900s"; }; }
network "back" subnet="10.88.0.0/24"
machine "db" { network "back" address="10.88.0.10" aliases="of-NAME"; }
"#;

/// Serves a word at ports.
const SERVER: &str = r#"
import socket, sys, threading
def serve(port):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", port)); s.listen()
    while True:
        c, _ = s.accept(); c.sendall(sys.argv[1].encode()); c.close()
for port in sys.argv[2:]: threading.Thread(target=serve, args=[int(port)]).start()
"#;

/// Prints who is heard on the card, until the machine itself says that it is the end.
const LISTENER: &str = r#"
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind(("enp0s16", 0))
print("listening", flush=True)
heard = set()
while "the-end" not in heard:
    frame = s.recv(2000)
    heard |= {word for word in ("from-a", "from-b", "the-end") if word.encode() in frame}
print(*sorted(heard))
"#;

/// Says a word to all, and to the MAC of the other one.
const SPEAKER: &str = r#"
import socket, subprocess, sys
word, mac = sys.argv[1:]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
subprocess.run(["ip", "neigh", "replace", "10.88.0.77", "lladdr", mac, "dev", "enp0s16"], check=True)
for _ in range(20):
    s.sendto(word.encode(), ("10.88.0.255", 5000))
    s.sendto(word.encode(), ("10.88.0.77", 5000))
"#;

fn speak(project: &Project, word: &str, mac: &str) {
    let all = [
        "exec", "db", "--", "sudo", "python3", "-c", SPEAKER, word, mac,
    ];
    project.ok(&all);
}

fn serve(project: &Project, word: &str, ports: &[&str]) {
    let all = [
        &[
            "exec",
            "db",
            "--",
            "sudo",
            "systemd-run",
            "--quiet",
            "--unit=serves",
        ],
        &["python3", "-c", SERVER, word][..],
        ports,
    ];
    project.ok(&all.concat());
}

/// What is served at the address that both have on this computer.
fn served(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.88.0.10", port)).ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    Some(said)
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(200));
    }
}

fn sockets(project: &Project) -> PathBuf {
    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(state_file(project)).unwrap()).unwrap();
    let control = PathBuf::from(state["control"].as_str().unwrap());
    control.parent().unwrap().to_path_buf()
}

#[test]
fn two_projects_with_one_subnet_do_not_meet() {
    let project = |name: &str| {
        let data = own_data(&format!("{name}-data"));
        let project = Project::with_data(name, &MACHINEFILE.replace("NAME", name), &data);
        project.ok(&["box", "add", archive("debian-12").to_str().unwrap()]);
        project
    };
    let (a, b) = (project("a"), project("b"));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| a.ok(&["up"]));
        until("a starts", || {
            ["booting", "booted"].contains(&a.state("db").as_str()) || first.is_finished()
        });
        let said = b.ok(&["up"]);
        said.says(&[
            "machine db of project a (",
            ") has 127.88.0.10 on this computer too",
        ]);
        first.join().unwrap();
    });

    // Neither names, nor what is said to all, nor what is said to the other one's card.
    let mac = |project: &Project| {
        let networks = project.field("db", "networks");
        assert_eq!(networks[0]["address"], "10.88.0.10");
        networks[0]["mac"].as_str().unwrap().to_string()
    };
    let names = "getent hosts of-a.a.internal of-a of-b.b.internal of-b || true";
    assert_eq!(
        in_guest(&a, "db", names),
        "10.88.0.10      of-a.a.internal\n10.88.0.10      of-a.a.internal\n"
    );
    assert_eq!(
        in_guest(&b, "db", names),
        "10.88.0.10      of-b.b.internal\n10.88.0.10      of-b.b.internal\n"
    );
    let mut listener = b
        .stead(&[
            "exec", "db", "--", "sudo", "timeout", "300", "python3", "-c", LISTENER,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut heard = BufReader::new(listener.stdout.take().unwrap()).lines();
    assert_eq!(heard.next().unwrap().unwrap(), "listening");
    speak(&a, "from-a", &mac(&b));
    speak(&b, "from-b", &mac(&a));
    speak(&b, "the-end", &mac(&a));
    assert_eq!(heard.next().unwrap().unwrap(), "from-b the-end");
    listener.wait().unwrap();

    // A port that both have is that of the machine that had it first, and the other one's commands say so.
    serve(&a, "a", &["8611"]);
    until("a is served", || served(8611).as_deref() == Some("a"));
    serve(&b, "b", &["8611", "8612"]);
    until("b is served", || served(8612).as_deref() == Some("b"));
    let holder = format!(
        "machine db of project a ({}) has port 8611 at 127.88.0.10",
        a.folder.display()
    );
    let ports = || b.ok(&["port"]).out;
    let said = format!("db: port 8611 is not on this computer: {holder}");
    assert!(
        ports().contains(&said) && ports().contains("127.88.0.10:8612"),
        "{}",
        ports()
    );
    b.run(&["url", "db", "8611"], 1).says(&[&holder]);
    assert_eq!(served(8611).unwrap(), "a");
    let note = |project: &Project| project.ok(&["status"]).out;
    assert!(
        note(&a).contains("machine db of project b ("),
        "{}",
        note(&a)
    );
    assert!(
        note(&b).contains("machine db of project a ("),
        "{}",
        note(&b)
    );

    // Somebody removes the network first, and then the machine that has a card on it.
    let edited = MACHINEFILE
        .replace("NAME", "a")
        .replace("network \"back\" subnet=\"10.88.0.0/24\"", "");
    let (before, _) = edited.split_once("{ network").unwrap();
    a.write("Machinefile", before);
    let plan = a.ok(&["plan"]).out;
    assert!(
        plan.contains("wanted none; `stead restart db` applies it"),
        "{plan}"
    );
    a.ok(&["up"]);
    assert_eq!(served(8611).unwrap(), "a");
    let (gone, state, left) = (sockets(&a), state_file(&a), sockets(&b));
    a.ok(&["destroy", "-y"]);
    a.assert_gone("db");
    assert!(!state.exists());
    assert!(
        !gone.exists(),
        "{:?}",
        fs::read_dir(gone).unwrap().flatten().collect::<Vec<_>>()
    );
    assert!(interfaces(&state).is_empty(), "{:?}", interfaces(&state));
    let others = if is_system() { 2 } else { 0 };
    assert_eq!(interfaces(&state_file(&b)).len(), others);

    // The other one goes on, and gets what is free now.
    until("b has the port", || served(8611).as_deref() == Some("b"));
    assert!(
        !note(&b).contains("127.88.0.10 on this computer"),
        "{}",
        note(&b)
    );
    assert!(in_guest(&b, "db", "getent hosts of-b").contains("10.88.0.10"));

    a_newer_network_is_left_alone(&b, &left);
    let last = state_file(&b);
    b.ok(&["destroy", "-y"]);
    b.assert_gone("db");
    assert!(!left.exists());
    assert!(interfaces(&last).is_empty(), "{:?}", interfaces(&last));
}

/// In the place of a newer stead's program, for as long as it is needed.
fn a_newer_network_is_left_alone(project: &Project, sockets: &std::path::Path) {
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(process(project)),
        nix::sys::signal::SIGKILL,
    )
    .unwrap();
    // Its file names a process that runs.
    let mut program = Command::new("sleep").arg("3000").spawn().unwrap();
    let proc = |what: &str| fs::read_to_string(format!("/proc/{what}")).unwrap();
    let stat = proc(&format!("{}/stat", program.id()));
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let mut state: serde_json::Value =
        serde_json::from_slice(&fs::read(state_file(project)).unwrap()).unwrap();
    state["process"]["pid"] = program.id().into();
    // proc_pid_stat(5), field 22.
    let started: u64 = after_name.split(' ').nth(19).unwrap().parse().unwrap();
    state["process"]["started"] = started.into();
    fs::write(state_file(project), state.to_string()).unwrap();
    let control = sockets.join("control");
    fs::remove_file(&control).unwrap();
    let listener = UnixListener::bind(&control).unwrap();
    let answers = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            if line.is_empty() {
                return;
            }
            let _ = stream.write_all(b"{\"format\":1000000}\n");
        }
    });
    let files = || {
        let entries = fs::read_dir(sockets).unwrap().flatten();
        // QEMU removes its own when it ends.
        let is_qemus = |name: &OsString| name.to_string_lossy().ends_with(".card");
        let mut names: Vec<_> = entries
            .map(|it| it.file_name())
            .filter(|name| !is_qemus(name))
            .collect();
        names.sort();
        (
            names,
            fs::read(state_file(project)).unwrap(),
            interfaces(&state_file(project)),
        )
    };
    let before = files();
    let newer = "a newer stead runs the network of the project";
    for refused in [
        &["plan"][..],
        &["up"],
        &["restart", "--force"],
        &["port"],
        &["link"],
    ] {
        project.run(refused, 1).says(&[newer, "use that stead"]);
    }
    // What needs no network goes on. Nobody can log in: in this place, nothing leads to machines.
    assert_eq!(project.state("db"), "ready");
    project
        .ok(&["halt", "--force"])
        .says(&[newer, "is left as it is"]);
    assert_eq!(project.state("db"), "off");
    project.run(&["up"], 1).says(&[newer]);
    assert_eq!(files(), before);
    // It ends.
    drop(std::os::unix::net::UnixStream::connect(&control).unwrap());
    answers.join().unwrap();
    program.kill().unwrap();
    program.wait().unwrap();
}
