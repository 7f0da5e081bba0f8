//! Ports of machines on this computer, with a program in ssh's place: what a guest says, it says.

use std::{
    fs::{self, File},
    io::Write,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use stead::{
    host::paths::DataDir,
    network::{Cable, Guest, GuestPorts, NetworkFiles, ensure, look, stop},
};

use crate::shop;

/// Says what comes through a pipe, and writes down what it is asked.
const SSH: &str = r#"#!/bin/sh
folder=${0%/*}
case "$*" in
    *" -O "*) echo "$*" >>"$folder/asked" ;;
    *)
        echo "$*" >>"$folder/began"
        exec cat "$folder/says"
        ;;
esac
"#;

struct Net {
    files: NetworkFiles,
    folder: tempfile::TempDir,
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = stop(&self.files);
    }
}

impl Net {
    /// `last`: the end of the machine's address on this computer, which no other test has.
    fn new(last: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("ssh"), SSH).unwrap();
        fs::set_permissions(path("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        mkfifo(&path("says"), Mode::S_IRWXU).unwrap();
        let mut bytes = [0; 3];
        getrandom::fill(&mut bytes).unwrap();
        let data = DataDir::at(path("data"));
        let mut wiring = shop();
        wiring.guests = vec![Guest {
            machine: "db".into(),
            ssh_config: path("config"),
            host_address: [127, 77, 200, last].into(),
            addresses: Vec::new(),
            is_reached: true,
        }];
        let files = NetworkFiles::of(&data, &hex::encode(bytes), Cable::Sockets);
        let mut command = Command::new(env!("CARGO_BIN_EXE_stead-net"));
        let rest = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{rest}", folder.path().display()));
        ensure(&files, &wiring, &mut command).unwrap();
        Net { files, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Begins to be the guest. Returns once the program reads.
    fn guest(&self) -> File {
        File::options().write(true).open(self.path("says")).unwrap()
    }

    fn ports(&self) -> GuestPorts {
        look(&self.files).unwrap().unwrap().ports["db"].clone()
    }

    /// Waits until the ports are such, and returns them.
    fn until(&self, is_so: impl Fn(&GuestPorts) -> bool) -> GuestPorts {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let ports = self.ports();
            if is_so(&ports) {
                return ports;
            }
            assert!(Instant::now() < deadline, "{ports:?}");
            sleep(Duration::from_millis(20));
        }
    }

    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("asked")).unwrap_or_default();
        // `-O WHAT -L FORWARD -- MACHINE`
        text.lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let at = words.iter().position(|it| *it == "-O").unwrap();
                format!("{} {}", words[at + 1], words[at + 3])
            })
            .collect()
    }
}

fn numbers(ports: &GuestPorts) -> Vec<u16> {
    ports.ports.iter().map(|port| port.port).collect()
}

#[test]
fn ports_come_and_go_as_the_guest_says() {
    let net = Net::new(1);
    assert!(!net.ports().known);
    let mut guest = net.guest();
    writeln!(
        guest,
        "Welcome!\nstead-ports 00000000:1538 0100007F:1770 00000000:0016"
    )
    .unwrap();
    let ports = net.until(|ports| ports.known);
    // That of SSH is the host's own way.
    assert_eq!(numbers(&ports), [5432, 6000]);
    assert_eq!(
        ports.ports[0].addresses,
        ["127.77.200.1".parse::<std::net::Ipv4Addr>().unwrap()]
    );
    writeln!(guest, "stead-ports 00000000:1538").unwrap();
    net.until(|ports| numbers(ports) == [5432]);
    assert_eq!(
        net.asked(),
        [
            "forward 127.77.200.1:5432:127.0.0.1:5432",
            "forward 127.77.200.1:6000:127.0.0.1:6000",
            "cancel 127.77.200.1:6000:127.0.0.1:6000"
        ]
    );
    // The guest goes: so do its ports.
    drop(guest);
    net.until(|ports| !ports.known && ports.ports.is_empty());
}

#[test]
fn a_port_that_cannot_be_had_says_why() {
    let net = Net::new(2);
    let _taken = TcpListener::bind("127.77.200.2:5432").unwrap();
    let mut guest = net.guest();
    writeln!(guest, "stead-ports 00000000:1538 00000000:0050").unwrap();
    let ports = net.until(|ports| ports.known);
    let said: Vec<_> = (ports.ports.iter())
        .map(|port| format!("{} {}", port.port, port.missing.clone().unwrap()))
        .collect();
    assert_eq!(
        said,
        [
            "80 ports below 1024 are kept for the host's own services",
            "5432 another program has port 5432 at 127.77.200.2, or at all addresses"
        ]
    );
    assert_eq!(net.asked(), [""; 0]);
}

#[test]
fn a_guest_that_lies_harms_nobody() {
    let net = Net::new(3);
    let mut guest = net.guest();
    let all: Vec<String> = (20_000..21_000)
        .map(|port| format!("00000000:{port:04X}"))
        .collect();
    writeln!(
        guest,
        "stead-ports $(reboot) -oProxyCommand=x 00000000:1538;x {}",
        all.join(" ")
    )
    .unwrap();
    let ports = net.until(|ports| ports.known);
    assert_eq!(ports.ports.len(), 64);
    assert!(
        net.asked()
            .iter()
            .all(|it| it.starts_with("forward 127.77.200.3:20"))
    );
    // A line without an end: nobody keeps it.
    let line = vec![b'x'; 1 << 20];
    let _ = guest.write_all(&line);
    drop(guest);
    net.until(|ports| !ports.known && ports.ports.is_empty());
    // Lines without end are no better.
    let mut guest = net.guest();
    let written = (0..100_000).find_map(|_| writeln!(guest, "Welcome to the machine!").err());
    assert!(written.is_some());
    drop(guest);
    // It is asked again later, and may be better then.
    let mut guest = net.guest();
    writeln!(guest, "stead-ports").unwrap();
    net.until(|ports| ports.known);
    assert_eq!(
        fs::read_to_string(net.path("began"))
            .unwrap()
            .lines()
            .count(),
        3
    );
}
