//! The way out of a network: stead-net with libslirp, in network namespaces of the tests' own. The guest is a TCP/IP
//! stack (smoltcp), and what it reaches are servers of this process at an address of the loopback interface.

use std::{
    collections::VecDeque,
    env, fs,
    future::Future,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, UdpSocket},
    os::fd::AsRawFd,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket},
    },
    unistd::{Pid, geteuid},
};
use sha2::{Digest, Sha256};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::{tcp, udp},
    time::Instant as Clock,
    wire::{HardwareAddress, IpAddress, IpCidr, TcpControl},
};
use stead::network::outward::{Outward, Task, is_available};

use super::{
    SOON,
    guest::frames::{self, ALL},
    resident_kib,
};

/// The server's address. libslirp takes it for one of another computer.
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);

const STEAD_NET: &str = env!("CARGO_BIN_EXE_stead-net");

/// Runs a test once more in a network namespace of its own, and lets it run there.
fn in_own_network<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F) {
    const INSIDE: &str = "STEAD_TEST_OWN_NETWORK";
    if env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread();
        return { runtime }.enable_all().build().unwrap().block_on(test());
    }
    let flags = if geteuid().is_root() { "-n" } else { "-rn" };
    let script = format!(
        "ip link set lo up && ip addr add {FAR}/32 dev lo && exec \"$0\" --exact --nocapture outward::{name}"
    );
    let ended = Command::new("unshare")
        .args([flags, "--", "sh", "-c", &script])
        .arg(env::current_exe().unwrap())
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(ended.success());
}

async fn start(host_loopback: bool) -> Outward {
    let task = Task {
        subnet: "10.77.0.0/24".parse().unwrap(),
        host_loopback,
    };
    Outward::start(Path::new(STEAD_NET), &task).await.unwrap()
}

/// A guest of the network.
struct Guest<'a> {
    outward: &'a Outward,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    began: Instant,
    port: u16,
}

impl<'a> Guest<'a> {
    fn new(outward: &'a Outward) -> Self {
        Self::at(outward, OWN)
    }

    fn at(outward: &'a Outward, address: Ipv4Addr) -> Self {
        let mut wire = Wire::default();
        let mut interface =
            Interface::new(Config::new(HardwareAddress::Ip), &mut wire, Clock::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address.into(), 24)).unwrap();
        });
        interface
            .routes_mut()
            .add_default_ipv4_route(GATEWAY)
            .unwrap();
        Guest {
            outward,
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            began: Instant::now(),
            port: 20_000,
        }
    }

    /// Lets the stack work, and waits for a moment or for packets.
    async fn turn(&mut self) {
        let now = || Clock::from_micros(i64::try_from(self.began.elapsed().as_micros()).unwrap());
        self.interface
            .poll(now(), &mut self.wire, &mut self.sockets);
        for packet in self.wire.sent.drain(..) {
            self.outward.send(&packet);
        }
        let pause = self.interface.poll_delay(now(), &self.sockets);
        let pause = pause.map_or(50, |it| it.total_millis()).clamp(1, 50);
        let mut has_turn = true;
        let mut pause = Duration::from_millis(pause);
        while has_turn {
            let turn = self
                .outward
                .turn(|packet| self.wire.received.push_back(packet.to_vec()));
            has_turn = matches!(tokio::time::timeout(pause, turn).await, Ok(Ok(())));
            pause = Duration::ZERO;
        }
    }

    fn connect(&mut self, to: SocketAddrV4) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 256 << 10]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        self.port += 1;
        let to = (IpAddress::from(*to.ip()), to.port());
        socket
            .connect(self.interface.context(), to, self.port)
            .unwrap();
        self.sockets.add(socket)
    }

    /// Waits for a connection. Returns whether there is one.
    async fn connected(&mut self, to: SocketAddrV4) -> Option<SocketHandle> {
        let handle = self.connect(to);
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            self.turn().await;
            let socket = self.sockets.get::<tcp::Socket>(handle);
            if socket.may_send() {
                return Some(handle);
            }
            if !socket.is_open() {
                return None;
            }
        }
        panic!("neither connected nor refused");
    }

    /// Sends what is there, closes this side, and reads to the end.
    async fn exchange(&mut self, handle: SocketHandle, send: &[u8]) -> Vec<u8> {
        let (mut sent, mut got) = (0, Vec::new());
        let deadline = Instant::now() + 10 * SOON;
        let mut is_closed = false;
        loop {
            let socket = self.sockets.get_mut::<tcp::Socket>(handle);
            while sent < send.len() && socket.can_send() {
                sent += socket.send_slice(&send[sent..]).unwrap();
            }
            if sent == send.len() && !is_closed {
                socket.close();
                is_closed = true;
            }
            while socket.can_recv() {
                let read = |bytes: &mut [u8]| (bytes.len(), got.extend_from_slice(bytes));
                socket.recv(read).unwrap();
            }
            if is_closed && !socket.may_recv() {
                return got;
            }
            assert!(Instant::now() < deadline, "{sent} sent, {} got", got.len());
            self.turn().await;
        }
    }

    /// The answer to a datagram, if one comes.
    async fn ask(&mut self, to: SocketAddrV4, data: &[u8], patience: Duration) -> Option<Vec<u8>> {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 8192]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        self.port += 1;
        socket.bind(self.port).unwrap();
        socket
            .send_slice(data, (IpAddress::from(*to.ip()), to.port()))
            .unwrap();
        let handle = self.sockets.add(socket);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            self.turn().await;
            let socket = self.sockets.get_mut::<udp::Socket>(handle);
            if let Ok((bytes, from)) = socket.recv() {
                assert_eq!(from.endpoint.addr, IpAddress::from(*to.ip()));
                return Some(bytes.to_vec());
            }
        }
        None
    }
}

