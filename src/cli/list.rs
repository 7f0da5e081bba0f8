//! `stead list`: lists the machines of all projects.

use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    hypervisor::qemu_of,
    machine::{Observed, Owner},
    machinefile::MACHINEFILE,
    report::{Table, clean::Shown, say, warn},
    session::{invocation::Invocation, locate::connect, rebooting::survey_all},
};

use super::{
    output,
    status::{state, state_in_words},
};

#[derive(Args)]
pub(super) struct ListArgs {}

pub(super) fn run(invocation: &Invocation, _args: ListArgs) -> Result<ExitCode, Failure> {
    let connection = connect(invocation, None)?;
    let survey = survey_all(&connection)?;
    for unreadable in &survey.unreadable {
        warn(&unreadable.error.to_string());
    }
    let mut machines = survey.machines;
    machines.sort_by(|a, b| {
        (&a.record.project, &a.record.root, &a.record.machine).cmp(&(
            &b.record.project,
            &b.record.root,
            &b.record.machine,
        ))
    });
    if invocation.style.json {
        let rows: Vec<_> = machines
            .iter()
            .map(|machine| {
                serde_json::json!({
                    "project": machine.record.project,
                    "machine": machine.record.machine,
                    "state": shown_state(machine),
                    "provisioner": machine.provisioning(),
                    "root": machine.record.root,
                    "file": machine.record.file,
                    "gone": Owner::of_record(&machine.record).is_gone(),
                    "domain": machine.identity.domain,
                    "uuid": machine.identity.uuid,
                    "box": machine.record.spec.box_name,
                    "box_digest": machine.record.spec.box_digest,
                    "cpus": machine.record.spec.cpus,
                    "memory_bytes": machine.record.spec.memory.0,
                    "ssh_port": machine.record.ssh_port,
                })
            })
            .collect();
        output::json(&serde_json::json!({
            "connect": connection.uri().uri,
            "machines": rows,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if machines.is_empty() {
        say(
            invocation.style,
            &format!("no machines on {}", connection.uri().uri),
        );
        return Ok(ExitCode::SUCCESS);
    }
    let mut lost = false;
    let mut table = Table::new(&[
        "PROJECT", "MACHINE", "STATE", "BOX", "CPUS", "MEMORY", "FOLDER",
    ]);
    for machine in &machines {
        let record = &machine.record;
        let owner = Owner::of_record(record);
        let gone = if owner.is_gone() { " (gone)" } else { "" };
        lost |= owner.is_gone();
        // The file's name is shown only where it is not the usual one.
        let place = match owner.file == MACHINEFILE {
            true => owner.root,
            false => owner.path(),
        };
        table.row([
            record.project.clone(),
            record.machine.clone(),
            state_in_words(shown_state(machine), Some(machine)),
            format!("{} {}", record.spec.box_name, record.spec.box_version),
            record.spec.cpus.to_string(),
            record.spec.memory.to_string(),
            format!("{}{gone}", place.shown()),
        ]);
    }
    output::data(&output::fitted(&table))?;
    if lost {
        say(
            invocation.style,
            "(gone): the folder has no Machinefile any longer; if the project was moved, run `stead adopt` in its new folder; `stead destroy --project FOLDER` removes the machines",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The state for the list. A machine that is off here may run under another libvirt daemon of the
/// same user.
fn shown_state(machine: &Observed) -> &'static str {
    match !machine.is_up() && qemu_of(&machine.identity.uuid).is_some() {
        true => "elsewhere",
        false => state(Some(machine)),
    }
}
