//! Chooses subnets, addresses and MACs that stay the same: the same project gets the same ones on every host, and a
//! machine keeps its own when others come and go.

use std::{collections::BTreeSet, net::Ipv4Addr};

use crate::host::digest::sha256_bytes;

use super::{Mac, Subnet};

/// A card that needs an address.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    pub machine: &'a str,
    /// The address that the Machinefile gives it.
    pub fixed: Option<Ipv4Addr>,
    /// The address that it has, by its record.
    pub has: Option<Ipv4Addr>,
}

/// Returns an address for each card, in their order; `None` where the subnet has no more. Fixed addresses come first,
/// then those that machines have, then those that follow from names.
pub fn assign(subnet: Subnet, cards: &[Wanted<'_>]) -> Vec<Option<Ipv4Addr>> {
    let mut taken: BTreeSet<Ipv4Addr> = cards.iter().filter_map(|card| card.fixed).collect();
    let mut found: Vec<Option<Ipv4Addr>> = (cards.iter())
        .map(|card| {
            let kept = || {
                card.has
                    .filter(|&it| subnet.is_host(it) && taken.insert(it))
            };
            card.fixed.or_else(kept)
        })
        .collect();
    for (card, found) in cards.iter().zip(&mut found) {
        if found.is_none() {
            let capacity = subnet.capacity();
            let first = number(&["address", &subnet.to_string(), card.machine]) % capacity;
            *found = (0..capacity)
                .filter_map(|step| {
                    subnet.host(((u64::from(first) + u64::from(step)) % u64::from(capacity)) as u32)
                })
                .find(|it| taken.insert(*it));
        }
    }
    found
}

/// Chooses the subnet of a network for which the Machinefile names none: a part of 10.64.0.0/10 with room for more
/// machines than a project can have. QEMU's own network (10.0.2.0/24) is elsewhere.
pub fn subnet_of(project: &str, network: &str, taken: &[Subnet]) -> Option<Subnet> {
    const PREFIX: u8 = 23;
    const NETWORKS: u32 = 1 << (PREFIX - 10);
    let first = number(&["subnet", project, network]) % NETWORKS;
    (0..NETWORKS)
        .map(|step| (first + step) % NETWORKS)
        .map(|n| {
            Subnet::around(
                Ipv4Addr::from_bits((10 << 24) + (64 << 16) + (n << (32 - PREFIX))),
                PREFIX,
            )
        })
        .find(|subnet| !taken.iter().any(|other| other.overlaps(*subnet)))
}

/// A machine's own address on its host, below 127.0.0.0/8: the end is that of its address on the network, so that it
/// can be guessed. `None` for the rare one that would be near 127.0.0.1, where the host's own services are.
pub fn host_address(address: Ipv4Addr) -> Option<Ipv4Addr> {
    let [first, second, third, fourth] = address.octets();
    match second {
        0 if first == 127 || first == 0 => None,
        // 10.0.0.5 is 127.10.0.5.
        0 => Some(Ipv4Addr::new(127, first, third, fourth)),
        second => Some(Ipv4Addr::new(127, second, third, fourth)),
    }
}

/// The MAC of a machine's card, by its choice of this number. It begins with QEMU's own prefix, 52:54:00.
pub fn mac_of(machine: &uuid::Uuid, network: &str, choice: u32) -> Mac {
    mac(&["mac", &machine.to_string(), network, &choice.to_string()])
}

/// As [`mac_of`], for a card on a bridge of the host: a machine of the same project on another host may be there too.
pub fn mac_on_bridge(host: &str, machine: &uuid::Uuid, network: &str, choice: u32) -> Mac {
    let (machine, choice) = (machine.to_string(), choice.to_string());
    mac(&["mac on bridge", host, &machine, network, &choice])
}

fn mac(words: &[&str]) -> Mac {
    let [a, b, c, _] = number(words).to_be_bytes();
    Mac([0x52, 0x54, 0x00, a, b, c])
}

fn number(words: &[&str]) -> u32 {
    // No word has a NUL, so different lists are different texts.
    let digest = sha256_bytes(words.join("\0"));
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted<'a>(machine: &'a str, fixed: Option<&str>, has: Option<&str>) -> Wanted<'a> {
        let parse = |text: &str| text.parse().unwrap();
        Wanted {
            machine,
            fixed: fixed.map(parse),
            has: has.map(parse),
        }
    }

    #[test]
    fn addresses_stay_when_machines_come_and_go() {
        let subnet: Subnet = "10.77.0.0/28".parse().unwrap();
        let names: Vec<String> = (0..6).map(|n| format!("web-{n}")).collect();
        let cards: Vec<_> = names.iter().map(|name| wanted(name, None, None)).collect();
        let all = assign(subnet, &cards);
        assert_eq!(all, assign(subnet, &cards));
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 6, "{all:?}");
        // One more before the others: those keep what their records say.
        let recorded: Vec<String> = all.iter().map(|it| it.unwrap().to_string()).collect();
        let mut later = vec![wanted("new", None, None)];
        later.extend(
            names
                .iter()
                .zip(&recorded)
                .map(|(name, has)| wanted(name, None, Some(has))),
        );
        assert_eq!(assign(subnet, &later)[1..], all[..]);
    }

    #[test]
    fn a_fixed_address_is_nobody_elses() {
        let subnet: Subnet = "10.77.0.0/29".parse().unwrap();
        let cards = [
            wanted("a", None, Some("10.77.0.3")),
            wanted("b", Some("10.77.0.3"), None),
            wanted("c", None, Some("10.9.9.9")),
            wanted("d", None, None),
            wanted("e", None, None),
            wanted("f", None, None),
        ];
        let found = assign(subnet, &cards);
        assert_eq!(found[1], Some(Ipv4Addr::new(10, 77, 0, 3)));
        let given: BTreeSet<_> = found.iter().flatten().collect();
        assert_eq!(given.len(), 5, "{found:?}");
        assert!(given.iter().all(|it| subnet.is_host(**it)));
        // Five addresses for six machines.
        assert_eq!(found.iter().filter(|it| it.is_none()).count(), 1);
    }

    #[test]
    fn a_subnet_is_the_projects_own() {
        let front = subnet_of("shop", "front", &[]).unwrap();
        assert_eq!(Some(front), subnet_of("shop", "front", &[]));
        assert_ne!(Some(front), subnet_of("shop", "back", &[]));
        assert_ne!(Some(front), subnet_of("shop", "front", &[front]));
        assert!("10.64.0.0/10".parse::<Subnet>().unwrap().overlaps(front));
    }

    #[test]
    fn the_address_on_the_host_ends_like_that_on_the_network() {
        for (address, on_host) in [
            ("10.77.0.10", Some("127.77.0.10")),
            ("192.168.56.10", Some("127.168.56.10")),
            ("172.16.255.254", Some("127.16.255.254")),
            ("10.0.0.5", Some("127.10.0.5")),
            ("0.0.0.1", None),
        ] {
            let found = host_address(address.parse().unwrap());
            assert_eq!(found, on_host.map(|it| it.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_mac_is_the_cards_own() {
        let (a, b) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        assert_eq!(mac_of(&a, "back", 0), mac_of(&a, "back", 0));
        assert_ne!(mac_of(&a, "back", 0), mac_of(&a, "front", 0));
        assert_ne!(mac_of(&a, "back", 0), mac_of(&b, "back", 0));
        assert!(mac_of(&a, "back", 0).to_string().starts_with("52:54:00:"));
    }

    #[test]
    fn machines_of_one_project_on_two_hosts_have_different_macs_on_a_bridge() {
        let uuid = uuid::Uuid::from_u128(7);
        let here = mac_on_bridge("host a", &uuid, "lan", 0);
        assert_eq!(here, mac_on_bridge("host a", &uuid, "lan", 0));
        assert_ne!(here, mac_on_bridge("host b", &uuid, "lan", 0));
        assert_ne!(here, mac_on_bridge("host a", &uuid, "lan", 1));
        assert_eq!(here.0[..3], [0x52, 0x54, 0]);
    }
}
