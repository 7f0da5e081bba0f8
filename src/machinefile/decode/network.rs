//! Decodes `network`, at the top and in machines.

use std::net::Ipv4Addr;

use crate::{
    host::names::is_interface,
    machinefile::{
        diagnostics::{MachinefileError, Span, Spanned},
        names::{is_label, stands_for_other},
        node::{Node, values::list_of},
    },
    network::{Subnet, is_own_bridge},
};

use super::{
    network_meant::{NONE, foreign_at_top, foreign_in_machine, of_vagrant, on_bridge},
    values::not_a_label,
};

/// The properties of `network` at the top, and in a machine.
const TOP: [&str; 3] = ["subnet", "isolated", "bridge"];
const OF_MACHINE: [&str; 3] = ["address", "aliases", "none"];

/// A network, as the project has it.
#[derive(Clone)]
pub(crate) struct NetworkDraft {
    pub name: Spanned<String>,
    pub subnet: Option<Spanned<Subnet>>,
    /// Whether its subnet is an error, so that nothing can be said of addresses.
    pub is_unclear: bool,
    pub isolated: bool,
    /// The bridge of this computer that it is.
    pub bridge: Option<Spanned<String>>,
    /// Whether it is in Machinefile.local, which overrides.
    pub local: bool,
}

/// What a machine says of its networks.
#[derive(Clone, Default)]
pub(crate) struct NetworksDraft {
    pub cards: Vec<CardDraft>,
    /// `network none=#true`
    pub none: Option<Span>,
}

#[derive(Clone)]
pub(crate) struct CardDraft {
    pub network: Spanned<String>,
    pub address: Option<Spanned<Ipv4Addr>>,
    pub aliases: Vec<Spanned<String>>,
}

impl NetworksDraft {
    /// Completes a machine's networks by those of the defaults. What a machine says of a network replaces what the
    /// defaults say of it.
    pub(crate) fn over(self, under: &NetworksDraft) -> NetworksDraft {
        if self.none.is_some() {
            return self;
        }
        if self.cards.is_empty() {
            return under.clone();
        }
        let is_replaced = |card: &CardDraft| {
            (self.cards.iter()).any(|own| own.network.value == card.network.value)
        };
        let mut cards: Vec<CardDraft> = (under.cards.iter())
            .filter(|card| !is_replaced(card))
            .cloned()
            .collect();
        cards.extend(self.cards);
        NetworksDraft { cards, none: None }
    }
}

pub(super) fn top(node: &mut Node<'_>, local: bool) -> Option<NetworkDraft> {
    if !node.foreign_properties(&foreign_at_top) {
        node.properties(&TOP);
    }
    node.no_children_but_properties(&TOP);
    let is_unclear = node.has_property("subnet");
    let subnet =
        node.property_string("subnet")
            .and_then(|text| match text.value.parse::<Subnet>() {
                Ok(subnet) => Some(Spanned::new(subnet, text.span)),
                Err(error) => {
                    node.error(
                        MachinefileError::new(
                            &text.span,
                            format!("{:?} is not a subnet for a network", text.value),
                            "here",
                        )
                        .help(error.to_string()),
                    );
                    None
                }
            });
    let isolated = node.property_bool("isolated");
    let bridge = bridge(node);
    if bridge.is_some() {
        let subnet = subnet.as_ref().map(|it| ("subnet", &it.span));
        let isolated = (isolated.as_ref().filter(|it| it.value)).map(|it| ("isolated", &it.span));
        for (property, span) in subnet.into_iter().chain(isolated) {
            node.error(
                MachinefileError::new(
                    span,
                    format!("a network with `bridge` cannot have `{property}`"),
                    "contradicts `bridge`",
                )
                .help("remove one of them: what is on a bridge of this computer, and where it leads, is not stead's to say"),
            );
        }
    }
    let has_subnet = subnet.is_some() || bridge.is_some();
    let name = node.one_string_or("a name", |written| match written {
        [name, subnet] if !has_subnet && subnet.trim_matches('"').parse::<Subnet>().is_ok() => {
            Some(format!("write `network {name} subnet={subnet}`"))
        }
        _ => None,
    })?;
    if !is_label(&name.value) {
        // It is declared all the same, so that machines that are on it are no errors.
        node.error(not_a_label(&name, "network"));
    }
    Some(NetworkDraft {
        name,
        is_unclear: is_unclear && subnet.is_none(),
        subnet,
        isolated: isolated.is_some_and(|it| it.value),
        bridge,
        local,
    })
}

/// Reads the bridge of this computer that a network is. Its name gets into libvirt's XML and into messages.
fn bridge(node: &mut Node<'_>) -> Option<Spanned<String>> {
    let bridge = node.property_string("bridge")?;
    let (name, span) = (&bridge.value, &bridge.span);
    let error = match () {
        () if !is_interface(name) => MachinefileError::new(
            span,
            format!("{name:?} is not the name of a bridge"),
            "not an interface",
        )
        .help("use up to 15 ASCII letters, digits and - . _, as `ip link show type bridge` lists them: bridge=\"br0\""),
        () if is_own_bridge(name) => MachinefileError::new(
            span,
            format!("{name} belongs to a network of stead's"),
            "stead makes and removes it",
        )
        .help("choose another bridge; machines of a project reach each other by a network without `bridge`"),
        () => return Some(bridge),
    };
    node.error(error);
    None
}

