//! Checks links against machines and networks.

use crate::{
    host::names::{nearest, one_of},
    network::{Rule, Scope},
};

use super::{
    decode::LinkDraft,
    diagnostics::{Errors, MachinefileError, Spanned},
    networks::{Member, Networks},
};

/// How many links a project may describe. Each is laid over those before it.
const MOST: usize = 256;

pub(super) fn links(
    drafts: &[LinkDraft],
    members: &[Member<'_>],
    networks: &Networks,
    errors: &mut Errors,
) -> Vec<Rule> {
    if let Some(beyond) = drafts.get(MOST) {
        errors.push(
            MachinefileError::new(
                &beyond.here,
                format!("the project has {} `link`", drafts.len()),
                format!("at most {MOST}"),
            )
            .help("one `link` can be about all machines of a `count`, or all links of a machine"),
        );
    }
    (drafts.iter().take(MOST))
        .filter_map(|draft| link(draft, members, networks, errors))
        .collect()
}

fn link(
    draft: &LinkDraft,
    members: &[Member<'_>],
    networks: &Networks,
    errors: &mut Errors,
) -> Option<Rule> {
    let mut ends: Vec<Vec<String>> = Vec::new();
    for name in &draft.machines {
        match named(&name.value, members) {
            Some(instances) => ends.push(instances),
            None => errors.push(unknown_machine(name, members)),
        }
    }
    if let Some(network) = &draft.network {
        if let Some((name, bridge)) = (networks.bridges.iter()).find(|it| it.0 == network.value) {
            errors.push(
                MachinefileError::new(
                    &network.span,
                    format!(
                        "network {name:?} is the bridge {} of this computer, so stead cannot set conditions there",
                        bridge.value
                    ),
                    "no links of stead's",
                )
                .help("put the machines on a network without `bridge` as well, or use `tc` in the guests"),
            );
            return None;
        }
        let names: Vec<&str> = (networks.all.iter().map(|it| it.name.as_str())).collect();
        if !names.contains(&network.value.as_str()) {
            let label = nearest(&network.value, names.iter().copied())
                .map_or("unknown".into(), |near| format!("did you mean {near:?}?"));
            let error = MachinefileError::new(
                &network.span,
                format!("there is no network {:?}", network.value),
                label,
            );
            errors.push(match names.is_empty() {
                true => error.help("the project has no networks"),
                false => error.help(format!("the networks are {}", one_of(&names))),
            });
            return None;
        }
    }
    if ends.len() < draft.machines.len() {
        return None;
    }
    let mut ends = ends.into_iter();
    let scope = Scope {
        from: ends.next().unwrap_or_default(),
        to: ends.next().unwrap_or_default(),
        network: draft.network.as_ref().map(|it| it.value.clone()),
        one_way: draft.one_way,
    };
    if !is_link(&scope, members, networks) {
        let error = no_link(draft, &scope);
        errors.push(match on_bridges(&scope, members, networks) {
            Some(bridge) => error.help(format!(
                "put them on a network without `bridge` as well, or use `tc` in the guests: network {bridge:?} is a bridge of this computer, and stead sets no conditions there"
            )),
            None => error.help(
                "a link is between machines that share a network: add `network \"NAME\"` to both",
            ),
        });
        return None;
    }
    Some(Rule {
        scope,
        settings: draft.settings,
    })
}

/// Whether two machines of the scope share a network.
fn is_link(scope: &Scope, members: &[Member<'_>], networks: &Networks) -> bool {
    let all = || members.iter().flat_map(|member| member.instances);
    let is_only = |name: &str| scope.network.as_deref().is_none_or(|only| only == name);
    let mut those = networks.all.iter().filter(|network| is_only(&network.name));
    those.any(|network| {
        let on = |names: &[String]| -> Vec<&String> {
            all()
                .filter(|name| names.is_empty() || names.contains(name))
                .filter(|name| {
                    let mut cards = networks.of.get(*name).into_iter().flatten();
                    cards.any(|card| card.name == network.name)
                })
                .collect()
        };
        let (from, to) = (on(&scope.from), on(&scope.to));
        let is_itself = from.len() == 1 && from == to;
        !from.is_empty() && !to.is_empty() && !is_itself
    })
}

/// Returns a bridge that all machines of the scope are on, as the project names it.
fn on_bridges(scope: &Scope, members: &[Member<'_>], networks: &Networks) -> Option<String> {
    let is_meant = |member: &&Member<'_>| {
        let meant = |name| scope.from.contains(name) || scope.to.contains(name);
        scope.from.is_empty() || member.instances.iter().any(meant)
    };
    let meant: Vec<&Member<'_>> = members.iter().filter(is_meant).collect();
    let mut bridges = networks.bridges.iter().map(|(name, _)| name);
    let all_on = |name: &&String| {
        meant.iter().all(|member| {
            let mut cards = member.draft.networks.cards.iter();
            cards.any(|card| card.network.value == **name)
        })
    };
    bridges.find(all_on).cloned()
}

fn no_link(draft: &LinkDraft, scope: &Scope) -> MachinefileError {
    let on = (scope.network.as_ref()).map_or(String::new(), |name| format!(" {name:?}"));
    let message = match draft.machines.as_slice() {
        [one, other] if one.value == other.value => {
            format!("machine {:?} has no link to itself", one.value)
        }
        [one, other] => format!(
            "machines {:?} and {:?} are not on one network{on}",
            one.value, other.value
        ),
        [] if on.is_empty() => "no two machines share a network of stead's".into(),
        [] => format!("no two machines share network{on}"),
        [one, ..] if on.is_empty() => format!(
            "machine {:?} is on no network with another machine",
            one.value
        ),
        [one, ..] => format!(
            "machine {:?} is not on network{on} with another machine",
            one.value
        ),
    };
    let span = draft.machines.last().map_or(&draft.here, |last| &last.span);
    MachinefileError::new(span, message, "no link")
}

/// The machines of a name: one, or all of a `count`.
fn named(name: &str, members: &[Member<'_>]) -> Option<Vec<String>> {
    for member in members {
        if member.name.value == name {
            return Some(member.instances.to_vec());
        }
        if member.instances.iter().any(|instance| instance == name) {
            return Some(vec![name.to_string()]);
        }
    }
    None
}

fn unknown_machine(name: &Spanned<String>, members: &[Member<'_>]) -> MachinefileError {
    let names: Vec<&str> = (members.iter().map(|it| it.name.value.as_str())).collect();
    MachinefileError::new(
        &name.span,
        format!("there is no machine {:?}", name.value),
        nearest(&name.value, names.iter().copied())
            .map_or("unknown".into(), |near| format!("did you mean {near:?}?")),
    )
    .help(format!("the machines are {}", one_of(&names)))
}
