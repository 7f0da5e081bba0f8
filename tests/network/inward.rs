//! Ports of this computer that lead into guests. What a program of this computer does, it does on a thread of its own.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use smoltcp::{
    iface::SocketHandle,
    socket::{tcp, udp},
    wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket},
};
use stead::{
    host::ports::{HostPort, Protocol},
    network::{Egress, Keeper, Mac, PortForward, Probed, WayIn, look, probe},
};

use super::{
    A_WHILE, DB, GATEWAY, Net, SOON,
    guest::{Guest, frames},
    resident_kib, shop,
};

const MAC_DB: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
/// The network's own one.
const MAC_GATEWAY: Mac = Mac([0x52, 0x55, 10, 77, 0, 1]);

const ECHO: u16 = 7;
const LONG: usize = 32 << 20;

/// What a port of the guest does.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    /// Sends back what comes, and ends after the other end.
    Echo,
    /// Sends this many bytes once the other end has ended, and ends.
    Answer(usize),
    /// Sends this many bytes, and ends.
    Source(usize),
    /// Breaks off once the other end has ended.
    Reset,
}

struct Open {
    socket: SocketHandle,
    does: Does,
    sent: usize,
    was_established: bool,
}

/// A guest with ports.
struct Server {
    guest: Guest,
    opens: Vec<Open>,
    datagrams: Vec<SocketHandle>,
    /// From which ports of the gateway's connections were begun, with each try.
    begun: Vec<u16>,
}

impl Server {
    fn new(net: &Net) -> Self {
        let mut guest = net.guest(0, 0);
        guest.configure(DB, 24);
        Server {
            guest,
            opens: Vec::new(),
            datagrams: Vec::new(),
            begun: Vec::new(),
        }
    }

    /// Takes this many connections at a port.
    fn listen(&mut self, port: u16, does: Does, count: usize) {
        let size = if count > 16 { 4096 } else { 128 << 10 };
        for _ in 0..count {
            let buffer = || tcp::SocketBuffer::new(vec![0; size]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.listen(port).unwrap();
            self.opens.push(Open {
                socket: self.guest.sockets.add(socket),
                does,
                sent: 0,
                was_established: false,
            });
        }
    }

    fn take_datagrams(&mut self, port: u16) {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 64 << 10]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.datagrams.push(self.guest.sockets.add(socket));
    }

    fn turn(&mut self) {
        for frame in self.guest.waiting() {
            if let Some((port, _)) = syn(frame) {
                self.begun.push(port);
            }
        }
        self.guest.poll();
        for open in &mut self.opens {
            let socket = self.guest.sockets.get_mut::<tcp::Socket>(open.socket);
            open.was_established |= socket.may_recv();
            open.work(socket);
        }
        for socket in &self.datagrams {
            let socket = self.guest.sockets.get_mut::<udp::Socket>(*socket);
            while let Ok((bytes, from)) = socket.recv() {
                let bytes = bytes.to_vec();
                socket.send_slice(&bytes, from).unwrap();
            }
        }
        self.guest.poll();
    }

    /// Works until this holds.
    fn until(&mut self, patience: Duration, mut is_so: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            self.turn();
            if is_so(self) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            sleep(Duration::from_micros(200));
        }
    }

    /// Works until a program of this computer is done.
    fn serve<T>(&mut self, program: JoinHandle<T>) -> T {
        assert!(self.until(5 * SOON, |_| program.is_finished()), "it hangs");
        program.join().unwrap()
    }

    fn established(&self) -> usize {
        self.opens.iter().filter(|it| it.was_established).count()
    }

    fn states(&mut self) -> Vec<tcp::State> {
        (self.opens.iter().filter(|it| it.was_established))
            .map(|it| self.guest.sockets.get::<tcp::Socket>(it.socket).state())
            .collect()
    }
}

