//! `stead port`: prints which ports of the host lead to which ports of the machines.

use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    report::{Table, say},
    session::{Detail, Session, invocation::Invocation, leftover::Leftovers},
};

use super::{
    output,
    select::{OtherProjectArgs, SelectionArgs},
};

const EXAMPLES: &str = "\
Examples:
  stead port             List the forwarded ports of all machines
  stead port web --json  Print those of web as JSON";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PortArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

pub(super) fn run(invocation: &Invocation, args: PortArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Existing)?;
    let selection = session.selection(&args.selection.into())?;
    let leftovers = Leftovers {
        selection: &selection,
        asked: false,
    };
    let machines = session.select(&selection, false)?;
    let mut rows = Vec::new();
    let survey = session.connection.survey()?;
    for target in session.targets(&survey, machines, Some(leftovers))? {
        let Some(observed) = &target.existing.observed else {
            continue;
        };
        let name = &target.wanted.machine.name;
        rows.push((name.clone(), observed.record.ssh_port, 22));
        for forward in &observed.record.spec.forwards {
            rows.push((name.clone(), forward.host, forward.guest));
        }
    }
    if invocation.style.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(machine, host, guest)| {
                serde_json::json!({ "machine": machine, "address": "127.0.0.1", "host": host, "guest": guest })
            })
            .collect();
        output::json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["MACHINE", "HOST", "GUEST"]);
    for (machine, host, guest) in rows {
        table.row([machine, format!("127.0.0.1:{host}"), guest.to_string()]);
    }
    if table.is_empty() {
        say(invocation.style, "no machine has been made yet");
    } else {
        output::data(&table.render())?;
    }
    Ok(ExitCode::SUCCESS)
}
