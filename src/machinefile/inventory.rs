//! Checks groups, and the provisioners of the whole project.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    ansible::{ALL, Group, group_name, label_group},
    decode::{GroupDraft, ProjectProvisionDraft},
    diagnostics::{Errors, MachinefileError, Spanned},
    model::{Machine, ProjectProvisioner, Provisioner, ProvisionerKind},
};
use crate::host::names::{nearest, one_of};

/// Merges groups of one name (Machinefile.local adds to those of the Machinefile), and resolves the names of their
/// machines.
pub(super) fn groups(
    drafts: Vec<GroupDraft>,
    machines: &[Machine],
    errors: &mut Errors,
) -> Vec<Group> {
    let known = known_groups(&drafts, machines);
    let mut groups: Vec<Group> = Vec::new();
    let mut edges: Vec<(String, Spanned<String>)> = Vec::new();
    for draft in drafts {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for name in &draft.machines {
            if !seen.insert(name.value.as_str()) {
                continue;
            }
            if errors.is_full() {
                errors.count();
                continue;
            }
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
fn cycles(edges: &[(String, Spanned<String>)], errors: &mut Errors) {
    let mut children: HashMap<&str, Vec<&Spanned<String>>> = HashMap::new();
    for (parent, child) in edges {
        children.entry(parent).or_default().push(child);
    }
    // Groups that were reached, and whether one is still on the path.
    let mut open: HashMap<&str, bool> = HashMap::new();
    for (start, _) in edges {
        if open.contains_key(start.as_str()) {
            continue;
        }
        open.insert(start, true);
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        while let Some((parent, next)) = path.last_mut() {
            let parent = *parent;
            let Some(child) = children.get(parent).and_then(|all| all.get(*next)) else {
                open.insert(parent, false);
                path.pop();
                continue;
            };
            *next += 1;
            match open.get(child.value.as_str()) {
                None => {
                    open.insert(&child.value, true);
                    path.push((&child.value, 0));
                }
                Some(false) => {}
                Some(true) => errors.push(
                    MachinefileError::new(
                        &child.span,
                        if parent == child.value {
                            format!("group {parent:?} contains itself")
                        } else {
                            format!("groups {parent:?} and {:?} contain each other", child.value)
                        },
                        "closes the cycle",
                    )
                    .help("remove one of these `children`"),
                ),
            }
        }
    }
}

/// Checks the provisioners of the whole project, and finds the machines of each.
pub(super) fn provisioners(
    drafts: Vec<ProjectProvisionDraft>,
    groups: &[Group],
    machines: &[Machine],
    errors: &mut Errors,
) -> Vec<ProjectProvisioner> {
    let mut found: Vec<ProjectProvisioner> = Vec::new();
    let mut names = HashSet::new();
    let mut members = None;
    for draft in drafts {
        if !names.insert(draft.name.value.clone()) {
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
            let members = members.get_or_insert_with(|| Members::of(groups, machines));
            limited(&draft.limit, members, groups, machines, errors)
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
    members: &Members<'_>,
    groups: &[Group],
    machines: &[Machine],
    errors: &mut Errors,
) -> Vec<String> {
    let mut chosen = BTreeSet::new();
    let mut seen = HashSet::new();
    for name in limit {
        if !seen.insert(name.value.as_str()) {
            continue;
        }
        let found: BTreeSet<String> = (named(&name.value, machines).into_iter())
            .chain(members.within(&name.value))
            .collect();
        if found.is_empty() {
            if errors.is_full() {
                errors.count();
                continue;
            }
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

/// Which machines and groups each group has.
struct Members<'a> {
    /// The machines that a label, `count` or a provisioner puts into a group.
    implied: HashMap<String, Vec<&'a str>>,
    groups: HashMap<&'a str, &'a Group>,
}

impl<'a> Members<'a> {
    fn of(groups: &'a [Group], machines: &'a [Machine]) -> Self {
        let mut implied: HashMap<String, Vec<&str>> = HashMap::new();
        for machine in machines {
            for group in implied_groups(machine) {
                implied.entry(group).or_default().push(&machine.name);
            }
            implied.entry(ALL.into()).or_default().push(&machine.name);
        }
        Members {
            implied,
            groups: (groups.iter())
                .map(|group| (group.name.as_str(), group))
                .collect(),
        }
    }

    /// Returns the machines of a group and of the groups in it.
    fn within(&self, group: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut seen = HashSet::from([group]);
        let mut open = vec![group];
        while let Some(name) = open.pop() {
            let implied = self.implied.get(name).into_iter().flatten();
            found.extend(implied.map(ToString::to_string));
            if let Some(group) = self.groups.get(name) {
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
}
