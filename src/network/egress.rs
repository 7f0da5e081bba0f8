//! What a machine may reach beyond the networks of its project.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{PRIVATE, subnet::mask};

/// The longest name in DNS, in characters (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 253;
/// The longest label of a name.
const LONGEST_LABEL: usize = 63;

/// What a machine may reach beyond the networks of its project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// `None`: everything but this computer itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<Destination>>,
    /// TCP ports of this computer's own 127.0.0.1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_tcp: Vec<u16>,
}

/// Something that a machine may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Destination {
    /// `packages.example.org`, in small letters.
    Name(String),
    /// `*.example.org`: all names below, but not this one.
    Below(String),
    /// `192.0.2.7` or `192.0.2.0/24`.
    Addresses { base: Ipv4Addr, prefix: u8 },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    #[error("write a host name, `*.` and a domain, or IPv4 addresses such as 192.0.2.0/24")]
    NotADestination,
    #[error("write the host name only: stead limits where packets go, not what is fetched there")]
    Url,
    #[error("{address} is an address within {base}/{prefix}: write {base}/{prefix}")]
    HostBits {
        address: Ipv4Addr,
        base: Ipv4Addr,
        prefix: u8,
    },
    #[error("a name without a dot is that of a machine, and those are reached without `allow`")]
    NoDot,
    #[error(
        "it is never reached: this computer, what serves only the computers beside it, or a group; a port of this computer is `host-access tcp=5432`"
    )]
    Never,
    #[error("machines of the project, and host.internal, are reached without `allow`")]
    Internal,
    #[error("the way out has no IPv6")]
    Ipv6,
}

impl Destination {
    /// Whether this name, in small letters and without a dot at its end, is meant.
    pub(super) fn is_name(&self, name: &str) -> bool {
        match self {
            Destination::Name(own) => own == name,
            Destination::Below(domain) => (name.strip_suffix(domain.as_str()))
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            Destination::Addresses { .. } => false,
        }
    }

    pub(super) fn is_address(&self, address: Ipv4Addr) -> bool {
        match *self {
            Destination::Addresses { base, prefix } => masked(address, prefix) == base,
            Destination::Name(_) | Destination::Below(_) => false,
        }
    }
}

/// The addresses that lead nowhere, to this computer, or to what serves it alone: "this network", loopback, link-local
/// (clouds answer with credentials there), multicast, and those of the future with broadcast (RFC 6890).
const NEVER: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Whether nothing beyond the network is ever reached at this address.
pub(super) fn is_never(address: Ipv4Addr) -> bool {
    (NEVER.iter()).any(|&(base, prefix)| masked(address, prefix) == base)
}

fn masked(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & mask(prefix))
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if text.contains("://") {
            return Err(DestinationError::Url);
        }
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        if let Ok(address) = address.parse::<Ipv4Addr>() {
            let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
            let prefix = prefix.parse().ok().filter(|&it| is_number && it <= 32);
            let prefix: u8 = prefix.ok_or(DestinationError::NotADestination)?;
            let base = masked(address, prefix);
            if is_never(base) && NEVER.iter().any(|(_, own)| prefix >= *own) {
                return Err(DestinationError::Never);
            }
            return match base == address {
                true => Ok(Destination::Addresses { base, prefix }),
                false => Err(DestinationError::HostBits {
                    address,
                    base,
                    prefix,
                }),
            };
        }
        if address.parse::<std::net::Ipv6Addr>().is_ok() {
            return Err(DestinationError::Ipv6);
        }
        let text = text.to_ascii_lowercase();
        let (is_below, name) = match text.strip_prefix("*.") {
            Some(domain) => (true, domain),
            None => (false, text.as_str()),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_label = |label: &str| {
            (1..=LONGEST_LABEL).contains(&label.len())
                && (label.bytes()).all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'))
        };
        let last = name.rsplit('.').next().unwrap_or_default();
        // A number in the last place is meant to be an address.
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
        if is_number || name.len() > LONGEST_NAME || !name.split('.').all(is_label) {
            return Err(DestinationError::NotADestination);
        }
        if !is_below && !name.contains('.') {
            return Err(DestinationError::NoDot);
        }
        if last == PRIVATE {
            return Err(DestinationError::Internal);
        }
        Ok(match is_below {
            true => Destination::Below(name.to_string()),
            false => Destination::Name(name.to_string()),
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Name(name) => f.write_str(name),
            Destination::Below(domain) => write!(f, "*.{domain}"),
            Destination::Addresses { base, prefix: 32 } => write!(f, "{base}"),
            Destination::Addresses { base, prefix } => write!(f, "{base}/{prefix}"),
        }
    }
}

impl TryFrom<String> for Destination {
    type Error = DestinationError;

    fn try_from(text: String) -> Result<Self, DestinationError> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> String {
        destination.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, DestinationError> {
        text.parse().map(|it: Destination| it.to_string())
    }

    #[test]
    fn destinations_are_names_domains_and_addresses() {
        for (written, meant) in [
            ("deb.debian.org", "deb.debian.org"),
            ("Deb.Debian.ORG.", "deb.debian.org"),
            ("*.example.com", "*.example.com"),
            ("_acme.example.com", "_acme.example.com"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(read(written).as_deref(), Ok(meant), "{written}");
        }
        for not in [
            "",
            ".",
            "*",
            "*.",
            "a..b",
            "a b",
            "*.*.com",
            "a.*.com",
            "1.2.3",
            "300.1.2.3",
            "a/b",
            "1.2.3.4/33",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "deb.debian.org:443",
            "bücher.example",
        ] {
            assert_eq!(read(not), Err(DestinationError::NotADestination), "{not}");
        }
        assert_eq!(read("https://a.example"), Err(DestinationError::Url));
        assert_eq!(read("fe80::1"), Err(DestinationError::Ipv6));
        assert_eq!(read("registry"), Err(DestinationError::NoDot));
        for never in [
            "127.0.0.1",
            "127.0.0.0/8",
            "0.0.0.0",
            "169.254.169.254",
            "255.255.255.255",
            "224.0.0.0/8",
        ] {
            assert_eq!(read(never), Err(DestinationError::Never), "{never}");
        }
        for internal in ["host.internal", "*.internal", "db.shop.internal"] {
            assert_eq!(
                read(internal),
                Err(DestinationError::Internal),
                "{internal}"
            );
        }
        let error = read("192.0.2.7/24").unwrap_err().to_string();
        assert_eq!(
            error,
            "192.0.2.7 is an address within 192.0.2.0/24: write 192.0.2.0/24"
        );
        assert!(read(&"a".repeat(64)).is_err());
        assert!(read(&"a.".repeat(128)).is_err());
    }

    #[test]
    fn a_domain_with_a_star_means_what_is_below_it() {
        let below: Destination = "*.example.com".parse().unwrap();
        for (name, is) in [
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            (".example.com", false),
            ("notexample.com", false),
            ("a.example.com.evil.test", false),
        ] {
            assert_eq!(below.is_name(name), is, "{name}");
        }
        let name: Destination = "example.com".parse().unwrap();
        assert!(name.is_name("example.com") && !name.is_name("a.example.com"));
        let addresses: Destination = "192.0.2.0/24".parse().unwrap();
        assert!(addresses.is_address(Ipv4Addr::new(192, 0, 2, 255)));
        assert!(!addresses.is_address(Ipv4Addr::new(192, 0, 3, 0)));
        assert!(!addresses.is_name("192.0.2.1"));
    }
}
