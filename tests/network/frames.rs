//! Frames, as a guest may send them or may not. The unit tests of src/network use them too.

use std::net::Ipv4Addr;

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
        EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, UdpPacket,
        UdpRepr,
    },
};

use super::Mac;

pub(crate) const ALL: Mac = Mac([0xff; 6]);

pub(crate) fn ethernet(from: Mac, to: Mac, ethertype: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let header = EthernetRepr {
        src_addr: EthernetAddress(from.0),
        dst_addr: EthernetAddress(to.0),
        ethertype,
    };
    let mut bytes = vec![0; header.buffer_len() + payload.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    header.emit(&mut frame);
    frame.payload_mut().copy_from_slice(payload);
    bytes
}

/// A datagram, from and to a MAC, an address and a port.
pub(crate) fn udp(from: (Mac, Ipv4Addr, u16), to: (Mac, Ipv4Addr, u16), data: &[u8]) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: from.2,
        dst_port: to.2,
    };
    let ip = Ipv4Repr {
        src_addr: from.1,
        dst_addr: to.1,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + data.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; ip.buffer_len() + ip.payload_len];
    let checksums = ChecksumCapabilities::default();
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
    ip.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &ip.src_addr.into(),
        &ip.dst_addr.into(),
        data.len(),
        |payload| payload.copy_from_slice(data),
        &checksums,
    );
    ethernet(from.0, to.0, EthernetProtocol::Ipv4, &bytes)
}

/// A segment of TCP without content.
pub(crate) fn tcp(
    from: (Mac, Ipv4Addr, u16),
    to: (Mac, Ipv4Addr, u16),
    control: TcpControl,
) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: from.2,
        dst_port: to.2,
        control,
        seq_number: smoltcp::wire::TcpSeqNumber(1000),
        ack_number: (control == TcpControl::None).then_some(smoltcp::wire::TcpSeqNumber(2000)),
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let mut segment = vec![0; tcp.buffer_len()];
    tcp.emit(
        &mut TcpPacket::new_unchecked(&mut segment),
        &from.1.into(),
        &to.1.into(),
        &ChecksumCapabilities::default(),
    );
    let packet = packet(from.1, to.1, IpProtocol::Tcp, &segment);
    ethernet(from.0, to.0, EthernetProtocol::Ipv4, &packet)
}

/// A packet of IPv4.
pub(crate) fn packet(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: IpProtocol,
    payload: &[u8],
) -> Vec<u8> {
    let ip = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; ip.buffer_len() + payload.len()];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    packet.payload_mut().copy_from_slice(payload);
    bytes
}

/// A frame to all, in which ARP says that a MAC has an address.
pub(crate) fn arp(
    from: Mac,
    operation: ArpOperation,
    says: (Mac, Ipv4Addr),
    target: Ipv4Addr,
) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(says.0.0),
        source_protocol_addr: says.1,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let mut bytes = vec![0; arp.buffer_len()];
    arp.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    ethernet(from, ALL, EthernetProtocol::Arp, &bytes)
}
