//! IPv4 subnets, as in `subnet="10.77.0.0/24"`.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest prefix that leaves room for a gateway and two machines.
const LONGEST_PREFIX: u8 = 29;
/// The shortest. Larger networks are not private ones.
const SHORTEST_PREFIX: u8 = 8;

/// The ranges of private addresses (RFC 1918), and those of carrier-grade NAT (RFC 6598) and benchmarks (RFC 2544),
/// which no public host has either.
const PRIVATE: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
];

/// A private IPv4 subnet with room for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    #[error("not a subnet: expected an address and a prefix length, such as 10.77.0.0/24")]
    NotASubnet,
    #[error("{address} is an address within the subnet {subnet}: write {subnet}")]
    HostBits { address: String, subnet: Subnet },
    #[error(
        "a prefix length of {0} is out of range: expected /{SHORTEST_PREFIX} to /{LONGEST_PREFIX}"
    )]
    Prefix(u8),
    #[error(
        "{0} is not a private subnet: expected one in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10 or 198.18.0.0/15"
    )]
    Public(String),
}

impl Subnet {
    /// The subnet of this prefix length (8 to 29) that has this address.
    pub(crate) fn around(address: Ipv4Addr, prefix: u8) -> Self {
        Subnet {
            base: address.to_bits() & mask(prefix),
            prefix,
        }
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    /// The first address, which is that of the program itself.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + 1)
    }

    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base | !mask(self.prefix))
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.base
    }

    pub fn overlaps(self, other: Subnet) -> bool {
        let prefix = self.prefix.min(other.prefix);
        self.base & mask(prefix) == other.base & mask(prefix)
    }

    /// How many machines can have an address.
    pub fn capacity(self) -> u32 {
        // Without those of the network, the gateway and the broadcast.
        !mask(self.prefix) - 2
    }

    /// The address of this number, counted from 0; `None` from the capacity on.
    pub fn host(self, number: u32) -> Option<Ipv4Addr> {
        (number < self.capacity()).then(|| Ipv4Addr::from_bits(self.base + 2 + number))
    }

    /// Whether a machine can have this address.
    pub fn is_host(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address.to_bits() > self.base + 1 && address != self.broadcast()
    }
}

/// The mask of a prefix length, 0 to 32.
pub(super) fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let (address, prefix) = text.split_once('/').ok_or(SubnetError::NotASubnet)?;
        let address: Ipv4Addr = address.parse().map_err(|_| SubnetError::NotASubnet)?;
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SubnetError::NotASubnet);
        }
        let prefix: u8 = prefix.parse().map_err(|_| SubnetError::NotASubnet)?;
        if !(SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&prefix) {
            return Err(SubnetError::Prefix(prefix));
        }
        let subnet = Subnet::around(address, prefix);
        if subnet.base != address.to_bits() {
            return Err(SubnetError::HostBits {
                address: address.to_string(),
                subnet,
            });
        }
        let is_private = PRIVATE.iter().any(|&(base, short)| {
            prefix >= short && Subnet::around(address, short) == Subnet::around(base, short)
        });
        if !is_private {
            return Err(SubnetError::Public(text.to_string()));
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.base), self.prefix)
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_subnet_knows_its_addresses() {
        let small = subnet("10.77.0.0/29");
        assert_eq!(small.to_string(), "10.77.0.0/29");
        assert_eq!(small.gateway(), Ipv4Addr::new(10, 77, 0, 1));
        assert_eq!(small.broadcast(), Ipv4Addr::new(10, 77, 0, 7));
        assert_eq!(small.mask(), Ipv4Addr::new(255, 255, 255, 248));
        assert_eq!(small.capacity(), 5);
        let hosts: Vec<_> = (0..9).filter_map(|n| small.host(n)).collect();
        assert_eq!(hosts.len(), 5);
        assert!(hosts.iter().all(|&host| small.is_host(host)));
        assert_eq!(hosts[4], Ipv4Addr::new(10, 77, 0, 6));
        for not in [
            [10, 77, 0, 0],
            [10, 77, 0, 1],
            [10, 77, 0, 7],
            [10, 77, 0, 8],
        ] {
            assert!(!small.is_host(not.into()), "{not:?}");
        }
    }

    #[test]
    fn overlaps_are_found_both_ways() {
        for (a, b, overlap) in [
            ("10.77.0.0/24", "10.77.0.0/16", true),
            ("10.77.0.0/24", "10.77.1.0/24", false),
            ("10.0.0.0/8", "10.255.255.0/24", true),
            ("192.168.0.0/16", "172.16.0.0/12", false),
        ] {
            assert_eq!(subnet(a).overlaps(subnet(b)), overlap, "{a} {b}");
            assert_eq!(subnet(b).overlaps(subnet(a)), overlap, "{b} {a}");
        }
    }

    #[test]
    fn what_is_no_private_subnet_is_refused() {
        for text in [
            "",
            "10.77.0.0",
            "10.77.0/24",
            "10.77.0.0/",
            "10.77.0.0/+24",
            "10.77.0.0/024x",
            "10.77.0.0/999",
            "fd00::/64",
        ] {
            assert_eq!(
                text.parse::<Subnet>(),
                Err(SubnetError::NotASubnet),
                "{text}"
            );
        }
        assert_eq!(
            "10.0.0.0/30".parse::<Subnet>(),
            Err(SubnetError::Prefix(30))
        );
        assert_eq!("0.0.0.0/0".parse::<Subnet>(), Err(SubnetError::Prefix(0)));
        for public in [
            "8.8.8.0/24",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.0.0.0/8",
            "224.0.0.0/24",
        ] {
            let refused = public.parse::<Subnet>();
            assert!(matches!(refused, Err(SubnetError::Public(_))), "{public}");
        }
        let error = "10.77.0.5/24".parse::<Subnet>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "10.77.0.5 is an address within the subnet 10.77.0.0/24: write 10.77.0.0/24"
        );
    }
}
