//! The child: it takes packets of guests from its standard input, which is a socket, and sends back those for guests.

use std::{
    collections::HashMap,
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd},
    process::ExitCode,
};

use nix::sys::socket::{MsgFlags, recv, send};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket,
};

use crate::{
    host::confine::TrafficOnly,
    network::{
        egress::is_never,
        frame::MTU,
        framing::{Cutter, PART, Unsent},
    },
    report::stdio,
};

use super::{
    READY, Task, restarted,
    slirp::{Library, Settings, Stack},
};

/// An Ethernet header, in bytes.
const HEADER: usize = 14;

/// How many bytes of packets for guests wait until stead-net takes them. From so many on, no more is read from sockets,
/// and from so many on, packets are dropped.
const CROWDED: usize = 256 << 10;
const MOST_WAITING: usize = 1 << 20;

/// How many guests there are at most, and how many sockets each may have. No guest gets more than are left for the
/// others, so several that take all they get leave some. libslirp keeps the socket of a connection for ten seconds after
/// its end (TIME-WAIT), so a share is enough for 400 short connections a second.
const MOST_GUESTS: usize = 1024;
const SHARE: usize = 4096;
const MOST_SOCKETS: usize = 8192;

/// libslirp reserves 256 KiB for each TCP connection, and uses it if the peer is slow: 2 GiB for all.
const CONFINED: TrafficOnly = TrafficOnly {
    files: 1 << 14,
    memory: 4 << 30,
    log: 2 << 20,
};

/// The MAC of every guest, as libslirp has it: each has a stack of its own.
const GUEST: EthernetAddress = EthernetAddress([0x02, 0, 0, 0, 0, 1]);

