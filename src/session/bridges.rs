//! Cards of machines on bridges of the host: which each machine gets, and whether it can have them.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    net::IpAddr,
};

use miette::Diagnostic;

use crate::{
    failure::Failure,
    hypervisor::Survey,
    machine::{BridgeCard, NetworkCard, Observed},
    machinefile::{Machine, MachineBridge, MachinefileError},
    network::{Mac, bridges, interface_exists, mac_on_bridge},
};

use super::Session;

/// The cards of machines on bridges, by the machines' names.
pub(super) type BridgeCards = BTreeMap<String, Vec<BridgeCard>>;

/// The cards that a machine gets at its next boot.
#[derive(Clone, Debug, Default)]
pub struct NextCards {
    pub networks: Vec<NetworkCard>,
    pub bridges: Vec<BridgeCard>,
}

impl NextCards {
    /// Returns a line for each card: where it is, and its address if stead knows it.
    pub fn lines(&self) -> Vec<String> {
        let networks = (self.networks.iter())
            .map(|card| format!("network {}: address {}", card.network, card.address));
        let bridges = (self.bridges.iter())
            .map(|card| format!("network {}: bridge {}", card.network, card.interface));
        networks.chain(bridges).collect()
    }
}

impl Session {
    /// Returns the cards that machines get at their next boot, by their names.
    pub fn next_cards(&self, survey: &Survey) -> BTreeMap<String, NextCards> {
        let mut all: BTreeMap<String, NextCards> = BTreeMap::new();
        for (machine, networks) in self.cards(survey) {
            all.entry(machine).or_default().networks = networks;
        }
        for (machine, bridges) in self.bridge_cards(survey) {
            all.entry(machine).or_default().bridges = bridges;
        }
        all
    }

    /// Returns the cards on bridges that machines get at their next boot. A card keeps its MAC, by which a DHCP server
    /// knows it.
    pub(super) fn bridge_cards(&self, survey: &Survey) -> BridgeCards {
        let mut cards = BridgeCards::new();
        let on_bridge = |machine: &&Machine| !machine.bridges.is_empty();
        let mut machines = self.project.machines.iter().filter(on_bridge).peekable();
        if machines.peek().is_none() {
            return cards;
        }
        let owner = self.owner();
        let host = host_id();
        let mut macs: HashSet<Mac> = HashSet::new();
        for machine in machines {
            let observed = owner.find(&survey.machines, &machine.name);
            let uuid = survey.identify(&owner, &machine.name).uuid;
            let own = |bridge: &MachineBridge| {
                let has = observed.and_then(|observed| {
                    let mut cards = observed.record.spec.bridges.iter();
                    cards.find(|card| card.network == bridge.network)
                });
                let mut choices = (has.map(|card| card.mac).into_iter())
                    .chain((0..).map(|n| mac_on_bridge(&host, &uuid, &bridge.network, n)));
                Some(BridgeCard {
                    network: bridge.network.clone(),
                    interface: bridge.interface.clone(),
                    mac: choices.find(|mac| macs.insert(*mac))?,
                })
            };
            let own = machine.bridges.iter().filter_map(own).collect();
            cards.insert(machine.name.clone(), own);
        }
        cards
    }

    /// Returns the addresses that a machine has on bridges, by the MACs of its cards, if its guest's agent tells them.
    pub(crate) fn bridge_addresses(&self, observed: &Observed) -> BTreeMap<Mac, Vec<IpAddr>> {
        let mut found: BTreeMap<Mac, Vec<IpAddr>> = BTreeMap::new();
        let cards = &observed.record.spec.bridges;
        if cards.is_empty() || !observed.is_ready() {
            return found;
        }
        let domain = self.connection.lookup(&observed.identity).ok().flatten();
        let all = domain.map_or_else(Vec::new, |domain| domain.guest_addresses());
        for (mac, address) in all {
            if cards.iter().any(|card| card.mac == mac) {
                found.entry(mac).or_default().push(address);
            }
        }
        found
    }
}

