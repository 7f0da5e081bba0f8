//! The program stead-net between guests that are no VMs: each is a TCP/IP stack of its own (smoltcp), at the end of
//! the sockets at which QEMU would be.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that cannot go on panics"
)]

mod guest;
mod inward;
mod links;
mod outward;
mod ports;
mod takeover;

use std::{
    fs,
    io::Read,
    net::Ipv4Addr,
    os::{
        fd::AsRawFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use guest::{Guest, pump};
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
    },
    unistd::Pid,
};
use stead::{
    host::paths::DataDir,
    network::{
        Cable, Card, Mac, Network, NetworkFiles, Wiring, ensure, look, socket_of_qemu, stop,
    },
};

/// A network under test, which ends with it.
struct Net {
    files: NetworkFiles,
    wiring: Wiring,
    _data: tempfile::TempDir,
}

impl Net {
    fn new(wiring: Wiring) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut bytes = [0; 3];
        getrandom::fill(&mut bytes).unwrap();
        let project = hex::encode(bytes);
        let net = Net {
            files: NetworkFiles::of(&DataDir::at(data.path()), &project, Cable::Sockets),
            wiring,
            _data: data,
        };
        assert!(net.ensure());
        net
    }

    /// Whether it was started.
    fn ensure(&self) -> bool {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stead-net"));
        ensure(&self.files, &self.wiring, &mut command).unwrap()
    }

    fn guest(&self, network: usize, card: usize) -> Guest {
        let card = &self.wiring.networks[network].cards[card];
        Guest::new(&self.files.sockets(), card.mac)
    }

    /// db and web with their addresses, and nothing on the way.
    fn guests(&self) -> (Guest, Guest) {
        let (mut db, mut web) = (self.guest(0, 0), self.guest(0, 1));
        db.configure(DB, 24);
        web.configure(WEB, 24);
        assert!(db.ping(&mut [&mut web], WEB, SOON));
        db.take_all();
        web.take_all();
        (db, web)
    }

    fn pid(&self) -> Pid {
        let state = self.files.read().unwrap();
        Pid::from_raw(i32::try_from(state.process.pid).unwrap())
    }

    /// Frames that the card sent and may not.
    fn refused(&self, mac: Mac) -> u64 {
        look(&self.files).unwrap().unwrap().counts[&mac].refused
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = stop(&self.files);
        self.files.forget();
    }
}

fn card(machine: &str, last: u8, address: &str, aliases: &[&str]) -> Card {
    Card {
        machine: machine.into(),
        mac: Mac([0x52, 0x54, 0, 0, 0, last]),
        address: address.parse().unwrap(),
        aliases: aliases.iter().map(ToString::to_string).collect(),
        internet: false,
        egress: None,
    }
}

/// db and web on one network, ci on another.
fn shop() -> Wiring {
    let network = |name: &str, subnet: &str, cards| Network {
        name: name.into(),
        subnet: subnet.parse().unwrap(),
        cards,
    };
    Wiring {
        domain: "shop.internal".into(),
        links: None,
        networks: vec![
            network(
                "back",
                "10.77.0.0/24",
                vec![
                    card("db", 1, "10.77.0.10", &["postgres"]),
                    card("web", 2, "10.77.0.11", &[]),
                ],
            ),
            network(
                "front",
                "10.78.0.0/24",
                vec![card("ci", 3, "10.78.0.12", &[])],
            ),
        ],
        guests: Vec::new(),
        ways_in: Vec::new(),
        starting: Vec::new(),
    }
}

const DB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const WEB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Until something has arrived that does.
const SOON: Duration = Duration::from_secs(20);
/// Until it is clear that nothing arrives.
const A_WHILE: Duration = Duration::from_millis(1500);

#[test]
fn guests_get_addresses_and_know_each_other_by_name() {
    let net = Net::new(shop());
    let (mut db, mut web) = (net.guest(0, 0), net.guest(0, 1));
    let leases = pump(&mut [&mut db, &mut web], SOON, |guests| {
        guests.iter().all(|guest| guest.lease.is_some())
    });
    assert!(leases);
    let lease = web.lease.clone().unwrap();
    assert_eq!(lease.address.to_string(), "10.77.0.11/24");
    assert_eq!(lease.router, None);
    assert_eq!(lease.dns_servers.as_slice(), [GATEWAY]);
    assert!(db.ping(&mut [&mut web], WEB, SOON));
    assert!(db.ping(&mut [], GATEWAY, SOON));
    assert_eq!(web.look_up("db", SOON).as_deref(), Some("10.77.0.10"));
    assert_eq!(
        web.look_up("postgres.shop.internal", SOON).as_deref(),
        Some("10.77.0.10")
    );
    assert_eq!(
        web.look_up("ci", SOON).as_deref(),
        Some("Non-Existent Domain")
    );
    assert_eq!(
        web.look_up("example.org", SOON).as_deref(),
        Some("Non-Existent Domain")
    );
    assert_eq!(
        web.look_up_by_tcp("db.shop.internal", SOON).as_deref(),
        Some("10.77.0.10")
    );

    let sockets = net.files.sockets();
    assert!(sockets.exists());
    drop((db, web));
    assert!(stop(&net.files).unwrap());
    // QEMU needs the folder for the next machine.
    assert_eq!(fs::read_dir(&sockets).unwrap().count(), 0);
    net.files.forget();
    assert!(!sockets.exists());
    assert!(net.files.read().is_none());
}