/// Runs the child, or only looks whether it could run.
pub(in crate::network) fn run(only_check: bool) -> ExitCode {
    if only_check {
        let loaded = Library::load();
        let said = loaded.as_ref().map_or_else(String::as_str, |_| READY);
        let _ = stdio::data(&format!("{said}\n"));
        return ExitCode::from(u8::from(loaded.is_err()));
    }
    let served = begin().and_then(|(task, library)| {
        say(READY)?;
        serve(&task, &library)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = say(&why);
            stdio::talk(&format!("the way out of a network ends: {why}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Reads what to do, loads libslirp, and gives up everything else.
fn begin() -> Result<(Task, Library), String> {
    let task = read_task().map_err(|error| format!("cannot read what to do: {error}"))?;
    let library = Library::load()?;
    // A first stack, while files can still be opened.
    library.stack(&settings(&task)).ok_or(REFUSED)?;
    CONFINED.confine()?;
    Ok((task, library))
}

/// Reads the first message, behind which nothing else comes before it is answered.
fn read_task() -> io::Result<Task> {
    let mut cutter = Cutter::default();
    let mut part = [0; 4096];
    let mut task = None;
    while task.is_none() {
        cutter.read(
            &mut part,
            |part| Ok(recv(io::stdin().as_raw_fd(), part, MsgFlags::empty())?),
            |text| task = Some(serde_json::from_slice(text)),
        )?;
    }
    task.unwrap_or_else(|| Err(serde::de::Error::custom("nothing")))
        .map_err(io::Error::from)
}

const REFUSED: &str = "libslirp does not take this network";

fn settings(task: &Task) -> Settings {
    let subnet = task.subnet;
    Settings {
        network: Ipv4Addr::from_bits(subnet.gateway().to_bits() & subnet.mask().to_bits()),
        mask: subnet.mask(),
        host: subnet.gateway(),
        unused: subnet.broadcast(),
        host_loopback: task.host_loopback,
    }
}

/// Says something to stead-net.
fn say(text: &str) -> Result<(), String> {
    let mut unsent = Unsent::default();
    unsent.push(text.as_bytes());
    unsent
        .flush(|bytes| {
            Ok(send(
                io::stdin().as_raw_fd(),
                bytes,
                MsgFlags::MSG_NOSIGNAL,
            )?)
        })
        .map(drop)
        .map_err(|error| format!("cannot answer stead-net: {error}"))
}

/// Passes packets on until stead-net ends.
fn serve(task: &Task, library: &Library) -> Result<(), String> {
    let input = io::stdin();
    let fd = input.as_raw_fd();
    let mut guests = Guests::new(task, library);
    let mut unsent = Unsent::default();
    let mut cutter = Cutter::default();
    let mut part = vec![0; PART];
    let mut frame = [0; HEADER + MTU];
    header().emit(&mut EthernetFrame::new_unchecked(&mut frame[..]));
    loop {
        let own = (input.as_fd(), !unsent.is_empty());
        let is_readable = library
            .wait(&mut guests.stacks, own, unsent.len() >= CROWDED)
            .map_err(|error| format!("cannot wait for packets: {error}"))?;
        if is_readable {
            let receive = |part: &mut [u8]| Ok(recv(fd, part, MsgFlags::MSG_DONTWAIT)?);
            let read = cutter.read(&mut part, receive, |message| {
                if let Some(guest) = restarted(message) {
                    guests.restart(guest);
                } else if let Some(packet) = frame[HEADER..].get_mut(..message.len()) {
                    packet.copy_from_slice(message);
                    guests.take(&mut frame[..HEADER + message.len()]);
                }
            });
            if let Err(error) = read {
                return match error.kind() {
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Ok(()),
                    io::ErrorKind::InvalidData => Err("stead-net sends what is no packet".into()),
                    _ => Err(format!("cannot read packets: {error}")),
                };
            }
        }
        while let Some(frame) = library.next_frame() {
            if unsent.len() < MOST_WAITING
                && let Some(packet) = inward(&frame, task)
            {
                unsent.push(packet);
            }
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let flushed = unsent.flush(|bytes| Ok(send(fd, bytes, flags)?));
        if flushed.is_err() {
            return Ok(());
        }
    }
}

/// The stacks of guests, by their addresses.
struct Guests<'a> {
    task: &'a Task,
    library: &'a Library,
    numbers: HashMap<Ipv4Addr, usize>,
    stacks: Vec<Stack>,
}

impl<'a> Guests<'a> {
    fn new(task: &'a Task, library: &'a Library) -> Self {
        Guests {
            task,
            library,
            numbers: HashMap::new(),
            stacks: Vec::new(),
        }
    }

    /// Takes a packet of a guest, with an Ethernet header.
    fn take(&mut self, frame: &mut [u8]) {
        let Some(outward) = outward(&frame[HEADER..], self.task) else {
            return;
        };
        let number = match self.numbers.get(&outward.guest) {
            Some(number) => *number,
            None if self.stacks.len() < MOST_GUESTS => {
                let Some(mut stack) = self.library.stack(&settings(self.task)) else {
                    return;
                };
                // It has room for the addresses of 16 guests, and would ask for them.
                stack.input(&announcement(outward.guest));
                self.stacks.push(stack);
                self.numbers.insert(outward.guest, self.stacks.len() - 1);
                self.stacks.len() - 1
            }
            None => return,
        };
        let frame = &mut frame[..HEADER + outward.length];
        if outward.is_urgent && !calm(&mut frame[HEADER..]) {
            return;
        }
        let stack = &mut self.stacks[number];
        let share = SHARE.min(MOST_SOCKETS.saturating_sub(self.library.sockets()));
        if !(outward.opens && stack.sockets() >= share) {
            stack.input(frame);
        }
    }

    /// Forgets the connections of a guest, which has begun anew.
    fn restart(&mut self, guest: Ipv4Addr) {
        if let Some(number) = self.numbers.get(&guest)
            && let Some(mut stack) = self.library.stack(&settings(self.task))
        {
            stack.input(&announcement(guest));
            self.stacks[*number] = stack;
        }
    }
}

/// A packet that a guest may send out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outgoing {
    guest: Ipv4Addr,
    /// In bytes, without padding.
    length: usize,
    /// Whether it may need another socket.
    opens: bool,
    /// Whether it has urgent data of TCP.
    is_urgent: bool,
}

/// Checks a packet of a guest. The switch has checked who sent it. libslirp would answer DHCP and TFTP and lead to this
/// computer, and it gets nothing that it does not need.
fn outward(bytes: &[u8], task: &Task) -> Option<Outgoing> {
    let packet = Ipv4Packet::new_checked(bytes).ok()?;
    let length = usize::from(packet.total_len());
    // Nobody needs options, and code for them is rarely tried.
    if packet.version() != 4 || packet.header_len() != 20 || length > MTU {
        return None;
    }
    // libslirp 4.7 crashes while it puts some together.
    if packet.more_frags() || packet.frag_offset() != 0 {
        return None;
    }
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    let protocol = packet.next_header();
    let is_allowed = match task.subnet.contains(to) {
        true => task.host_loopback && to == task.subnet.gateway() && protocol == IpProtocol::Tcp,
        false => !is_never(to),
    };
    let (opens, is_urgent) = match protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(packet.payload()).ok()?;
            (tcp.syn() && !tcp.ack(), tcp.urg())
        }
        IpProtocol::Udp => {
            UdpPacket::new_checked(packet.payload()).ok()?;
            (true, false)
        }
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(packet.payload()).ok()?;
            if icmp.msg_type() != Icmpv4Message::EchoRequest {
                return None;
            }
            (true, false)
        }
        _ => return None,
    };
    (is_allowed && task.subnet.is_host(from)).then_some(Outgoing {
        guest: from,
        length,
        opens,
        is_urgent,
    })
}

/// Makes urgent data of TCP be like any other: libslirp before 4.9.2 believes how much of it there is, and sends what
/// was in its memory. Returns whether the packet was whole.
fn calm(bytes: &mut [u8]) -> bool {
    let mut packet = Ipv4Packet::new_unchecked(bytes);
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    let mut tcp = TcpPacket::new_unchecked(packet.payload_mut());
    if !tcp.verify_checksum(&from, &to) {
        return false;
    }
    tcp.set_urg(false);
    tcp.set_urgent_at(0);
    tcp.fill_checksum(&from, &to);
    true
}

/// Returns the packet for a guest in a frame of libslirp's; `None` if it is something else.
fn inward<'a>(frame: &'a [u8], task: &Task) -> Option<&'a [u8]> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let bytes = frame.payload();
    let packet = Ipv4Packet::new_checked(bytes).ok()?;
    let length = usize::from(packet.total_len());
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    let is_right = packet.version() == 4
        && length <= MTU
        && task.subnet.is_host(to)
        && (from == task.subnet.gateway() || !task.subnet.contains(from));
    bytes.get(..length).filter(|_| is_right)
}

