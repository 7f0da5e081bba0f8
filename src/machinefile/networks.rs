//! Checks networks together: which there are, who is on them, and whose address is whose.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

use crate::{
    host::names::{nearest, one_of},
    network::{Subnet, subnet_of},
};

use super::{
    decode::{CardDraft, Draft, NONE, NetworkDraft, subnet_around},
    diagnostics::{Errors, MachinefileError, Span, Spanned},
    egress,
    model::{MachineBridge, MachineNetwork, Network},
    names::is_label,
};

/// The network of machines that name none.
const DEFAULT: &str = "default";

/// The subnet of QEMU's own network, and of machines that are on no network of the project.
const QEMUS: &str = "10.0.2.0/24";

/// How many networks and bridges a machine may be on. Each takes a slot of the machine's bus.
pub const MOST_CARDS: u8 = 8;

/// How many networks a project may have.
const MOST_NETWORKS: usize = 64;

/// A machine of the Machinefile, before `count` is expanded.
pub(super) struct Member<'a> {
    pub name: &'a Spanned<String>,
    pub instances: &'a [String],
    pub draft: &'a Draft,
}

/// The networks of a project, and those of each machine, by its name.
#[derive(Default)]
pub(super) struct Networks {
    pub all: Vec<Network>,
    pub of: HashMap<String, Vec<MachineNetwork>>,
    /// The declared networks that are bridges of this computer: name and bridge.
    pub bridges: Vec<(String, Spanned<String>)>,
}

impl Networks {
    /// The bridges that a machine has a card on, and where the Machinefile names them.
    pub(super) fn bridges_of(&self, draft: &Draft) -> impl Iterator<Item = (MachineBridge, &Span)> {
        let is_on = |name: &str| {
            let mut cards = draft.networks.cards.iter();
            cards.any(|card| card.network.value == name)
        };
        (self.bridges.iter())
            .filter(move |(name, _)| is_on(name))
            .map(|(name, bridge)| {
                let bridge_of = MachineBridge {
                    network: name.clone(),
                    interface: bridge.value.clone(),
                };
                (bridge_of, &bridge.span)
            })
    }
}

