//! The network's own address: it answers ARP, ping and NTP, and takes questions for DNS over UDP and TCP.
//!
//! smoltcp speaks IP here, without Ethernet: which MAC has an address is known, and not asked of guests.

use std::{
    collections::{HashMap, VecDeque},
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use smoltcp::{
    iface::{Interface, SocketHandle, SocketSet},
    socket::{tcp, udp},
    time::Instant,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
        EthernetRepr, IpAddress,
    },
};

use super::{
    Mac, Subnet,
    packets::{Packets, clock, interface},
    time,
};

const DNS: u16 = 53;
const NTP: u16 = 123;

/// How many questions may wait, and how large a question over UDP may be, in bytes.
const WAITING: usize = 64;
const QUESTION: usize = 1472;

/// How many connections may ask at once, and how long one may be silent.
const CONNECTIONS: usize = 16;
/// How many of them a card may have.
const SHARE: usize = 3;
const SILENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(10);

/// The longest message over TCP, in bytes, with its length.
const LONGEST_MESSAGE: usize = 2 + 65_535;

/// A question, and where its answer goes.
#[derive(Debug)]
pub(super) struct Question {
    pub from: Ipv4Addr,
    pub bytes: Vec<u8>,
    pub way: Way,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Udp(udp::UdpMetadata),
    /// The position of a connection, and how many that position has had before.
    Tcp {
        connection: usize,
        generation: u64,
    },
}

impl Way {
    pub(super) fn is_tcp(self) -> bool {
        matches!(self, Way::Tcp { .. })
    }
}

struct Connection {
    socket: SocketHandle,
    generation: u64,
    /// Bytes of a question that is not complete.
    read: Vec<u8>,
    /// Bytes of answers that are not sent.
    unsent: VecDeque<u8>,
    /// Whether a question waits for its answer.
    is_asking: bool,
}

pub(super) struct Gateway {
    mac: Mac,
    address: Ipv4Addr,
    interface: Interface,
    sockets: SocketSet<'static>,
    packets: Packets,
    udp: SocketHandle,
    ntp: SocketHandle,
    connections: Vec<Connection>,
    began: std::time::Instant,
}