fn header() -> EthernetRepr {
    EthernetRepr {
        src_addr: GUEST,
        // libslirp does not look at it.
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Ipv4,
    }
}

/// The frame by which libslirp learns that its guest has this address.
fn announcement(guest: Ipv4Addr) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: GUEST,
        source_protocol_addr: guest,
        target_hardware_addr: EthernetAddress::BROADCAST,
        target_protocol_addr: guest,
    };
    let header = EthernetRepr {
        ethertype: EthernetProtocol::Arp,
        ..header()
    };
    let mut bytes = vec![0; header.buffer_len() + arp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    header.emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

/// Reads a packet and a frame, for `cargo fuzz`.
#[cfg(any(fuzzing, test))]
pub(in crate::network) fn read(data: &[u8], task: &Task) {
    if let Some(outgoing) = outward(data, task)
        && outgoing.is_urgent
    {
        let _ = calm(&mut data[..outgoing.length].to_vec());
    }
    let _ = inward(data, task);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Mac;
    use crate::network::frames;

    const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    fn task(host_loopback: bool) -> Task {
        Task {
            subnet: "10.77.0.0/24".parse().unwrap(),
            host_loopback,
        }
    }

    fn udp(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Vec<u8> {
        let mac = Mac([2; 6]);
        frames::udp((mac, from, 4000), (mac, to, port), b"x")[HEADER..].to_vec()
    }

    /// The same as a SYN of TCP, whose checksum nobody looks at here.
    fn tcp(to: Ipv4Addr) -> Vec<u8> {
        let mut packet = udp(GUEST, to, 80);
        packet.resize(40, 0);
        packet[3] = 40;
        packet[9] = 6;
        packet[32] = 0x50;
        packet[33] = 2;
        packet
    }

    fn goes_out(packet: &[u8], host_loopback: bool) -> bool {
        outward(packet, &task(host_loopback)).is_some()
    }

    #[test]
    fn packets_of_guests_go_elsewhere() {
        let mut padded = udp(GUEST, FAR, 53);
        padded.extend([0; 17]);
        let out = Outgoing {
            guest: GUEST,
            length: 29,
            opens: true,
            is_urgent: false,
        };
        assert_eq!(outward(&padded, &task(false)), Some(out));
        assert!(goes_out(&tcp(FAR), false));
        for from in [
            FAR,
            GATEWAY,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::new(10, 77, 0, 255),
        ] {
            assert!(!goes_out(&udp(from, FAR, 53), false), "{from}");
        }
    }

    #[test]
    fn nothing_leads_to_this_computer_or_to_libslirp_itself() {
        for to in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "10.77.0.0",
            "10.77.0.11",
            "10.77.0.255",
        ] {
            let to: Ipv4Addr = to.parse().unwrap();
            for packet in [udp(GUEST, to, 67), udp(GUEST, to, 9), tcp(to)] {
                assert!(!goes_out(&packet, true), "{to}");
            }
        }
        for port in [53, 67, 69, 9] {
            assert!(!goes_out(&udp(GUEST, GATEWAY, port), true), "{port}");
        }
        assert!(!goes_out(&tcp(GATEWAY), false));
        assert!(goes_out(&tcp(GATEWAY), true));
    }

    #[test]
    fn damaged_packets_and_odd_ones_go_nowhere() {
        let good = tcp(FAR);
        for short in 0..good.len() {
            assert!(!goes_out(&good[..short], false), "{short}");
        }
        let mut version = good.clone();
        version[0] = 0x65;
        let mut options = good.clone();
        options[0] = 0x46;
        let mut protocol = good.clone();
        protocol[9] = 47;
        let mut first = good.clone();
        first[6] = 0x20;
        let mut last = good.clone();
        last[7] = 1;
        let mut answer = good.clone();
        answer[9] = 1;
        answer[20] = 0;
        let mut long = udp(GUEST, FAR, 9);
        long.resize(MTU + 1, 0);
        long[2..4].copy_from_slice(&1501_u16.to_be_bytes());
        for packet in [version, options, protocol, first, last, answer, long] {
            assert!(!goes_out(&packet, false), "{packet:02x?}");
        }
    }

    #[test]
    fn urgent_data_is_like_any_other() {
        let mut packet = tcp(FAR);
        packet[33] = 0x30;
        packet[38] = 0xff;
        assert!(outward(&packet, &task(false)).unwrap().is_urgent);
        assert!(!calm(&mut packet.clone()), "its checksum is wrong");
        let mut tcp = TcpPacket::new_unchecked(&mut packet[20..]);
        tcp.fill_checksum(&GUEST.into(), &FAR.into());
        assert!(calm(&mut packet));
        let tcp = TcpPacket::new_checked(&packet[20..]).unwrap();
        assert!(tcp.verify_checksum(&GUEST.into(), &FAR.into()));
        assert_eq!((tcp.urg(), tcp.ack(), tcp.urgent_at()), (false, true, 0));
    }

    #[test]
    fn only_packets_for_guests_come_in() {
        let mac = Mac([2; 6]);
        let comes = |from: Ipv4Addr, to: Ipv4Addr| {
            let frame = frames::udp((mac, from, 53), (mac, to, 4000), b"x");
            inward(&frame, &task(false)).is_some()
        };
        assert!(comes(FAR, GUEST) && comes(GATEWAY, GUEST));
        let other = Ipv4Addr::new(10, 77, 0, 11);
        for (from, to) in [(other, GUEST), (FAR, GATEWAY), (FAR, FAR)] {
            assert!(!comes(from, to), "{from} {to}");
        }
        assert_eq!(inward(&announcement(GUEST), &task(false)), None);
        assert_eq!(inward(&[0; 13], &task(false)), None);
    }
}