/// What a hostile guest may try does not leave its card.
#[test]
fn a_hostile_guest_harms_nobody() {
    let net = Net::new(shop());
    let (mut db, mut web, mut ci) = (net.guest(0, 0), net.guest(0, 1), net.guest(1, 0));
    db.configure(DB, 24);
    web.configure(WEB, 24);
    assert!(db.ping(&mut [&mut web], WEB, SOON));
    let (own, other) = (web.mac, db.mac);
    web.take_all();
    db.take_all();

    // Frames as another, by MAC, by address, by ARP; answers to DHCP; other protocols; any length.
    let mut sent = 0;
    for frame in guest::hostile_frames(own, other, WEB, DB) {
        web.send(&frame);
        sent += 1;
    }
    for length in [0, 1, 13, 1515, 9000] {
        web.send(&vec![0xff; length]);
        sent += 1;
    }
    let got = db.receive(A_WHILE);
    assert_eq!(got, Vec::<Vec<u8>>::new());
    assert_eq!(net.refused(own), sent);

    // Another network, by MAC, by broadcast, by its address.
    ci.configure(Ipv4Addr::new(10, 78, 0, 12), 24);
    assert!(!web.ping(&mut [&mut ci], Ipv4Addr::new(10, 78, 0, 12), A_WHILE));
    web.send(&guest::frame_to(
        own,
        ci.mac,
        WEB,
        Ipv4Addr::new(10, 78, 0, 12),
    ));
    web.send(&guest::frame_to(
        own,
        Mac([0xff; 6]),
        WEB,
        Ipv4Addr::BROADCAST,
    ));
    assert_eq!(ci.receive(A_WHILE), Vec::<Vec<u8>>::new());

    // A flood to a guest that takes nothing. The others go on, and the program stays small.
    let flood = guest::frame_to(own, other, WEB, DB);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        web.send(&flood);
    }
    assert!(ci.ping(&mut [], Ipv4Addr::new(10, 78, 0, 1), SOON));
    let memory = resident_kib(net.pid());
    assert!(memory < 32 << 10, "{memory} KiB");
    let lost = look(&net.files).unwrap().unwrap().counts[&other].lost;
    assert!(lost > 0);
}

/// One guest that opens as many connections as it can leaves the others theirs.
#[test]
fn no_guest_takes_all_connections_for_itself() {
    let net = Net::new(shop());
    let (mut db, mut web) = (net.guest(0, 0), net.guest(0, 1));
    db.configure(DB, 24);
    web.configure(WEB, 24);
    web.open_connections(40, SOON);
    assert_eq!(
        db.look_up_by_tcp("web", SOON).as_deref(),
        Some("10.77.0.11")
    );
}

/// The process is found without its file, and writes it again.
#[test]
fn a_lost_file_is_written_again() {
    let net = Net::new(shop());
    let pid = net.pid();
    let folder = net._data.path().join("networks");
    for damage in ["", "garbage", "[]"] {
        let file = fs::read_dir(&folder).unwrap().flatten().map(|it| it.path());
        let file = file
            .into_iter()
            .find(|it| it.extension().is_some_and(|it| it == "json"));
        fs::write(file.unwrap(), damage).unwrap();
        assert!(!net.ensure(), "it runs");
        // It writes the file after it has answered.
        let deadline = Instant::now() + SOON;
        while net.files.read().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(net.pid(), pid);
    }
}

/// Whoever runs stead may hold a lock or read from a pipe.
#[test]
fn it_keeps_no_file_of_whoever_started_it() {
    let (read, write) = nix::unistd::pipe().unwrap();
    let _net = Net::new(shop());
    drop(write);
    let mut byte = [0];
    let end = std::fs::File::from(read).read(&mut byte).unwrap();
    assert_eq!(end, 0);
}

