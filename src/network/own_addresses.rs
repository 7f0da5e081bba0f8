//! The addresses of this computer, behind which its own services listen.
//!
//! Not by trying to bind one, as `host::ports` does: where `net.ipv4.ip_nonlocal_bind` is on, that works for every
//! address, and nothing would be let out.

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use nix::ifaddrs::getifaddrs;

/// How long what was read is used. Addresses change when a computer joins another network.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct OwnAddresses {
    read: Option<Instant>,
    addresses: HashSet<Ipv4Addr>,
}

impl OwnAddresses {
    pub(super) fn has(&mut self, address: Ipv4Addr, now: Instant) -> bool {
        if self.read.is_none_or(|read| now > read + FRESH) {
            // Those of before are used if it fails, which takes a kernel without memory.
            if let Ok(found) = getifaddrs() {
                self.addresses = found
                    .filter_map(|it| Some(it.address?.as_sockaddr_in()?.ip()))
                    .collect();
            }
            self.read = Some(now);
        }
        self.addresses.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_computer_has_a_loopback_address_and_not_one_of_documentation() {
        let (mut own, now) = (OwnAddresses::default(), Instant::now());
        assert!(own.has(Ipv4Addr::LOCALHOST, now));
        assert!(!own.has(Ipv4Addr::new(203, 0, 113, 77), now));
    }
}
