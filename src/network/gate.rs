//! The gate of a machine: which packets leave the networks of the project, and which names it may look up.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IPV4_HEADER_LEN, Icmpv4Message, Icmpv4Packet, IpProtocol,
    Ipv4Packet, TcpPacket, UdpPacket,
};

use super::{Egress, egress::is_never};

/// How long an address stays open at least: programs use one for longer than its answer lives.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How long an address stays open after a packet to it, so that connections go on.
const IN_USE: Duration = Duration::from_secs(300);
/// How many addresses names may have opened.
const OPEN: usize = 4096;
/// How many different destinations are listed among the refused ones.
const LISTED: usize = 32;

/// A destination that was refused: a name that was looked up, or an address with a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refusal {
    /// A guest chose it.
    pub to: String,
    /// How often.
    pub times: u64,
}

/// What was refused to a machine since the program started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    pub times: u64,
    /// The first destinations, by their names.
    pub to: Vec<Refusal>,
}

/// Where a packet to the gateway's MAC goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// To the gateway itself, which answers ping and DNS.
    Gateway,
    Out,
    /// Nowhere. The guest is told.
    Refused,
}

#[derive(Default)]
pub(super) struct Gate {
    egress: Egress,
    /// Until when addresses are open, by the answers that named them.
    open: HashMap<Ipv4Addr, Instant>,
    times: u64,
    refused: BTreeMap<String, u64>,
}

impl Gate {
    /// That of a card by which nothing leaves.
    pub(super) fn closed() -> Self {
        let egress = Egress {
            allow: Some(Vec::new()),
            host_tcp: Vec::new(),
        };
        Gate {
            egress,
            ..Gate::default()
        }
    }

    /// Makes it this one. What is counted stays.
    pub(super) fn set(&mut self, egress: &Egress) {
        if self.egress != *egress {
            self.egress = egress.clone();
            self.open.clear();
        }
    }

    /// Whether a name may be looked up, in small letters and without a dot at its end.
    pub(super) fn allows_name(&self, name: &str) -> bool {
        match &self.egress.allow {
            None => true,
            Some(allowed) => allowed.iter().any(|it| it.is_name(name)),
        }
    }

    /// Opens the addresses of an answer for as long as it lives.
    pub(super) fn open(&mut self, addresses: &[(Ipv4Addr, u32)], now: Instant) {
        if self.egress.allow.is_none() {
            return;
        }
        self.open.retain(|_, until| *until > now);
        for &(address, ttl) in addresses {
            if self.open.len() >= OPEN && !self.open.contains_key(&address) {
                return;
            }
            let lives = Duration::from_secs(ttl.into()).clamp(SHORTEST, LONGEST);
            let until = self.open.entry(address).or_insert(now);
            *until = (*until).max(now + lives);
        }
    }

    /// Judges a frame to the gateway's MAC, from the machine's own address. `is_near` says which addresses are of this
    /// computer or of the project's networks.
    pub(super) fn judge(
        &mut self,
        bytes: &[u8],
        gateway: Ipv4Addr,
        is_near: impl FnOnce(Ipv4Addr) -> bool,
        now: Instant,
    ) -> Verdict {
        let Ok(frame) = EthernetFrame::new_checked(bytes) else {
            return Verdict::Gateway;
        };
        let Some(packet) = (frame.ethertype() == EthernetProtocol::Ipv4)
            .then(|| Ipv4Packet::new_checked(frame.payload()).ok())
            .flatten()
        else {
            // ARP.
            return Verdict::Gateway;
        };
        let to = packet.dst_addr();
        let flow = flow(&packet);
        if to == gateway {
            let is_named = matches!(flow, Flow::Tcp(port) if self.egress.host_tcp.contains(&port));
            return match is_named {
                true => Verdict::Out,
                false => Verdict::Gateway,
            };
        }
        let is_open = !is_never(to)
            && flow != Flow::Other
            && !is_near(to)
            && match &self.egress.allow {
                None => true,
                Some(allowed) => allowed.iter().any(|it| it.is_address(to)) || self.uses(to, now),
            };
        if is_open {
            return Verdict::Out;
        }
        // Guests search for printers and the like without end.
        if !to.is_multicast() && !to.is_broadcast() {
            match flow {
                Flow::Tcp(port) => self.count(format!("{to}:{port}")),
                Flow::Udp(port) => self.count(format!("{to}:{port} (UDP)")),
                Flow::Echo => self.count(to.to_string()),
                Flow::Other => {}
            }
        }
        Verdict::Refused
    }

    /// Whether something may come from this address, which is not the network's own: what comes by UDP need not be an
    /// answer.
    pub(super) fn admits(&self, from: Ipv4Addr, now: Instant) -> bool {
        match &self.egress.allow {
            None => true,
            Some(allowed) => {
                (self.open.get(&from)).is_some_and(|until| *until > now)
                    || allowed.iter().any(|it| it.is_address(from))
            }
        }
    }

