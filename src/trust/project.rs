//! Finds all that a project would do beyond its machines.

use std::path::PathBuf;

use crate::machinefile::Project;

use super::{
    demand::{Demand, Kind},
    error::TrustError,
    hook::of_hook,
    outside::{bridges, catalogue, host_ports, images, outside_folders, ports, variable},
    playbook::of_playbook,
    plays,
    writers::{mark_editable_by_others, owners, writes},
};

/// Returns all demands of a project. Equal demands of several machines are merged.
///
/// # Errors
/// If a file that would run cannot be read.
pub fn of_project(project: &Project) -> Result<Vec<Demand>, TrustError> {
    let mut all: Vec<Demand> = Vec::new();
    let mut add = |demand: Demand| match all.iter_mut().find(|other| other.id == demand.id) {
        Some(other) => {
            other.also_for(demand.machines);
            for at in demand.at {
                if !other.at.contains(&at) {
                    other.at.push(at);
                }
            }
        }
        None => all.push(demand),
    };
    for machine in &project.machines {
        for hook in &machine.hooks {
            of_hook(project, hook)?.into_iter().for_each(&mut add);
        }
    }
    let of_machines = (project.machines.iter()).flat_map(|machine| {
        let name = std::slice::from_ref(&machine.name);
        (machine.provisioners.iter()).map(move |it| (it, name))
    });
    let of_all = (project.provisioners.iter()).map(|it| (&it.provisioner, it.machines.as_slice()));
    for (provisioner, machines) in of_machines.chain(of_all) {
        let Some(playbook) = provisioner.kind.playbook() else {
            continue;
        };
        let here = provisioner.kind.runs_on_host();
        of_playbook(project, playbook, here, machines)?
            .into_iter()
            .for_each(&mut add);
    }
    for machine in &project.machines {
        outside_folders(project, machine).for_each(&mut add);
        images(project, machine).for_each(&mut add);
        host_ports(machine).into_iter().for_each(&mut add);
        bridges(machine).for_each(&mut add);
    }
    project
        .variables
        .iter()
        .filter_map(variable)
        .for_each(&mut add);
    catalogue(project).into_iter().for_each(&mut add);
    // These are merged already, and there may be many.
    all.extend(ports(project));
    writes(project, &all)
        .into_iter()
        .for_each(|demand| all.push(demand));
    owners(project, &mut all);
    all.sort_by_key(|demand| demand.kind);
    mark_editable_by_others(project, &mut all);
    Ok(all)
}

/// Returns the project's files and folders that decide what the host runs, without files that a playbook only copies.
///
/// # Errors
/// If one of them cannot be read.
pub fn host_runs(project: &Project) -> Result<Vec<PathBuf>, TrustError> {
    let mut all = Vec::new();
    for demand in of_project(project)? {
        if !matches!(demand.kind, Kind::Hook(_) | Kind::Playbook) {
            continue;
        }
        all.extend(demand.paths.into_iter().filter(|path| plays::obeys(path)));
        all.extend(demand.places.into_iter().filter(|it| *it != project.root));
    }
    all.sort();
    all.dedup();
    Ok(all)
}
