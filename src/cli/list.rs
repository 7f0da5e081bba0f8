use std::process::ExitCode;

use clap::Args;

use crate::report::Table;

use super::{Failure, Global, output, session::connect, status::state};

#[derive(Args)]
pub struct ListArgs {}

pub fn run(global: &Global, _args: ListArgs) -> Result<ExitCode, Failure> {
    let connection = connect(global, None)?;
    let survey = connection.survey()?;
    for unreadable in &survey.unreadable {
        output::warn(&unreadable.error.to_string());
    }
    let mut machines = survey.machines;
    machines.sort_by(|a, b| {
        (&a.record.project, &a.record.root, &a.record.machine).cmp(&(
            &b.record.project,
            &b.record.root,
            &b.record.machine,
        ))
    });
    if global.json {
        let rows: Vec<_> = machines
            .iter()
            .map(|machine| {
                serde_json::json!({
                    "project": machine.record.project,
                    "machine": machine.record.machine,
                    "state": state(Some(machine)),
                    "root": machine.record.root,
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
        output::say(global, &format!("no machines on {}", connection.uri().uri));
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&[
        "PROJECT", "MACHINE", "STATE", "BOX", "CPUS", "MEMORY", "FOLDER",
    ]);
    for machine in &machines {
        let record = &machine.record;
        let gone = if record.root.exists() { "" } else { " (gone)" };
        table.row([
            record.project.clone(),
            record.machine.clone(),
            state(Some(machine)).to_string(),
            format!("{} {}", record.spec.box_name, record.spec.box_version),
            record.spec.cpus.to_string(),
            record.spec.memory.to_string(),
            format!("{}{gone}", record.root.display()),
        ]);
    }
    output::data(&table.render())?;
    Ok(ExitCode::SUCCESS)
}