impl Open {
    fn work(&mut self, socket: &mut tcp::Socket<'_>) {
        let is_ended = socket.state() == tcp::State::CloseWait;
        let total = match self.does {
            Does::Reset if is_ended => return socket.abort(),
            Does::Echo => {
                while socket.can_recv() && socket.can_send() {
                    let room = socket.send_capacity() - socket.send_queue();
                    let mut got = Vec::new();
                    let read = |bytes: &mut [u8]| {
                        let length = bytes.len().min(room);
                        got.extend_from_slice(&bytes[..length]);
                        (length, ())
                    };
                    socket.recv(read).unwrap();
                    assert_eq!(socket.send_slice(&got).unwrap(), got.len());
                }
                if is_ended && socket.recv_queue() == 0 {
                    socket.close();
                }
                return;
            }
            Does::Answer(total) if is_ended => total,
            Does::Source(total) => total,
            Does::Reset | Does::Answer(_) => 0,
        };
        if self.does != Does::Source(total) {
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), ())).unwrap();
            }
        }
        while socket.can_send() && self.sent < total {
            let part = (total - self.sent).min(32 << 10);
            let bytes = pattern(self.sent, part);
            self.sent += socket.send_slice(&bytes).unwrap();
        }
        if total > 0 && self.sent == total {
            socket.close();
        }
    }
}

/// The port from which a frame begins a connection, and the one to which.
fn syn(frame: &[u8]) -> Option<(u16, u16)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    if packet.next_header() != IpProtocol::Tcp {
        return None;
    }
    let tcp = TcpPacket::new_checked(packet.payload()).ok()?;
    (tcp.syn() && !tcp.ack()).then(|| (tcp.src_port(), tcp.dst_port()))
}

fn pattern(from: usize, length: usize) -> Vec<u8> {
    (from..from + length)
        .map(|n| (n.wrapping_mul(31) ^ (n >> 9)) as u8)
        .collect()
}

/// Reads to the end, which comes after so many bytes of the pattern.
fn read_all(mut stream: &TcpStream, total: usize, pause: Duration) {
    let mut got = 0;
    let mut part = vec![0; 64 << 10];
    loop {
        let length = stream.read(&mut part).unwrap();
        if length == 0 {
            break;
        }
        assert!(part[..length] == pattern(got, length), "after {got}");
        got += length;
        sleep(pause);
    }
    assert_eq!(got, total);
}

/// A port of this computer that nobody has.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn forward(protocol: Protocol, port: u16, guest: u16) -> PortForward {
    PortForward {
        host: HostPort {
            protocol,
            ..HostPort::local(port)
        },
        guest,
    }
}

fn way(forwards: &[PortForward]) -> WayIn {
    WayIn {
        machine: "db".into(),
        mac: MAC_DB,
        forwards: forwards.to_vec(),
    }
}

/// A network with ports that lead to these of the guest's, and their numbers.
fn net<const N: usize>(guest: [u16; N]) -> (Net, [u16; N]) {
    let ports = guest.map(|_| free_port());
    let forwards: Vec<PortForward> = (ports.iter().zip(guest))
        .map(|(port, guest)| forward(Protocol::Tcp, *port, guest))
        .collect();
    let mut wiring = shop();
    wiring.ways_in = vec![way(&forwards)];
    (Net::new(wiring), ports)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(2 * SOON)).unwrap();
    stream
}