pub(super) fn of_machine(node: &mut Node<'_>, draft: &mut NetworksDraft) {
    let here = node.here();
    if let Some((message, label, help)) = of_vagrant(node) {
        node.error(MachinefileError::new(&here, message, label).help(help));
        return;
    }
    let network = node.written().into_iter().next();
    if let Some(bridge) = node.property_string("bridge") {
        let error = MachinefileError::new(
            &bridge.span,
            "`bridge` belongs to a network, not to a machine that is on it",
            "here",
        );
        node.error(error.help(on_bridge(&bridge.value)));
        return;
    }
    if node.first_bool().is_some() {
        let error =
            MachinefileError::new(&here, "`network` takes the name of a network", "no name");
        node.error(error.help(match node.first_bool() {
            Some(false) => NONE,
            _ => "remove it: a machine that names no network is on `default`, with all others",
        }));
        return;
    }
    if let (None, Some(child)) = (&network, node.children().first())
        && let Some(list) = list_of(child)
    {
        let error = MachinefileError::new(&here, "`network` has its name on its line", "in braces");
        node.error(error.help(format!("write `network {list}`, one node for each network")));
        return;
    }
    let network = network.unwrap_or("\"backend\"".into());
    if !node.foreign_properties(&|name, value| foreign_in_machine(&network, name, value)) {
        node.properties(&OF_MACHINE);
    }
    node.no_children_but_properties(&OF_MACHINE);
    if let Some(none) = node.property_bool("none") {
        node.at_most(0);
        match none.value {
            true => draft.none = Some(here),
            false => node.error(
                MachinefileError::new(&none.span, "`none=#false` says nothing", "here")
                    .help("remove it, or name a network: network \"backend\""),
            ),
        }
        return;
    }
    let address =
        node.property_string("address")
            .and_then(|text| match text.value.parse::<Ipv4Addr>() {
                Ok(address) => Some(Spanned::new(address, text.span)),
                Err(_) => {
                    let without_prefix = text.value.split('/').next().unwrap_or_default();
                    let help = match without_prefix.parse::<Ipv4Addr>() {
                        Ok(address) => format!(
                            "write address=\"{address}\"; the prefix is the subnet's, which the network has at the top"
                        ),
                        Err(_) => "write four numbers: address=\"10.77.0.10\"".into(),
                    };
                    node.error(
                        MachinefileError::new(
                            &text.span,
                            format!("{:?} is not an IPv4 address", text.value),
                            "here",
                        )
                        .help(help),
                    );
                    None
                }
            });
    let written = node.property_as_written("aliases");
    let aliases = aliases(node);
    let has_address = address.is_some();
    let network = node.one_string_or("the name of a network", |all| {
        positional(all, written.as_deref(), has_address)
    });
    if let Some(network) = network {
        draft.cards.push(CardDraft {
            network,
            address,
            aliases,
        });
    }
}

fn aliases(node: &mut Node<'_>) -> Vec<Spanned<String>> {
    let Some(words) = node.property_string("aliases") else {
        return Vec::new();
    };
    let mut aliases = Vec::new();
    for word in words.value.split_ascii_whitespace() {
        let word = Spanned::new(word.to_string(), words.span.clone());
        if is_label(&word.value) && !stands_for_other(&word.value) {
            aliases.push(word);
            continue;
        }
        let help = match words.value.contains(',') {
            true => {
                let parts = words.value.split([',', ' ']).filter(|it| !it.is_empty());
                let parts: Vec<&str> = parts.collect();
                format!("write spaces between several: aliases={:?}", parts.join(" "))
            }
            false => "use lower-case ASCII letters, digits and dashes, with no dash at either end, not a number or `localhost`, and spaces between several: aliases=\"postgres pg\"".into(),
        };
        node.error(
            MachinefileError::new(
                &word.span,
                format!("{:?} is not a valid alias", word.value),
                "not a name for a machine",
            )
            .help(help),
        );
        if words.value.contains(',') {
            break;
        }
    }
    aliases
}

/// Returns what to write in place of several arguments: addresses, aliases as a list, or several networks.
fn positional(all: &[String], aliases: Option<&str>, has_address: bool) -> Option<String> {
    let (network, more) = all.split_first()?;
    let bare: Vec<&str> = more.iter().map(|it| it.trim_matches('"')).collect();
    if let Some((property @ ("address" | "aliases"), values @ [_, ..])) =
        bare.split_first().map(|(first, rest)| (*first, rest))
    {
        return Some(format!(
            "write `network {network} {property}={:?}`",
            values.join(" ")
        ));
    }
    if let (Some(aliases), false) = (aliases, bare.is_empty()) {
        let all: Vec<&str> = std::iter::once(aliases).chain(bare).collect();
        return Some(format!(
            "write all of them in one text, with spaces between: aliases={:?}",
            all.join(" ")
        ));
    }
    if let ([one], false) = (bare.as_slice(), has_address)
        && one.parse::<Ipv4Addr>().is_ok()
    {
        return Some(format!("write `network {network} address=\"{one}\"`"));
    }
    let nodes: Vec<String> = all.iter().map(|it| format!("network {it}")).collect();
    Some(format!(
        "write one node for each network: `{}`; further names of the machine are `network {network} aliases={:?}`",
        nodes.join("; "),
        bare.join(" ")
    ))
}
