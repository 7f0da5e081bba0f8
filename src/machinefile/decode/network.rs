//! Decodes `network`, at the top and in machines.

use std::net::Ipv4Addr;

use crate::{
    machinefile::{
        diagnostics::{MachinefileError, Span, Spanned},
        names::is_label,
        node::Node,
    },
    network::Subnet,
};

use super::values::not_a_label;

/// A network, as the project has it.
#[derive(Clone)]
pub(crate) struct NetworkDraft {
    pub name: Spanned<String>,
    pub subnet: Option<Spanned<Subnet>>,
    pub isolated: bool,
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
    node.properties(&["subnet", "isolated"]);
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
    let isolated = node.property_bool("isolated").is_some_and(|it| it.value);
    let name = node.one_string("a name")?;
    if !is_label(&name.value) {
        node.error(not_a_label(&name, "network"));
        return None;
    }
    Some(NetworkDraft {
        name,
        subnet,
        isolated,
        local,
    })
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
