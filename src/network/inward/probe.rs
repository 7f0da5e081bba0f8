//! Asks whether a guest takes connections at a port, and makes none: a guest that answers the first packet is told at
//! once to forget it, so its program notices nothing.

use std::{net::Ipv4Addr, time::Duration};

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber},
};
use tokio::time::{Instant, timeout_at};

use crate::host::ports::Protocol;

use super::{
    super::{Mac, control::Probed, frame::empty_tcp, switch::Switch},
    flows::Flows,
};

/// How long a guest is waited for, and how often it is asked meanwhile.
const LIMIT: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(250);

const HOPS: u8 = 64;
const WINDOW: u16 = 1024;

/// Asks the guest with this card.
pub(in crate::network) async fn probe(switch: &Switch, mac: Mac, port: u16) -> Probed {
    let Some((guest, gateway)) = switch.ends(mac) else {
        return Probed::Silent;
    };
    let inbox = std::rc::Rc::default();
    let Some(flow) = Flows::begin(&switch.flows(), mac, Protocol::Tcp, port, &inbox) else {
        return Probed::Silent;
    };
    let ask = Segment {
        from: (gateway, flow.port()),
        to: (guest, port),
        control: TcpControl::Syn,
        number: fastrand::i32(..),
    };
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        switch.send_in(mac, &[ask.packet()].into());
        let again = deadline.min(Instant::now() + AGAIN);
        while timeout_at(again, inbox.came()).await.is_ok() {
            for packet in inbox.take() {
                match answer(&packet, ask.number) {
                    Some(Answer::Refused) => return Probed::Refuses,
                    Some(Answer::Taken(number)) => {
                        let forget = Segment {
                            control: TcpControl::Rst,
                            number,
                            ..ask
                        };
                        switch.send_in(mac, &[forget.packet()].into());
                        return Probed::Takes;
                    }
                    None => {}
                }
            }
        }
    }
    Probed::Silent
}

/// A packet without data.
#[derive(Clone, Copy)]
struct Segment {
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    control: TcpControl,
    number: i32,
}

impl Segment {
    fn packet(&self) -> Vec<u8> {
        let ports = (self.from.1, self.to.1);
        let tcp = TcpRepr {
            window_len: WINDOW,
            ..empty_tcp(ports, self.control, TcpSeqNumber(self.number))
        };
        let ip = Ipv4Repr {
            src_addr: self.from.0,
            dst_addr: self.to.0,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: HOPS,
        };
        let checksums = ChecksumCapabilities::default();
        let mut bytes = vec![0; ip.buffer_len() + ip.payload_len];
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
        ip.emit(&mut packet, &checksums);
        tcp.emit(
            &mut TcpPacket::new_unchecked(packet.payload_mut()),
            &ip.src_addr.into(),
            &ip.dst_addr.into(),
            &checksums,
        );
        bytes
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Refused,
    /// With the number that the next packet to the guest has.
    Taken(i32),
}

/// Reads a packet of the flow. `None`: it answers another question.
fn answer(packet: &[u8], asked: i32) -> Option<Answer> {
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    let tcp = TcpPacket::new_checked(packet.payload()).ok()?;
    let next = TcpSeqNumber(asked.wrapping_add(1));
    if !tcp.ack() || tcp.ack_number() != next {
        return None;
    }
    match (tcp.rst(), tcp.syn()) {
        (true, _) => Some(Answer::Refused),
        (false, true) => Some(Answer::Taken(next.0)),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_to_what_was_asked_count() {
        let (guest, gateway) = (Ipv4Addr::new(10, 77, 0, 10), Ipv4Addr::new(10, 77, 0, 1));
        let said = |control, number, ack: Option<i32>| {
            let packet = Segment {
                from: (guest, 80),
                to: (gateway, 50_000),
                control,
                number,
            }
            .packet();
            let mut bytes = packet;
            if let Some(ack) = ack {
                let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
                let mut tcp = TcpPacket::new_unchecked(packet.payload_mut());
                tcp.set_ack(true);
                tcp.set_ack_number(TcpSeqNumber(ack));
            }
            bytes
        };
        let asked = i32::MAX;
        let next = i32::MIN;
        let taken = said(TcpControl::Syn, 7, Some(next));
        assert_eq!(answer(&taken, asked), Some(Answer::Taken(next)));
        let refused = said(TcpControl::Rst, 0, Some(next));
        assert_eq!(answer(&refused, asked), Some(Answer::Refused));
        for other in [
            said(TcpControl::Syn, 7, None),
            said(TcpControl::Syn, 7, Some(asked)),
            said(TcpControl::Rst, 0, None),
            said(TcpControl::None, 7, Some(next)),
            Vec::new(),
        ] {
            assert_eq!(answer(&other, asked), None);
        }
        for end in 0..taken.len() {
            assert_eq!(answer(&taken[..end], asked), None);
        }
    }
}
