//! The ports of the host that a machine listens on: chooses them, and finds out why QEMU could not open one.

use crate::{
    host::ports::{HostPort, HostPorts, Probe, first_for_users},
    machine::Record,
    machinefile::{Forward, ForwardRange},
    plan::WantedMachine,
    report::clean::Shown,
};

use super::{context::Context, error::ApplyError};

/// Returns the ports of other machines, running or not, and all that the project's machines are to have.
pub(super) fn taken(
    context: &Context,
    wanted: &WantedMachine,
) -> Result<HostPorts<()>, ApplyError> {
    let mut taken = HostPorts::default();
    for other in context.connection.survey()?.machines {
        if other.identity != wanted.identity {
            for port in other.record.host_ports() {
                taken.insert(port, ());
            }
        }
    }
    let of_project = context.project.machines.iter();
    for machine in of_project.chain(std::iter::once(&wanted.machine)) {
        for forward in &machine.forwards {
            taken.insert(forward.host_port(), ());
        }
    }
    Ok(taken)
}

/// Returns the forwards with the ports that are free now, and adds them to `taken`.
pub(super) fn choose(
    context: &Context,
    wanted: &WantedMachine,
    forwards: &[Forward],
    taken: &mut HostPorts<()>,
) -> Result<Vec<Forward>, ApplyError> {
    let mut chosen = Vec::new();
    for forward in forwards {
        // A port that was in use at another boot may be free at this one.
        let mut forward = forward.as_declared();
        let port = forward.host_port();
        match port.probe() {
            Probe::Taken if forward.auto_correct => {
                let next = port
                    .next_free(taken)
                    .ok_or(ApplyError::NoPortNear { port })?;
                forward = forward.moved_to(next.port);
            }
            probe => usable(context, wanted, &forward, probe)?,
        }
        taken.insert(forward.host_port(), ());
        chosen.push(forward);
    }
    Ok(chosen)
}

/// As [`choose`], for a machine that runs: forwards that it has keep their ports.
pub(super) fn choose_more(
    context: &Context,
    wanted: &WantedMachine,
    has: &[Forward],
    forwards: &[Forward],
    taken: &mut HostPorts<()>,
) -> Result<Vec<Forward>, ApplyError> {
    let mut chosen = Vec::new();
    for forward in forwards {
        let same = |it: &&Forward| it.as_declared().is_like(&forward.as_declared());
        match has.iter().find(same) {
            Some(has) => {
                taken.insert(has.host_port(), ());
                chosen.push(Forward {
                    auto_correct: forward.auto_correct,
                    ..has.clone()
                });
            }
            // The machine itself has the port until then.
            None if overlaps(has, forward) => {
                taken.insert(forward.host_port(), ());
                chosen.push(forward.as_declared());
            }
            None => chosen.extend(choose(
                context,
                wanted,
                std::slice::from_ref(forward),
                taken,
            )?),
        }
    }
    Ok(chosen)
}

fn overlaps(has: &[Forward], forward: &Forward) -> bool {
    let mut own = HostPorts::default();
    has.iter().for_each(|it| own.insert(it.host_port(), ()));
    own.overlapping(forward.host_port()).is_some()
}

fn usable(
    context: &Context,
    wanted: &WantedMachine,
    forward: &Forward,
    probe: Probe,
) -> Result<(), ApplyError> {
    let port = forward.host_port();
    match probe {
        // libvirt of the system takes all rights from QEMU, even if root starts it.
        Probe::Free
            if !context.connection.uri().is_session() && !is_led(wanted) && is_for_root(port) =>
        {
            Err(ApplyError::PortForRoot { port })
        }
        Probe::Free => Ok(()),
        Probe::Taken => Err(port_taken(context, forward, wanted)),
        Probe::ForRoot => Err(ApplyError::PortForRoot { port }),
        Probe::NoAddress => Err(ApplyError::NoHostAddress { port }),
        Probe::Refused(code) => Err(ApplyError::PortRefused {
            port,
            said: std::io::Error::from_raw_os_error(code),
        }),
    }
}

/// Whether stead-net opens its ports, and not QEMU.
fn is_led(wanted: &WantedMachine) -> bool {
    (wanted.spec.as_ref()).is_some_and(|spec| spec.login_card.is_some())
}

fn is_for_root(port: HostPort) -> bool {
    first_for_users().is_some_and(|first| port.port < first)
}

fn port_taken(context: &Context, forward: &Forward, wanted: &WantedMachine) -> ApplyError {
    let port = forward.host_port();
    let overlaps = |record: &Record| {
        let mut theirs = HostPorts::default();
        record.host_ports().for_each(|it| theirs.insert(it, ()));
        theirs.overlapping(port).is_some()
    };
    let by = context
        .connection
        .survey()
        .unwrap_or_default()
        .machines
        .into_iter()
        .filter(|other| other.is_up() && other.identity != wanted.identity)
        .find(|other| overlaps(&other.record))
        .map(|other| {
            format!(
                " by machine {} of project {} ({})",
                other.record.machine,
                other.record.project,
                other.record.root.shown()
            )
        })
        .unwrap_or_default();
    ApplyError::PortTaken {
        by,
        or_else: match forward.auto_correct {
            // It has the ports that it was saved with.
            true => "",
            false => {
                ", forward another port, or write auto-correct=#true there, which uses the next free one"
            }
        },
        port,
    }
}

/// QEMU could not listen on one of its ports when the machine was to start. Returns whether that may have been a
/// forward that can have another one.
///
/// # Errors
/// A forward that cannot have another port.
pub(super) fn can_be_corrected(
    context: &Context,
    wanted: &WantedMachine,
    forwards: &[Forward],
) -> Result<bool, ApplyError> {
    let mut found = false;
    for forward in forwards {
        match forward.host_port().probe() {
            Probe::Taken if forward.auto_correct => found = true,
            probe => usable(context, wanted, forward, probe)?,
        }
    }
    Ok(found)
}

/// Returns the error for one of a machine's ports that the network cannot open.
pub(super) fn unopened(
    context: &Context,
    wanted: &WantedMachine,
    record: &Record,
    port: HostPort,
) -> ApplyError {
    let forward = (record.spec.forwards.iter()).find(|it| it.host_port() == port);
    let error = forward.and_then(|it| usable(context, wanted, it, port.probe()).err());
    error.unwrap_or(ApplyError::SshPortTaken { port: port.port })
}

/// Returns the error for a port that was in use when QEMU started, and that cannot be changed: that of a
/// `forward`, or SSH's.
pub(super) fn taken_port(context: &Context, record: &Record, wanted: &WantedMachine) -> ApplyError {
    let unusable =
        record.spec.forwards.iter().find_map(|forward| {
            usable(context, wanted, forward, forward.host_port().probe()).err()
        });
    unusable.unwrap_or(ApplyError::SshPortTaken {
        port: record.ssh_port,
    })
}

/// Returns a line for each forward that has another port than the Machinefile's.
pub(super) fn corrections(record: &Record) -> Vec<String> {
    (ForwardRange::all_of(&record.spec.forwards).iter())
        .filter_map(ForwardRange::correction)
        .collect()
}
