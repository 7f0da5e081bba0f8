//! Ports of the host on which machines listen.

use std::{
    collections::HashMap,
    fmt,
    io::{self, ErrorKind},
    net::{Ipv4Addr, TcpListener, UdpSocket},
};

use serde::{Deserialize, Serialize};

/// The range of SSH ports: below Linux's ephemeral range (32768 and up, ip(7)), so that no outgoing
/// connection takes one while its machine is off.
pub const SSH_PORTS: std::ops::Range<u16> = 22_100..32_700;

/// How many ports above one that is in use are tried instead of it.
pub const NEAR: u16 = 100;

#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl Protocol {
    /// Returns its name in the Machinefile and in QEMU's options.
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// A port of the host, and the address that it is opened on. 0.0.0.0 means all addresses of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: Protocol,
    pub address: Ipv4Addr,
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => "UDP ",
        };
        write!(f, "{protocol}port {} of {}", self.port, self.address)
    }
}

/// Whether a program could listen on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Free,
    /// Another program listens there.
    Taken,
    /// This user may not listen there (ip_unprivileged_port_start, ip(7)).
    ForRoot,
    /// The host does not have the address.
    NoAddress,
    /// The system refuses it for another reason: an errno.
    Refused(i32),
}

impl HostPort {
    /// A TCP port of 127.0.0.1, such as SSH's.
    pub fn local(port: u16) -> Self {
        HostPort {
            protocol: Protocol::Tcp,
            address: Ipv4Addr::LOCALHOST,
            port,
        }
    }

    /// Listens on it for a moment.
    pub fn probe(self) -> Probe {
        let bound: io::Result<()> = match self.protocol {
            Protocol::Tcp => TcpListener::bind((self.address, self.port)).map(drop),
            Protocol::Udp => UdpSocket::bind((self.address, self.port)).map(drop),
        };
        match bound {
            Ok(()) => Probe::Free,
            Err(error) => self.refusal(&error, first_for_users()),
        }
    }

    /// Returns why the system does not let this user listen. `first`: the lowest port that every user may open.
    fn refusal(self, error: &io::Error, first: Option<u16>) -> Probe {
        match (error.kind(), error.raw_os_error()) {
            // From there up, it is a security module or a container's rules.
            (ErrorKind::PermissionDenied, _) if first.is_none_or(|first| self.port < first) => {
                Probe::ForRoot
            }
            (ErrorKind::AddrNotAvailable, _) => Probe::NoAddress,
            (ErrorKind::AddrInUse, _) | (_, None) => Probe::Taken,
            (_, Some(code)) => Probe::Refused(code),
        }
    }

    pub fn is_free(self) -> bool {
        self.probe() == Probe::Free
    }

    /// Returns the next free port above this one that is not in `taken`; `None` if there is none near.
    pub fn next_free<T>(self, taken: &HostPorts<T>) -> Option<HostPort> {
        (self.port.checked_add(1)?..=self.port.saturating_add(NEAR))
            .map(|port| HostPort { port, ..self })
            .find(|port| taken.overlapping(*port).is_none() && port.is_free())
    }
}

/// Ports that are spoken for, each with a remark.
#[derive(Debug)]
pub struct HostPorts<T>(HashMap<(Protocol, u16), Vec<(Ipv4Addr, T)>>);

impl<T> Default for HostPorts<T> {
    fn default() -> Self {
        HostPorts(HashMap::new())
    }
}

impl<T> HostPorts<T> {
    pub fn insert(&mut self, port: HostPort, remark: T) {
        let same = self.0.entry((port.protocol, port.port)).or_default();
        same.push((port.address, remark));
    }

    /// Returns the remark of a port that cannot be open beside this one: the same number by the same protocol, on
    /// the same address or on all addresses.
    pub fn overlapping(&self, port: HostPort) -> Option<&T> {
        let same = self.0.get(&(port.protocol, port.port))?;
        let overlaps = |address: Ipv4Addr| {
            address == port.address || address.is_unspecified() || port.address.is_unspecified()
        };
        (same.iter().find(|(address, _)| overlaps(*address))).map(|(_, remark)| remark)
    }
}

/// Returns the lowest port that every user may open (ip(7)); `None` if the host does not say.
pub fn first_for_users() -> Option<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok()?;
    text.trim().parse().ok()
}

/// Returns what to do if this user may not open a port.
pub fn remedy_for_root(port: HostPort) -> String {
    let first = first_for_users().unwrap_or(1024);
    format!(
        "forward a port from {first} up, such as {}; or let every user open it: `sudo sysctl net.ipv4.ip_unprivileged_port_start={}`",
        port.port.saturating_add(8000).max(first),
        port.port
    )
}

