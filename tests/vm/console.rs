//! A console that somebody types at. The guest is a boot sector, which prints a prompt and echoes what is typed.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, ExitStatus},
    sync::{Arc, Mutex},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use nix::{
    pty::openpty,
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
    },
    unistd::Pid,
};

use crate::project::{Project, own_data, text, virsh};

/// Code for 0x7c00 in real mode: it prints the text behind it to the first serial port (a 16550, at 0x3f8), and then
/// whatever comes from there.
const BOOT: [u8; 54] = [
    0xfc, 0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x36, 0x7c, 0xac, 0x84, 0xc0, 0x74, 0x05, 0xe8, 0x17, 0x00,
    0xeb, 0xf6, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x75, 0x04, 0xfb, 0xf4, 0xeb, 0xf4, 0xba, 0xf8,
    0x03, 0xec, 0xe8, 0x02, 0x00, 0xeb, 0xeb, 0x50, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb,
    0x58, 0xba, 0xf8, 0x03, 0xee, 0xc3,
];
const PROMPT: &[u8] = b"no system\r\nvm login: \0";

/// A machine with this guest.
fn project(name: &str, timeout: &str) -> Project {
    let machinefile = format!(
        "project \"{name}\"\nmachine \"vm\" {{ box \"./boot.raw\"; cpus 1; memory \"128MiB\"; ready {{ timeout \"{timeout}\"; }}; }}\n"
    );
    let project = Project::with_data(name, &machinefile, &own_data(&format!("{name}-data")));
    let mut disk = vec![0; 1 << 20];
    disk[..BOOT.len()].copy_from_slice(&BOOT);
    disk[BOOT.len()..][..PROMPT.len()].copy_from_slice(PROMPT);
    disk[510..512].copy_from_slice(b"\x55\xaa");
    fs::write(project.folder.join("boot.raw"), disk).unwrap();
    project
}

const PATIENCE: Duration = Duration::from_secs(60);

/// stead at a terminal.
struct Typed {
    child: Child,
    keys: File,
    /// Its other end.
    terminal: OwnedFd,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Typed {
    fn start(project: &Project, arguments: &[&str]) -> Self {
        let pty = openpty(None, None).unwrap();
        let end = || pty.slave.try_clone().unwrap();
        let child = project
            .stead(arguments)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let keys = File::from(pty.master);
        let mut from = keys.try_clone().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&said);
        thread::spawn(move || {
            let mut part = [0; 1024];
            while let Ok(length @ 1..) = from.read(&mut part) {
                to.lock().unwrap().extend_from_slice(&part[..length]);
            }
        });
        Typed {
            child,
            keys,
            terminal: pty.slave,
            said,
        }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn says(&self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said().contains(part) {
            assert!(
                Instant::now() < deadline,
                "no {part:?} in:\n{}",
                self.said()
            );
            sleep(Duration::from_millis(20));
        }
    }

    fn types(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    /// At the console, where the guest answers to this word.
    #[track_caller]
    fn open(project: &Project, arguments: &[&str], word: &str) -> Self {
        let mut typed = Typed::start(project, arguments);
        typed.says("Ctrl-] leaves it");
        let deadline = Instant::now() + PATIENCE;
        while typed.is_usual() {
            assert!(Instant::now() < deadline, "{}", typed.said());
            sleep(Duration::from_millis(20));
        }
        typed.types(word.as_bytes());
        typed.says(word);
        typed
    }

    /// Whether the terminal passes on lines, as at first.
    fn is_usual(&self) -> bool {
        let flags = tcgetattr(&self.terminal).unwrap().local_flags;
        flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    #[track_caller]
    fn ends(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(self.is_usual(), "{}", self.said());
                return status;
            }
            assert!(Instant::now() < deadline, "it goes on:\n{}", self.said());
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_guest_without_ssh_is_typed_at() {
    let project = project("console", "30s");
    project.run(&["up"], 1).says(&[
        "no SSH login within 30.0s: it does not answer on its port 22, it has not asked for an address by DHCP, no guest agent answers, its console shows a login prompt",
        "vm login:",
        "stead console vm",
    ]);
    let domain = project.domain("vm");

    let mut one = Typed::open(&project, &["console"], "HELLO");
    // Ctrl-C is the guest's.
    one.types(b"\x03!");
    one.says("HELLO\x03!");
    let busy = project.with_input(&["console"], b"");
    assert_eq!(busy.status.code(), Some(1), "{}", text(&busy));
    let said = text(&busy);
    assert!(
        said.contains("somebody is at the console of vm already")
            && said.contains("stead console vm --force"),
        "{said}"
    );
    // The log has what was printed.
    assert!(project.ok(&["logs"]).out.contains("HELLO"));
    one.types(b"\x1d");
    assert!(one.ends().success());
    one.says("left the console of vm");

    // It is free at once, also for a pipe, where this key is none.
    let piped = project.with_input(&["console"], b"by \x1d pipe");
    assert!(piped.status.success(), "{}", text(&piped));
    assert_eq!(piped.stdout, b"by \x1d pipe");

    // Whoever takes it has it.
    let mut one = Typed::open(&project, &["console", "vm"], "AGAIN");
    let piped = project.with_input(&["console", "--force"], b"mine");
    assert_eq!(piped.stdout, b"mine", "{}", text(&piped));
    assert_eq!(one.ends().code(), Some(1));
    one.says("the console of vm was taken or closed");

    // Ended from outside, the terminal is as it was.
    let mut one = Typed::open(&project, &["console"], "SIGNAL");
    kill(
        Pid::from_raw(i32::try_from(one.child.id()).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(one.ends().code(), None);

    let mut one = Typed::open(&project, &["console"], "PAUSE");
    virsh(&["suspend", &domain]);
    assert_eq!(one.ends().code(), Some(1));
    one.says("machine vm is paused");
    project.run(&["console"], 1).says(&["machine vm is paused"]);
    virsh(&["resume", &domain]);

    let mut one = Typed::open(&project, &["console"], "HALT");
    project.ok(&["halt", "--force"]);
    assert!(one.ends().success());
    one.says("machine vm has stopped");
    project
        .run(&["console"], 1)
        .says(&["machine vm is not running"]);
    project.ok(&["destroy", "-y"]);
}

/// Nobody waits for the time-out, which would be an hour.
#[test]
fn a_guest_that_sits_at_its_prompt_is_not_waited_for() {
    let project = project("prompt", "3600s");
    project.run(&["up"], 1).says(&[
        "the guest has booted, but has no SSH server, by which stead would log in: it does not answer on its port 22, it has not asked for an address by DHCP",
        "`stead console vm` logs in on its console",
    ]);
    project.ok(&["destroy", "-y"]);
}
