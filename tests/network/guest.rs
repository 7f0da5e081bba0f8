//! A guest with one card.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::Ipv4Addr,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::{dhcpv4, icmp, tcp, udp},
    time::Instant as Clock,
    wire::{
        ArpOperation, EthernetAddress, EthernetProtocol, HardwareAddress, Icmpv4Packet, Icmpv4Repr,
        IpAddress, IpCidr, Ipv4Cidr,
    },
};
use stead::network::{Mac, socket_of_qemu};

#[path = "frames.rs"]
pub(crate) mod frames;
use frames::{ALL, arp, ethernet, udp};

/// What a guest was told by DHCP.
pub(crate) type Lease = dhcpv4::Config<'static>;

pub(crate) struct Guest {
    pub(crate) mac: Mac,
    pub(crate) lease: Option<Lease>,
    wire: Wire,
    interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    dhcp: SocketHandle,
    icmp: SocketHandle,
    udp: SocketHandle,
    began: Instant,
    sequence: u16,
}

/// The card: it listens as QEMU does, on one connection at a time, and again when that has ended.
struct Wire {
    listener: UnixListener,
    connection: Option<UnixStream>,
    path: PathBuf,
    /// What of a frame has come.
    begun: Vec<u8>,
    received: VecDeque<Vec<u8>>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Wire {
    /// Sends a frame. Like QEMU: what nobody takes is lost, and what does not fit in yet is tried again.
    fn send(&mut self, frame: &[u8]) {
        self.accept();
        let Some(connection) = &mut self.connection else {
            return;
        };
        let mut bytes = u32::try_from(frame.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(frame);
        let mut unsent = &bytes[..];
        while !unsent.is_empty() {
            match connection.write(unsent) {
                Ok(count) => unsent = &unsent[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_micros(50));
                }
                Err(_) => return self.end(),
            }
        }
    }

    fn take(&mut self) {
        self.accept();
        let mut part = [0; 4096];
        while let Some(connection) = &mut self.connection {
            match connection.read(&mut part) {
                Ok(count) if count > 0 => self.begun.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => self.end(),
            }
        }
        while let Some((header, rest)) = self.begun.split_first_chunk() {
            let length = usize::try_from(u32::from_be_bytes(*header)).unwrap();
            let Some(frame) = rest.get(..length) else {
                break;
            };
            self.received.push_back(frame.to_vec());
            self.begun.drain(..4 + length);
        }
    }

    fn accept(&mut self) {
        if self.connection.is_none()
            && let Ok((connection, _)) = self.listener.accept()
        {
            connection.set_nonblocking(true).unwrap();
            self.connection = Some(connection);
        }
    }

    fn end(&mut self) {
        self.connection = None;
        self.begun.clear();
    }
}

impl Guest {
    pub(crate) fn new(folder: &Path, mac: Mac) -> Self {
        let path = socket_of_qemu(folder, mac);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut wire = Wire {
            listener,
            connection: None,
            path,
            begun: Vec::new(),
            received: VecDeque::new(),
        };
        // What it sends before is lost. There may be no network yet.
        let deadline = Instant::now() + Duration::from_secs(1);
        while wire.connection.is_none() && Instant::now() < deadline {
            wire.accept();
            thread::sleep(Duration::from_millis(1));
        }
        let address = HardwareAddress::Ethernet(EthernetAddress(mac.0));
        let interface = Interface::new(Config::new(address), &mut wire, Clock::ZERO);
        let mut sockets = SocketSet::new(Vec::new());
        let icmp_buffer =
            || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 8], vec![0; 2048]);
        let mut icmp = icmp::Socket::new(icmp_buffer(), icmp_buffer());
        icmp.bind(icmp::Endpoint::Ident(7)).unwrap();
        let udp_buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 8192]);
        let mut udp = udp::Socket::new(udp_buffer(), udp_buffer());
        udp.bind(4000).unwrap();
        Guest {
            mac,
            lease: None,
            wire,
            interface,
            dhcp: sockets.add(dhcpv4::Socket::new()),
            icmp: sockets.add(icmp),
            udp: sockets.add(udp),
            sockets,
            began: Instant::now(),
            sequence: 0,
        }
    }

    /// Gives it an address without DHCP.
    pub(crate) fn configure(&mut self, address: Ipv4Addr, prefix: u8) {
        self.sockets.remove(self.dhcp);
        self.dhcp = self.sockets.add(dhcpv4::Socket::new());
        self.has_address(Ipv4Cidr::new(address, prefix));
    }

    fn has_address(&mut self, address: Ipv4Cidr) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            addresses.push(IpCidr::Ipv4(address)).unwrap();
        });
    }

    fn clock(&self) -> Clock {
        Clock::from_micros(i64::try_from(self.began.elapsed().as_micros()).unwrap())
    }

    /// The frames that have come and are not worked off.
    pub(crate) fn waiting(&mut self) -> impl Iterator<Item = &Vec<u8>> {
        self.wire.take();
        self.wire.received.iter()
    }

    pub(crate) fn poll(&mut self) {
        self.wire.take();
        let now = self.clock();
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        let event = self.sockets.get_mut::<dhcpv4::Socket>(self.dhcp).poll();
        if let Some(dhcpv4::Event::Configured(config)) = event {
            let address = config.address;
            self.lease = Some(Lease {
                server: config.server,
                address: config.address,
                router: config.router,
                dns_servers: config.dns_servers.clone(),
                packet: None,
            });
            self.has_address(address);
        }
    }

    /// Whether an answer to a ping comes within this time, while others answer.
    pub(crate) fn ping(
        &mut self,
        others: &mut [&mut Guest],
        to: Ipv4Addr,
        patience: Duration,
    ) -> bool {
        let deadline = Instant::now() + patience;
        // An answer to an earlier ping is none to this one.
        let first = self.sequence + 1;
        while Instant::now() < deadline {
            self.sequence += 1;
            let request = Icmpv4Repr::EchoRequest {
                ident: 7,
                seq_no: self.sequence,
                data: b"stead",
            };
            let socket = self.sockets.get_mut::<icmp::Socket>(self.icmp);
            if let Ok(buffer) = socket.send(request.buffer_len(), IpAddress::Ipv4(to)) {
                request.emit(
                    &mut Icmpv4Packet::new_unchecked(buffer),
                    &ChecksumCapabilities::default(),
                );
            }
            let next = (Instant::now() + Duration::from_millis(200)).min(deadline);
            while Instant::now() < next {
                self.poll();
                others.iter_mut().for_each(|other| other.poll());
                let socket = self.sockets.get_mut::<icmp::Socket>(self.icmp);
                if let Ok((bytes, from)) = socket.recv()
                    && from == IpAddress::Ipv4(to)
                    && Icmpv4Packet::new_checked(bytes).is_ok_and(|it| it.echo_seq_no() >= first)
                {
                    return true;
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
        false
    }

    /// The first address of a name, or the code of the answer.
    pub(crate) fn look_up(&mut self, name: &str, patience: Duration) -> Option<String> {
        let question = question(name);
        let deadline = Instant::now() + patience;
        let server = self.server();
        while Instant::now() < deadline {
            let socket = self.sockets.get_mut::<udp::Socket>(self.udp);
            let _ = socket.send_slice(&question, (server, 53));
            let next = (Instant::now() + Duration::from_millis(500)).min(deadline);
            while Instant::now() < next {
                self.poll();
                let socket = self.sockets.get_mut::<udp::Socket>(self.udp);
                if let Ok((bytes, _)) = socket.recv()
                    && let Some(said) = answer(bytes, &question)
                {
                    return Some(said);
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
        None
    }

    pub(crate) fn look_up_by_tcp(&mut self, name: &str, patience: Duration) -> Option<String> {
        let question = question(name);
        let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
        let handle = self.sockets.add(tcp::Socket::new(buffer(), buffer()));
        let server = self.server();
        let context = self.interface.context();
        let socket = self.sockets.get_mut::<tcp::Socket>(handle);
        socket.connect(context, (server, 53), 4001).unwrap();
        let mut unsent = u16::try_from(question.len())
            .unwrap()
            .to_be_bytes()
            .to_vec();
        unsent.extend(&question);
        let mut got = Vec::new();
        let deadline = Instant::now() + patience;
        let mut found = None;
        while Instant::now() < deadline && found.is_none() {
            self.poll();
            let socket = self.sockets.get_mut::<tcp::Socket>(handle);
            if socket.can_send() && !unsent.is_empty() {
                // In two parts, as a network may have it.
                let part = unsent.len().div_ceil(2);
                let sent = socket.send_slice(&unsent[..part]).unwrap();
                unsent.drain(..sent);
            }
            if socket.can_recv() {
                socket
                    .recv(|bytes| (bytes.len(), got.extend_from_slice(bytes)))
                    .unwrap();
            }
            if got.len() > 2 && got.len() == 2 + usize::from(u16::from_be_bytes([got[0], got[1]])) {
                found = answer(&got[2..], &question);
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.sockets.remove(handle);
        found
    }

    /// Opens this many connections for DNS, and keeps those that it gets.
    pub(crate) fn open_connections(&mut self, count: u16, patience: Duration) {
        let server = self.server();
        let deadline = Instant::now() + patience;
        for n in 0..count {
            let buffer = || tcp::SocketBuffer::new(vec![0; 512]);
            let handle = self.sockets.add(tcp::Socket::new(buffer(), buffer()));
            let context = self.interface.context();
            let socket = self.sockets.get_mut::<tcp::Socket>(handle);
            socket.connect(context, (server, 53), 20_000 + n).unwrap();
            while Instant::now() < deadline {
                self.poll();
                let socket = self.sockets.get_mut::<tcp::Socket>(handle);
                if socket.may_send() || !socket.is_open() {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn server(&self) -> Ipv4Addr {
        let own = self.interface.ipv4_addr().unwrap();
        let [a, b, c, _] = own.octets();
        Ipv4Addr::new(a, b, c, 1)
    }

    /// Sends a frame as it is.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.wire.send(frame);
    }

    /// Sends what no QEMU sends: a frame that is longer than all.
    pub(crate) fn break_the_stream(&mut self) {
        let connection = self.wire.connection.as_mut().unwrap();
        connection.write_all(&[0xff; 64]).unwrap();
    }

    /// Forgets what has come.
    pub(crate) fn take_all(&mut self) {
        thread::sleep(Duration::from_millis(100));
        self.wire.take();
        self.wire.received.clear();
    }

    /// Waits for this many frames, and returns them.
    pub(crate) fn await_frames(&mut self, count: usize, patience: Duration) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + patience;
        while self.wire.received.len() < count && Instant::now() < deadline {
            self.wire.take();
            thread::sleep(Duration::from_millis(1));
        }
        self.wire.received.drain(..).collect()
    }

    /// The frames that come within this time.
    pub(crate) fn receive(&mut self, patience: Duration) -> Vec<Vec<u8>> {
        thread::sleep(patience);
        self.wire.take();
        self.wire.received.drain(..).collect()
    }
}

/// Lets guests work until this holds. Returns whether it came to hold.
pub(crate) fn pump(
    guests: &mut [&mut Guest],
    patience: Duration,
    done: impl Fn(&[&mut Guest]) -> bool,
) -> bool {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        guests.iter_mut().for_each(|guest| guest.poll());
        if done(guests) {
            return true;
        }
        thread::sleep(Duration::from_millis(1));
    }
    false
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::query();
    let name = Name::from_str(&format!("{name}.")).unwrap();
    message.add_query(Query::query(name, RecordType::A));
    message.to_vec().unwrap()
}

fn answer(bytes: &[u8], question: &[u8]) -> Option<String> {
    let message = Message::from_vec(bytes).ok()?;
    if bytes[..2] != question[..2] {
        return None;
    }
    Some(match message.answers.first() {
        Some(record) => record.data.to_string(),
        None => message.metadata.response_code.to_string(),
    })
}

/// A frame that the card with this MAC and address may send.
pub(crate) fn frame_to(from: Mac, to: Mac, address: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    udp((from, address, 4000), (to, target, 9), &[7; 64])
}

/// The same, with a number as its last byte, and this many bytes of data.
pub(crate) fn numbered(
    (from, to): (Mac, Mac),
    (address, target): (Ipv4Addr, Ipv4Addr),
    number: u8,
    length: usize,
) -> Vec<u8> {
    let data = vec![number; length];
    udp((from, address, 4000), (to, target, 9), &data)
}

/// Frames that a card may not send.
pub(crate) fn hostile_frames(
    own: Mac,
    other: Mac,
    address: Ipv4Addr,
    victim: Ipv4Addr,
) -> Vec<Vec<u8>> {
    let gateway = Ipv4Addr::new(10, 77, 0, 1);
    let datagram = |from: Mac, address: Ipv4Addr, ports: (u16, u16)| {
        udp((from, address, ports.0), (other, victim, ports.1), &[7; 64])
    };
    let claim =
        |says: Mac, address: Ipv4Addr| arp(own, ArpOperation::Reply, (says, address), address);
    vec![
        datagram(other, address, (1, 9)),
        datagram(own, gateway, (53, 4000)),
        datagram(own, Ipv4Addr::new(10, 77, 0, 99), (1, 9)),
        datagram(own, Ipv4Addr::LOCALHOST, (1, 9)),
        datagram(own, address, (67, 68)),
        claim(own, gateway),
        claim(other, address),
        claim(own, victim),
        ethernet(own, ALL, EthernetProtocol::Ipv6, &[0x60; 60]),
        ethernet(own, other, EthernetProtocol::Unknown(0x8100), &[0; 60]),
        ethernet(own, other, EthernetProtocol::Ipv4, &[0x45; 10]),
    ]
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Clock) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(self)))
    }

    fn transmit(&mut self, _: Clock) -> Option<Sending<'_>> {
        Some(Sending(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Sending<'a>(&'a mut Wire);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.send(&frame);
        result
    }
}