/// One question and its answer.
fn ask(mut stream: &TcpStream) {
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

fn asking(port: u16) -> JoinHandle<TcpStream> {
    thread::spawn(move || {
        let stream = connect(port);
        ask(&stream);
        stream
    })
}

/// Waits for the end of a connection; how long it took.
fn until_reset(mut stream: TcpStream) -> Duration {
    let began = Instant::now();
    let end = stream.read(&mut [0; 16]);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    began.elapsed()
}

fn is_open(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// How much processor time a process has had, in hundredths of a second (proc_pid_stat(5), fields 14 and 15).
fn ticks(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = after_name.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn keeper(net: &Net) -> Keeper {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_stead-net"));
    Keeper::new(net.files.clone(), net.wiring.clone(), program)
}

#[test]
fn what_is_sent_arrives_both_ways() {
    let (net, [port]) = net([ECHO]);
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Echo, 2);
    let began = Instant::now();
    server.serve(thread::spawn(move || {
        let stream = connect(port);
        let writes = stream.try_clone().unwrap();
        let writer = thread::spawn(move || {
            for from in (0..LONG).step_by(1 << 20) {
                (&writes).write_all(&pattern(from, 1 << 20)).unwrap();
            }
            writes.shutdown(Shutdown::Write).unwrap();
        });
        read_all(&stream, LONG, Duration::ZERO);
        writer.join().unwrap();
    }));
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("{} MiB both ways in {seconds:.1} s", LONG >> 20);
}

/// As `echo x | nc` does, with a reader that is slower than the guest.
#[test]
fn whoever_has_ended_its_side_gets_the_rest() {
    let (net, [port]) = net([ECHO]);
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Answer(3 << 20), 1);
    server.serve(thread::spawn(move || {
        let mut stream = connect(port);
        stream.write_all(b"x").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        sleep(A_WHILE);
        read_all(&stream, 3 << 20, Duration::from_millis(10));
    }));
}

#[test]
fn a_guest_may_end_first() {
    let (net, [port]) = net([ECHO]);
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Source(1 << 20), 1);
    let mut stream = server.serve(thread::spawn(move || {
        let stream = connect(port);
        read_all(&stream, 1 << 20, Duration::ZERO);
        stream
    }));
    stream.write_all(b"more").unwrap();
    assert!(server.until(SOON, |it| it.states() == [tcp::State::FinWait2]));
    drop(stream);
    assert!(server.until(SOON, |it| it.states() == [tcp::State::TimeWait]));
}

/// What breaks off does not look like an end: neither to the program nor to the guest.
#[test]
fn what_breaks_off_is_reset() {
    let (net, [refused, resets, kept]) = net([9, 10, 11]);
    let mut server = Server::new(&net);
    server.listen(10, Does::Reset, 1);
    server.listen(11, Does::Echo, 1);
    // It refuses only whom it knows by ARP, and forgets that with a lease.
    assert!(server.until(SOON, |it| it.guest.lease.is_some()));
    assert!(server.guest.ping(&mut [], GATEWAY, SOON));
    let took = server.serve(thread::spawn(move || until_reset(connect(refused))));
    assert!(took < Duration::from_secs(1), "{took:?}");
    server.serve(thread::spawn(move || {
        let stream = connect(resets);
        stream.shutdown(Shutdown::Write).unwrap();
        until_reset(stream);
    }));
    let stream = server.serve(asking(kept));
    nix::sys::socket::setsockopt(
        &stream,
        nix::sys::socket::sockopt::Linger,
        &nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        },
    )
    .unwrap();
    drop(stream);
    let is_closed = |it: &mut Server| it.states().last() == Some(&tcp::State::Closed);
    assert!(server.until(SOON, is_closed));
}

/// A guest is asked whether it takes connections, and its program gets none.
#[test]
fn asking_makes_no_connection() {
    let (net, _) = net([ECHO]);
    let files = net.files.clone();
    let asks = |port| {
        let files = files.clone();
        thread::spawn(move || probe(&files, MAC_DB, port).unwrap())
    };
    let has_asked = || look(&files).unwrap().unwrap().counts[&MAC_DB].has_asked;
    assert_eq!(asks(ECHO).join().unwrap(), Some(Probed::Silent));
    assert!(!has_asked());
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Echo, 1);
    assert!(server.until(SOON, |it| it.guest.lease.is_some()));
    assert!(server.guest.ping(&mut [], GATEWAY, SOON));
    assert!(has_asked());
    assert_eq!(server.serve(asks(ECHO)), Some(Probed::Takes));
    assert_eq!(server.serve(asks(9)), Some(Probed::Refuses));
    server.until(Duration::from_millis(300), |_| false);
    assert_eq!(server.established(), 0);
    // It listens on.
    assert_eq!(server.serve(asks(ECHO)), Some(Probed::Takes));
    drop(server);
    assert_eq!(asks(ECHO).join().unwrap(), Some(Probed::Silent));
    assert!(!has_asked());
}

