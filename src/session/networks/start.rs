//! Connects machines before they boot, or go on.

use crate::{
    failure::Failure,
    machine::{Observed, Record, Spec},
    machinefile::Forward,
    network::{WayIn, Wiring},
    plan::{Plan, WantedMachine},
    report::{Event, EventKind, warn},
};

use crate::session::Operation;

use super::{
    check::{check_way_out, say_without_way_out, without},
    link_changes::link_changes,
    process::{lead_as_recorded, serve},
    same_address::{other_at, shared},
};

/// Runs before machines boot: connects those that the plan leaves running or boots. `wiring`: as [`super::check`] returned
/// it.
pub(in crate::session) fn start(
    operation: &mut Operation,
    plan: &Plan,
    wiring: Option<Wiring>,
) -> Result<(), Failure> {
    let session = &operation.session;
    let boots = plan.boots();
    let Some(wiring) = wiring else {
        return without(operation, &boots);
    };
    say_without_way_out(operation, &boots);
    let has_card = |name: &str| {
        let mut cards = wiring.networks.iter().flat_map(|network| &network.cards);
        cards.any(|card| card.machine == name)
    };
    let restores = plan.restores();
    let is_needed = (boots.iter().chain(&restores)).any(|name| has_card(name))
        || session.is_networked(&operation.survey);
    if !is_needed {
        return Ok(());
    }
    check_way_out(session, &wiring, &boots)?;
    let changes = link_changes(session);
    operation.network = serve(session, &wiring)?;
    for guest in wiring
        .guests
        .iter()
        .filter(|it| boots.contains(&it.machine))
    {
        if let Some(other) = other_at(session, &operation.survey, guest.host_address) {
            let message = shared(guest.host_address, other);
            let event = Event::now(&guest.machine, EventKind::Notice { message });
            operation.reporter.event(&event);
        }
    }
    for change in changes {
        let message = format!("links: {change}");
        (operation.reporter).event(&Event::now("", EventKind::Notice { message }));
    }
    Ok(())
}

/// Closes the ports that machines which run are to lose, so that other machines can have them in the same `up`. Returns
/// whether there are any.
pub(in crate::session) fn give_up_ports(
    operation: &Operation,
    plan: &Plan,
) -> Result<bool, Failure> {
    let Some(network) = &operation.network else {
        return Ok(false);
    };
    let owner = operation.session.owner();
    let mut gave_up = false;
    for machine in &plan.machines {
        let observed = owner.find(&operation.survey.machines, &machine.machine);
        if let Some(observed) = observed
            && let Some(spec) = plan.tunes(&machine.machine)
            && let Some(way) = kept(&observed.record, spec)
        {
            network.lead(way).map_err(Failure::from)?;
            gave_up = true;
        }
    }
    Ok(gave_up)
}

/// Returns the ways into a machine that it keeps; `None` if it keeps all.
fn kept(record: &Record, next: &Spec) -> Option<WayIn> {
    let has = record.way_in()?;
    let is_kept = |forward: &&Forward| {
        let declared = forward.as_declared();
        (next.forwards.iter()).any(|it| it.as_declared().is_like(&declared))
    };
    let mut staying = record.clone();
    staying.spec.forwards = (record.spec.forwards.iter().filter(is_kept).cloned()).collect();
    staying.way_in().filter(|way| *way != has)
}

/// Runs after an `up` that did not do all that it was to do: machines have the ports again that they gave up and that
/// nobody has taken.
pub(in crate::session) fn take_back_ports(operation: &Operation) {
    if let Err(failure) = lead_as_recorded(&operation.session) {
        warn(&format!(
            "ports that machines gave up are closed: {}",
            failure.message()
        ));
    }
}

/// Runs before a `halt` or `restart`: a machine that is saved goes on for a moment, to shut down.
pub(in crate::session) fn start_saved(
    operation: &mut Operation,
    plan: &Plan,
) -> Result<(), Failure> {
    let session = &operation.session;
    let restores = plan.restores();
    let is_saved = |observed: &&Observed| restores.contains(&observed.record.machine);
    let mut saved = operation.survey.machines.iter().filter(is_saved);
    if saved.any(|it| session.owner().owns(&it.record) && it.record.spec.is_wired()) {
        operation.network = serve(session, &session.wiring(&operation.survey, None))?;
    }
    Ok(())
}

/// Runs before machines of `stead run` boot, for all of them.
pub(in crate::session) fn start_runs(operation: &mut Operation) -> Result<(), Failure> {
    let session = &operation.session;
    let runs: Vec<&WantedMachine> = operation.targets.iter().map(|it| &it.wanted).collect();
    let is_wired = |run: &&&WantedMachine| run.spec.as_ref().is_some_and(Spec::is_wired);
    if runs.iter().any(|run| is_wired(&run)) {
        let wiring = session.wiring_with(&operation.survey, None, &runs);
        let network = serve(session, &wiring)?;
        let names: Vec<String> = (runs.iter().map(|run| run.machine.name.clone())).collect();
        say_without_way_out(operation, &names);
        operation.network = network;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::ports::HostPort, machine::sample_record, network::Mac};

    fn record(forwards: Vec<Forward>) -> Record {
        let mut record = sample_record();
        record.spec.forwards = forwards;
        record.spec.login_card = Some(Mac([0x52, 0x54, 0, 0, 0, 1]));
        record
    }

    #[test]
    fn a_machine_gives_up_the_ports_that_it_is_to_lose_and_keeps_the_others() {
        let moved = Forward {
            auto_correct: true,
            ..Forward::tcp(9000, 90)
        };
        let has = record(vec![
            Forward::tcp(8080, 80),
            moved.moved_to(9001),
            Forward::tcp(5432, 5432),
        ]);
        let ports = |next: Vec<Forward>| {
            let next = Spec {
                forwards: next,
                ..has.spec.clone()
            };
            let ways = kept(&has, &next)?.forwards;
            Some(ways.iter().map(|it| it.host).collect::<Vec<HostPort>>())
        };
        let all = [22022, 9001, 5432].map(HostPort::local).to_vec();
        // Another machine is to have 8080; one that was moved keeps its port.
        assert_eq!(
            ports(vec![
                Forward::tcp(7070, 80),
                moved.clone(),
                Forward::tcp(5432, 5432)
            ]),
            Some(all)
        );
        let more = [
            Forward::tcp(8080, 80),
            moved,
            Forward::tcp(5432, 5432),
            Forward::tcp(1234, 1),
        ];
        assert_eq!(ports(more.to_vec()), None);
        // QEMU's own network keeps its ports until the machine stops.
        let mut qemus = has.clone();
        qemus.spec.login_card = None;
        assert_eq!(
            kept(
                &qemus,
                &Spec {
                    forwards: Vec::new(),
                    ..qemus.spec.clone()
                }
            ),
            None
        );
    }
}
