//! `stead url`: prints what to open to see what a machine serves.

use std::{net::Ipv4Addr, process::ExitCode};

use clap::Args;

use crate::{
    failure::Failure,
    host::ports::Protocol,
    session::{Detail, Session, hosts::is_known, invocation::Invocation},
};

use super::{output, select::OtherProjectArgs};

const EXAMPLES: &str = "\
Examples:
  stead url web       Print the address of its port 80, or of the only port that it has
  stead url web 8080  Print that of port 8080";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct UrlArgs {
    /// Machine [default: the project's only machine]
    #[arg(value_name = "MACHINE")]
    machine: Option<String>,
    /// Port in the machine [default: 80, or the only one]
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

/// Ports on which servers speak TLS, by custom.
const TLS: [u16; 2] = [443, 8443];

pub(super) fn run(invocation: &Invocation, args: UrlArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Existing)?;
    let machine = session.the_machine(args.machine.as_deref())?;
    session.known(&machine)?;
    let survey = session.connection.survey()?;
    let observed = (session.owner().find(&survey.machines, &machine))
        .filter(|observed| observed.is_up())
        .ok_or_else(|| {
            Failure::error(
                format!("machine {machine} is not running"),
                format!("`stead up {machine}` starts it"),
            )
        })?;
    let ports = session
        .guest_ports(&survey)?
        .remove(&machine)
        .unwrap_or_default();
    let forwards = &observed.record.spec.forwards;
    let wanted = args.port.unwrap_or_else(|| {
        let mut all: Vec<u16> = forwards.iter().map(|forward| forward.guest).collect();
        all.extend(ports.ports.iter().map(|port| port.port));
        all.dedup();
        match all[..] {
            [only] => only,
            _ => 80,
        }
    });
    let scheme = match TLS.contains(&wanted) {
        true => "https",
        false => "http",
    };
    let url = |host: &str, port: u16| match (scheme, port) {
        ("http", 80) | ("https", 443) => format!("{scheme}://{host}"),
        _ => format!("{scheme}://{host}:{port}"),
    };
    let own = ports.ports.iter().find(|port| port.port == wanted);
    let found = if let Some(address) = own.and_then(|port| port.addresses.first()) {
        let names = session.host_names(&survey);
        let name = (names.iter().find(|it| it.machine == machine))
            .and_then(|it| it.names.first())
            .filter(|name| is_known(name, *address));
        match name {
            Some(name) => url(name, wanted),
            None => url(&address.to_string(), wanted),
        }
    } else if let Some(forward) = forwards
        .iter()
        .find(|it| it.guest == wanted && it.protocol == Protocol::Tcp)
    {
        let address = match forward.address {
            Ipv4Addr::UNSPECIFIED => Ipv4Addr::LOCALHOST,
            address => address,
        };
        url(&address.to_string(), forward.host)
    } else {
        return Err(nowhere(&machine, wanted, &ports));
    };
    output::data(&format!("{found}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Why there is no address for a port.
fn nowhere(machine: &str, port: u16, ports: &crate::network::GuestPorts) -> Failure {
    let listed = ports.ports.iter().find(|it| it.port == port);
    let why = match (listed, ports.known) {
        (Some(listed), _) => listed
            .missing
            .clone()
            .unwrap_or_else(|| "it has just opened".into()),
        (None, true) => "nothing listens on it there".into(),
        (None, false) => "the machine does not say yet on which ports it listens".into(),
    };
    // Another program of this computer may have the port itself.
    let is_free = port >= 1024 && listed.is_none_or(|it| it.missing.is_none());
    let forward = match is_free {
        true => port,
        false => port.checked_add(8000).unwrap_or(8000),
    };
    Failure::error(
        format!("port {port} of {machine} is not on this computer: {why}"),
        format!(
            "`stead port {machine}` lists its ports; `forward {forward} to={port}` in the Machinefile leads to this one"
        ),
    )
}