pub(super) fn networks(
    project: &str,
    drafts: &[NetworkDraft],
    members: &[Member<'_>],
    errors: &mut Errors,
) -> Networks {
    let mut declared = declared(drafts, errors);
    if let Some(beyond) = declared.get(MOST_NETWORKS) {
        errors.push(MachinefileError::new(
            &beyond.name.span,
            format!("the project has {} networks", declared.len()),
            format!("at most {MOST_NETWORKS}"),
        ));
        declared.truncate(MOST_NETWORKS);
    }
    let all: Vec<&str> = declared.iter().map(|it| it.name.value.as_str()).collect();
    for member in members {
        check_cards(member, members, &all, errors);
    }
    let mut found = Networks::default();
    declared.retain(|draft| match &draft.bridge {
        Some(bridge) => {
            check_bridge(&draft.name, bridge, members, errors);
            let same = (found.bridges.iter()).find(|(_, other)| other.value == bridge.value);
            if let Some((other, _)) = same {
                errors.push(
                    MachinefileError::new(
                        &bridge.span,
                        format!(
                            "networks {other:?} and {:?} are the same bridge {}",
                            draft.name.value, bridge.value
                        ),
                        "the second one",
                    )
                    .help(format!(
                        "remove it, and put its machines on network {other:?}; or name another bridge"
                    )),
                );
            }
            (found.bridges).push((draft.name.value.clone(), bridge.clone()));
            false
        }
        None => true,
    });
    // A machine that names no network is on the default one, and so is one that names it.
    let on_default = |member: &Member<'_>| {
        let draft = &member.draft.networks;
        match draft.cards.is_empty() {
            true => draft.none.is_none(),
            false => draft.cards.iter().any(|card| card.network.value == DEFAULT),
        }
    };
    let on = (members.iter().filter(|member| on_default(member)))
        .map(|member| member.instances.len())
        .sum::<usize>();
    // What leaves a guarded machine passes a network, also if nobody else is on it.
    let leads_out =
        (members.iter()).any(|member| on_default(member) && egress::guard(member.draft).is_some());
    let names = |member: &Member<'_>| {
        (member.draft.networks.cards.iter()).any(|card| card.network.value == DEFAULT)
    };
    let has_default = on > 1
        || leads_out
        || members.iter().any(names)
        || declared.iter().any(|it| it.name.value == DEFAULT);
    let subnets = subnets(project, &declared, has_default, errors);
    for (name, subnet) in &subnets {
        let declared = declared.iter().find(|it| it.name.value == *name);
        let isolated = declared.is_some_and(|it| it.isolated);
        let is_chosen = declared.is_none_or(|it| it.subnet.is_none());
        let is_unclear = declared.is_some_and(|it| it.is_unclear);
        let mut users = 0;
        let mut taken: BTreeMap<Ipv4Addr, String> = BTreeMap::new();
        for member in members {
            let own = member
                .draft
                .networks
                .cards
                .iter()
                .find(|it| it.network.value == *name);
            let is_on = own.is_some() || (name == DEFAULT && on_default(member));
            if !is_on {
                continue;
            }
            users += member.instances.len();
            for (n, instance) in member.instances.iter().enumerate() {
                let address = own.filter(|_| !is_unclear).and_then(|card| {
                    address(card, n, instance, (*subnet, is_chosen), &mut taken, errors)
                });
                found
                    .of
                    .entry(instance.clone())
                    .or_default()
                    .push(MachineNetwork {
                        name: name.clone(),
                        isolated,
                        address,
                        aliases: own.map_or_else(Vec::new, |card| {
                            card.aliases
                                .iter()
                                .map(|alias| alias.value.clone())
                                .collect()
                        }),
                    });
            }
        }
        let capacity = usize::try_from(subnet.capacity()).unwrap_or(usize::MAX);
        if users > capacity
            && let Some(subnet) = declared.and_then(|it| it.subnet.as_ref())
        {
            errors.push(
                MachinefileError::new(
                    &subnet.span,
                    format!(
                        "network {name:?} has {users} machines, and {} addresses for machines",
                        capacity
                    ),
                    "too small",
                )
                .help("take a shorter prefix, such as /24"),
            );
        }
        found.all.push(Network {
            name: name.clone(),
            subnet: *subnet,
            isolated,
            at: declared.map(|it| it.name.span.text()),
        });
    }
    found
}

/// Checks a network that is a bridge of this computer: who else is there, and their addresses, is not stead's to say.
fn check_bridge(
    name: &Spanned<String>,
    bridge: &Spanned<String>,
    members: &[Member<'_>],
    errors: &mut Errors,
) {
    if name.value == DEFAULT {
        errors.push(
            MachinefileError::new(
                &bridge.span,
                format!("network {DEFAULT:?} cannot be a bridge of this computer"),
                "machines that name no network would be on it",
            )
            .help("give it another name, and name it in each machine that is to be on it, or in `defaults`"),
        );
    }
    let cards = (members.iter()).flat_map(|member| &member.draft.networks.cards);
    let mut reported: Vec<&Span> = Vec::new();
    for card in cards.filter(|card| card.network.value == name.value) {
        let on = format!("network {:?}, a bridge of this computer", name.value);
        let address = card.address.as_ref().map(|it| {
            (
                &it.span,
                format!("stead cannot give a machine its address on {on}"),
                "not stead's to say",
                "remove it: a DHCP server there gives the address; stead prints the card's MAC, for a lease that stays the same (`stead status --json`)",
            )
        });
        let alias = card.aliases.first().map(|it| {
            (
                &it.span,
                format!("machines have no names on {on}"),
                "nobody there would know it",
                "remove it, or put the machine on a network without `bridge` as well, and give it the alias there",
            )
        });
        for (span, message, label, help) in address.into_iter().chain(alias) {
            // One of `defaults` is every machine's.
            let is_same = |other: &&Span| {
                other.range == span.range && std::sync::Arc::ptr_eq(&other.source, &span.source)
            };
            if !reported.iter().any(is_same) {
                reported.push(span);
                errors.push(MachinefileError::new(span, message, label).help(help));
            }
        }
    }
}

/// The declared networks. One of Machinefile.local replaces that of the Machinefile.
fn declared<'a>(drafts: &'a [NetworkDraft], errors: &mut Errors) -> Vec<&'a NetworkDraft> {
    let mut declared: Vec<&NetworkDraft> = Vec::new();
    for draft in drafts {
        let known = declared
            .iter_mut()
            .find(|it| it.name.value == draft.name.value);
        match known {
            None => declared.push(draft),
            Some(known) if draft.local => *known = draft,
            Some(_) => errors.push(
                MachinefileError::new(
                    &draft.name.span,
                    format!("the project has two networks {:?}", draft.name.value),
                    "the second one",
                )
                .help("keep one of them"),
            ),
        }
    }
    declared
}

