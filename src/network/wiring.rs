//! What stead-net is told: which networks a project has, and which cards are on them.

use std::{fmt, net::Ipv4Addr, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::host::ports::HostPort;

use super::{Egress, PRIVATE, Subnet, conditions::Rule};

/// Returns the domain of the machines of a project, such as `shop.internal`. Nobody registers names below `internal`
/// (ICANN, 2024).
pub fn domain_of(project: &str) -> String {
    format!("{project}.{PRIVATE}")
}

/// How frames get to QEMU and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cable {
    /// By Unix sockets, which only the user can open: QEMU runs as this user.
    Sockets,
    /// By interfaces of the host, which only root can make: QEMU runs as another user.
    Taps,
}

/// All networks of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiring {
    /// The domain of all names, such as `shop.internal`.
    pub domain: String,
    pub networks: Vec<Network>,
    /// The conditions of links, by the Machinefile. `None`: as before, because it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<Vec<Rule>>,
    /// The machines whose ports appear on this computer.
    pub guests: Vec<Guest>,
    /// The ports that lead to machines that run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ways_in: Vec<WayIn>,
    /// The machines that are about to be started by the command that says this: they have no ports yet. Those of an
    /// attempt that was killed are closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starting: Vec<String>,
}

/// A port of this computer that leads to a port of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForward {
    pub host: HostPort,
    pub guest: u16,
}

/// The ports that lead to a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayIn {
    pub machine: String,
    /// The card by which they lead to it.
    pub mac: Mac,
    pub forwards: Vec<PortForward>,
}

/// A machine whose ports appear on this computer, each at the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    pub machine: String,
    /// By which ssh reaches it.
    pub ssh_config: PathBuf,
    /// Its own address on this computer.
    pub host_address: Ipv4Addr,
    /// Further ones, if this computer has them.
    pub addresses: Vec<Ipv4Addr>,
    /// Whether it has booted. It is left alone before.
    pub is_reached: bool,
}

impl Guest {
    pub(super) fn is_same(&self, other: &Guest) -> bool {
        let reached = |guest: &Guest| Guest {
            is_reached: true,
            ..guest.clone()
        };
        reached(self) == reached(other)
    }
}

/// A card of a network, by their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub network: usize,
    pub card: usize,
}

impl Wiring {
    pub(super) fn card(&self, place: Place) -> Option<(&Card, &Network)> {
        let network = self.networks.get(place.network)?;
        Some((network.cards.get(place.card)?, network))
    }

    pub(super) fn macs_of(&self, machine: &str) -> Vec<Mac> {
        let cards = self.networks.iter().flat_map(|network| &network.cards);
        (cards.filter(|card| card.machine == machine))
            .map(|card| card.mac)
            .collect()
    }

    /// The address at which a machine reaches this computer; `None`: it may reach no port of it.
    pub(super) fn way_to_host(&self, machine: &str) -> Option<Ipv4Addr> {
        let is_way = |card: &Card| {
            let egress = card.egress.as_ref();
            card.machine == machine && egress.is_some_and(|it| !it.host_tcp.is_empty())
        };
        let network = (self.networks.iter()).find(|network| network.cards.iter().any(is_way))?;
        Some(network.subnet.gateway())
    }

    /// Whether an address is on a network of the project.
    pub(super) fn has(&self, address: Ipv4Addr) -> bool {
        (self.networks.iter()).any(|network| network.subnet.contains(address))
    }

    /// The networks that a machine is on, by their positions.
    pub(super) fn networks_of<'a>(&'a self, machine: &'a str) -> impl Iterator<Item = usize> + 'a {
        (self.networks.iter().enumerate())
            .filter(move |(_, network)| network.cards.iter().any(|card| card.machine == machine))
            .map(|(n, _)| n)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub name: String,
    pub subnet: Subnet,
    pub cards: Vec<Card>,
}

/// The name of the network of a machine that is on none of its project. No network of a Machinefile has such a name.
pub fn own_network_of(machine: &str) -> String {
    format!("({machine})")
}

impl Network {
    /// Whether it is a machine's own.
    pub fn is_own(&self) -> bool {
        self.name.starts_with('(')
    }
}

/// A network card of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    pub machine: String,
    pub mac: Mac,
    pub address: Ipv4Addr,
    /// Further names of the machine on this network, below the domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Whether names outside of the project are looked up for it.
    pub internet: bool,
    /// What the machine reaches through this card, beyond the networks of the project. `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
}

/// What a card has sent and got, in frames, since the program started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub from_guest: u64,
    pub to_guest: u64,
    /// Those that the guest did not take in time.
    pub lost: u64,
    /// Those to the guest that were dropped by the conditions of their links.
    #[serde(default)]
    pub dropped: u64,
    /// Those from the guest that it may not send.
    pub refused: u64,
    /// Whether the guest has asked for its address, since its QEMU started.
    #[serde(default)]
    pub has_asked: bool,
}

/// The address of a card on the wire, locally administered or QEMU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// As one word, for names of files: `525400123456`.
    pub(crate) fn word(self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("not a MAC address")]
pub struct NotAMac;

impl FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(NotAMac)?;
            hex::decode_to_slice(part, std::slice::from_mut(byte)).map_err(|_| NotAMac)?;
        }
        match parts.next() {
            None => Ok(Mac(mac)),
            Some(_) => Err(NotAMac),
        }
    }
}

impl TryFrom<String> for Mac {
    type Error = NotAMac;

    fn try_from(text: String) -> Result<Self, NotAMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_written_as_it_is_read() {
        let mac: Mac = "52:54:00:0a:ff:01".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:0a:ff:01");
        assert_eq!(mac.word(), "5254000aff01");
        for not in [
            "",
            "52:54:00:0a:ff",
            "52:54:00:0a:ff:01:02",
            "52:54:00:0a:ff:1",
            "52:54:00:0a:ff:0x",
        ] {
            assert!(not.parse::<Mac>().is_err(), "{not}");
        }
    }
}
