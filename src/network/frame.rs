//! What a card may send, and where a frame goes. Every card has one MAC and one address, so nothing is learnt from what
//! guests say.

use std::net::Ipv4Addr;

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
        EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpRepr, TcpSeqNumber,
        UdpPacket,
    },
};

use super::Mac;

/// The most that an IP packet on the network has, in bytes. It is what every guest assumes.
pub(super) const MTU: usize = 1500;
/// An Ethernet header, in bytes.
const HEADER: usize = 14;
/// The longest frame, in bytes.
pub(super) const LONGEST: usize = HEADER + MTU;

pub(super) const DHCP_SERVER: u16 = 67;
pub(super) const DHCP_CLIENT: u16 = 68;

/// Why a frame goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is too short, too long, or not what its header says.
    Malformed,
    /// Its sender is another MAC or address than the card's.
    Spoofed,
    /// It is neither IPv4 nor ARP.
    Protocol,
    /// It answers DHCP, which only the network itself may.
    RogueDhcp,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To the card with this MAC.
    Card(Mac),
    /// To all other cards.
    All,
    /// To the network itself: its gateway's address.
    Gateway,
    /// To the network's DHCP, which answers the card that asks.
    Dhcp,
    /// To all other cards, and to the gateway.
    AllAndGateway,
}

/// Checks a frame that comes from the card with this MAC and address.
pub(super) fn check(
    frame: &[u8],
    mac: Mac,
    address: Ipv4Addr,
    gateway_mac: Mac,
) -> Result<Target, Refused> {
    if frame.len() > LONGEST {
        return Err(Refused::Malformed);
    }
    let frame = EthernetFrame::new_checked(frame).map_err(|_| Refused::Malformed)?;
    if frame.src_addr() != EthernetAddress(mac.0) {
        return Err(Refused::Spoofed);
    }
    let is_asking_dhcp = match frame.ethertype() {
        EthernetProtocol::Arp => {
            arp(frame.payload(), mac, address)?;
            false
        }
        EthernetProtocol::Ipv4 => ipv4(frame.payload(), address)?,
        _ => return Err(Refused::Protocol),
    };
    let to = frame.dst_addr();
    Ok(if is_asking_dhcp {
        Target::Dhcp
    } else if to == EthernetAddress(gateway_mac.0) {
        Target::Gateway
    } else if to.is_broadcast() {
        Target::AllAndGateway
    } else if to.is_multicast() {
        Target::All
    } else {
        Target::Card(Mac(to.0))
    })
}

fn arp(payload: &[u8], mac: Mac, address: Ipv4Addr) -> Result<(), Refused> {
    let packet = ArpPacket::new_checked(payload).map_err(|_| Refused::Malformed)?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).map_err(|_| Refused::Malformed)?
    else {
        return Err(Refused::Malformed);
    };
    if !matches!(operation, ArpOperation::Request | ArpOperation::Reply) {
        return Err(Refused::Protocol);
    }
    // A guest that has no address yet asks whether somebody has it (RFC 5227). Asked about another's, its owner might
    // give it up.
    let is_probe = source_protocol_addr.is_unspecified()
        && target_protocol_addr == address
        && operation == ArpOperation::Request;
    match source_hardware_addr == EthernetAddress(mac.0)
        && (is_probe || source_protocol_addr == address)
    {
        true => Ok(()),
        false => Err(Refused::Spoofed),
    }
}

/// Returns whether the packet is for DHCP.
fn ipv4(payload: &[u8], address: Ipv4Addr) -> Result<bool, Refused> {
    let packet = Ipv4Packet::new_checked(payload).map_err(|_| Refused::Malformed)?;
    if packet.version() != 4 {
        return Err(Refused::Malformed);
    }
    let ports = match packet.next_header() == IpProtocol::Udp && packet.frag_offset() == 0 {
        // The first of several fragments has the header, and a length beyond its own.
        true if packet.more_frags() => first_ports(packet.payload()),
        true => {
            let udp = UdpPacket::new_checked(packet.payload()).map_err(|_| Refused::Malformed)?;
            Some((udp.src_port(), udp.dst_port()))
        }
        false => None,
    };
    if ports.is_some_and(|(from, _)| from == DHCP_SERVER) {
        return Err(Refused::RogueDhcp);
    }
    let is_asking_dhcp = ports.is_some_and(|(_, to)| to == DHCP_SERVER) && !packet.more_frags();
    let from = packet.src_addr();
    match from == address || (is_asking_dhcp && from.is_unspecified()) {
        true => Ok(is_asking_dhcp),
        false => Err(Refused::Spoofed),
    }
}

/// Writes a frame with a packet, whose content `emit` writes.
pub(super) fn written(
    ethernet: &EthernetRepr,
    ip: &Ipv4Repr,
    emit: impl FnOnce(&mut [u8], &ChecksumCapabilities),
) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + ip.payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    emit(packet.payload_mut(), &checksums);
    bytes
}

/// Returns a TCP packet without data, options and acknowledgement. `ports`: from and to.
pub(super) fn empty_tcp(
    ports: (u16, u16),
    control: TcpControl,
    number: TcpSeqNumber,
) -> TcpRepr<'static> {
    TcpRepr {
        src_port: ports.0,
        dst_port: ports.1,
        control,
        seq_number: number,
        ack_number: None,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

/// Where a packet comes from, and where it goes.
pub(super) fn ends(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    Some((packet.src_addr(), packet.dst_addr()))
}

/// The packet of a frame.
pub(super) fn packet(frame: &[u8]) -> Option<&[u8]> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    Some(frame.payload())
}

