//! Forwards: ports of the host that lead to ports of guests.

use std::{fmt, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::host::ports::{HostPort, Protocol};

use super::tuning::is_default;

/// A port of the host that leads to a port of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    #[serde(default)]
    pub protocol: Protocol,
    /// The address of the host on which QEMU listens.
    #[serde(default = "loopback")]
    pub address: Ipv4Addr,
    pub host: u16,
    pub guest: u16,
    /// Whether a port near it is used if `host` is in use when the machine boots.
    #[serde(default, skip_serializing_if = "is_default")]
    pub auto_correct: bool,
    /// The port of the Machinefile, if `host` is another one because that was in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<u16>,
}

fn loopback() -> Ipv4Addr {
    Ipv4Addr::LOCALHOST
}

impl Forward {
    /// A TCP port of 127.0.0.1.
    pub fn tcp(host: u16, guest: u16) -> Self {
        Forward {
            protocol: Protocol::Tcp,
            address: loopback(),
            host,
            guest,
            auto_correct: false,
            instead_of: None,
        }
    }

    pub fn host_port(&self) -> HostPort {
        HostPort {
            protocol: self.protocol,
            address: self.address,
            port: self.host,
        }
    }

    /// Whether others than the users of this host reach it.
    pub fn is_public(&self) -> bool {
        !self.address.is_loopback()
    }

    /// Returns it as the Machinefile has it.
    pub fn as_declared(&self) -> Forward {
        Forward {
            host: self.instead_of.unwrap_or(self.host),
            instead_of: None,
            ..self.clone()
        }
    }

    /// Returns it with another port of the host, because its own is in use.
    pub fn moved_to(&self, port: u16) -> Forward {
        Forward {
            host: port,
            instead_of: Some(self.instead_of.unwrap_or(self.host)),
            ..self.clone()
        }
    }

    /// Whether both lead from the same port to the same one.
    pub fn is_like(&self, other: &Forward) -> bool {
        self.host_port() == other.host_port() && self.guest == other.guest
    }
}

/// Forwards from ports one after another to ports one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardRange {
    pub first: Forward,
    /// How many ports it has, at least one.
    pub length: u16,
}

impl ForwardRange {
    /// Joins forwards that are neighbours.
    pub fn all_of(forwards: &[Forward]) -> Vec<ForwardRange> {
        let mut all: Vec<ForwardRange> = Vec::new();
        for forward in forwards {
            match all.last_mut() {
                Some(last) if last.is_before(forward) => last.length += 1,
                _ => all.push(ForwardRange {
                    first: forward.clone(),
                    length: 1,
                }),
            }
        }
        all
    }

    fn is_before(&self, next: &Forward) -> bool {
        let after = |port: u16| port.checked_add(self.length);
        let (Some(host), Some(guest)) = (after(self.first.host), after(self.first.guest)) else {
            return false;
        };
        let expected = Forward {
            host,
            guest,
            instead_of: self.first.instead_of.and_then(after),
            ..self.first.clone()
        };
        expected == *next
    }

    /// Returns its ports of the host: `8080`, or `8080-8089`.
    pub fn hosts(&self) -> String {
        range(self.first.host, self.length)
    }

    /// Returns its ports of the guest: `80`, `80-89`, or `53/udp`.
    pub fn guests(&self) -> String {
        let suffix = match self.first.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => "/udp",
        };
        format!("{}{suffix}", range(self.first.guest, self.length))
    }

    /// Returns a sentence about ports that were in use, if these are used instead.
    pub fn correction(&self) -> Option<String> {
        let wanted = self.first.instead_of?;
        let udp = match self.first.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => "UDP ",
        };
        let (ports, were, lead) = match self.length {
            1 => ("port", "was", "leads"),
            _ => ("ports", "were", "lead"),
        };
        Some(format!(
            "{udp}{ports} {} of {} {were} in use, so {ports} {} {lead} to {ports} {} of the guest",
            range(wanted, self.length),
            self.first.address,
            self.hosts(),
            range(self.first.guest, self.length),
        ))
    }
}

fn range(first: u16, length: u16) -> String {
    match length {
        1 => first.to_string(),
        _ => format!("{first}-{}", first.saturating_add(length - 1)),
    }
}

/// `8080→80`; with an address other than 127.0.0.1, `0.0.0.0:8080→80`; by UDP, `5353→53/udp`.
impl fmt::Display for ForwardRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first.address != loopback() {
            write!(f, "{}:", self.first.address)?;
        }
        write!(f, "{}→{}", self.hosts(), self.guests())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_shown_as_one() {
        let udp = |host, guest| Forward {
            protocol: Protocol::Udp,
            ..Forward::tcp(host, guest)
        };
        let public = Forward {
            address: Ipv4Addr::UNSPECIFIED,
            ..Forward::tcp(8443, 443)
        };
        let all = [
            Forward::tcp(8000, 9000),
            Forward::tcp(8001, 9001),
            Forward::tcp(8002, 9002),
            Forward::tcp(8003, 80),
            udp(8004, 81),
            udp(8005, 82),
            public,
            Forward::tcp(2300, 1).moved_to(2305),
            Forward::tcp(2301, 2).moved_to(2306),
            Forward::tcp(2302, 3).moved_to(2307).as_declared(),
        ];
        let ranges = ForwardRange::all_of(&all);
        let shown: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "8000-8002→9000-9002",
                "8003→80",
                "8004-8005→81-82/udp",
                "0.0.0.0:8443→443",
                "2305-2306→1-2",
                "2302→3"
            ]
        );
        let moved: Vec<String> = ranges.iter().filter_map(ForwardRange::correction).collect();
        assert_eq!(
            moved,
            [
                "ports 2300-2301 of 127.0.0.1 were in use, so ports 2305-2306 lead to ports 1-2 of the guest"
            ]
        );
        let last = ForwardRange::all_of(&[Forward::tcp(65535, 65535), Forward::tcp(0, 0)]);
        assert_eq!(last.len(), 2);
    }

    #[test]
    fn a_forward_of_an_older_record_is_tcp_on_127_0_0_1() {
        let old: Forward = serde_json::from_str(r#"{"host":8080,"guest":80}"#).unwrap();
        assert_eq!(old, Forward::tcp(8080, 80));
        let moved = old.moved_to(8082);
        assert_eq!(moved.as_declared(), old);
        assert_eq!(moved.moved_to(8083).instead_of, Some(8080));
        let text = serde_json::to_string(&moved).unwrap();
        assert_eq!(serde_json::from_str::<Forward>(&text).unwrap(), moved);
    }
}
