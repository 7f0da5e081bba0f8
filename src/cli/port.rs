use std::process::ExitCode;

use clap::Args;

use crate::report::Table;

use super::{
    Failure, Global,
    belonging::Elsewhere,
    leftover::Leftovers,
    output,
    select::Selection,
    session::{Looks, Session},
};

#[derive(Args)]
pub struct PortArgs {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    elsewhere: Elsewhere,
}

pub fn run(global: &Global, args: PortArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(global, &args.elsewhere, Looks::There)?;
    let selection = session.selection(&args.selection)?;
    let leftovers = Leftovers {
        selection: &selection,
        asked: false,
    };
    let machines = session.select(&selection, false)?;
    let mut rows = Vec::new();
    let survey = session.connection.survey()?;
    for subject in session.subjects(&survey, machines, Some(leftovers))? {
        let Some(observed) = &subject.existing.observed else {
            continue;
        };
        let name = &subject.wanted.machine.name;
        rows.push((name.clone(), observed.record.ssh_port, 22));
        for forward in &observed.record.spec.forwards {
            rows.push((name.clone(), forward.host, forward.guest));
        }
    }
    if global.json {
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
        output::say(global, "no machine has been made yet");
    } else {
        output::data(&table.render())?;
    }
    Ok(ExitCode::SUCCESS)
}