fn first_ports(udp: &[u8]) -> Option<(u16, u16)> {
    let header = udp.get(..4)?;
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    Some((port(0), port(2)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::frames, *};
    use frames::{ALL, ethernet, udp};

    pub(in crate::network) const OWN: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
    pub(in crate::network) const GATEWAY: Mac = Mac([0x52, 0x54, 0, 0, 0, 0xff]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

    fn arp(from: Mac, says: (Mac, Ipv4Addr)) -> Vec<u8> {
        frames::arp(from, ArpOperation::Request, says, ELSEWHERE)
    }

    fn sent(frame: &[u8]) -> Result<Target, Refused> {
        check(frame, OWN, ADDRESS, GATEWAY)
    }

    #[test]
    fn frames_go_where_they_are_sent() {
        let own = (OWN, ADDRESS, 4000);
        assert_eq!(
            sent(&udp(own, (OTHER, ELSEWHERE, 53), b"x")),
            Ok(Target::Card(OTHER))
        );
        assert_eq!(
            sent(&udp(own, (GATEWAY, ELSEWHERE, 53), b"x")),
            Ok(Target::Gateway)
        );
        assert_eq!(
            sent(&udp(own, (ALL, Ipv4Addr::BROADCAST, 9), b"x")),
            Ok(Target::AllAndGateway)
        );
        let multicast = Mac([1, 0, 0x5e, 0, 0, 0xfb]);
        assert_eq!(
            sent(&udp(
                own,
                (multicast, Ipv4Addr::new(224, 0, 0, 251), 5353),
                b"x"
            )),
            Ok(Target::All)
        );
        assert_eq!(sent(&arp(OWN, (OWN, ADDRESS))), Ok(Target::AllAndGateway));
        let nobody = (OWN, Ipv4Addr::UNSPECIFIED);
        let probe = frames::arp(OWN, ArpOperation::Request, nobody, ADDRESS);
        assert_eq!(sent(&probe), Ok(Target::AllAndGateway));
        let asks = (OWN, Ipv4Addr::UNSPECIFIED, DHCP_CLIENT);
        let dhcp = (ALL, Ipv4Addr::BROADCAST, DHCP_SERVER);
        assert_eq!(sent(&udp(asks, dhcp, b"x")), Ok(Target::Dhcp));
    }

    #[test]
    fn nobody_sends_as_another() {
        let to = (OTHER, ELSEWHERE, 53);
        for frame in [
            udp((OTHER, ADDRESS, 4000), to, b"x"),
            udp((OWN, ELSEWHERE, 4000), to, b"x"),
            udp((OWN, Ipv4Addr::UNSPECIFIED, 4000), to, b"x"),
            udp((OWN, Ipv4Addr::BROADCAST, 4000), to, b"x"),
            arp(OWN, (OTHER, ADDRESS)),
            arp(OWN, (OWN, ELSEWHERE)),
            arp(OTHER, (OWN, ADDRESS)),
            // A probe for another's address, which its owner might give up then.
            arp(OWN, (OWN, Ipv4Addr::UNSPECIFIED)),
            frames::arp(
                OWN,
                ArpOperation::Reply,
                (OWN, Ipv4Addr::UNSPECIFIED),
                ADDRESS,
            ),
        ] {
            assert_eq!(sent(&frame), Err(Refused::Spoofed), "{frame:02x?}");
        }
    }

    #[test]
    fn only_the_network_answers_dhcp() {
        let answer = udp(
            (OWN, ADDRESS, DHCP_SERVER),
            (OTHER, ELSEWHERE, DHCP_CLIENT),
            b"x",
        );
        assert_eq!(sent(&answer), Err(Refused::RogueDhcp));
        // In fragments too: the flag "more fragments", and a longer UDP packet than there is.
        let mut fragment = answer.clone();
        fragment[HEADER + 6] = 0x20;
        fragment[HEADER + 20 + 4] = 0x05;
        assert_eq!(sent(&fragment), Err(Refused::RogueDhcp));
    }

    #[test]
    fn other_operations_of_arp_go_nowhere() {
        let strange = frames::arp(OWN, ArpOperation::Unknown(3), (OWN, ADDRESS), ELSEWHERE);
        assert_eq!(sent(&strange), Err(Refused::Protocol));
    }

    #[test]
    fn other_protocols_and_damaged_frames_go_nowhere() {
        for (protocol, refused) in [
            (EthernetProtocol::Ipv6, Refused::Protocol),
            (EthernetProtocol::Unknown(0x8100), Refused::Protocol),
            (EthernetProtocol::Ipv4, Refused::Malformed),
            (EthernetProtocol::Arp, Refused::Malformed),
        ] {
            let frame = ethernet(OWN, OTHER, protocol, &[0; 46]);
            assert_eq!(sent(&frame), Err(refused), "{protocol}");
        }
        let good = udp((OWN, ADDRESS, 4000), (OTHER, ELSEWHERE, 53), &[0; 100]);
        for short in 0..good.len() {
            assert!(sent(&good[..short]).is_err(), "{short}");
        }
        assert!(sent(&[0; LONGEST + 1]).is_err());
        let full = udp((OWN, ADDRESS, 4000), (OTHER, ELSEWHERE, 53), &[0; 1472]);
        assert_eq!(full.len(), LONGEST);
        assert_eq!(sent(&full), Ok(Target::Card(OTHER)));
    }
}