/// What tells this host from others that have a project in a folder of the same name (machine-id(5)). It is only hashed.
fn host_id() -> String {
    ["/etc/machine-id", "/proc/sys/kernel/hostname"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .map(|text| text.trim().to_string())
        .find(|id| !id.is_empty())
        .unwrap_or_default()
}

/// Returns an error for each bridge that machines cannot have a card on.
pub(super) fn check_bridges<'a>(
    session: &Session,
    machines: impl Iterator<Item = &'a Machine>,
) -> Result<Vec<MachinefileError>, Failure> {
    let mut wanted: Vec<(&MachineBridge, &Machine)> = Vec::new();
    for machine in machines {
        for bridge in &machine.bridges {
            if !wanted.iter().any(|(other, _)| *other == bridge) {
                wanted.push((bridge, machine));
            }
        }
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let uri = session.connection.uri();
    let there = match uri.is_system() {
        true => Some(bridges().map_err(|error| {
            let help = error.help().map(|help| help.to_string());
            Failure::error(
                format!("cannot list the bridges of this computer: {error}"),
                help.unwrap_or("run `ip -json link show type bridge` to see why".into()),
            )
        })?),
        false => None,
    };
    let error = |(bridge, machine): &(&MachineBridge, &Machine)| {
        let span = machine.spans.bridge(&bridge.network)?;
        let (message, label, help) = match &there {
            None => not_here(&bridge.network, &uri.shown()),
            Some(there) if there.contains(&bridge.interface) => return None,
            Some(there) => no_bridge(&bridge.interface, there, interface_exists),
        };
        Some(MachinefileError::new(span, message, label).help(help))
    };
    Ok(wanted.iter().filter_map(error).collect())
}

fn not_here(network: &str, uri: &str) -> (String, &'static str, String) {
    (
        format!(
            "network {network:?} needs qemu:///system, because only root's libvirt can put a card on a bridge; the project uses {uri}"
        ),
        "a bridge of this computer",
"run stead as root, whose libvirt is qemu:///system, or remove the network; other computers also reach a port of a machine by `forward` with address=\"0.0.0.0\"".into(),
    )
}

fn no_bridge(
    interface: &str,
    there: &[String],
    exists: impl Fn(&str) -> bool,
) -> (String, &'static str, String) {
    let (message, label) = match exists(interface) {
        true => (
            format!("{interface} is an interface of this computer, and not a bridge"),
            "not a bridge",
        ),
        false => (
            format!("this computer has no bridge {interface}"),
            "does not exist",
        ),
    };
    let there = match there {
        [] => "this computer has no bridges".to_string(),
        there => format!("the bridges are {}", there.join(", ")),
    };
    let help = format!(
        "{there}; `ip link add br0 up type bridge` makes one until the next boot, and docs/concepts/networks.md#a-card-in-your-lan has how to make one that lasts and leads to the LAN"
    );
    (message, label, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cards_of_a_machine_are_a_line_each() {
        let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
        let cards = NextCards {
            networks: vec![NetworkCard {
                network: "backend".into(),
                subnet: "10.77.0.0/24".parse().unwrap(),
                mac,
                address: [10, 77, 0, 10].into(),
                aliases: Vec::new(),
            }],
            bridges: vec![BridgeCard {
                network: "lan".into(),
                interface: "br0".into(),
                mac,
            }],
        };
        let lines = [
            "network backend: address 10.77.0.10",
            "network lan: bridge br0",
        ];
        assert_eq!(cards.lines(), lines);
        assert_eq!(NextCards::default().lines(), [""; 0]);
    }

    #[test]
    fn what_is_no_bridge_is_named_with_the_bridges_that_there_are() {
        let there = ["br1".to_string(), "virbr0".to_string()];
        let lines: Vec<String> = [
            no_bridge("br0", &there, |_| false),
            no_bridge("eth0", &[], |name| name == "eth0"),
            not_here("lan", "qemu:///session"),
        ]
        .map(|(message, label, help)| format!("{message}\n  {label}\n  {help}"))
        .into();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
