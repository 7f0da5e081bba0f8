//! The entry point of `cargo fuzz`: everything that reads frames of guests and answers of name servers. Nothing may
//! panic, hang, or use unlimited memory.

use std::net::Ipv4Addr;

use super::{
    Card, Mac, Network, Subnet, Wiring,
    dhcp::{self, Offer},
    dns, frame,
    framing::Cutter,
    gateway::Gateway,
    outward, resolver,
    wiring::Place,
};

const OWN: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const GATEWAY: Mac = Mac([0x52, 0x55, 10, 77, 0, 1]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);

pub fn frames(data: &[u8]) {
    let subnet = Subnet::around(ADDRESS, 24);
    let card = Card {
        machine: "db".into(),
        mac: OWN,
        address: ADDRESS,
        aliases: vec!["postgres".into()],
        internet: true,
        egress: None,
    };
    let wiring = Wiring {
        guests: Vec::new(),
        ways_in: Vec::new(),
        starting: Vec::new(),
        domain: "shop.internal".into(),
        networks: vec![Network {
            name: "back".into(),
            subnet,
            cards: vec![card],
        }],
        links: None,
    };
    let place = Place {
        network: 0,
        card: 0,
    };
    let _ = frame::check(data, OWN, ADDRESS, GATEWAY);
    let mut cutter = Cutter::default();
    for part in data.chunks(7) {
        let _ = cutter.take(part, |frame| {
            let _ = frame::check(frame, OWN, ADDRESS, GATEWAY);
        });
    }
    let offer = Offer {
        mac: OWN,
        address: ADDRESS,
        subnet,
        gateway_mac: GATEWAY,
        domain: &wiring.domain,
        leads_out: true,
    };
    let _ = dhcp::answer(data, &offer);
    let mut gateway = Gateway::new(subnet, GATEWAY);
    let _ = gateway.take(data);
    for question in gateway.poll() {
        let _ = dns::answer(&question.bytes, &wiring, place, 512);
    }
    let _ = gateway.frames(|_| Some(OWN));
    let _ = dns::answer(data, &wiring, place, 512);
    let _ = dns::failed(data, 512);
    let _ = resolver::fitting(data.to_vec(), 64);
    let task = outward::Task {
        subnet,
        host_loopback: true,
    };
    outward::read(data, &task);
    outward::read(data.get(14..).unwrap_or_default(), &task);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::frames::{ALL, udp};

    /// Questions for DNS and DHCP with some bytes changed, always the same ones.
    #[test]
    fn damaged_frames_do_no_harm() {
        let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x02db\x04shop\x08internal\0\0\x01\0\x01";
        let own = (OWN, ADDRESS, 4000);
        let gateway = Ipv4Addr::new(10, 77, 0, 1);
        let frames = [
            udp(own, (GATEWAY, gateway, 53), question),
            udp(
                (OWN, Ipv4Addr::UNSPECIFIED, 68),
                (ALL, Ipv4Addr::BROADCAST, 67),
                &[1; 300],
            ),
            question.to_vec(),
        ];
        // Marsaglia's xorshift.
        let mut state = 0x2545_f491_u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        for _ in 0..2000 {
            for frame in &frames {
                let mut damaged = frame.clone();
                for _ in 0..=next() % 4 {
                    let at = next() as usize % damaged.len();
                    damaged[at] = next().to_be_bytes()[0];
                }
                damaged.truncate(damaged.len() - next() as usize % 8);
                super::frames(&damaged);
            }
        }
    }
}
