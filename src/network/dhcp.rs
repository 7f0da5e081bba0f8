//! DHCP: tells a card the address that it has. Nothing is leased that could run out: a card's address is its own.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame,
    EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

use super::{
    Mac, Subnet,
    frame::{DHCP_CLIENT, DHCP_SERVER, written},
};

/// In seconds. A guest asks again after half of it. It keeps its address for this long while the program is away.
const LEASE: u32 = 24 * 3600;

const DOMAIN_NAME: u8 = 15;
const TIME_SERVERS: u8 = 42;
const DOMAIN_SEARCH: u8 = 119;

/// What a card is told.
#[derive(Clone, Debug)]
pub(super) struct Offer<'a> {
    pub mac: Mac,
    pub address: Ipv4Addr,
    pub subnet: Subnet,
    pub gateway_mac: Mac,
    pub domain: &'a str,
    /// Whether the machine's way out leads through this card.
    pub leads_out: bool,
}

/// Returns the frame that answers one of the card's, if there is an answer.
pub(super) fn answer(frame: &[u8], offer: &Offer<'_>) -> Option<Vec<u8>> {
    let request = message(frame)?;
    let asked = DhcpRepr::parse(&request).ok()?;
    let gateway = offer.subnet.gateway();
    // It speaks to another server.
    if (asked.server_identifier).is_some_and(|server| server != gateway) {
        return None;
    }
    if asked.client_hardware_address != EthernetAddress(offer.mac.0) {
        return None;
    }
    let (kind, gets_address) = match asked.message_type {
        DhcpMessageType::Discover => (DhcpMessageType::Offer, true),
        DhcpMessageType::Request => {
            let wants = (asked.requested_ip)
                .or_else(|| Some(asked.client_ip).filter(|it| !it.is_unspecified()));
            match wants == Some(offer.address) {
                true => (DhcpMessageType::Ack, true),
                false => (DhcpMessageType::Nak, false),
            }
        }
        // It has an address, and asks for the rest.
        DhcpMessageType::Inform => (DhcpMessageType::Ack, false),
        _ => return None,
    };
    let has_rest = kind != DhcpMessageType::Nak;
    let search = search_list(offer.domain);
    let time = gateway.octets();
    let options = [
        DhcpOption {
            kind: TIME_SERVERS,
            data: &time,
        },
        DhcpOption {
            kind: DOMAIN_NAME,
            data: offer.domain.as_bytes(),
        },
        DhcpOption {
            kind: DOMAIN_SEARCH,
            data: &search,
        },
    ];
    let dhcp = DhcpRepr {
        message_type: kind,
        transaction_id: asked.transaction_id,
        secs: 0,
        client_hardware_address: asked.client_hardware_address,
        client_ip: match has_rest {
            true => asked.client_ip,
            false => Ipv4Addr::UNSPECIFIED,
        },
        your_ip: match gets_address {
            true => offer.address,
            false => Ipv4Addr::UNSPECIFIED,
        },
        server_ip: Ipv4Addr::UNSPECIFIED,
        // Else, the way to everything beyond is another card's.
        router: (has_rest && offer.leads_out).then_some(gateway),
        subnet_mask: has_rest.then(|| offer.subnet.mask()),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: asked.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(gateway),
        parameter_request_list: None,
        dns_servers: has_rest.then(|| [gateway].into_iter().collect()),
        max_size: None,
        lease_duration: gets_address.then_some(LEASE),
        renew_duration: None,
        rebind_duration: None,
        additional_options: match has_rest {
            true => &options,
            false => &[],
        },
    };
    // As RFC 2131, 4.1 says.
    let to = match () {
        () if !has_rest => Ipv4Addr::BROADCAST,
        () if !asked.client_ip.is_unspecified() => asked.client_ip,
        () if asked.broadcast => Ipv4Addr::BROADCAST,
        () => offer.address,
    };
    emit(&dhcp, offer, to)
}

