//! Reads what a guest says about the ports on which something listens in it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

/// A port on which a machine listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestPort {
    pub port: u16,
    /// Where it is on this computer.
    pub addresses: Vec<Ipv4Addr>,
    /// Whether it is reached within the guest only: what listens does so on addresses such as 127.0.0.1.
    #[serde(default)]
    pub is_local: bool,
    /// Why it is not at one of its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// The ports of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestPorts {
    /// Whether the machine says which ports it has.
    pub known: bool,
    pub ports: Vec<GuestPort>,
}

/// A port on which something listens, as the guest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    /// At which address a program in the guest reaches it.
    pub reached_at: IpAddr,
    /// Whether no other address than such as 127.0.0.1 has it.
    pub is_local: bool,
}

/// How many ports of a machine appear on the host.
pub(super) const MOST: usize = 64;

/// The longest line that is read, in bytes: some thousand ports.
pub(super) const LONGEST: u64 = 1 << 16;

const MARK: &str = "stead-ports";

/// Returns the ports, and for each how it is reached; `None` if the line is something else, such as words that a login
/// prints. Those that are no ports are left out, and so are ports after the first
/// [`MOST`]: a guest can say what it wants.
pub(super) fn read(line: &str) -> Option<BTreeMap<u16, Listener>> {
    let mut found: BTreeMap<u16, Listener> = BTreeMap::new();
    for (address, port) in sockets(line)? {
        let is_local = address.is_loopback();
        let Some(address) = reached_at(address) else {
            continue;
        };
        if found.len() == MOST && !found.contains_key(&port) {
            continue;
        }
        let known = found.entry(port).or_insert(Listener {
            reached_at: address,
            is_local,
        });
        known.is_local &= is_local;
        if rank(address) < rank(known.reached_at) {
            known.reached_at = address;
        }
    }
    Some(found)
}

/// Returns the addresses of the guest at which something listens on a port; `None` as with [`read`].
pub fn listening_at(line: &str, port: u16) -> Option<Vec<IpAddr>> {
    let found = sockets(line)?.filter(|(_, at)| *at == port);
    Some(found.map(|(address, _)| address).take(MOST).collect())
}

/// Returns where something listens; `None` as with [`read`].
fn sockets(line: &str) -> Option<impl Iterator<Item = (IpAddr, u16)>> {
    let mut words = line.split_ascii_whitespace();
    (words.next() == Some(MARK)).then(|| words.filter_map(socket))
}

/// Reads `0100007F:1538`, and the same for IPv6: words of 32 bits, each in the byte order of the guest. Those that run
/// stead's machines are little-endian.
fn socket(word: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = word.split_once(':')?;
    let mut bytes = [0; 2];
    hex::decode_to_slice(port, &mut bytes).ok()?;
    let port = u16::from_be_bytes(bytes);
    if port == 0 {
        return None;
    }
    let mut bytes = [0; 16];
    let length = match address.len() {
        8 => 4,
        32 => 16,
        _ => return None,
    };
    hex::decode_to_slice(address, &mut bytes[..length]).ok()?;
    for word in bytes[..length].chunks_exact_mut(4) {
        word.reverse();
    }
    let address = match length {
        4 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        _ => Ipv6Addr::from(bytes).to_canonical(),
    };
    Some((address, port))
}

/// The address at which a program in the guest itself reaches one that listens on `address`.
fn reached_at(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Some(Ipv4Addr::LOCALHOST.into()),
        // Also if it does not take IPv4.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Some(Ipv6Addr::LOCALHOST.into()),
        // It needs the name of an interface too.
        IpAddr::V6(address) if address.is_unicast_link_local() => None,
        IpAddr::V6(address) if address.is_multicast() => None,
        IpAddr::V4(address) if address.is_multicast() || address.is_broadcast() => None,
        address => Some(address),
    }
}

/// Several programs may have the same port at different addresses. The lowest counts.
fn rank(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => 0,
        IpAddr::V6(Ipv6Addr::LOCALHOST) => 1,
        address if address.is_loopback() => 3,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Option<Vec<String>> {
        let found = read(line)?;
        Some(
            found
                .iter()
                .map(|(port, at)| {
                    let local = if at.is_local { " only" } else { "" };
                    format!("{port} {}{local}", at.reached_at)
                })
                .collect(),
        )
    }

    #[test]
    fn ports_and_where_they_are_reached() {
        let said = "stead-ports 00000000:1538 0100007F:1F90 0A004D0A:0050 \
                    00000000000000000000000000000000:0016 00000000000000000000000001000000:0277 \
                    0000000000000000FFFF00000A004D0A:2329";
        assert_eq!(
            shown(said).unwrap(),
            [
                "22 ::1",
                "80 10.77.0.10",
                "631 ::1 only",
                "5432 127.0.0.1",
                "8080 127.0.0.1 only",
                "9001 10.77.0.10"
            ]
        );
        assert_eq!(shown("stead-ports").unwrap(), [""; 0]);
    }

    #[test]
    fn one_port_of_several_programs_is_one() {
        let said = "stead-ports 3500007F:1538 0A004D0A:1538 00000000000000000000000000000000:1538";
        assert_eq!(shown(said).unwrap(), ["5432 ::1"]);
        let both = "stead-ports 00000000000000000000000000000000:1538 00000000:1538";
        assert_eq!(shown(both).unwrap(), ["5432 127.0.0.1"]);
    }

    #[test]
    fn where_one_port_is_listened_on() {
        let said = "stead-ports 0100007F:1538 0A004D0A:1538 00000000:1539 \
                    0000000000000000FFFF00000100007F:1538 00000000000000000000000000000000:1538";
        let words = |port| {
            let at = listening_at(said, port).unwrap();
            at.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(words(5432), ["127.0.0.1", "10.77.0.10", "127.0.0.1", "::"]);
        assert_eq!(words(5433), ["0.0.0.0"]);
        assert_eq!(words(80), [""; 0]);
        assert_eq!(listening_at("Welcome 00000000:1538", 5432), None);
    }

    #[test]
    fn what_is_no_report_is_none() {
        for line in [
            "",
            "Welcome to stead-ports",
            "stead-portsx 00000000:1538",
            "\u{1b}]0;x",
        ] {
            assert_eq!(read(line), None, "{line:?}");
        }
        for word in [
            "00000000:0000",
            "00000000:15381",
            "00000000",
            ":1538",
            "zz000000:1538",
            "é000000:1538",
            "00000000:+538",
            "000080FE000000000000000001000000:1538",
            "000000E0:1538",
            "FFFFFFFF:1538",
            "0000:1538",
        ] {
            assert_eq!(
                shown(&format!("stead-ports {word}")).unwrap(),
                [""; 0],
                "{word}"
            );
        }
    }

    #[test]
    fn a_guest_gets_no_more_than_its_share() {
        let words: Vec<String> = (1..=5000)
            .map(|port| format!("00000000:{port:04X}"))
            .collect();
        let found = read(&format!("stead-ports {}", words.join(" "))).unwrap();
        assert_eq!(found.len(), MOST);
    }
}