/// Whether the host has the address.
pub fn has_address(address: Ipv4Addr) -> bool {
    // Port 0 is any free one (ip(7)).
    let any = HostPort {
        address,
        ..HostPort::local(0)
    };
    any.probe() != Probe::NoAddress
}

/// Returns a port for SSH that is not in `taken` and on which nothing listens. `start` gives machines
/// different ports to try first.
pub fn free_ssh_port<T>(taken: &HostPorts<T>, start: u128) -> Option<u16> {
    let length = u128::from(SSH_PORTS.end - SSH_PORTS.start);
    let offset = u16::try_from(start % length).ok()?;
    (0..SSH_PORTS.end - SSH_PORTS.start)
        .map(|n| SSH_PORTS.start + (offset + n) % (SSH_PORTS.end - SSH_PORTS.start))
        .find(|port| {
            let port = HostPort::local(*port);
            taken.overlapping(port).is_none() && port.is_free()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(address: [u8; 4], port: u16) -> HostPort {
        HostPort {
            address: address.into(),
            ..HostPort::local(port)
        }
    }

    #[test]
    fn taken_and_busy_ports_are_passed_over() {
        let start = 5u128;
        let mut taken = HostPorts::default();
        let first = free_ssh_port(&taken, start).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", first)).unwrap();
        let second = free_ssh_port(&taken, start).unwrap();
        assert_ne!(first, second);
        drop(listener);
        taken.insert(HostPort::local(first), ());
        let third = free_ssh_port(&taken, start).unwrap();
        assert_ne!(first, third);
    }

    #[test]
    fn the_next_free_port_is_near_and_nobody_elses() {
        // Somewhere in the range of SSH's ports, where no outgoing connection is.
        let mut taken = HostPorts::default();
        let begin = free_ssh_port(&taken, 4000).unwrap();
        let busy = HostPort::local(begin);
        let next = busy.next_free(&taken).unwrap();
        assert!(next.port > begin && next.port <= begin + NEAR);
        taken.insert(next, ());
        assert!(busy.next_free(&taken).unwrap().port > next.port);
        for port in begin..=begin + NEAR {
            taken.insert(HostPort::local(port), ());
        }
        assert_eq!(busy.next_free(&taken), None);
        assert_eq!(HostPort::local(u16::MAX).next_free(&taken), None);
    }

    #[test]
    fn ports_overlap_by_protocol_and_address() {
        let mut taken = HostPorts::default();
        taken.insert(on([127, 0, 0, 1], 8080), "one");
        taken.insert(on([0, 0, 0, 0], 9090), "all");
        assert_eq!(taken.overlapping(on([127, 0, 0, 1], 8080)), Some(&"one"));
        assert_eq!(taken.overlapping(on([0, 0, 0, 0], 8080)), Some(&"one"));
        assert_eq!(taken.overlapping(on([127, 0, 0, 2], 8080)), None);
        assert_eq!(taken.overlapping(on([127, 0, 0, 2], 9090)), Some(&"all"));
        let udp = HostPort {
            protocol: Protocol::Udp,
            ..on([127, 0, 0, 1], 8080)
        };
        assert_eq!(taken.overlapping(udp), None);
        assert_eq!(udp.to_string(), "UDP port 8080 of 127.0.0.1");
    }

    #[test]
    fn what_keeps_a_port_from_being_opened_is_told_apart() {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let port = HostPort {
            protocol: Protocol::Udp,
            ..HostPort::local(socket.local_addr().unwrap().port())
        };
        assert_eq!(port.probe(), Probe::Taken);
        drop(socket);
        assert_eq!(port.probe(), Probe::Free);
        // TEST-NET-1 (RFC 5737).
        assert_eq!(on([192, 0, 2, 1], 8080).probe(), Probe::NoAddress);
        assert!(has_address(Ipv4Addr::UNSPECIFIED) && !has_address([192, 0, 2, 1].into()));
    }

    #[test]
    fn what_the_system_says_of_a_port_is_kept() {
        let said = |port, code| {
            HostPort::local(port).refusal(&io::Error::from_raw_os_error(code), Some(1024))
        };
        assert_eq!(said(80, nix::libc::EACCES), Probe::ForRoot);
        assert_eq!(
            said(8080, nix::libc::EACCES),
            Probe::Refused(nix::libc::EACCES)
        );
        assert_eq!(said(8080, nix::libc::EADDRINUSE), Probe::Taken);
        assert_eq!(
            said(8080, nix::libc::EMFILE),
            Probe::Refused(nix::libc::EMFILE)
        );
    }
}
