//! Packets of IPv4 between smoltcp and a network. There is no Ethernet here: which MAC has an address is known, and not
//! asked of guests.

use std::{collections::VecDeque, net::Ipv4Addr};

use smoltcp::{
    iface::{Config, Interface},
    phy::{self, Device, DeviceCapabilities, Medium},
    time::Instant,
    wire::{HardwareAddress, IpAddress, IpCidr},
};

use super::frame::{LONGEST, MTU};

/// How many packets may wait each way.
const WAITING: usize = 64;

/// The end of connections at an address of this program's. `prefix`: what else is on its link. `seed`: smoltcp's random
/// numbers follow from it.
pub(super) fn interface(
    address: Ipv4Addr,
    prefix: u8,
    seed: u64,
    packets: &mut Packets,
) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut interface = Interface::new(config, packets, Instant::ZERO);
    interface.update_ip_addrs(|addresses| {
        // There is room for the first.
        let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(address), prefix));
    });
    interface
}

/// smoltcp's time, for what began then.
pub(super) fn clock(began: std::time::Instant) -> Instant {
    let micros = began.elapsed().as_micros();
    Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// Packets on their way to and from smoltcp.
#[derive(Default)]
pub(super) struct Packets {
    coming: VecDeque<Vec<u8>>,
    going: VecDeque<Vec<u8>>,
}

impl Packets {
    /// Takes a packet. Returns whether it is not dropped, as it is if too many wait.
    pub(super) fn come(&mut self, packet: &[u8]) -> bool {
        let has_room = self.coming.len() < WAITING;
        if has_room {
            self.coming.push_back(packet.to_vec());
        }
        has_room
    }

    /// Returns what smoltcp has sent.
    pub(super) fn gone(&mut self) -> VecDeque<Vec<u8>> {
        std::mem::take(&mut self.going)
    }
}

impl Device for Packets {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.coming.pop_front()?;
        Some((Received(packet), Sending(&mut self.going)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        (self.going.len() < WAITING).then_some(Sending(&mut self.going))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

pub(super) struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

pub(super) struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length.min(LONGEST)];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}