    fn uses(&mut self, address: Ipv4Addr, now: Instant) -> bool {
        match self.open.get_mut(&address) {
            Some(until) if *until > now => {
                *until = (*until).max(now + IN_USE);
                true
            }
            _ => false,
        }
    }

    /// Counts what was refused.
    pub(super) fn count(&mut self, to: String) {
        self.times += 1;
        if self.refused.len() < LISTED || self.refused.contains_key(&to) {
            *self.refused.entry(to).or_default() += 1;
        }
    }

    pub(super) fn refusals(&self) -> Refusals {
        let to = self.refused.iter().map(|(to, times)| Refusal {
            to: to.clone(),
            times: *times,
        });
        Refusals {
            times: self.times,
            to: to.collect(),
        }
    }
}

/// What a packet is part of, with the port to which it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Tcp(u16),
    Udp(u16),
    /// A ping.
    Echo,
    /// Another protocol, or a piece of a packet: the way out puts none together.
    Other,
}

fn flow(packet: &Ipv4Packet<&[u8]>) -> Flow {
    let payload = packet.payload();
    let protocol = packet.next_header();
    // Options of IP say which way a packet takes.
    if usize::from(packet.header_len()) != IPV4_HEADER_LEN {
        return Flow::Other;
    }
    if packet.frag_offset() != 0 || packet.more_frags() {
        return Flow::Other;
    }
    match protocol {
        IpProtocol::Tcp => {
            TcpPacket::new_checked(payload).map_or(Flow::Other, |tcp| Flow::Tcp(tcp.dst_port()))
        }
        IpProtocol::Udp => {
            UdpPacket::new_checked(payload).map_or(Flow::Other, |udp| Flow::Udp(udp.dst_port()))
        }
        IpProtocol::Icmp => match Icmpv4Packet::new_checked(payload) {
            Ok(icmp) if icmp.msg_type() == Icmpv4Message::EchoRequest => Flow::Echo,
            _ => Flow::Other,
        },
        _ => Flow::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{
        Mac,
        frames::{ethernet, packet, tcp, udp},
    };
    use smoltcp::wire::TcpControl;

    const OWN: (Mac, Ipv4Addr) = (Mac([0x52, 0x54, 0, 0, 0, 1]), Ipv4Addr::new(10, 77, 0, 10));
    const GATEWAY_MAC: Mac = Mac([0x52, 0x55, 10, 77, 0, 1]);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    /// This computer's.
    const NEAR: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 5);

    fn gate(allow: Option<&[&str]>, host_tcp: &[u16]) -> Gate {
        let mut gate = Gate::default();
        gate.set(&Egress {
            allow: allow.map(|words| words.iter().map(|it| it.parse().unwrap()).collect()),
            host_tcp: host_tcp.to_vec(),
        });
        gate
    }

    fn by_tcp(to: &str, port: u16) -> Vec<u8> {
        let to = (GATEWAY_MAC, to.parse().unwrap(), port);
        tcp((OWN.0, OWN.1, 40_000), to, TcpControl::Syn)
    }

    fn by_udp(to: &str, port: u16) -> Vec<u8> {
        let to = (GATEWAY_MAC, to.parse().unwrap(), port);
        udp((OWN.0, OWN.1, 40_000), to, b"x")
    }

    fn judge(gate: &mut Gate, frame: &[u8], now: Instant) -> Verdict {
        gate.judge(frame, GATEWAY, |to| to == NEAR, now)
    }

    /// A guest that had a way out until now still sends to its gateway, and waited for answers.
    #[test]
    fn where_nothing_leaves_all_is_refused_at_once() {
        let (mut gate, now) = (Gate::closed(), Instant::now());
        for frame in [by_tcp("203.0.113.7", 443), by_udp("192.168.1.5", 53)] {
            assert_eq!(judge(&mut gate, &frame, now), Verdict::Refused);
        }
        for frame in [by_tcp("10.77.0.1", 5432), by_udp("10.77.0.1", 53)] {
            assert_eq!(judge(&mut gate, &frame, now), Verdict::Gateway);
        }
    }

    #[test]
    fn without_a_list_all_is_reached_but_this_computer() {
        let (mut gate, now) = (gate(None, &[5432]), Instant::now());
        for (frame, verdict) in [
            (by_tcp("203.0.113.7", 443), Verdict::Out),
            (by_udp("203.0.113.7", 53), Verdict::Out),
            (by_tcp("192.168.1.77", 80), Verdict::Out),
            // Its own services, by whatever address.
            (by_tcp("192.168.1.5", 22), Verdict::Refused),
            (by_tcp("127.0.0.1", 5432), Verdict::Refused),
            (by_tcp("127.77.0.10", 5432), Verdict::Refused),
            (by_tcp("0.0.0.0", 5432), Verdict::Refused),
            (by_udp("127.0.0.53", 53), Verdict::Refused),
            (by_tcp("169.254.169.254", 80), Verdict::Refused),
            (by_udp("224.0.0.251", 5353), Verdict::Refused),
            (by_udp("255.255.255.255", 9), Verdict::Refused),
            (by_tcp("240.0.0.1", 9), Verdict::Refused),
            // The gateway answers DNS and ping itself, and only what is named leads to this computer.
            (by_tcp("10.77.0.1", 5432), Verdict::Out),
            (by_tcp("10.77.0.1", 5433), Verdict::Gateway),
            (by_udp("10.77.0.1", 5432), Verdict::Gateway),
            (by_udp("10.77.0.1", 53), Verdict::Gateway),
        ] {
            assert_eq!(judge(&mut gate, &frame, now), verdict);
        }
        let refusals = gate.refusals();
        assert_eq!(refusals.times, 7, "{refusals:?}");
        let said: Vec<&str> = refusals.to.iter().map(|it| it.to.as_str()).collect();
        assert!(said.contains(&"192.168.1.5:22"), "{said:?}");
        assert!(said.contains(&"127.0.0.53:53 (UDP)"), "{said:?}");
        assert!(gate.allows_name("anything.example"));
    }

    #[test]
    fn with_a_list_only_that_is_reached_and_names_open_what_they_mean() {
        let mut gate = gate(
            Some(&["deb.example.org", "*.example.com", "192.0.2.0/24"]),
            &[],
        );
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let far = by_tcp("203.0.113.7", 443);
        assert_eq!(judge(&mut gate, &by_tcp("192.0.2.9", 1), now), Verdict::Out);
        assert_eq!(judge(&mut gate, &far, now), Verdict::Refused);
        assert!(gate.allows_name("deb.example.org") && gate.allows_name("a.example.com"));
        assert!(!gate.allows_name("example.com") && !gate.allows_name("evil.test"));
        gate.open(&[(Ipv4Addr::new(203, 0, 113, 7), 100)], now);
        assert_eq!(judge(&mut gate, &far, later(99)), Verdict::Out);
        assert!(gate.admits(Ipv4Addr::new(203, 0, 113, 7), later(99)));
        assert!(gate.admits(Ipv4Addr::new(192, 0, 2, 1), now));
        assert!(!gate.admits(Ipv4Addr::new(203, 0, 113, 8), now));
        // What is in use stays open, and then no longer.
        assert_eq!(judge(&mut gate, &far, later(300)), Verdict::Out);
        assert_eq!(judge(&mut gate, &far, later(601)), Verdict::Refused);
        // A name that means this computer opens nothing.
        gate.open(&[(NEAR, 100), (Ipv4Addr::LOCALHOST, 100)], now);
        for to in ["192.168.1.5", "127.0.0.1"] {
            assert_eq!(judge(&mut gate, &by_tcp(to, 22), now), Verdict::Refused);
        }
        // Another list closes what the one before has opened.
        gate.open(&[(Ipv4Addr::new(203, 0, 113, 7), 100)], now);
        gate.set(&Egress {
            allow: Some(Vec::new()),
            host_tcp: Vec::new(),
        });
        assert_eq!(judge(&mut gate, &far, now), Verdict::Refused);
    }

    #[test]
    fn what_a_guest_refuses_to_end_takes_bounded_memory() {
        let (mut gate, now) = (gate(Some(&[]), &[]), Instant::now());
        for n in 0..10_000_u16 {
            judge(&mut gate, &by_tcp("203.0.113.7", n), now);
            gate.open(&[(Ipv4Addr::from_bits(u32::from(n)), 1)], now);
        }
        let refusals = gate.refusals();
        assert_eq!((refusals.times, refusals.to.len()), (10_000, LISTED));
        assert_eq!(gate.open.len(), OPEN);
    }

    #[test]
    fn pieces_and_odd_packets_do_not_get_to_ports_of_this_computer() {
        let (mut gate, now) = (gate(None, &[5432]), Instant::now());
        let whole = by_tcp("10.77.0.1", 5432);
        let change = |at: usize, to: u8| {
            let mut frame = whole.clone();
            frame[at] = to;
            frame
        };
        // "More fragments", an offset, a header with options, another protocol.
        for (at, to) in [(20, 0x20), (21, 1), (14, 0x46), (23, 132)] {
            let verdict = judge(&mut gate, &change(at, to), now);
            assert_eq!(verdict, Verdict::Gateway, "{at}");
        }
        for end in 0..whole.len() {
            let verdict = judge(&mut gate, &whole[..end], now);
            assert_ne!(verdict, Verdict::Out, "{end}");
        }
        let garbage = packet(OWN.1, "203.0.113.7".parse().unwrap(), 47.into(), b"gre");
        let garbage = ethernet(OWN.0, GATEWAY_MAC, EthernetProtocol::Ipv4, &garbage);
        assert_eq!(judge(&mut gate, &garbage, now), Verdict::Refused);
        assert_eq!(gate.refusals().times, 0);
    }
}
