//! Ports of 127.0.0.1.

use std::{collections::HashSet, net::TcpListener};

/// The range of SSH ports: below Linux's ephemeral range (32768 and up, ip(7)), so that no outgoing
/// connection takes one while its machine is off.
pub const SSH_PORTS: std::ops::Range<u16> = 22_100..32_700;

/// Whether nothing listens on the port now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Whether only root may listen on the port (ip_unprivileged_port_start, ip(7)).
pub fn is_for_root(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port))
        .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Returns a port for SSH that is not in `taken` and on which nothing listens. `start` gives machines
/// different ports to try first.
pub fn free_ssh_port(taken: &HashSet<u16>, start: u128) -> Option<u16> {
    let length = u128::from(SSH_PORTS.end - SSH_PORTS.start);
    let offset = u16::try_from(start % length).ok()?;
    (0..SSH_PORTS.end - SSH_PORTS.start)
        .map(|n| SSH_PORTS.start + (offset + n) % (SSH_PORTS.end - SSH_PORTS.start))
        .find(|port| !taken.contains(port) && is_free(*port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_and_busy_ports_are_passed_over() {
        let start = 5u128;
        let first = free_ssh_port(&HashSet::new(), start).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", first)).unwrap();
        let second = free_ssh_port(&HashSet::new(), start).unwrap();
        assert_ne!(first, second);
        drop(listener);
        let third = free_ssh_port(&HashSet::from([first]), start).unwrap();
        assert_ne!(first, third);
    }
}
