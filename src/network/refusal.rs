//! Tells a guest at once that a packet of its went nowhere, so that its programs do not wait for an answer.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv4DstUnreachable, Icmpv4Message,
    Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket,
};

use super::frame::{empty_tcp, written};

/// How much of a packet's content goes back with its refusal, in bytes (RFC 792).
const QUOTED: usize = 8;
const HOPS: u8 = 64;

/// Returns the frame that refuses this one, which a guest sent to the gateway's MAC; `None` for what gets no answer.
pub(super) fn refusal(bytes: &[u8], gateway: Ipv4Addr) -> Option<Vec<u8>> {
    let frame = EthernetFrame::new_checked(bytes).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let is_to_one = !packet.dst_addr().is_multicast() && !packet.dst_addr().is_broadcast();
    if packet.frag_offset() != 0 || !is_to_one {
        return None;
    }
    let ethernet = EthernetRepr {
        src_addr: frame.dst_addr(),
        dst_addr: frame.src_addr(),
        ethertype: EthernetProtocol::Ipv4,
    };
    match packet.next_header() {
        IpProtocol::Tcp if !packet.more_frags() => {
            let tcp = TcpPacket::new_checked(packet.payload()).ok()?;
            match tcp.syn() && !tcp.ack() {
                true => prohibited(&ethernet, &packet, gateway),
                false => reset(&ethernet, &packet, &tcp),
            }
        }
        IpProtocol::Udp => prohibited(&ethernet, &packet, gateway),
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(packet.payload()).ok()?;
            // No error answers an error (RFC 1122, 3.2.2).
            (icmp.msg_type() == Icmpv4Message::EchoRequest)
                .then(|| prohibited(&ethernet, &packet, gateway))?
        }
        _ => None,
    }
}

/// Programs see "no route to host" at once (ICMP type 3, code 13; RFC 1812, 5.2.7.1).
fn prohibited(
    ethernet: &EthernetRepr,
    packet: &Ipv4Packet<&[u8]>,
    gateway: Ipv4Addr,
) -> Option<Vec<u8>> {
    let payload = packet.payload();
    let icmp = Icmpv4Repr::DstUnreachable {
        reason: Icmpv4DstUnreachable::CommProhibited,
        header: Ipv4Repr {
            src_addr: packet.src_addr(),
            dst_addr: packet.dst_addr(),
            next_header: packet.next_header(),
            payload_len: payload.len(),
            hop_limit: packet.hop_limit(),
        },
        data: payload.get(..QUOTED)?,
    };
    let ip = Ipv4Repr {
        src_addr: gateway,
        dst_addr: packet.src_addr(),
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: HOPS,
    };
    Some(written(ethernet, &ip, |payload, checksums| {
        icmp.emit(&mut Icmpv4Packet::new_unchecked(payload), checksums);
    }))
}

/// Ends a connection whose destination is open no more: a program that waits in it would not see the other answer.
fn reset(
    ethernet: &EthernetRepr,
    packet: &Ipv4Packet<&[u8]>,
    tcp: &TcpPacket<&[u8]>,
) -> Option<Vec<u8>> {
    if tcp.rst() {
        return None;
    }
    let ports = (tcp.dst_port(), tcp.src_port());
    let answer = empty_tcp(ports, TcpControl::Rst, tcp.ack_number());
    let ip = Ipv4Repr {
        src_addr: packet.dst_addr(),
        dst_addr: packet.src_addr(),
        next_header: IpProtocol::Tcp,
        payload_len: answer.buffer_len(),
        hop_limit: HOPS,
    };
    Some(written(ethernet, &ip, |payload, checksums| {
        let mut tcp = TcpPacket::new_unchecked(payload);
        answer.emit(
            &mut tcp,
            &ip.src_addr.into(),
            &ip.dst_addr.into(),
            checksums,
        );
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{
        Mac,
        frames::{ethernet, packet, tcp, udp},
    };

    const OWN: (Mac, Ipv4Addr, u16) = (
        Mac([0x52, 0x54, 0, 0, 0, 1]),
        Ipv4Addr::new(10, 77, 0, 10),
        40_000,
    );
    const FAR: (Mac, Ipv4Addr, u16) = (
        Mac([0x52, 0x55, 10, 77, 0, 1]),
        Ipv4Addr::new(203, 0, 113, 7),
        443,
    );
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    fn refused(frame: &[u8]) -> Option<(Ipv4Addr, IpProtocol, Vec<u8>)> {
        let bytes = refusal(frame, GATEWAY)?;
        let frame = EthernetFrame::new_checked(bytes.as_slice()).unwrap();
        assert_eq!((frame.src_addr().0, frame.dst_addr().0), (FAR.0.0, OWN.0.0));
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!(packet.dst_addr(), OWN.1);
        Some((
            packet.src_addr(),
            packet.next_header(),
            packet.payload().to_vec(),
        ))
    }

    #[test]
    fn a_new_connection_and_a_datagram_are_prohibited() {
        for frame in [tcp(OWN, FAR, TcpControl::Syn), udp(OWN, FAR, b"question")] {
            let (from, protocol, payload) = refused(&frame).unwrap();
            assert_eq!((from, protocol), (GATEWAY, IpProtocol::Icmp));
            let icmp = Icmpv4Packet::new_checked(payload.as_slice()).unwrap();
            assert!(icmp.verify_checksum());
            assert_eq!((u8::from(icmp.msg_type()), icmp.msg_code()), (3, 13));
            // What is quoted says which of the guest's sockets it is for.
            let quoted = Ipv4Packet::new_unchecked(icmp.data());
            assert_eq!((quoted.src_addr(), quoted.dst_addr()), (OWN.1, FAR.1));
            assert_eq!(icmp.data()[20..24], [0x9c, 0x40, 0x01, 0xbb]);
        }
    }

    #[test]
    fn a_connection_is_ended_as_if_by_its_other_side() {
        let (from, protocol, payload) = refused(&tcp(OWN, FAR, TcpControl::None)).unwrap();
        assert_eq!((from, protocol), (FAR.1, IpProtocol::Tcp));
        let tcp = TcpPacket::new_checked(payload.as_slice()).unwrap();
        assert!(tcp.rst() && tcp.verify_checksum(&FAR.1.into(), &OWN.1.into()));
        assert_eq!((tcp.src_port(), tcp.dst_port()), (FAR.2, OWN.2));
    }

    #[test]
    fn errors_resets_pieces_and_what_goes_to_many_get_no_answer() {
        assert_eq!(refused(&tcp(OWN, FAR, TcpControl::Rst)), None);
        let many = (FAR.0, Ipv4Addr::new(224, 0, 0, 251), 5353);
        assert_eq!(refused(&udp(OWN, many, b"x")), None);
        let error = packet(OWN.1, FAR.1, IpProtocol::Icmp, &[3, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            refused(&ethernet(OWN.0, FAR.0, EthernetProtocol::Ipv4, &error)),
            None
        );
        let whole = udp(OWN, FAR, b"question");
        let mut piece = whole.clone();
        piece[21] = 1;
        assert_eq!(refused(&piece), None);
        for end in 0..whole.len() {
            refused(&whole[..end]);
        }
    }
}
