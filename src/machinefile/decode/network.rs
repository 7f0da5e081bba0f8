//! Decodes `network`, at the top and in machines.

use std::net::Ipv4Addr;

use crate::{
    host::names::is_interface,
    machinefile::{
        diagnostics::{MachinefileError, Span, Spanned},
        names::is_label,
        node::Node,
    },
    network::{Subnet, is_own_bridge},
};

use super::values::not_a_label;

/// A network, as the project has it.
#[derive(Clone)]
pub(crate) struct NetworkDraft {
    pub name: Spanned<String>,
    pub subnet: Option<Spanned<Subnet>>,
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
    node.properties(&["subnet", "isolated", "bridge"]);
    node.no_children();
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
    let name = node.one_string("a name")?;
    if !is_label(&name.value) {
        node.error(not_a_label(&name, "network"));
        return None;
    }
    Some(NetworkDraft {
        name,
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
        .help("use up to 15 letters, digits and - . _, as `ip link show type bridge` lists them: bridge=\"br0\""),
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
    // As in a Vagrantfile.
    let written = node.first_as_written();
    if matches!(
        written.as_deref(),
        Some("forwarded_port" | "forwarded-port")
    ) {
        let error = MachinefileError::new(
            &here,
            "a forwarded port is not a network",
            "did you mean `forward`?",
        );
        node.error(
            error.help("write the port of the host, then that of the guest: `forward 8080 to=80`"),
        );
        return;
    }
    if let Some(bridge) = node.property_string("bridge") {
        let error = MachinefileError::new(
            &bridge.span,
            "`bridge` belongs to a network, not to a machine that is on it",
            "here",
        );
        node.error(error.help(
            "declare the network at the top of the Machinefile, `network \"lan\" bridge=\"br0\"`, and name it in the machine: `network \"lan\"`",
        ));
        return;
    }
    node.properties(&["address", "aliases", "none"]);
    node.no_children();
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
                    node.error(
                        MachinefileError::new(
                            &text.span,
                            format!("{:?} is not an IPv4 address", text.value),
                            "here",
                        )
                        .help("write four numbers: address=\"10.77.0.10\""),
                    );
                    None
                }
            });
    let mut aliases = Vec::new();
    if let Some(words) = node.property_string("aliases") {
        for word in words.value.split_ascii_whitespace() {
            let word = Spanned::new(word.to_string(), words.span.clone());
            // The C library takes digits for an address.
            let is_number = word.value.bytes().all(|byte| byte.is_ascii_digit());
            match is_label(&word.value) && !is_number && word.value != "localhost" {
                true => aliases.push(word),
                false => node.error(
                    MachinefileError::new(
                        &word.span,
                        format!("{:?} is not a valid alias", word.value),
                        "not a name for a machine",
                    )
                    .help("use lower-case letters, digits and dashes, and spaces between several: aliases=\"postgres pg\""),
                ),
            }
        }
    }
    if let Some(network) = node.one_string("the name of a network") {
        draft.cards.push(CardDraft {
            network,
            address,
            aliases,
        });
    }
}
