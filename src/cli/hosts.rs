//! `stead hosts`: the names of the machines, for /etc/hosts.

use std::{net::Ipv4Addr, process::ExitCode};

use clap::Args;

use crate::{
    failure::Failure,
    host::ports::has_address,
    report::{counted, say},
    session::{Detail, Session, invocation::Invocation},
};

use super::{output, select::OtherProjectArgs};

const EXAMPLES: &str = "\
Examples:
  stead hosts            Print the lines
  stead hosts --install  Put them into /etc/hosts
  stead hosts --remove   Take them out again";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct HostsArgs {
    /// Put the lines into /etc/hosts, through sudo
    #[arg(long, conflicts_with = "remove")]
    install: bool,
    /// Take the project's lines out of /etc/hosts, and its addresses off this computer
    #[arg(long)]
    remove: bool,
    /// Also give this computer the addresses that machines have on networks, until it boots again
    #[arg(long, requires = "install")]
    addresses: bool,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

pub(super) fn run(invocation: &Invocation, args: HostsArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Shown)?;
    let survey = session.connection.survey()?;
    let machines = session.host_names(&survey);
    let on_networks: Vec<Ipv4Addr> = (machines.iter())
        .flat_map(|machine| machine.networks.iter().copied())
        .collect();
    if args.remove {
        let done = session.remove_names(&survey, &on_networks)?;
        say(
            invocation.style,
            match done {
                true => "the project's names are no longer in /etc/hosts",
                false => "the project has no names in /etc/hosts",
            },
        );
        return Ok(ExitCode::SUCCESS);
    }
    if machines.is_empty() && matches!(session.detail, Detail::Recorded { .. }) {
        return Err(Failure::error(
            "the names of the machines are not known, because the Machinefile cannot be used",
            "`stead validate` shows what is wrong with it; `stead port` shows the machines' addresses",
        ));
    }
    if invocation.style.json {
        let rows: Vec<_> = (machines.iter())
            .map(|it| {
                serde_json::json!({
                    "machine": it.machine,
                    "address": it.address,
                    "names": it.names,
                    "networks": it.networks,
                })
            })
            .collect();
        output::json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    if machines.is_empty() {
        return Err(Failure::error(
            "no machine of the project is on a network of stead's, so none has an address on this computer",
            "declare `network \"default\"` in the Machinefile, or use `forward`",
        ));
    }
    let lines: String = (machines.iter())
        .map(|machine| format!("{} {}\n", machine.address, machine.names.join(" ")))
        .collect();
    if !args.install {
        output::data(&lines)?;
        return Ok(ExitCode::SUCCESS);
    }
    let wanted: Vec<Ipv4Addr> = (on_networks.into_iter())
        .filter(|address| args.addresses && !has_address(*address))
        .collect();
    session.install_names(&survey, &lines, &wanted)?;
    say(
        invocation.style,
        &format!(
            "/etc/hosts has the names of {}",
            counted(machines.len(), "machine")
        ),
    );
    Ok(ExitCode::SUCCESS)
}
