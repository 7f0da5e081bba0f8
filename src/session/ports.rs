//! Checks the ports that machines forward, before anything starts. Errors have their place in the Machinefile.

use std::net::Ipv4Addr;

use crate::{
    host::ports::{first_for_users, has_address, remedy_for_root},
    machinefile::{Machine, MachinefileError},
};

use super::Session;

/// Returns the mistakes in forwards of machines that boot.
pub fn check_ports<'a>(
    session: &Session,
    machines: impl Iterator<Item = &'a Machine>,
) -> Vec<MachinefileError> {
    // On other connections, QEMU opens the ports, from which libvirt takes all rights.
    let opens = session.connection.uri().is_session() || session.connection.uri().cable().is_some();
    let first = match opens && nix::unistd::geteuid().is_root() {
        true => None,
        false => first_for_users(),
    };
    let mut errors: Vec<(String, MachinefileError)> = Vec::new();
    for machine in machines {
        for (at, error) in refused(machine, first, &has_address) {
            // Machines of one `count` have the same lines.
            if errors.iter().all(|(other, _)| *other != at) {
                errors.push((at, error));
            }
        }
    }
    errors.into_iter().map(|(_, error)| error).collect()
}

/// Returns one error per `forward`, with its place. `first`: the lowest port that may be opened; `None` if all.
fn refused(
    machine: &Machine,
    first: Option<u16>,
    has_address: &dyn Fn(Ipv4Addr) -> bool,
) -> Vec<(String, MachinefileError)> {
    let mut errors: Vec<(String, MachinefileError)> = Vec::new();
    for forward in &machine.forwards {
        let port = forward.host_port();
        let Some(span) = machine.spans.port(port) else {
            continue;
        };
        let at = span.text();
        if errors.last().is_some_and(|(other, _)| *other == at) {
            continue;
        }
        let error = if first.is_some_and(|first| port.port < first) {
            MachinefileError::new(
                span,
                format!("only root may listen on {port}"),
                "the system would say: Permission denied",
            )
            .help(remedy_for_root(port))
        } else if !has_address(port.address) {
            MachinefileError::new(
                span,
                format!("this computer does not have the address {}", port.address),
                "nothing can listen there",
            )
            .help("`ip addr` shows its addresses; address=\"0.0.0.0\" means all of them")
        } else {
            continue;
        };
        errors.push((at, error));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinefile::{MACHINEFILE, load};

    #[test]
    fn what_this_computer_cannot_open_is_said_once_per_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(MACHINEFILE);
        let text = "project \"p\"\nmachine \"web\" {\n    box \"b\"\n    forward \"79-84\"\n    forward 8080 to=80 address=\"192.0.2.1\"\n    forward 1024\n}\n";
        std::fs::write(&file, text).unwrap();
        let project = load(&file, &|_| None).unwrap();
        let said = |first| -> Vec<String> {
            (refused(&project.machines[0], first, &|it| it.is_loopback()).iter())
                .map(|(at, error)| format!("{at}: {error}"))
                .collect()
        };
        let address =
            "Machinefile:5:13: this computer does not have the address 192.0.2.1".to_string();
        assert_eq!(said(None), std::slice::from_ref(&address));
        assert_eq!(
            said(Some(1024)),
            [
                "Machinefile:4:13: only root may listen on port 79 of 127.0.0.1".to_string(),
                address
            ]
        );
    }
}