/// A server that reads to the end, and says the digest of that and then what it is told to.
fn digest_server(at: Ipv4Addr, says: Vec<u8>) -> SocketAddrV4 {
    let listener = TcpListener::bind((at, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, says) = (stream.unwrap(), says.clone());
            thread::spawn(move || {
                let mut digest = Sha256::new();
                let mut bytes = vec![0; 1 << 16];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    digest.update(&bytes[..length]);
                }
                let _ = stream.write_all(&digest.finalize());
                let _ = stream.write_all(&says);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    SocketAddrV4::new(at, port)
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// Whether a connection of a guest's comes about, and works.
async fn works(outward: &Outward, to: SocketAddrV4) -> bool {
    let mut guest = Guest::new(outward);
    let Some(handle) = guest.connected(to).await else {
        return false;
    };
    guest.exchange(handle, b"hello").await == sha256(b"hello")
}

#[test]
fn connections_go_out_whole() {
    in_own_network("connections_go_out_whole", || async {
        let mut bytes = vec![0; 32 << 20];
        fastrand::Rng::with_seed(7).fill(&mut bytes);
        let server = digest_server(FAR, bytes.clone());
        let outward = start(false).await;
        let mut guest = Guest::new(&outward);
        let handle = guest.connected(server).await.unwrap();
        let began = Instant::now();
        let got = guest.exchange(handle, &bytes).await;
        let took = began.elapsed().as_secs_f64();
        println!("{:.0} MiB/s out and in", 64.0 / took);
        assert_eq!(got.len(), 32 + bytes.len());
        assert_eq!(got[..32], sha256(&bytes));
        assert_eq!(sha256(&got[32..]), sha256(&bytes));
    });
}

#[test]
fn datagrams_go_out_and_answers_come_in() {
    in_own_network("datagrams_go_out_and_answers_come_in", || async {
        let echo = UdpSocket::bind((FAR, 0)).unwrap();
        let port = echo.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut bytes = [0; 2048];
            while let Ok((length, from)) = echo.recv_from(&mut bytes) {
                echo.send_to(&bytes[..length], from).unwrap();
            }
        });
        let outward = start(false).await;
        let mut guest = Guest::new(&outward);
        for length in [0, 1, 1472] {
            let data = vec![7; length];
            let answer = guest.ask(SocketAddrV4::new(FAR, port), &data, SOON).await;
            assert_eq!(answer, Some(data));
        }
    });
}

/// More guests than libslirp knows addresses of, at the same time.
#[test]
fn many_guests_at_once() {
    in_own_network("many_guests_at_once", || async {
        let server = digest_server(FAR, vec![9; 100_000]);
        let outward = start(false).await;
        // Packets for all of them come by one socket, so one stack has all addresses.
        let mut guest = Guest::new(&outward);
        let address = |last| IpCidr::new(Ipv4Addr::new(10, 77, 0, last).into(), 24);
        let mut handles = Vec::new();
        for last in 20..60 {
            guest.interface.update_ip_addrs(|addresses| {
                addresses.clear();
                addresses.push(address(last)).unwrap();
            });
            guest.interface.set_any_ip(true);
            handles.push(guest.connect(server));
        }
        let deadline = Instant::now() + SOON;
        let is_open =
            |guest: &Guest<'_>, handle| guest.sockets.get::<tcp::Socket>(handle).may_send();
        while !handles.iter().all(|handle| is_open(&guest, *handle)) {
            assert!(Instant::now() < deadline);
            guest.turn().await;
        }
        for handle in handles {
            assert_eq!(guest.exchange(handle, b"x").await.len(), 100_032);
        }
    });
}

#[test]
fn this_computer_is_reached_only_where_it_is_allowed() {
    in_own_network(
        "this_computer_is_reached_only_where_it_is_allowed",
        || async {
            let own = digest_server(Ipv4Addr::LOCALHOST, Vec::new());
            let by_gateway = SocketAddrV4::new(GATEWAY, own.port());
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            udp.set_nonblocking(true).unwrap();
            let port = udp.local_addr().unwrap().port();
            for is_allowed in [false, true] {
                let outward = start(is_allowed).await;
                if is_allowed {
                    assert!(works(&outward, by_gateway).await);
                }
                let mut guest = Guest::new(&outward);
                let mut handles = Vec::new();
                let others = [
                    [10, 77, 0, 9],
                    [10, 77, 0, 255],
                    [127, 0, 0, 1],
                    [127, 1, 1, 1],
                ];
                for other in others.map(Ipv4Addr::from) {
                    handles.push(guest.connect(SocketAddrV4::new(other, own.port())));
                    let to = SocketAddrV4::new(other, port);
                    guest.ask(to, b"x", Duration::from_millis(100)).await;
                }
                if !is_allowed {
                    handles.push(guest.connect(by_gateway));
                }
                for port in [port, 53, 67, 69] {
                    let to = SocketAddrV4::new(GATEWAY, port);
                    let answer = guest.ask(to, &[1; 300], Duration::from_millis(100)).await;
                    assert_eq!(answer, None);
                }
                for handle in handles {
                    let socket = guest.sockets.get::<tcp::Socket>(handle);
                    assert!(!socket.may_send());
                }
                let mut bytes = [0; 16];
                assert!(udp.recv_from(&mut bytes).is_err());
            }
        },
    );
}

#[test]
fn a_killed_one_is_noticed_and_replaced() {
    in_own_network("a_killed_one_is_noticed_and_replaced", || async {
        let server = digest_server(FAR, Vec::new());
        let outward = start(false).await;
        assert!(works(&outward, server).await);
        kill(pid(&outward), Signal::SIGKILL).unwrap();
        let end = async { while outward.turn(|_| ()).await.is_ok() {} };
        tokio::time::timeout(SOON, end).await.unwrap();
        drop(outward);
        assert!(works(&start(false).await, server).await);
    });
}

#[test]
fn no_packet_ends_it() {
    in_own_network("no_packet_ends_it", || async {
        let server = digest_server(FAR, Vec::new());
        let outward = start(true).await;
        let before = pid(&outward);
        let mut rng = fastrand::Rng::with_seed(11);
        // It takes packets one after the other, so one that is not taken is tried again.
        let insist = |packet: Vec<u8>| {
            let outward = &outward;
            async move {
                while !packet.is_empty() && !outward.send(&packet) {
                    let turn = outward.turn(|_| ());
                    let _ = tokio::time::timeout(Duration::from_millis(50), turn).await;
                    assert!(is_running(before));
                }
            }
        };
        for length in [1, 13, 14, 19, 20, 60, 1499, 1500, 1501, 64 << 10] {
            for byte in [0, 0x45, 0xff] {
                insist(vec![byte; length]).await;
            }
        }
        for _ in 0..10_000 {
            let mut packet = vec![0; rng.usize(1..1501)];
            rng.fill(&mut packet);
            insist(packet).await;
        }
        // Packets that it passes to libslirp, with any header of TCP, UDP or ICMP, and as fragments.
        for _ in 0..20_000 {
            let mut packet = vec![0; rng.usize(20..300)];
            rng.fill(&mut packet);
            let length = u16::try_from(packet.len()).unwrap();
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            if rng.u8(..) < 200 {
                packet[6..8].copy_from_slice(&[0, 0]);
            } else {
                // Few datagrams, so that their fragments meet.
                packet[4..6].copy_from_slice(&[0, rng.u8(..4)]);
                packet[6] &= 0x23;
            }
            packet[8] = 64;
            packet[9] = [1, 6, 17][rng.usize(..3)];
            packet[10..12].copy_from_slice(&[0, 0]);
            packet[12..16].copy_from_slice(&OWN.octets());
            let to = if rng.bool() { FAR } else { GATEWAY };
            packet[16..20].copy_from_slice(&to.octets());
            // The server's port, so that segments meet a connection.
            if length >= 24 && rng.bool() {
                packet[20..24].copy_from_slice(&[0x30, rng.u8(..4), 0, 0]);
                packet[22..24].copy_from_slice(&server.port().to_be_bytes());
            }
            let sum = checksum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            insist(packet).await;
        }
        let mut guest = Guest::at(&outward, Ipv4Addr::new(10, 77, 0, 11));
        let handle = guest.connected(server).await.unwrap();
        assert_eq!(guest.exchange(handle, b"hello").await, sha256(b"hello"));
        assert_eq!(pid(&outward), before);
        println!("{} KiB", resident_kib(before));
    });
}

/// Whether a process has not ended.
fn is_running(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// The checksum of a header (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks(2)
        .map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// A guest that asks for connections without end leaves the others theirs, and itself those that it has.
#[test]
fn connections_that_nobody_answers_hold_nobody_up() {
    in_own_network("connections_that_nobody_answers_hold_nobody_up", || async {
        let server = digest_server(FAR, vec![1; 1 << 20]);
        // One connection waits to be accepted, and the kernel drops further ones.
        let silent = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::empty(),
            None,
        )
        .unwrap();
        bind(silent.as_raw_fd(), &SockaddrIn::new(198, 51, 100, 1, 7000)).unwrap();
        listen(&silent, Backlog::new(0).unwrap()).unwrap();
        let silent = SocketAddrV4::new(FAR, 7000);
        let outward = start(false).await;
        let mut greedy = Guest::new(&outward);
        let own = greedy.connected(server).await.unwrap();
        for first in (0..6000).step_by(100) {
            for n in first..first + 100 {
                outward.send(&syn(OWN, 30_000 + n, silent));
            }
            greedy.turn().await;
        }
        println!("{} KiB", resident_kib(pid(&outward)));
        // It takes them one after another. As another user's process, it may not show its files.
        let files = || {
            Some(
                fs::read_dir(format!("/proc/{}/fd", pid(&outward)))
                    .ok()?
                    .count(),
            )
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while files().is_some_and(|open| open < 4096) && Instant::now() < deadline {
            greedy.turn().await;
        }
        let open = files();
        assert!(
            open.is_none_or(|open| (4096..4200).contains(&open)),
            "{open:?}"
        );
        let mut other = Guest::at(&outward, Ipv4Addr::new(10, 77, 0, 11));
        let handle = other.connected(server).await.unwrap();
        assert_eq!(other.exchange(handle, b"x").await.len(), 32 + (1 << 20));
        greedy.wire.received.clear();
        assert_eq!(greedy.exchange(own, b"x").await.len(), 32 + (1 << 20));
    });
}

/// A guest whose kernel knows nothing of the connections that it opens gets its share, and after its boot all of it.
#[test]
fn a_burst_of_connections_gets_no_more_than_its_share() {
    in_own_network(
        "a_burst_of_connections_gets_no_more_than_its_share",
        || async {
            let listener = TcpListener::bind((FAR, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = SocketAddrV4::new(FAR, port);
            thread::spawn(move || listener.incoming().flatten().collect::<Vec<_>>());
            let outward = start(false).await;
            let hostile = Ipv4Addr::new(10, 77, 0, 12);
            let mut other = Guest::new(&outward);
            let open = || fs::read_dir(format!("/proc/{}/fd", pid(&outward))).map(Iterator::count);
            let mut most = 0;
            for n in 0..6000 {
                while !outward.send(&syn(hostile, 10_000 + n, server)) {
                    other.turn().await;
                }
                if n % 64 == 0 {
                    most = most.max(open().unwrap_or_default());
                }
            }
            let deadline = Instant::now() + SOON;
            let mut further = 0;
            while further < 20 && Instant::now() < deadline {
                other.turn().await;
                most = most.max(open().unwrap_or_default());
                further += usize::from(most > 4096);
            }
            println!("{most} files, {} KiB", resident_kib(pid(&outward)));
            assert!((4096..4200).contains(&most), "{most}");
            assert!(other.connected(server).await.is_some());
            outward.restart(hostile);
            let deadline = Instant::now() + SOON;
            while open().is_ok_and(|open| open > 50) {
                assert!(Instant::now() < deadline, "{:?} files", open());
                other.turn().await;
            }
            let mut again = Guest::at(&outward, hostile);
            assert!(again.connected(server).await.is_some());
        },
    );
}

/// A packet that asks for a connection.
fn syn(from: Ipv4Addr, port: u16, to: SocketAddrV4) -> Vec<u8> {
    const ETHERNET: usize = 14;
    let to = (ALL, *to.ip(), to.port());
    frames::tcp((ALL, from, port), to, TcpControl::Syn)[ETHERNET..].to_vec()
}

#[test]
fn it_is_confined_and_sleeps() {
    in_own_network("it_is_confined_and_sleeps", || async {
        let outward = start(false).await;
        let pid = pid(&outward);
        let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let status = status();
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2");
        assert_eq!(field("CapEff:"), "0000000000000000");
        assert_eq!(field("Threads:"), "1");
        // The root of a namespace of an ordinary user has no other users there.
        let map = fs::read_to_string("/proc/self/uid_map").unwrap();
        if map.split_whitespace().nth(2) != Some("1") {
            assert_eq!(field("Uid:"), "65534 65534 65534 65534");
            assert_eq!(field("Gid:"), "65534 65534 65534 65534");
            assert_eq!(field("Groups:"), "");
        }
        let limits = fs::read_to_string(format!("/proc/{pid}/limits"));
        if let Ok(limits) = limits {
            let limit = |name: &str| {
                let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
                line[name.len()..]
                    .split_whitespace()
                    .next()
                    .unwrap()
                    .to_string()
            };
            assert_eq!(limit("Max processes"), "0");
            assert_eq!(limit("Max core file size"), "0");
        }
        println!("{} KiB at rest", resident_kib(pid));
        // It says that it is ready before it sleeps.
        let deadline = Instant::now() + SOON;
        while !field("State:").starts_with('S') {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(1));
        }
        let before = (field("voluntary_ctxt_switches:"), cpu_time(pid));
        // libslirp would like to be called once a second.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!((field("voluntary_ctxt_switches:"), cpu_time(pid)), before);
    });
}

/// In clock ticks (proc_pid_stat(5), fields 14 and 15).
fn cpu_time(pid: Pid) -> (u64, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next().unwrap().parse().unwrap();
    (next(), next())
}

/// The process that started it may be killed.
#[test]
fn it_ends_with_the_process_that_started_it() {
    const HOLDS: &str = "STEAD_TEST_HOLDS_OUTWARD";
    in_own_network("it_ends_with_the_process_that_started_it", || async {
        if env::var_os(HOLDS).is_some() {
            let outward = start(false).await;
            println!("\nstarted {}", pid(&outward));
            return std::future::pending().await;
        }
        let mut holder = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("outward::it_ends_with_the_process_that_started_it")
            .env(HOLDS, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let pid = lines.find_map(|line| line.strip_prefix("started ").map(ToString::to_string));
        let pid = Pid::from_raw(pid.unwrap().parse().unwrap());
        assert!(is_running(pid));
        holder.kill().unwrap();
        holder.wait().unwrap();
        let deadline = Instant::now() + SOON;
        while is_running(pid) {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn a_library_that_cannot_be_loaded_is_named() {
    assert_eq!(is_available(Path::new(STEAD_NET)), Ok(()));
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libslirp.so.0");
    let check = || {
        let output = Command::new(STEAD_NET)
            .args(["way-out", "--check"])
            .env("LD_LIBRARY_PATH", folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stdout).unwrap()
    };
    fs::write(&library, "").unwrap();
    let said = check();
    assert!(said.starts_with("cannot load libslirp: "), "{said}");
    assert!(said.ends_with("file too short\n"), "{said}");
    // Another library has other functions.
    fs::remove_file(&library).unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps
        .split_whitespace()
        .find(|word| word.ends_with("/libc.so.6"));
    std::os::unix::fs::symlink(libc.unwrap(), &library).unwrap();
    assert_eq!(
        check(),
        "libslirp is too old: it has no slirp_new, which version 4.1 has\n"
    );
}

#[test]
fn nobody_starts_it_by_hand() {
    for arguments in [
        &["way-out"][..],
        &["way-out", "--other"],
        &["other"],
        &["--check"],
    ] {
        let output = Command::new(STEAD_NET)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("cannot be used by hand"), "{said}");
    }
}

fn pid(outward: &Outward) -> Pid {
    Pid::from_raw(i32::try_from(outward.pid().unwrap()).unwrap())
}

/// Packets on their way to and from the guest's stack.
#[derive(Default)]
struct Wire {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Clock) -> Option<(Received, Sending<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Clock) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}