/// Nobody is there: those who give up leave nothing behind, and those who wait are connected by one try.
#[test]
fn who_has_given_up_is_not_connected_later() {
    let (net, [port]) = net([ECHO]);
    for _ in 0..20 {
        drop(connect(port));
    }
    sleep(Duration::from_secs(2));
    let waits = asking(port);
    sleep(Duration::from_millis(500));
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Echo, 8);
    server.serve(waits);
    server.until(A_WHILE, |_| false);
    assert_eq!(server.established(), 1);
    // The first packet of a connection may come several times.
    server.begun.dedup();
    assert_eq!(server.begun.len(), 1, "{:?}", server.begun);
}

/// The same with a guest that is there and does nothing for a while.
#[test]
fn a_silent_guest_is_not_flooded() {
    let (net, [port]) = net([ECHO]);
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Echo, 32);
    for _ in 0..20 {
        drop(connect(port));
    }
    sleep(Duration::from_secs(2));
    let waits = asking(port);
    sleep(Duration::from_millis(500));
    server.serve(waits);
    server.until(A_WHILE, |_| false);
    assert_eq!(server.established(), 1);
}

#[test]
fn who_waits_for_too_long_is_reset() {
    let (net, [port]) = net([ECHO]);
    let took = until_reset(connect(port));
    assert!(
        took > Duration::from_secs(9) && took < Duration::from_secs(13),
        "{took:?}"
    );
    drop(net);
}

/// Many at once, which then rest without any work for the program.
#[test]
fn many_connections_are_served() {
    let (net, [port]) = net([ECHO]);
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Echo, 200);
    let streams = server.serve(thread::spawn(move || {
        let streams: Vec<TcpStream> = (0..200).map(|_| connect(port)).collect();
        streams.iter().for_each(ask);
        streams
    }));
    assert_eq!(server.established(), 200);
    server.until(Duration::from_secs(1), |_| false);
    let before = ticks(net.pid());
    server.until(Duration::from_secs(2), |_| false);
    let took = ticks(net.pid()) - before;
    assert!(took <= 4, "{took} hundredths of a second");
    drop(streams);
    assert!(server.until(SOON, |it| {
        it.states().iter().all(|it| *it == tcp::State::Closed)
    }));
}

#[test]
fn datagrams_are_led_in_and_answered() {
    let port = free_port();
    let mut wiring = shop();
    wiring.ways_in = vec![way(&[forward(Protocol::Udp, port, 53)])];
    let net = Net::new(wiring);
    let mut server = Server::new(&net);
    server.take_datagrams(53);
    server.serve(thread::spawn(move || {
        let sockets: Vec<UdpSocket> = (0..8)
            .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
            .collect();
        for (n, socket) in sockets.iter().enumerate() {
            socket.connect(("127.0.0.1", port)).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            socket.send(&vec![n as u8; 1472 - n]).unwrap();
        }
        let mut bytes = [0; 2000];
        for (n, socket) in sockets.iter().enumerate() {
            let length = socket.recv(&mut bytes).unwrap();
            assert_eq!(bytes[..length], vec![n as u8; 1472 - n]);
        }
        sockets[0].send(&[7; 1473]).unwrap();
        sockets[0].send(&[7; 65_000]).unwrap();
        sockets[0].send(b"").unwrap();
        assert_eq!(sockets[0].recv(&mut bytes).unwrap(), 0);
    }));
    // More than it remembers: the last ones are answered.
    server.serve(thread::spawn(move || {
        for n in 0..1200_u32 {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(("127.0.0.1", port)).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            socket.send(&n.to_be_bytes()).unwrap();
            let mut bytes = [0; 4];
            socket.recv(&mut bytes).unwrap();
            assert_eq!(bytes, n.to_be_bytes());
        }
    }));
}

