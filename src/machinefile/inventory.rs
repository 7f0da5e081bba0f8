//! Checks groups, and the provisioners of the whole project.

use std::collections::BTreeSet;

use super::{
    ansible::{ALL, Group, group_name, label_group},
    decode::{GroupDraft, ProjectProvisionDraft},
    diagnostics::{MachinefileError, Spanned},
    model::{Machine, ProjectProvisioner, Provisioner, ProvisionerKind},
};
use crate::host::names::{nearest, one_of};

/// Merges groups of one name (Machinefile.local adds to those of the Machinefile), and resolves the names of their
/// machines.
pub(super) fn groups(
    drafts: Vec<GroupDraft>,
    machines: &[Machine],
    errors: &mut Vec<MachinefileError>,
) -> Vec<Group> {
    let known = known_groups(&drafts, machines);
    let mut groups: Vec<Group> = Vec::new();
    let mut edges: Vec<(String, Spanned<String>)> = Vec::new();
    for draft in drafts {
        let mut found = Vec::new();
        for name in &draft.machines {
            let named = named(&name.value, machines);
            if named.is_empty() {
                errors.push(unknown(name, "machine", "machines", &names_of(machines)));
            }
            found.extend(named);
        }
        for child in &draft.children {
            if !known.contains(&child.value) {
                let names: Vec<&str> = known.iter().map(String::as_str).collect();
                errors.push(unknown(child, "group", "groups", &names));
            }
            edges.push((draft.name.value.clone(), child.clone()));
        }
        let children = draft.children.into_iter().map(|child| child.value);
        match (groups.iter_mut()).find(|group| group.name == draft.name.value) {
            Some(group) => {
                group.machines.extend(found);
                group.children.extend(children);
                group.vars = draft.vars.over(&group.vars);
            }
            None => groups.push(Group {
                name: draft.name.value,
                machines: found,
                children: children.collect(),
                vars: draft.vars,
            }),
        }
    }
    for group in &mut groups {
        group.machines = unique(std::mem::take(&mut group.machines));
        group.children = unique(std::mem::take(&mut group.children));
    }
    cycles(&edges, errors);
    groups
}

fn unique(names: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    (names.into_iter())
        .filter(|name| seen.insert(name.clone()))
        .collect()
}

/// Returns the machines of that name: one, or all of a `count`.
fn named(name: &str, machines: &[Machine]) -> Vec<String> {
    machines
        .iter()
        .filter(|machine| machine.name == name || machine.one_of.as_deref() == Some(name))
        .map(|machine| machine.name.clone())
        .collect()
}

fn names_of(machines: &[Machine]) -> Vec<&str> {
    let mut names: Vec<&str> = machines
        .iter()
        .map(|machine| machine.one_of.as_deref().unwrap_or(&machine.name))
        .collect();
    names.dedup();
    names
}

/// Returns the names of all groups: those of the Machinefile, and of labels, `count` and provisioners.
fn known_groups(drafts: &[GroupDraft], machines: &[Machine]) -> BTreeSet<String> {
    let mut known: BTreeSet<String> = (drafts.iter())
        .map(|draft| draft.name.value.clone())
        .filter(|name| name != ALL)
        .collect();
    known.extend(machines.iter().flat_map(implied_groups));
    known
}

/// Returns the groups that a machine is in without a `group`.
pub fn implied_groups(machine: &Machine) -> Vec<String> {
    let mut groups: Vec<String> = (machine.labels.iter())
        .map(|(key, value)| label_group(key, value))
        .collect();
    groups.extend(machine.one_of.as_deref().map(group_name));
    for provisioner in &machine.provisioners {
        if let Some(playbook) = provisioner.kind.playbook() {
            groups.extend(playbook.groups.iter().cloned());
        }
    }
    unique(groups)
}

fn unknown(name: &Spanned<String>, what: &str, whats: &str, known: &[&str]) -> MachinefileError {
    let error = MachinefileError::new(
        &name.span,
        format!("there is no {what} {:?}", name.value),
        nearest(&name.value, known.iter().copied())
            .map_or("unknown".into(), |near| format!("did you mean {near:?}?")),
    );
    if known.is_empty() {
        error.help(format!("the project has no {whats}"))
    } else {
        error.help(format!("the {whats} are {}", one_of(known)))
    }
}