/// Chooses a subnet for each network that says none.
fn subnets(
    project: &str,
    declared: &[&NetworkDraft],
    has_default: bool,
    errors: &mut Errors,
) -> Vec<(String, Subnet)> {
    // It is a subnet.
    let mut taken: Vec<(Option<&str>, Subnet)> =
        QEMUS.parse().map(|it| (None, it)).into_iter().collect();
    for network in declared {
        let Some(subnet) = &network.subnet else {
            continue;
        };
        if let Some((other, overlapped)) =
            taken.iter().find(|(_, other)| other.overlaps(subnet.value))
        {
            let whose = match other {
                Some(name) => format!("network {name:?}"),
                None => "where machines are that are on no network".into(),
            };
            errors.push(
                MachinefileError::new(
                    &subnet.span,
                    format!("{} overlaps {overlapped}, {whose}", subnet.value),
                    "the same addresses",
                )
                .help("choose another subnet, or leave it out: stead chooses one"),
            );
        }
        taken.push((Some(&network.name.value), subnet.value));
    }
    let mut avoid: Vec<Subnet> = taken.iter().map(|(_, subnet)| *subnet).collect();
    let names = declared
        .iter()
        .map(|it| (it.name.value.as_str(), it.subnet.as_ref()));
    let is_declared = declared.iter().any(|it| it.name.value == DEFAULT);
    let default = (has_default && !is_declared).then_some((DEFAULT, None));
    names
        .chain(default)
        .filter_map(|(name, subnet)| {
            let subnet = match subnet {
                Some(subnet) => subnet.value,
                None => {
                    let Some(chosen) = subnet_of(project, name, &avoid) else {
                        let taken = declared.iter().find(|it| it.subnet.is_some());
                        errors.extend(taken.and_then(|it| it.subnet.as_ref()).map(|subnet| {
                            MachinefileError::new(
                                &subnet.span,
                                format!("there is no subnet left for network {name:?}"),
                                "takes those that stead chooses from",
                            )
                            .help("choose a smaller one, such as 10.77.0.0/24")
                        }));
                        return None;
                    };
                    avoid.push(chosen);
                    chosen
                }
            };
            Some((name.to_string(), subnet))
        })
        .collect()
}

/// The address that the Machinefile gives to an instance of a machine: each of a `count` gets the next one.
/// `is_chosen`: stead chose the subnet.
fn address(
    card: &CardDraft,
    n: usize,
    instance: &str,
    (subnet, is_chosen): (Subnet, bool),
    taken: &mut BTreeMap<Ipv4Addr, String>,
    errors: &mut Errors,
) -> Option<Ipv4Addr> {
    let first = card.address.as_ref()?;
    let next = u32::try_from(n)
        .ok()
        .and_then(|n| first.value.to_bits().checked_add(n));
    let address = Ipv4Addr::from_bits(next?);
    let error = |message: String, label: &str| MachinefileError::new(&first.span, message, label);
    if !subnet.is_host(address) {
        // Once for all instances whose address is outside.
        let is_first = n == 0 || subnet.is_host(Ipv4Addr::from_bits(address.to_bits() - 1));
        if is_first {
            let label = match () {
                () if n > 0 => "each machine of a `count` gets the next address",
                () if address == subnet.gateway() => "the network's own address",
                () if address == subnet.broadcast() => "the address for all machines",
                () => "not in it",
            };
            errors.push(
                error(
                    format!("{instance} cannot have {address} on network {:?}, whose subnet is {subnet}", card.network.value),
                    label,
                )
                .help(match subnet_around(first.value).filter(|_| is_chosen && n == 0) {
                    // stead chose the subnet, and the author had another one in mind.
                    Some(meant) => format!(
                        "declare its subnet at the top of the Machinefile: network {:?} subnet=\"{meant}\"",
                        card.network.value
                    ),
                    None => format!(
                        "machines can have {} to {}",
                        Ipv4Addr::from_bits(subnet.gateway().to_bits() + 1),
                        Ipv4Addr::from_bits(subnet.broadcast().to_bits() - 1)
                    ),
                }),
            );
        }
        return None;
    }
    if let Some(other) = taken.insert(address, instance.to_string()) {
        errors.push(
            error(
                format!("both {other} and {instance} have address {address}"),
                "the second one",
            )
            .help("give each its own address, or leave it out: stead chooses one"),
        );
    }
    Some(address)
}

