//! Checks what machines reach beyond the networks of their project.

use std::collections::BTreeSet;

use crate::network::Egress;

use super::{
    decode::Draft,
    diagnostics::{Errors, MachinefileError, Span, Spanned},
    model::{MachineBridge, MachineNetwork},
};

/// How many destinations a machine may have. Each name that it looks up is compared with all.
const MOST_DESTINATIONS: usize = 256;
/// The port of name servers.
const DNS: u16 = 53;
/// How many ports of this computer a machine may have.
const MOST_PORTS: usize = 64;

/// Where the Machinefile says that a machine reaches only what it names, and by which node. `None`: it does not.
pub(super) fn guard(draft: &Draft) -> Option<(&'static str, &Span)> {
    let egress = draft.egress.as_ref().map(|it| ("egress", &it.here));
    let access = draft.host_access.here().map(|it| ("host-access", it));
    egress.or(access)
}

/// Returns what a machine reaches, if the Machinefile limits it to what it names.
pub(super) fn egress(draft: &Draft) -> Option<Egress> {
    guard(draft)?;
    let mut host_tcp: Vec<u16> = (draft.host_access.tcp.iter())
        .flat_map(|ports| ports.value.0..=ports.value.1)
        .collect();
    host_tcp.sort_unstable();
    host_tcp.dedup();
    let internet = (draft.internet.as_ref()).is_none_or(|internet| internet.value);
    let allow = match &draft.egress {
        Some(egress) => {
            let mut allow = Vec::new();
            for destination in &egress.allow {
                if !allow.contains(&destination.value) {
                    allow.push(destination.value.clone());
                }
            }
            Some(allow)
        }
        None if internet => None,
        // Nothing at all needs no way out.
        None if host_tcp.is_empty() => return None,
        None => Some(Vec::new()),
    };
    Some(Egress { allow, host_tcp })
}

pub(super) fn check(name: &Spanned<String>, draft: &Draft, errors: &mut Errors) {
    let name = &name.value;
    if let (Some(egress), Some(internet)) = (&draft.egress, &draft.internet)
        && !internet.value
    {
        errors.push(
            MachinefileError::new(
                &egress.here,
                format!("machine {name:?} has `egress` and `internet #false`"),
                "contradicts `internet #false`",
            )
            .help(
                "remove `internet #false` if it is to reach what `egress` allows, and `egress` if it is to reach nothing outside",
            ),
        );
    }
    let mut seen = Vec::new();
    let mut distinct = (draft.egress.iter())
        .flat_map(|egress| &egress.allow)
        .filter(|it| {
            let is_new = !seen.contains(&&it.value);
            seen.push(&it.value);
            is_new
        });
    if let Some(destination) = distinct.nth(MOST_DESTINATIONS) {
        errors.push(
            MachinefileError::new(
                &destination.span,
                format!("machine {name:?} may reach more than {MOST_DESTINATIONS} destinations"),
                "one too many",
            )
            .help("allow a domain with all that is below it, `*.example.com`, or a range of addresses, 192.0.2.0/24"),
        );
    }
    let access = &draft.host_access;
    if let (Some(none), Some(_)) = (&access.none, access.tcp.first()) {
        errors.push(
            MachinefileError::new(
                none,
                format!("machine {name:?} may reach ports of this computer, and none"),
                "contradicts it",
            )
            .help("keep one of them"),
        );
    }
    let mut seen = BTreeSet::new();
    let beyond = access.tcp.iter().find(|ports| {
        seen.extend(ports.value.0..=ports.value.1);
        seen.len() > MOST_PORTS
    });
    if let Some(ports) = beyond {
        errors.push(MachinefileError::new(
            &ports.span,
            format!("machine {name:?} may reach more than {MOST_PORTS} ports of this computer"),
            "too many from here on",
        ));
    }
    if let Some(ports) = (access.tcp.iter()).find(|it| (it.value.0..=it.value.1).contains(&DNS)) {
        errors.push(
            MachinefileError::new(
                &ports.span,
                format!("machine {name:?} cannot reach port {DNS} of this computer"),
                "taken",
            )
            .help("at the address by which it would, its network's name server has this port"),
        );
    }
    if let (Some((node, here)), Some(_)) = (guard(draft), &draft.networks.none) {
        errors.push(
            MachinefileError::new(
                here,
                format!("`{node}` needs a network, and machine {name:?} has none"),
                "needs a network",
            )
            .help(format!(
                "remove `network none=#true`, because the way out is a card of the machine on a network; or remove `{node}`"
            )),
        );
    }
}

/// Whether a machine is only on networks that lead nowhere else.
pub(super) fn is_isolated(networks: &[MachineNetwork]) -> bool {
    !networks.is_empty() && networks.iter().all(|network| network.isolated)
}

pub(super) fn check_isolation(
    name: &Spanned<String>,
    draft: &Draft,
    networks: &[MachineNetwork],
    errors: &mut Errors,
) {
    if !is_isolated(networks) {
        return;
    }
    let internet = (draft.internet.as_ref()).filter(|it| it.value);
    let internet = internet.map(|it| ("internet #true", &it.span));
    if let Some((node, here)) = guard(draft).or(internet) {
        errors.push(
            MachinefileError::new(
                here,
                format!(
                    "`{node}` needs a way out, and machine {:?} is on isolated networks only",
                    name.value
                ),
                "needs another network",
            )
            .help(format!(
                "put the machine on a network without `isolated` as well, or remove `{node}`"
            )),
        );
    }
}

/// What goes over a bridge of this computer, stead neither sees nor stops.
pub(super) fn check_bridges(
    name: &Spanned<String>,
    draft: &Draft,
    bridges: &[MachineBridge],
    errors: &mut Errors,
) {
    let closed = (draft.internet.as_ref()).filter(|it| !it.value);
    let closed = closed.map(|it| ("internet #false", &it.span));
    let (Some((node, here)), Some(bridge)) = (guard(draft).or(closed), bridges.first()) else {
        return;
    };
    errors.push(
        MachinefileError::new(
            here,
            format!(
                "`{node}` limits what machine {:?} reaches, but its card on bridge {} of this computer goes around that",
                name.value, bridge.interface
            ),
            "cannot hold",
        )
        .help(format!(
            "remove `network {:?}` from the machine, or remove `{node}`{}",
            bridge.network,
            match node {
                "internet #false" =>
                    "; if it is in `defaults`, write `internet #true` in the machine",
                _ => "",
            }
        )),
    );
}

/// Returns ports for people: `5432, 8000-8010`.
pub fn port_list(ports: &[u16]) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for &port in ports {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    let words: Vec<String> = (ranges.iter())
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    words.join(", ")
}