/// Reports each cycle at the group that closes it.
fn cycles(edges: &[(String, Spanned<String>)], errors: &mut Vec<MachinefileError>) {
    for (n, (parent, child)) in edges.iter().enumerate() {
        // Whether the child already leads back to the parent.
        let mut seen = BTreeSet::from([child.value.as_str()]);
        let mut open = vec![child.value.as_str()];
        while let Some(group) = open.pop() {
            for (from, to) in &edges[..n] {
                if from == group && seen.insert(&to.value) {
                    open.push(&to.value);
                }
            }
        }
        if seen.contains(parent.as_str()) {
            errors.push(
                MachinefileError::new(
                    &child.span,
                    if *parent == child.value {
                        format!("group {parent:?} contains itself")
                    } else {
                        format!("groups {parent:?} and {:?} contain each other", child.value)
                    },
                    "closes the cycle",
                )
                .help("remove one of these `children`"),
            );
        }
    }
}

/// Checks the provisioners of the whole project, and finds the machines of each.
pub(super) fn provisioners(
    drafts: Vec<ProjectProvisionDraft>,
    groups: &[Group],
    machines: &[Machine],
    errors: &mut Vec<MachinefileError>,
) -> Vec<ProjectProvisioner> {
    let mut found: Vec<ProjectProvisioner> = Vec::new();
    for draft in drafts {
        if (found.iter()).any(|other| other.provisioner.name == draft.name.value) {
            errors.push(
                MachinefileError::new(
                    &draft.name.span,
                    format!("the project has two provisioners {:?}", draft.name.value),
                    "the second one",
                )
                .help("rename one of them: stead knows them by name"),
            );
            continue;
        }
        let over = if draft.limit.is_empty() {
            machines
                .iter()
                .map(|machine| machine.name.clone())
                .collect()
        } else {
            limited(&draft.limit, groups, machines, errors)
        };
        found.push(ProjectProvisioner {
            provisioner: Provisioner {
                name: draft.name.value,
                run: draft.run,
                kind: ProvisionerKind::Ansible {
                    playbook: Box::new(draft.playbook),
                },
            },
            machines: over,
        });
    }
    found
}

fn limited(
    limit: &[Spanned<String>],
    groups: &[Group],
    machines: &[Machine],
    errors: &mut Vec<MachinefileError>,
) -> Vec<String> {
    let mut chosen = BTreeSet::new();
    for name in limit {
        let found: BTreeSet<String> = (named(&name.value, machines).into_iter())
            .chain(machines_in(&name.value, groups, machines))
            .collect();
        if found.is_empty() {
            let mut known: Vec<String> =
                names_of(machines).iter().map(ToString::to_string).collect();
            known.extend(groups.iter().map(|group| group.name.clone()));
            known.extend(machines.iter().flat_map(implied_groups));
            let known = unique(known);
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            if known.contains(&name.value) {
                errors.push(
                    MachinefileError::new(
                        &name.span,
                        format!("no machine is in group {:?}", name.value),
                        "matches nothing",
                    )
                    .help("add machines to the group, or remove it from `limit`"),
                );
            } else {
                let mut error = unknown(name, "machine or group", "machines and groups", &names);
                if name.value.contains([':', '*', '!', '&', ',']) {
                    error = error.help("`limit` takes names; patterns go in `hosts` of a play");
                }
                errors.push(error);
            }
        }
        chosen.extend(found);
    }
    // In the order of the Machinefile.
    (machines.iter())
        .map(|machine| machine.name.clone())
        .filter(|name| chosen.contains(name))
        .collect()
}

/// Returns the machines of a group and of the groups in it.
fn machines_in(group: &str, groups: &[Group], machines: &[Machine]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::from([group]);
    let mut open = vec![group];
    while let Some(name) = open.pop() {
        if name == ALL {
            found.extend(machines.iter().map(|machine| machine.name.clone()));
        }
        found.extend(
            (machines.iter())
                .filter(|machine| implied_groups(machine).iter().any(|it| it == name))
                .map(|machine| machine.name.clone()),
        );
        for group in groups.iter().filter(|group| group.name == name) {
            found.extend(group.machines.iter().cloned());
            for child in &group.children {
                if seen.insert(child) {
                    open.push(child);
                }
            }
        }
    }
    found
}