/// Returns the error for a network that the Machinefile does not declare.
fn undeclared(card: &CardDraft, declared: &[&str]) -> MachinefileError {
    let name = card.network.value.as_str();
    // One with a wrong name is an error of its own.
    let declared: Vec<&str> = (declared.iter().copied())
        .filter(|name| is_label(name))
        .collect();
    let label = nearest(name, declared.iter().copied())
        .map_or("unknown".into(), |near| format!("did you mean {near:?}?"));
    let subnet = (card.address.as_ref()).and_then(|it| subnet_around(it.value));
    let valid = label_of(name);
    let mut help = match (valid == name, subnet) {
        _ if name == "none" => NONE.to_string(),
        (true, Some(subnet)) => format!(
            "declare it at the top of the Machinefile: network {name:?} subnet=\"{subnet}\""
        ),
        (true, None) => format!(
            "declare it at the top of the Machinefile: network {name:?}; a subnet=\"…\" there chooses its addresses"
        ),
        (false, _) => format!(
            "declare a network at the top of the Machinefile, `network {valid:?}`, and name that one here"
        ),
    };
    if !declared.is_empty() {
        help = format!("the networks are {}; {help}", one_of(&declared));
    }
    let message = format!("there is no network {name:?}");
    MachinefileError::new(&card.network.span, message, label).help(help)
}

/// Returns the valid name that is most like this one.
fn label_of(name: &str) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    };
    let text: String = name.chars().take(63).map(plain).collect();
    match text.trim_matches('-') {
        "" => "backend".into(),
        label => label.into(),
    }
}

fn check_cards(
    member: &Member<'_>,
    members: &[Member<'_>],
    declared: &[&str],
    errors: &mut Errors,
) {
    let draft = &member.draft.networks;
    if let (Some(none), Some(card)) = (&draft.none, draft.cards.first()) {
        errors.push(
            MachinefileError::new(
                none,
                format!(
                    "machine {:?} is on network {:?} and on none",
                    member.name.value, card.network.value
                ),
                "contradicts it",
            )
            .help("keep one of them"),
        );
    }
    if let Some(card) = draft.cards.get(usize::from(MOST_CARDS)) {
        errors.push(MachinefileError::new(
            &card.network.span,
            format!(
                "machine {:?} is on {} networks",
                member.name.value,
                draft.cards.len()
            ),
            format!("at most {MOST_CARDS}"),
        ));
    }
    let mut seen: Vec<&str> = Vec::new();
    for card in &draft.cards {
        let name = card.network.value.as_str();
        if seen.contains(&name) {
            errors.push(
                MachinefileError::new(
                    &card.network.span,
                    format!(
                        "machine {:?} is on network {name:?} twice",
                        member.name.value
                    ),
                    "the second time",
                )
                .help("keep one of them"),
            );
        }
        seen.push(name);
        // A default network of one machine has nobody to reach.
        if !declared.contains(&name) && name != DEFAULT {
            errors.push(undeclared(card, declared));
        }
        for alias in &card.aliases {
            let is_machine = (members.iter()).any(|other| other.instances.contains(&alias.value));
            if is_machine {
                errors.push(
                    MachinefileError::new(
                        &alias.span,
                        format!("the alias {:?} is the name of a machine", alias.value),
                        "here",
                    )
                    .help("choose another alias: a machine's name always means that machine"),
                );
            }
        }
    }
}