impl Gateway {
    pub(super) fn new(subnet: Subnet, mac: Mac) -> Self {
        let mut packets = Packets::default();
        let address = subnet.gateway();
        let interface = interface(address, subnet.prefix(), 0, &mut packets);
        let mut sockets = SocketSet::new(Vec::new());
        let buffer = |packets: usize, bytes: usize| {
            udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; packets], vec![0; bytes])
        };
        let mut udp = udp::Socket::new(
            buffer(WAITING, 16 * QUESTION),
            buffer(WAITING, 16 * QUESTION),
        );
        // It fails for port 0 or an open socket only.
        let _ = udp.bind(DNS);
        let udp = sockets.add(udp);
        let times = || buffer(WAITING, WAITING * time::MESSAGE);
        let mut ntp = udp::Socket::new(times(), times());
        // As above.
        let _ = ntp.bind(NTP);
        let ntp = sockets.add(ntp);
        let connections = (0..CONNECTIONS)
            .map(|_| {
                let buffer = |bytes| tcp::SocketBuffer::new(vec![0; bytes]);
                Connection {
                    socket: sockets.add(tcp::Socket::new(buffer(1024), buffer(4096))),
                    generation: 0,
                    read: Vec::new(),
                    unsent: VecDeque::new(),
                    is_asking: false,
                }
            })
            .collect();
        let mut gateway = Gateway {
            mac,
            address,
            interface,
            sockets,
            packets,
            udp,
            ntp,
            connections,
            began: std::time::Instant::now(),
        };
        gateway.listen();
        gateway
    }

    pub(super) fn mac(&self) -> Mac {
        self.mac
    }

    /// Takes a frame that a card has sent to everybody or to the gateway. Returns the frame that answers it at once.
    pub(super) fn take(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let frame = EthernetFrame::new_checked(frame).ok()?;
        match frame.ethertype() {
            EthernetProtocol::Arp => self.arp(frame.payload(), frame.src_addr()),
            EthernetProtocol::Ipv4 => {
                self.packets.come(frame.payload());
                None
            }
            _ => None,
        }
    }

    fn arp(&self, payload: &[u8], asker: EthernetAddress) -> Option<Vec<u8>> {
        let packet = ArpPacket::new_checked(payload).ok()?;
        let ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } = ArpRepr::parse(&packet).ok()?
        else {
            return None;
        };
        if target_protocol_addr != self.address {
            return None;
        }
        let answer = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(self.mac.0),
            source_protocol_addr: self.address,
            target_hardware_addr: source_hardware_addr,
            target_protocol_addr: source_protocol_addr,
        };
        let mut bytes = vec![0; answer.buffer_len()];
        answer.emit(&mut ArpPacket::new_unchecked(&mut bytes));
        Some(self.frame(asker, EthernetProtocol::Arp, &bytes))
    }

    /// Puts a packet into a frame from the gateway.
    fn frame(&self, to: EthernetAddress, ethertype: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
        let header = EthernetRepr {
            src_addr: EthernetAddress(self.mac.0),
            dst_addr: to,
            ethertype,
        };
        let mut bytes = vec![0; header.buffer_len() + payload.len()];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        header.emit(&mut frame);
        frame.payload_mut().copy_from_slice(payload);
        bytes
    }

    /// Puts a packet of IPv4 into a frame to a card.
    pub(super) fn packet(&self, to: Mac, packet: &[u8]) -> Vec<u8> {
        self.frame(EthernetAddress(to.0), EthernetProtocol::Ipv4, packet)
    }

    /// Works off what has come. Returns the questions.
    pub(super) fn poll(&mut self) -> Vec<Question> {
        let now = self.now();
        self.interface
            .poll(now, &mut self.packets, &mut self.sockets);
        self.share();
        self.tell_time();
        let mut questions = Vec::new();
        let udp = self.sockets.get_mut::<udp::Socket>(self.udp);
        while let Ok((bytes, from)) = udp.recv() {
            let IpAddress::Ipv4(address) = from.endpoint.addr;
            questions.push(Question {
                from: address,
                bytes: bytes.to_vec(),
                way: Way::Udp(from),
            });
        }
        for position in 0..self.connections.len() {
            questions.extend(self.read(position));
        }
        self.listen();
        questions
    }

    /// Answers those who ask what time it is.
    fn tell_time(&mut self) {
        let ntp = self.sockets.get_mut::<udp::Socket>(self.ntp);
        while let Ok((question, from)) = ntp.recv() {
            if let Some(answer) = time::answer(question, SystemTime::now()) {
                // As for DNS: it is lost if the guest does not read.
                let _ = ntp.send_slice(&answer, from);
            }
        }
    }

    /// Ends connections beyond a card's share, so that no guest keeps the others from asking.
    fn share(&mut self) {
        let mut counts: HashMap<IpAddress, usize> = HashMap::new();
        for connection in &self.connections {
            let socket = self.sockets.get_mut::<tcp::Socket>(connection.socket);
            let Some(remote) = socket.remote_endpoint() else {
                continue;
            };
            let count = counts.entry(remote.addr).or_default();
            *count += 1;
            if *count > SHARE {
                socket.abort();
            }
        }
    }

    /// Reads from a connection, until a question is complete. The next one has to wait for the answer to this one.
    fn read(&mut self, position: usize) -> Option<Question> {
        let connection = &mut self.connections[position];
        let socket = self.sockets.get_mut::<tcp::Socket>(connection.socket);
        let IpAddress::Ipv4(from) = socket.remote_endpoint()?.addr;
        write(socket, &mut connection.unsent);
        if connection.is_asking {
            return None;
        }
        while socket.can_recv() && connection.read.len() < LONGEST_MESSAGE {
            let read = socket.recv(|bytes| {
                connection.read.extend_from_slice(bytes);
                (bytes.len(), bytes.len())
            });
            if read.is_err() {
                break;
            }
        }
        let length = connection.read.first_chunk::<2>();
        let length = length.map(|bytes| usize::from(u16::from_be_bytes(*bytes)));
        let Some(end) = length
            .map(|it| 2 + it)
            .filter(|&it| it <= connection.read.len())
        else {
            // It has closed its side, and no more will come.
            if socket.state() == tcp::State::CloseWait && connection.unsent.is_empty() {
                socket.close();
            }
            return None;
        };
        let bytes = connection.read.drain(..end).skip(2).collect();
        connection.is_asking = true;
        Some(Question {
            from,
            bytes,
            way: Way::Tcp {
                connection: position,
                generation: connection.generation,
            },
        })
    }

    /// Sends an answer. It is dropped if nobody waits for it any more.
    pub(super) fn answer(&mut self, way: Way, bytes: &[u8]) {
        match way {
            Way::Udp(to) => {
                let socket = self.sockets.get_mut::<udp::Socket>(self.udp);
                // A guest that asks without reading loses answers, as on any network.
                let _ = socket.send_slice(bytes, to);
            }
            Way::Tcp {
                connection,
                generation,
            } => {
                let connection = &mut self.connections[connection];
                let Ok(length) = u16::try_from(bytes.len()) else {
                    return;
                };
                if connection.generation == generation {
                    connection.is_asking = false;
                    connection.unsent.extend(length.to_be_bytes());
                    connection.unsent.extend(bytes);
                    let socket = self.sockets.get_mut::<tcp::Socket>(connection.socket);
                    write(socket, &mut connection.unsent);
                }
            }
        }
    }

    /// Ends a connection on which something came that is no question.
    pub(super) fn refuse(&mut self, way: Way) {
        if let Way::Tcp {
            connection,
            generation,
        } = way
        {
            let connection = &self.connections[connection];
            if connection.generation == generation {
                self.sockets
                    .get_mut::<tcp::Socket>(connection.socket)
                    .abort();
            }
        }
    }

    /// Opens connections that have ended for the next guest.
    fn listen(&mut self) {
        for connection in &mut self.connections {
            let socket = self.sockets.get_mut::<tcp::Socket>(connection.socket);
            if !socket.is_open() {
                connection.generation += 1;
                connection.read = Vec::new();
                connection.unsent = VecDeque::new();
                connection.is_asking = false;
                socket.set_timeout(Some(SILENCE));
                socket.set_keep_alive(Some(SILENCE));
                // It fails for port 0 or an open socket only.
                let _ = socket.listen(DNS);
            }
        }
    }

    /// Takes the frames that the gateway sends, given the MAC of an address.
    pub(super) fn frames(
        &mut self,
        mac_of: impl Fn(Ipv4Addr) -> Option<Mac>,
    ) -> Vec<(Mac, Vec<u8>)> {
        let now = self.now();
        self.interface
            .poll(now, &mut self.packets, &mut self.sockets);
        let packets = self.packets.gone();
        (packets.into_iter())
            .filter_map(|packet| {
                let to = smoltcp::wire::Ipv4Packet::new_checked(packet.as_slice())
                    .ok()?
                    .dst_addr();
                let mac = mac_of(to)?;
                Some((mac, self.packet(mac, &packet)))
            })
            .collect()
    }

    /// When [`Self::poll`] has to be called again, although nothing has come.
    pub(super) fn next(&mut self) -> Option<Duration> {
        let now = self.now();
        let delay = self.interface.poll_delay(now, &self.sockets)?;
        Some(Duration::from_micros(delay.total_micros()))
    }

    fn now(&self) -> Instant {
        clock(self.began)
    }
}

fn write(socket: &mut tcp::Socket<'_>, unsent: &mut VecDeque<u8>) {
    while !unsent.is_empty() && socket.can_send() {
        match socket.send_slice(unsent.as_slices().0) {
            Ok(sent) if sent > 0 => drop(unsent.drain(..sent)),
            _ => break,
        }
    }
}
