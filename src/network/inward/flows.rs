//! Which packets from guests belong to the ways in: those to ports of the network's own address that connections and
//! datagrams have come from.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::Ipv4Addr,
    ops::RangeInclusive,
    rc::Rc,
};

use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};
use tokio::sync::Notify;

use crate::host::ports::Protocol;

use super::super::Mac;

/// The ports of the network's own address from which guests are reached (RFC 6335, 6).
const PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// How many packets of a flow may wait.
const WAITING: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    mac: Mac,
    protocol: Protocol,
    /// The guest's.
    guest: u16,
    /// The network's own.
    local: u16,
}

/// The flows into guests.
pub(in crate::network) struct Flows {
    inboxes: RefCell<HashMap<Key, Rc<Inbox>>>,
    next: Cell<u16>,
}

/// Packets that have come for one or more flows.
#[derive(Default)]
pub(super) struct Inbox {
    packets: RefCell<VecDeque<Vec<u8>>>,
    came: Notify,
}

impl Inbox {
    pub(super) fn take(&self) -> VecDeque<Vec<u8>> {
        std::mem::take(&mut self.packets.borrow_mut())
    }

    pub(super) async fn came(&self) {
        self.came.notified().await;
    }
}

/// A flow, which ends with it.
pub(super) struct Flow {
    flows: Rc<Flows>,
    key: Key,
}

impl Flow {
    /// Its port of the network's own address.
    pub(super) fn port(&self) -> u16 {
        self.key.local
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.flows.inboxes.borrow_mut().remove(&self.key);
    }
}

impl Default for Flows {
    /// Begins at any port: guests may still know flows of a process of before.
    fn default() -> Self {
        Flows {
            inboxes: RefCell::default(),
            next: Cell::new(fastrand::u16(PORTS)),
        }
    }
}

impl Flows {
    /// Begins a flow to a guest's port; `None` if all ports are in use.
    pub(super) fn begin(
        flows: &Rc<Flows>,
        mac: Mac,
        protocol: Protocol,
        guest: u16,
        inbox: &Rc<Inbox>,
    ) -> Option<Flow> {
        let mut inboxes = flows.inboxes.borrow_mut();
        for _ in PORTS {
            let local = match flows.next.get() {
                port if PORTS.contains(&port) => port,
                _ => *PORTS.start(),
            };
            flows.next.set(local.wrapping_add(1));
            let key = Key {
                mac,
                protocol,
                guest,
                local,
            };
            if let Entry::Vacant(room) = inboxes.entry(key) {
                room.insert(Rc::clone(inbox));
                return Some(Flow {
                    flows: Rc::clone(flows),
                    key,
                });
            }
        }
        None
    }

    /// Takes a packet that a card has sent by the network's own MAC. Returns whether it is of a flow, and so to the
    /// network's own address too: others are on their way out.
    pub(in crate::network) fn take(&self, mac: Mac, packet: &[u8], gateway: Ipv4Addr) -> bool {
        let inboxes = self.inboxes.borrow();
        if inboxes.is_empty() {
            return false;
        }
        let inbox = key(mac, packet, gateway).and_then(|key| inboxes.get(&key));
        let Some(inbox) = inbox else { return false };
        let mut packets = inbox.packets.borrow_mut();
        // TCP sends it again, and datagrams may be lost.
        if packets.len() < WAITING {
            packets.push_back(packet.to_vec());
            inbox.came.notify_one();
        }
        true
    }
}

fn key(mac: Mac, packet: &[u8], gateway: Ipv4Addr) -> Option<Key> {
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    if packet.dst_addr() != gateway
        || packet.version() != 4
        || packet.more_frags()
        || packet.frag_offset() != 0
    {
        return None;
    }
    let payload = packet.payload();
    let (protocol, guest, local) = match packet.next_header() {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).ok()?;
            (Protocol::Tcp, tcp.src_port(), tcp.dst_port())
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(payload).ok()?;
            (Protocol::Udp, udp.src_port(), udp.dst_port())
        }
        _ => return None,
    };
    Some(Key {
        mac,
        protocol,
        guest,
        local,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{frame, frames};

    #[test]
    fn only_packets_to_the_network_itself_are_of_flows() {
        let (mac, other) = (Mac([0x52, 0x54, 0, 0, 0, 1]), Mac([0x52, 0x54, 0, 0, 0, 2]));
        let (own, gateway) = (Ipv4Addr::new(10, 77, 0, 10), Ipv4Addr::new(10, 77, 0, 1));
        let flows = Rc::new(Flows::default());
        let inbox = Rc::default();
        let flow = Flows::begin(&flows, mac, Protocol::Udp, 53, &inbox).unwrap();
        let takes = |mac: Mac, port: u16, to: Ipv4Addr, local: u16| {
            let frame = frames::udp((mac, own, port), (other, to, local), b"x");
            flows.take(mac, frame::packet(&frame).unwrap(), gateway)
        };
        let local = flow.port();
        assert!(takes(mac, 53, gateway, local));
        assert!(!takes(mac, 53, Ipv4Addr::new(198, 51, 100, 1), local));
        assert!(!takes(mac, 54, gateway, local));
        assert!(!takes(mac, 53, gateway, local ^ 1));
        assert!(!takes(other, 53, gateway, local));
        assert_eq!(inbox.take().len(), 1);
        // Nobody takes them: no more wait than may.
        for _ in 0..2 * WAITING {
            assert!(takes(mac, 53, gateway, local));
        }
        assert_eq!(inbox.take().len(), WAITING);
        drop(flow);
        assert!(!takes(mac, 53, gateway, local));
    }
}
