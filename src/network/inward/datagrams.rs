//! Datagrams into guests. Each sender is a port of the network's own address for the guest, so that answers find it.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, UDP_HEADER_LEN, UdpPacket, UdpRepr},
};
use tokio::{net::UdpSocket, time::sleep};

use crate::host::ports::Protocol;

use super::{
    super::{Mac, frame::MTU, switch::Switch},
    flows::{Flow, Flows, Inbox},
};

/// How many senders a port remembers: those that have sent last.
const SENDERS: usize = 1024;

/// How long it takes no datagram after one could not be taken.
const AFTER_A_FAILURE: Duration = Duration::from_millis(200);

const HOPS: u8 = 64;

struct Sender {
    flow: Flow,
    last: Instant,
}

/// Leads datagrams to the guest, and its answers back, for ever. Those that do not fit into a packet are dropped.
pub(super) async fn lead(switch: Switch, mac: Mac, guest: u16, socket: UdpSocket) {
    let inbox: Rc<Inbox> = Rc::default();
    let mut senders: HashMap<SocketAddr, Sender> = HashMap::new();
    // One byte more than there is room for, so that a longer one is seen.
    let mut bytes = [0; MTU + 1];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut bytes) => {
                let Ok((length, from)) = received else {
                    sleep(AFTER_A_FAILURE).await;
                    continue;
                };
                let Some((to, gateway)) = switch.ends(mac) else { continue };
                let now = Instant::now();
                if !senders.contains_key(&from) {
                    if senders.len() >= SENDERS {
                        forget_one(&mut senders);
                    }
                    let flows = switch.flows();
                    let Some(flow) = Flows::begin(&flows, mac, Protocol::Udp, guest, &inbox) else {
                        continue;
                    };
                    senders.insert(from, Sender { flow, last: now });
                }
                let Some(sender) = senders.get_mut(&from) else { continue };
                sender.last = now;
                let ends = ((gateway, sender.flow.port()), (to, guest));
                if let Some(packet) = packet(ends, &bytes[..length]) {
                    switch.send_in(mac, &[packet].into());
                }
            }
            () = inbox.came() => {
                for packet in inbox.take() {
                    let Some((port, content)) = content(&packet) else { continue };
                    let to = senders.iter().find(|(_, it)| it.flow.port() == port);
                    if let Some((to, _)) = to {
                        // Nobody may be there any more.
                        let _ = socket.try_send_to(content, *to);
                    }
                }
            }
        }
    }
}

/// Forgets who has been silent for the longest time. Programs ask from another port each time.
fn forget_one(senders: &mut HashMap<SocketAddr, Sender>) {
    let silent = senders.iter().min_by_key(|(_, it)| it.last);
    if let Some(silent) = silent.map(|(from, _)| *from) {
        senders.remove(&silent);
    }
}

/// Writes a packet; `None` if it would be too long.
fn packet(
    ((from, from_port), (to, to_port)): ((Ipv4Addr, u16), (Ipv4Addr, u16)),
    content: &[u8],
) -> Option<Vec<u8>> {
    let checksums = ChecksumCapabilities::default();
    let ip = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Udp,
        payload_len: UDP_HEADER_LEN + content.len(),
        hop_limit: HOPS,
    };
    let length = ip.buffer_len() + ip.payload_len;
    if length > MTU {
        return None;
    }
    let udp = UdpRepr {
        src_port: from_port,
        dst_port: to_port,
    };
    let mut bytes = vec![0; length];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
    ip.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &IpAddress::Ipv4(from),
        &IpAddress::Ipv4(to),
        content.len(),
        |room| room.copy_from_slice(content),
        &checksums,
    );
    Some(bytes)
}

/// To which port a datagram of the guest's goes, and what is in it.
fn content(packet: &[u8]) -> Option<(u16, &[u8])> {
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    let udp = UdpPacket::new_checked(packet.payload()).ok()?;
    Some((udp.dst_port(), udp.payload()))
}
