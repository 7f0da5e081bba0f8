//! Who else can write the files that the host runs: guests and other users.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::machinefile::{LOCAL, Project};

use super::{
    demand::{Demand, Kind},
    owner::{Caller, stranger},
    shown::{below, plain, shown, shown_folder, some},
};

/// Returns demands for folders that guests can write to, and that contain files that the host runs.
pub(super) fn writes(project: &Project, demands: &[Demand]) -> Vec<Demand> {
    let root = &project.root;
    let mut found: BTreeMap<&Path, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
    for machine in &project.machines {
        for sync in &machine.syncs {
            if sync.kind.guest_writes(sync.readonly) {
                let (machines, at) = found.entry(&sync.from).or_default();
                machines.push(&machine.name);
                at.push(&sync.at);
            }
        }
    }
    let runs: BTreeSet<PathBuf> = (project.read.iter().cloned())
        .chain(demands.iter().flat_map(|it| it.paths.iter().cloned()))
        .collect();
    let mut writes = Vec::new();
    for (folder, (machines, at)) in found {
        let mut holds: Vec<String> = (runs.iter())
            .filter(|path| path.starts_with(folder))
            .map(|path| below(path, root))
            .collect();
        if root.starts_with(folder) && !project.read.contains(&root.join(LOCAL)) {
            holds.insert(0, LOCAL.into());
        }
        for git in [folder.join(".git"), root.join(".git")] {
            if git.starts_with(folder) && git.exists() {
                holds.push(format!("{} (git runs its hooks)", below(&git, root)));
                break;
            }
        }
        if holds.is_empty() {
            // A new file there would run.
            let comes: BTreeSet<String> = (demands.iter().flat_map(|it| &it.places))
                .filter(|place| place.starts_with(folder) || folder.starts_with(place))
                .map(|place| below(place, root))
                .collect();
            holds.extend(comes);
        }
        if holds.is_empty() {
            continue;
        }
        let name = shown_folder(folder, root);
        let holds: Vec<String> = holds.iter().map(|it| shown(it)).collect();
        let verb = if machines.len() == 1 {
            "writes"
        } else {
            "write"
        };
        let said =
            |holds: String| format!("{} {verb} {name}, which holds {holds}", machines.join(", "));
        let mut demand = Demand::new(Kind::Writes, &json!(["writes", name]), said(some(&holds)))
            .whole(said(holds.join(", ")));
        demand.at = at.into_iter().map(plain).collect();
        demand.paths.push(folder.to_path_buf());
        writes.push(demand);
    }
    writes
}

/// Returns demands for files that other users can write to, if there is anything that runs.
pub(super) fn owners(project: &Project, demands: &mut Vec<Demand>) {
    if demands.is_empty() {
        return;
    }
    let me = Caller::find();
    let root = &project.root;
    let mut looked: BTreeSet<PathBuf> = BTreeSet::from([root.clone()]);
    let bound = demands
        .iter()
        .filter(|it| it.kind != Kind::Writes)
        .flat_map(|it| &it.paths);
    for path in project.read.iter().chain(bound) {
        looked.extend(
            path.ancestors()
                .take_while(|it| it.starts_with(root))
                .map(Path::to_path_buf),
        );
    }
    let mut found: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for path in looked {
        if let Ok(Some(stranger)) = stranger(&path, me) {
            found
                .entry(stranger)
                .or_default()
                .push(shown_folder(&path, root));
        }
    }
    for (stranger, names) in found {
        let words = stranger.words();
        let id = json!(["owner", words]);
        let words = match (names.len(), words.strip_prefix("belongs ")) {
            (2.., Some(rest)) => format!("belong {rest}"),
            _ => words,
        };
        let said = |names: String| format!("{names} {}", plain(&words));
        let demand =
            Demand::new(Kind::Owner, &id, said(some(&names))).whole(said(names.join(", ")));
        demands.push(demand);
    }
}

/// Marks demands whose files others can edit. The user cannot agree to later edits of them.
pub(super) fn mark_editable_by_others(project: &Project, demands: &mut [Demand]) {
    let strangers = demands.iter().any(|it| it.kind == Kind::Owner);
    let written: Vec<PathBuf> = (project.machines.iter())
        .flat_map(|machine| &machine.syncs)
        .filter(|sync| sync.kind.guest_writes(sync.readonly))
        .map(|sync| sync.from.clone())
        .collect();
    for demand in demands {
        let places = |it: &PathBuf| {
            (demand.places.iter()).any(|place| it.starts_with(place) || place.starts_with(it))
        };
        demand.others_can_edit = strangers
            || (demand.paths.iter()).any(|path| written.iter().any(|it| path.starts_with(it)))
            || written.iter().any(places);
    }
}
