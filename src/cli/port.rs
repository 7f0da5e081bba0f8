//! `stead port`: prints which ports of the host lead to which ports of the machines, and which ones do not.

use std::{net::Ipv4Addr, process::ExitCode};

use clap::Args;
use serde::Serialize;

use crate::{
    failure::Failure,
    host::ports::Protocol,
    machinefile::Forward,
    report::{Table, clean::words, say},
    session::{
        Detail, Session, hosts::useless_forwards, invocation::Invocation, leftover::Leftovers,
    },
};

use super::{
    output,
    select::{OtherProjectArgs, SelectionArgs},
};

const EXAMPLES: &str = "\
Examples:
  stead port             List the ports of all machines
  stead port web --json  Print those of web as JSON";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PortArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

#[derive(Serialize)]
struct Row {
    machine: String,
    /// Whether it is there because the machine listens on it.
    auto: bool,
    #[serde(flatten)]
    port: PortRow,
}

/// A port on which a machine listens, and which is not on this computer.
struct Unreachable {
    machine: String,
    guest: u16,
    reason: String,
}

/// A port of the host that leads to a port of the guest.
#[derive(Serialize)]
pub(super) struct PortRow {
    protocol: Protocol,
    address: Ipv4Addr,
    host: u16,
    guest: u16,
    /// The port of the Machinefile, which was in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead_of: Option<u16>,
}

impl PortRow {
    pub(super) fn of(forward: &Forward) -> Self {
        PortRow {
            protocol: forward.protocol,
            address: forward.address,
            host: forward.host,
            guest: forward.guest,
            instead_of: forward.instead_of,
        }
    }
}

pub(super) fn run(invocation: &Invocation, args: PortArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Existing)?;
    let selection = session.selection(&args.selection.into())?;
    let leftovers = Leftovers {
        selection: &selection,
        asked: false,
    };
    let machines = session.select(&selection, false)?;
    let mut rows: Vec<Row> = Vec::new();
    let survey = session.connection.survey()?;
    let guests = session.guest_ports(&survey)?;
    let (mut unreachable, mut useless) = (Vec::new(), Vec::new());
    for target in session.targets(&survey, machines, Some(leftovers))? {
        let Some(observed) = &target.existing.observed else {
            continue;
        };
        let name = &target.wanted.machine.name;
        let mut row = |auto: bool, forward: &Forward| {
            rows.push(Row {
                machine: name.clone(),
                auto,
                port: PortRow::of(forward),
            });
        };
        row(false, &Forward::tcp(observed.record.ssh_port, 22));
        for forward in &observed.record.spec.forwards {
            row(false, forward);
        }
        let Some(ports) = guests.get(name) else {
            continue;
        };
        let lines = useless_forwards(&observed.record.spec.forwards, ports);
        useless.extend(lines.into_iter().map(|line| format!("{name}: {line}")));
        for port in &ports.ports {
            for address in &port.addresses {
                let own = Forward {
                    address: *address,
                    ..Forward::tcp(port.port, port.port)
                };
                row(true, &own);
            }
            if let Some(why) = &port.missing {
                unreachable.push(Unreachable {
                    machine: name.clone(),
                    guest: port.port,
                    reason: why.clone(),
                });
            }
        }
    }
    if invocation.style.json {
        output::json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let corrected = rows.iter().any(|row| row.port.instead_of.is_some());
    let mut columns = vec!["MACHINE", "HOST", "GUEST"];
    columns.extend(corrected.then_some("INSTEAD OF"));
    let mut table = Table::new(&columns);
    for Row { machine, port, .. } in rows {
        let guest = match port.protocol {
            Protocol::Tcp => port.guest.to_string(),
            Protocol::Udp => format!("{}/udp", port.guest),
        };
        let mut cells = vec![machine, format!("{}:{}", port.address, port.host), guest];
        let instead_of = port.instead_of.map_or("-".into(), |it| it.to_string());
        cells.extend(corrected.then_some(instead_of));
        table.row(cells);
    }
    if table.is_empty() {
        say(invocation.style, "no machine has been made yet");
    } else {
        let mut text = output::fitted(&table);
        let missing = unreachable.iter().map(|it| {
            let said = words(&it.reason);
            let Unreachable { machine, guest, .. } = it;
            format!("{machine}: port {guest} is not on this computer: {said}")
        });
        for (n, line) in missing.chain(useless).enumerate() {
            let gap = if n == 0 { "\n" } else { "" };
            text.push_str(&format!("{gap}{line}\n"));
        }
        output::data(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}
