//! What people meant who wrote a `network` as Vagrant, Docker or netplan have it.

use std::net::Ipv4Addr;

use crate::{host::names::is_interface, machinefile::node::Node, network::Subnet};

pub(in crate::machinefile) const NONE: &str =
    "write `network none=#true` for a machine without a network";

/// Returns what to write in place of a network of a Vagrantfile: message, label and help.
pub(super) fn of_vagrant(node: &Node<'_>) -> Option<(&'static str, &'static str, String)> {
    match node.first_as_written()?.as_str() {
        "forwarded_port" | "forwarded-port" => Some((
            "a forwarded port is not a network",
            "did you mean `forward`?",
            "write the port of the host, then that of the guest: `forward 8080 to=80`".into(),
        )),
        "private_network" => Some((
            "a network has a name, and `private_network` is Vagrant's word for its kind",
            "no name",
            match node.property_as_written("ip").and_then(|it| it.parse().ok()) {
                Some(address) => with_address("private", address),
                None => "declare the network at the top of the Machinefile, `network \"private\"`, and write `network \"private\"` in the machine; if all machines are on it, neither is needed: they are on `default`".into(),
            },
        )),
        "public_network" => Some((
            "a network has a name, and `public_network` is Vagrant's word for its kind",
            "no name",
            on_bridge(&node.property_as_written("bridge").unwrap_or_default()),
        )),
        _ => None,
    }
}

/// Says how a machine gets a card on a bridge of this computer.
pub(super) fn on_bridge(bridge: &str) -> String {
    let bridge = if is_interface(bridge) { bridge } else { "br0" };
    format!(
        "declare the network at the top of the Machinefile, `network \"lan\" bridge=\"{bridge}\"`, and name it in the machine: `network \"lan\"`"
    )
}

/// Says how a network and the address of a machine on it are written.
fn with_address(network: &str, address: Ipv4Addr) -> String {
    let subnet = match subnet_around(address) {
        Some(subnet) => format!(" subnet=\"{subnet}\""),
        None => String::new(),
    };
    format!(
        "declare the network at the top of the Machinefile, `network \"{network}\"{subnet}`, and write `network \"{network}\" address=\"{address}\"` in the machine"
    )
}

/// Returns the subnet that people mean by an address without a prefix, if a network can have it.
pub(in crate::machinefile) fn subnet_around(address: Ipv4Addr) -> Option<Subnet> {
    let [a, b, c, _] = address.octets();
    format!("{}/24", Ipv4Addr::new(a, b, c, 0)).parse().ok()
}

/// Returns what to write in place of a property of other tools. `network`: the name in quotes.
pub(super) fn foreign_in_machine(network: &str, property: &str, value: &str) -> Option<String> {
    let bare = value.trim_matches('"');
    Some(match property {
        "ip" | "ipv4" | "addr" | "ip_address" | "ip-address" | "ipaddr" | "ipv4_address"
        | "static_ip" => {
            let address = bare.split('/').next().unwrap_or_default();
            let address = address.parse().unwrap_or(Ipv4Addr::new(10, 77, 0, 10));
            format!("the address is `address`: `network {network} address=\"{address}\"`")
        }
        "cidr" | "subnet" | "netmask" | "prefix" | "gateway" => {
            let subnet = match bare.parse::<Subnet>() {
                Ok(subnet) => subnet.to_string(),
                Err(_) => "10.77.0.0/24".into(),
            };
            format!(
                "the subnet belongs to the network: declare it at the top of the Machinefile, `network {network} subnet=\"{subnet}\"`, and give the machine an `address` of it"
            )
        }
        "isolated" | "internal" => format!(
            "this belongs to the network: declare it at the top of the Machinefile, `network {network} isolated=#true`"
        ),
        "alias" | "name" | "names" | "hostname" | "hostnames" | "host" => {
            format!(
                "further names of the machine are `aliases`: `network {network} aliases={value}`"
            )
        }
        "dev" | "device" | "interface" | "iface" | "nic" | "adapter" => on_bridge(bare),
        "type" | "dhcp" | "dhcp4" | "mode" | "method" => format!(
            "remove it: the machine gets its address by DHCP; to choose it, write `network {network} address=\"10.77.0.10\"`"
        ),
        "mac" | "mac_address" | "mac-address" | "macaddress" | "hwaddr" => {
            "remove it: stead chooses the MAC of a card, and keeps it".into()
        }
        _ => return None,
    })
}

/// The same for a network at the top.
pub(super) fn foreign_at_top(property: &str, value: &str) -> Option<String> {
    let bare = value.trim_matches('"');
    Some(match property {
        "cidr" | "range" | "net" | "netmask" | "prefix" | "gateway" | "ip" | "address" | "addresses" => {
            let address = bare.split('/').next().and_then(|it| it.parse().ok());
            let subnet = match (bare.parse::<Subnet>(), address.and_then(subnet_around)) {
                (Ok(subnet), _) | (Err(_), Some(subnet)) => subnet.to_string(),
                (Err(_), None) => "10.77.0.0/24".into(),
            };
            match property {
                "ip" | "address" | "addresses" => format!(
                    "a network has a subnet, whose first address is its own: subnet=\"{subnet}\"; an `address` belongs to a machine's `network`"
                ),
                _ => format!("write subnet=\"{subnet}\""),
            }
        }
        "aliases" | "alias" => "write it in the machine that has these names: `network \"backend\" aliases=\"postgres pg\"`".into(),
        "internal" | "private" => "write isolated=#true, if the network leads only to its machines".into(),
        "dev" | "device" | "interface" | "iface" | "parent" => format!(
            "write bridge=\"{}\", if the network is a bridge of this computer",
            if is_interface(bare) { bare } else { "br0" }
        ),
        "type" | "driver" | "mode" | "dhcp" | "dhcp4" => {
            "remove it: a network has its DHCP and its names by itself".into()
        }
        _ => return None,
    })
}