#[test]
fn ports_change_while_others_keep_their_connections() {
    let net = Net::new(shop());
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Echo, 4);
    server.listen(8, Does::Echo, 4);
    let keeper = keeper(&net);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (a, b) = (taken.local_addr().unwrap().port(), free_port());
    let to = |port, guest| forward(Protocol::Tcp, port, guest);
    let unopened = keeper.lead(way(&[to(a, ECHO), to(b, ECHO)])).unwrap();
    assert_eq!(unopened.len(), 1);
    assert_eq!(unopened[0].host, HostPort::local(a));
    assert!(unopened[0].said.contains("in use"), "{unopened:?}");
    assert_eq!(look(&net.files).unwrap().unwrap().unopened["db"], unopened);
    let kept = server.serve(asking(b));
    drop(taken);
    assert_eq!(keeper.lead(way(&[to(a, ECHO), to(b, ECHO)])).unwrap(), []);
    let ended = server.serve(asking(a));

    // The other one leads to another port of the guest's.
    assert_eq!(keeper.lead(way(&[to(a, 8), to(b, ECHO)])).unwrap(), []);
    until_reset(ended);
    let ended = server.serve(asking(a));
    assert_eq!(keeper.lead(way(&[to(b, ECHO)])).unwrap(), []);
    until_reset(ended);
    assert!(!is_open(a));
    let _kept = server.serve(thread::spawn(move || {
        ask(&kept);
        kept
    }));
    // The guest knows of those ends.
    let is_closed = |it: &mut Server| {
        let states = it.states();
        states
            .iter()
            .filter(|it| **it == tcp::State::Closed)
            .count()
            == 2
    };
    assert!(server.until(SOON, is_closed));
}

#[test]
fn ports_are_closed_when_a_machine_ends() {
    let (net, [port]) = net([ECHO]);
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Echo, 4);
    let stream = server.serve(asking(port));
    server.guest.break_the_stream();
    server.until(Duration::from_secs(3), |_| false);
    let stream = server.serve(thread::spawn(move || {
        ask(&stream);
        stream
    }));
    drop(server);
    let took = until_reset(stream);
    assert!(took > Duration::from_secs(1), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(!is_open(port));
}

/// The new QEMU comes later than the ports of the one before would have been closed.
#[test]
fn a_machine_that_starts_again_keeps_its_ports() {
    let (net, [port]) = net([ECHO]);
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Echo, 1);
    server.serve(asking(port));
    drop(server);
    let unopened = keeper(&net).lead(net.wiring.ways_in[0].clone()).unwrap();
    assert_eq!(unopened, []);
    sleep(Duration::from_secs(4));
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Echo, 1);
    server.serve(asking(port));
}

#[test]
fn machines_may_swap_their_ports() {
    let (a, b) = (free_port(), free_port());
    let mut wiring = shop();
    let mut web = way(&[forward(Protocol::Tcp, b, ECHO)]);
    web.machine = "web".into();
    web.mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
    wiring.ways_in = vec![way(&[forward(Protocol::Tcp, a, ECHO)]), web];
    let mut net = Net::new(wiring);
    net.wiring.ways_in[0].forwards[0].host.port = b;
    net.wiring.ways_in[1].forwards[0].host.port = a;
    assert!(!net.ensure());
    assert!(look(&net.files).unwrap().unwrap().unopened.is_empty());
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Echo, 1);
    server.serve(asking(b));
}