/// Whether a guest has no address yet, as at its boot: it looks for a server, or for the address that it had
/// (RFC 2131, 4.4.1 and 4.4.2).
pub(super) fn begins(frame: &[u8]) -> bool {
    let request = message(frame);
    let asked = request.as_ref().and_then(|it| DhcpRepr::parse(it).ok());
    asked.is_some_and(|asked| match asked.message_type {
        DhcpMessageType::Discover => true,
        DhcpMessageType::Request => {
            asked.client_ip.is_unspecified() && asked.server_identifier.is_none()
        }
        _ => false,
    })
}

/// The message in a frame.
fn message(frame: &[u8]) -> Option<DhcpPacket<&[u8]>> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let udp = UdpPacket::new_checked(packet.payload()).ok()?;
    DhcpPacket::new_checked(udp.payload()).ok()
}

fn emit(dhcp: &DhcpRepr<'_>, offer: &Offer<'_>, to: Ipv4Addr) -> Option<Vec<u8>> {
    let udp = UdpRepr {
        src_port: DHCP_SERVER,
        dst_port: DHCP_CLIENT,
    };
    let ip = Ipv4Repr {
        src_addr: offer.subnet.gateway(),
        dst_addr: to,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + dhcp.buffer_len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(offer.gateway_mac.0),
        dst_addr: match to == Ipv4Addr::BROADCAST {
            true => EthernetAddress::BROADCAST,
            false => EthernetAddress(offer.mac.0),
        },
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut is_written = false;
    let bytes = written(&ethernet, &ip, |payload, checksums| {
        udp.emit(
            &mut UdpPacket::new_unchecked(payload),
            &ip.src_addr.into(),
            &ip.dst_addr.into(),
            dhcp.buffer_len(),
            |payload| is_written = dhcp.emit(&mut DhcpPacket::new_unchecked(payload)).is_ok(),
            checksums,
        );
    });
    is_written.then_some(bytes)
}

/// A search list of one domain, as names are in DNS (RFC 3397).
fn search_list(domain: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(domain.len() + 2);
    for label in domain.split('.') {
        // Labels have at most 63 bytes.
        bytes.push(u8::try_from(label.len()).unwrap_or(63));
        bytes.extend(label.bytes().take(63));
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{
        frame::tests::{GATEWAY, OWN},
        frames::{ALL, udp},
    };

    fn offer() -> Offer<'static> {
        Offer {
            mac: OWN,
            address: Ipv4Addr::new(10, 77, 0, 10),
            subnet: "10.77.0.0/24".parse().unwrap(),
            gateway_mac: GATEWAY,
            domain: "shop.internal",
            leads_out: false,
        }
    }

    fn request(kind: DhcpMessageType, change: impl FnOnce(&mut DhcpRepr<'_>)) -> Vec<u8> {
        let mut dhcp = DhcpRepr {
            message_type: kind,
            transaction_id: 0x1234_5678,
            secs: 0,
            client_hardware_address: EthernetAddress(OWN.0),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        change(&mut dhcp);
        let mut bytes = vec![0; dhcp.buffer_len()];
        dhcp.emit(&mut DhcpPacket::new_unchecked(&mut bytes))
            .unwrap();
        udp(
            (OWN, Ipv4Addr::UNSPECIFIED, DHCP_CLIENT),
            (ALL, Ipv4Addr::BROADCAST, DHCP_SERVER),
            &bytes,
        )
    }

    /// The answer as the guest reads it: where it goes, its kind, the address it gives, its further options.
    fn read(frame: &[u8]) -> (Ipv4Addr, DhcpMessageType, Ipv4Addr, Vec<(u8, Vec<u8>)>) {
        let frame = EthernetFrame::new_checked(frame).unwrap();
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        assert!(packet.verify_checksum());
        let udp = UdpPacket::new_checked(packet.payload()).unwrap();
        assert!(udp.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into()));
        let dhcp = DhcpPacket::new_checked(udp.payload()).unwrap();
        let options = (dhcp.options())
            .map(|option| (option.kind, option.data.to_vec()))
            .collect();
        let repr = DhcpRepr::parse(&dhcp).unwrap();
        (packet.dst_addr(), repr.message_type, repr.your_ip, options)
    }

    #[test]
    fn a_card_gets_its_own_address() {
        let own = Ipv4Addr::new(10, 77, 0, 10);
        let frame = answer(&request(DhcpMessageType::Discover, |_| ()), &offer()).unwrap();
        let (to, kind, address, options) = read(&frame);
        assert_eq!((to, kind, address), (own, DhcpMessageType::Offer, own));
        let option = |kind: u8| {
            let found = options.iter().find(|(it, _)| *it == kind);
            found.map(|(_, data)| data.as_slice())
        };
        assert_eq!(option(1), Some(&[255, 255, 255, 0][..]));
        assert_eq!(option(3), None, "no router");
        assert_eq!(option(6), Some(&[10, 77, 0, 1][..]));
        assert_eq!(option(42), Some(&[10, 77, 0, 1][..]));
        assert_eq!(option(15), Some(&b"shop.internal"[..]));
        assert_eq!(option(119), Some(&b"\x04shop\x08internal\x00"[..]));

        let ask = request(DhcpMessageType::Request, |it| it.requested_ip = Some(own));
        assert_eq!(
            read(&answer(&ask, &offer()).unwrap()).1,
            DhcpMessageType::Ack
        );
        let renew = request(DhcpMessageType::Request, |it| it.client_ip = own);
        assert_eq!(
            read(&answer(&renew, &offer()).unwrap()).1,
            DhcpMessageType::Ack
        );
    }

    #[test]
    fn a_guest_without_an_address_begins() {
        let own = Ipv4Addr::new(10, 77, 0, 10);
        assert!(begins(&request(DhcpMessageType::Discover, |_| ())));
        assert!(begins(&request(DhcpMessageType::Request, |it| {
            it.requested_ip = Some(own);
        })));
        // It takes an offer, renews its address, or gives it back.
        assert!(!begins(&request(DhcpMessageType::Request, |it| {
            it.server_identifier = Some(Ipv4Addr::new(10, 77, 0, 1));
        })));
        assert!(!begins(&request(DhcpMessageType::Request, |it| it
            .client_ip =
            own)));
        assert!(!begins(&request(DhcpMessageType::Release, |_| ())));
    }

    #[test]
    fn another_address_is_refused() {
        let ask = request(DhcpMessageType::Request, |it| {
            it.requested_ip = Some(Ipv4Addr::new(10, 77, 0, 11));
        });
        let (to, kind, address, _) = read(&answer(&ask, &offer()).unwrap());
        assert_eq!(kind, DhcpMessageType::Nak);
        assert_eq!((to, address), (Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED));
        let none = request(DhcpMessageType::Request, |_| ());
        assert_eq!(
            read(&answer(&none, &offer()).unwrap()).1,
            DhcpMessageType::Nak
        );
    }

    #[test]
    fn what_is_not_for_this_network_has_no_answer() {
        for frame in [
            request(DhcpMessageType::Discover, |it| {
                it.client_hardware_address = EthernetAddress([2; 6]);
            }),
            request(DhcpMessageType::Request, |it| {
                it.server_identifier = Some(Ipv4Addr::new(10, 0, 2, 2));
            }),
            request(DhcpMessageType::Release, |_| ()),
            request(DhcpMessageType::Decline, |_| ()),
            request(DhcpMessageType::Offer, |_| ()),
        ] {
            assert_eq!(answer(&frame, &offer()), None);
        }
        let good = request(DhcpMessageType::Discover, |_| ());
        for short in 0..good.len() {
            let _ = answer(&good[..short], &offer());
        }
    }
}