/// Commands at once, just after it was killed: one starts it, and the others wait for that.
#[test]
fn several_commands_start_one_network() {
    let net = Net::new(shop());
    for _ in 0..5 {
        kill(net.pid(), Signal::SIGKILL).unwrap();
        let started: usize = std::thread::scope(|scope| {
            let commands: Vec<_> = (0..6).map(|_| scope.spawn(|| net.ensure())).collect();
            commands
                .into_iter()
                .map(|it| usize::from(it.join().unwrap()))
                .sum()
        });
        assert_eq!(started, 1);
    }
}

/// Guests keep their links when the program is killed, and go on when the next command starts it again.
#[test]
fn a_killed_network_is_started_again() {
    let net = Net::new(shop());
    let (mut db, mut web) = net.guests();
    assert!(!net.ensure(), "it runs already");

    kill(net.pid(), Signal::SIGKILL).unwrap();
    assert!(!db.ping(&mut [&mut web], WEB, A_WHILE));
    assert!(net.ensure());
    assert!(db.ping(&mut [&mut web], WEB, SOON));

    // One that is stopped does not answer, and is replaced.
    kill(net.pid(), Signal::SIGSTOP).unwrap();
    assert!(net.ensure());
    assert!(db.ping(&mut [&mut web], WEB, SOON));

    // Nor does it end by itself.
    kill(net.pid(), Signal::SIGSTOP).unwrap();
    assert!(stop(&net.files).unwrap());
    assert!(look(&net.files).unwrap().is_none());
}

/// A guest that starts again is a new QEMU with new sockets.
/// Also a QEMU that has gone mad, and one that is started again.
#[test]
fn a_cable_is_plugged_in_again() {
    let net = Net::new(shop());
    let (mut db, mut web) = net.guests();

    db.break_the_stream();
    assert!(db.ping(&mut [&mut web], WEB, SOON));

    drop(db);
    let mut db = net.guest(0, 0);
    db.configure(DB, 24);
    assert!(db.ping(&mut [&mut web], WEB, SOON));
    assert!(!net.ensure(), "it runs all the while");
}