#[test]
fn a_killed_network_has_its_ports_again() {
    let (net, [port]) = net([ECHO]);
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Echo, 8);
    let stream = server.serve(asking(port));
    kill(net.pid(), Signal::SIGKILL).unwrap();
    until_reset(stream);
    assert!(net.ensure());
    server.serve(asking(port));
}

/// Other users of this computer may open connections and hold them.
#[test]
fn connections_that_are_held_take_little_memory() {
    let (net, [port]) = net([ECHO]);
    let mut server = Server::new(&net);
    for _ in 0..2 {
        server.listen(ECHO, Does::Echo, 200);
        let streams = server.serve(thread::spawn(move || {
            let streams: Vec<_> = (0..200).map(|_| connect(port)).collect();
            streams.iter().for_each(ask);
            streams
        }));
        let memory = resident_kib(net.pid());
        assert!(memory < 32 << 10, "{memory} KiB");
        drop(streams);
        server.until(Duration::from_millis(500), |_| false);
    }
}

/// What a guest sends to the ports of connections harms these at most.
#[test]
fn a_hostile_guest_harms_only_its_connections() {
    let (net, [port]) = net([ECHO]);
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Echo, 4);
    server.listen(ECHO, Does::Source(usize::MAX), 1);
    let streams = server.serve(thread::spawn(move || {
        let streams: Vec<_> = (0..4).map(|_| asking(port)).collect();
        let streams = streams.into_iter().map(|it| it.join().unwrap());
        streams.collect::<Vec<_>>()
    }));
    // Nobody reads what this one gets.
    let _unread = connect(port);
    assert!(server.until(SOON, |it| it.established() == 5));
    server.until(Duration::from_secs(1), |_| false);
    let ports = server.begun.clone();
    let (own, others) = (MAC_DB, Mac([0x52, 0x54, 0, 0, 0, 2]));
    let began = Instant::now();
    let mut random = fastrand::Rng::with_seed(7);
    while began.elapsed() < Duration::from_secs(3) {
        for local in &ports {
            let length = random.usize(0..1400);
            let mut garbage: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            if length > 4 {
                garbage[..2].copy_from_slice(&ECHO.to_be_bytes());
                garbage[2..4].copy_from_slice(&local.to_be_bytes());
            }
            let (from, mac) = match random.u8(..4) {
                0 => (GATEWAY, own),
                1 => (DB, others),
                _ => (DB, own),
            };
            let packet = frames::packet(from, GATEWAY, IpProtocol::Tcp, &garbage);
            let frame = frames::ethernet(mac, MAC_GATEWAY, EthernetProtocol::Ipv4, &packet);
            server.guest.send(&frame);
            server.guest.send(&frames::udp(
                (own, DB, ECHO),
                (MAC_GATEWAY, GATEWAY, *local),
                &garbage,
            ));
        }
    }
    let memory = resident_kib(net.pid());
    assert!(memory < 48 << 10, "{memory} KiB");
    // Garbage has no checksum of TCP's, so that all go on.
    server.serve(thread::spawn(move || streams.iter().for_each(ask)));
    let before = ticks(net.pid());
    server.until(Duration::from_secs(1), |_| false);
    let took = ticks(net.pid()) - before;
    assert!(took <= 10, "{took} hundredths of a second");
}

/// The gate of a card is for what the guest begins.
#[test]
fn a_card_with_a_gate_is_reached_too() {
    let port = free_port();
    let mut wiring = shop();
    wiring.networks[0].cards[0].egress = Some(Egress {
        allow: Some(Vec::new()),
        host_tcp: Vec::new(),
    });
    wiring.ways_in = vec![way(&[forward(Protocol::Tcp, port, ECHO)])];
    let net = Net::new(wiring);
    let mut server = Server::new(&net);
    server.listen(ECHO, Does::Echo, 2);
    server.serve(asking(port));
    let refusals = look(&net.files).unwrap().unwrap().refusals;
    assert!(refusals.values().all(|it| it.times == 0), "{refusals:?}");
}