/// A QEMU that is stopped listens, and takes no connection.
#[test]
fn a_stopped_guest_holds_nobody_up() {
    let net = Net::new(shop());
    let (mut db, mut web) = net.guests();

    let name = socket_of_qemu(&net.files.sockets(), net.wiring.networks[1].cards[0].mac);
    let beside = name.with_extension("beside");
    let stopped = UnixListener::bind(&beside).unwrap();
    stopped.set_nonblocking(true).unwrap();
    let fill = || {
        let flags = SockFlag::SOCK_NONBLOCK;
        let new = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        connect(new.as_raw_fd(), &UnixAddr::new(&beside).unwrap()).map(|()| new)
    };
    let waiting: Vec<_> = std::iter::from_fn(|| fill().ok()).collect();
    fs::rename(&beside, &name).unwrap();
    assert!(db.ping(&mut [&mut web], WEB, SOON));
    kill(net.pid(), Signal::SIGKILL).unwrap();
    assert!(net.ensure());
    assert!(db.ping(&mut [&mut web], WEB, SOON));
    assert!(!net.ensure(), "it has answered all the while");

    // It goes on, and is connected.
    drop(waiting);
    let deadline = Instant::now() + SOON;
    // Those that waited have ended.
    let lives = |mut stream: &UnixStream| {
        stream.set_nonblocking(true).unwrap();
        stream.read(&mut [0; 1]).is_err()
    };
    loop {
        match stopped.accept() {
            Ok((stream, _)) if lives(&stream) => break,
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
        assert!(Instant::now() < deadline, "it is not connected");
    }
}

#[test]
fn machines_come_and_go() {
    let mut net = Net::new(shop());
    let mut db = net.guest(0, 0);
    db.configure(DB, 24);
    let mut web = net.guest(0, 1);
    web.configure(WEB, 24);
    assert!(db.ping(&mut [&mut web], WEB, SOON));
    drop(web);
    assert!(!db.ping(&mut [], WEB, A_WHILE));
    let mut web = net.guest(0, 1);
    web.configure(WEB, 24);
    assert!(db.ping(&mut [&mut web], WEB, SOON));

    // A third one joins, and the first one leaves.
    net.wiring.networks[0]
        .cards
        .push(card("cache", 4, "10.77.0.12", &[]));
    net.wiring.networks[0].cards.remove(0);
    assert!(!net.ensure());
    let mut cache = net.guest(0, 1);
    cache.configure(Ipv4Addr::new(10, 77, 0, 12), 24);
    assert!(web.ping(&mut [&mut cache], Ipv4Addr::new(10, 77, 0, 12), SOON));
    assert!(!db.ping(&mut [&mut web], WEB, A_WHILE));
    assert_eq!(
        web.look_up("db", SOON).as_deref(),
        Some("Non-Existent Domain")
    );
    assert_eq!(web.look_up("cache", SOON).as_deref(), Some("10.77.0.12"));
}

/// QEMU leaves the name of its socket when it ends.
#[test]
fn a_card_that_is_gone_leaves_no_socket() {
    let mut net = Net::new(shop());
    let folder = net.files.sockets();
    let cards = net.wiring.networks[0].cards.clone();
    let name = |n: usize| socket_of_qemu(&folder, cards[n].mac);
    let runs = UnixListener::bind(name(0)).unwrap();
    drop(UnixListener::bind(name(1)).unwrap());
    net.wiring.networks[0].cards.clear();
    assert!(!net.ensure());
    assert!(name(0).exists(), "its QEMU runs");
    assert!(!name(1).exists());
    drop(runs);
}

/// What another user tries: to look, to ask for the counts, to send to a guest, and to listen in its place.
const STRANGER: &str = r#"
import os, socket, sys
folder, data = sys.argv[1:]
def tried(what, do):
    try: do(); print(what, "worked")
    except OSError as error: print(what, error.errno == 13 and "denied" or error)
def unix(kind): return socket.socket(socket.AF_UNIX, kind)
tried("list", lambda: os.listdir(folder))
tried("list all", lambda: os.listdir(os.path.dirname(folder)))
tried("ask", lambda: unix(socket.SOCK_STREAM).connect(folder + "/control"))
tried("send to the guest", lambda: unix(socket.SOCK_STREAM).connect(folder + "/525400000001.card"))
tried("bind", lambda: unix(socket.SOCK_STREAM).bind(folder + "/525400000009.card"))
tried("remove", lambda: os.remove(folder + "/control"))
tried("list the data", lambda: os.listdir(data + "/networks"))
tried("read the state", lambda: open(data + "/networks/" + os.path.basename(folder) + ".json"))
tried("read the log", lambda: open(data + "/networks/" + os.path.basename(folder) + ".log"))
tried("lock", lambda: open(data + "/locks/" + os.path.basename(folder) + ".lock", "a"))
print("user", os.getuid())
"#;

/// Runs a script as another user of this computer: root becomes one, and others have subordinate ids (subuid(5)).
fn as_a_stranger(arguments: &[&str]) -> String {
    let mut command = match nix::unistd::geteuid().is_root() {
        true => Command::new("setpriv"),
        false => {
            let mut unshare = Command::new("unshare");
            unshare.args(["--map-auto", "--map-root-user", "--", "setpriv"]);
            unshare
        }
    };
    let output = command
        .args(["--reuid=7", "--regid=7", "--clear-groups", "python3", "-c"])
        .args(arguments)
        // Other users cannot run what is in root's home.
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cannot be another user: {said}; this needs root, or subordinate ids in /etc/subuid and /etc/subgid, and the packages uidmap and python3"
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn only_the_user_can_join() {
    use std::os::unix::fs::MetadataExt;
    let net = Net::new(shop());
    let mut db = net.guest(0, 0);
    db.configure(DB, 24);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let sockets = net.files.sockets();
    assert_eq!(mode(&sockets), 0o700);
    assert_eq!(mode(sockets.parent().unwrap()), 0o700);
    // The folder of the data is the user's own to close or not. What is in it is closed.
    let data = net._data.path();
    fs::set_permissions(data, fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["networks", "locks"] {
        assert_eq!(mode(&data.join(folder)), 0o700, "{folder}");
    }
    let name = sockets.file_name().unwrap().to_str().unwrap();
    for file in [
        format!("networks/{name}.json"),
        format!("networks/{name}.log"),
        format!("locks/{name}.lock"),
    ] {
        assert_eq!(mode(&data.join(&file)) & 0o077, 0, "{file}");
    }
    let said = as_a_stranger(&[STRANGER, sockets.to_str().unwrap(), data.to_str().unwrap()]);
    let lines: Vec<&str> = said.lines().collect();
    let (user, tried) = lines.split_last().unwrap();
    assert_eq!((*user, tried.len()), ("user 7", 10), "{said}");
    assert!(tried.iter().all(|line| line.ends_with(" denied")), "{said}");
    assert_eq!(
        look(&net.files).unwrap().unwrap().counts[&db.mac].from_guest,
        0
    );
}

fn resident_kib(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}
