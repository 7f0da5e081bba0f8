//! Admission: checks that the host can give what machines ask for, before anything starts.

use crate::{
    apply,
    failure::Failure,
    host::lock::{Lock, LockName, own_holder},
    machine::Spec,
    machinefile::{Accel, Machine, MachinefileError, MachinefileErrors, Project},
    plan::{MachinePlan, PhaseKept, Plan, Step},
    report::{Event, EventKind, clean::Shown},
    resources::{
        Abilities, Capacity, HostShare, StartRequest, admit as admit_by_sums, check, ledger,
        most_used, reserved, reserved_by_wanted,
    },
};

use super::{
    Session, bridges::check_bridges, firmware::check_firmware, long_sockets::check_sockets,
    operation::Operation, ports::check_ports, target::Target,
};

/// Checks what the connection and the host can give to machines that start or change. Errors have
/// their place in the Machinefile.
pub fn check_abilities(session: &Session, targets: &[Target], plan: &Plan) -> Result<(), Failure> {
    let boots = (plan.machines.iter())
        .filter(|machine| machine.steps.iter().any(|it| matches!(it, Step::Start)))
        .filter_map(|machine| target(targets, &machine.machine));
    let boots: Vec<&Target> = boots.collect();
    check_reach(session, boots.iter().map(|it| &it.wanted.machine))?;
    check_firmware(session, boots.iter().copied())?;
    let concerned = plan
        .machines
        .iter()
        .filter(|machine| starts(machine) || changes(machine))
        .filter_map(|machine| target(targets, &machine.machine));
    check_machines(session, concerned)
}

/// Refuses sockets, ports and bridges that this computer cannot give to machines that boot. This needs no agreement, so a command
/// that asks for one calls it first.
pub fn check_reach<'a>(
    session: &Session,
    machines: impl Iterator<Item = &'a Machine> + Clone,
) -> Result<(), Failure> {
    if machines.clone().next().is_some() {
        check_sockets(session)?;
    }
    refuse(check_ports(session, machines.clone()))?;
    refuse(check_bridges(session, machines)?)
}

/// Refuses what `up` would refuse of these machines, before `restart` halts them.
pub fn check_before_halt(operation: &Operation) -> Result<(), Failure> {
    if let Some(failure) = (operation.targets.iter()).find_map(|it| it.no_share.as_ref()) {
        return Err(failure.clone());
    }
    check_firmware(&operation.session, operation.targets.iter())?;
    check_machines(&operation.session, operation.targets.iter())?;
    let asked: Vec<StartRequest> = operation.targets.iter().map(asked).collect();
    let names: Vec<&str> = asked.iter().map(|asked| asked.machine.as_str()).collect();
    // Their reservations are free once they are off.
    let freed = operation
        .targets
        .iter()
        .filter_map(|target| target.existing.observed.as_ref())
        .filter(|observed| observed.is_up())
        .map(|observed| reserved(&observed.record.spec).1.0)
        .sum();
    if asked
        .iter()
        .any(|asked| asked.cpus > 0 || asked.memory.0 > 0)
    {
        sums(operation, &asked, &names, freed)?;
    }
    Ok(())
}

fn check_machines<'a>(
    session: &Session,
    targets: impl Iterator<Item = &'a Target>,
) -> Result<(), Failure> {
    let concerned: Vec<&Target> = targets
        .filter(|target| target.wanted.machine.tuning != Default::default())
        .collect();
    if concerned.is_empty() {
        return Ok(());
    }
    let accel = |target: &Target| {
        let machine = &target.wanted.machine;
        let spec = target.wanted.spec.as_ref().map(|spec| spec.accel);
        spec.or(machine.accel).unwrap_or(Accel::Tcg)
    };
    let kinds: Vec<Accel> = concerned
        .iter()
        .filter(|target| target.wanted.machine.tuning.cpu.model.is_some())
        .map(|target| accel(target))
        .collect();
    let mut abilities = Abilities::observe(&session.connection, &kinds)?;
    for observed in concerned
        .iter()
        .filter_map(|target| target.existing.observed.as_ref())
        .filter(|observed| observed.is_up())
    {
        // A machine that has huge pages already needs no others.
        let spec = &observed.record.spec;
        if let Some(size) = spec.tuning.memory.hugepages
            && let Some(free) = abilities.hugepages.get_mut(&size.0)
        {
            *free += spec.memory.0.div_ceil(size.0);
        }
    }
    let errors = concerned
        .iter()
        .flat_map(|target| check(&target.wanted.machine, accel(target), &abilities))
        .collect();
    refuse(errors)
}

fn refuse(errors: Vec<MachinefileError>) -> Result<(), Failure> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Failure::Machinefile(Box::new(MachinefileErrors::new(
            errors,
        ))))
    }
}

/// Admits what the plan starts, or refuses all of it. Reservations are recorded in libvirt before
/// this returns, so that no other command can count on the same CPUs and memory.
pub fn admit(operation: &Operation, plan: &Plan) -> Result<(), Failure> {
    let asked: Vec<StartRequest> = plan
        .machines
        .iter()
        .filter(|machine| starts(machine))
        .filter_map(|machine| target(&operation.targets, &machine.machine))
        .map(asked)
        .collect();
    if asked.is_empty() {
        return Ok(());
    }
    let claims = plan.machines.iter().any(|machine| {
        starts(machine)
            && target(&operation.targets, &machine.machine)
                .is_some_and(|target| target.wanted.machine.tuning.reserves())
    });
    let _held = match claims {
        true => Some(hold(operation)?),
        false => None,
    };
    let names: Vec<&str> = asked.iter().map(|asked| asked.machine.as_str()).collect();
    if let Some(warning) = sums(operation, &asked, &names, 0)? {
        operation.reporter.event(&Event::now(
            "",
            EventKind::Notice {
                message: format!("warning: {warning}"),
            },
        ));
    }
    if claims {
        claim(operation, plan)?;
    }
    Ok(())
}

/// Returns a warning, or fails. `names` are the machines of the project that will start; only what
/// is asked for them counts. `freed` is memory that will be free by then, in bytes.
fn sums(
    operation: &Operation,
    asked: &[StartRequest],
    names: &[&str],
    freed: u64,
) -> Result<Option<String>, Failure> {
    let (mut host, kept) = host_and_kept(Some(&operation.session.project))?;
    host.available.0 += freed;
    let survey = operation.session.connection.survey()?;
    let others: Vec<_> = ledger(&survey.machines)
        .into_iter()
        .filter(|holding| {
            !(operation.targets.iter()).any(|target| {
                names.contains(&target.wanted.machine.name.as_str())
                    && target.wanted.identity == holding.identity
            })
        })
        .collect();
    admit_by_sums(asked, &others, &host, &kept)
        .map_err(|refusal| Failure::error(refusal.message, refusal.hint))
}

/// Returns the host, and its own share of CPUs and memory.
pub fn host_and_kept(project: Option<&Project>) -> Result<(Capacity, HostShare), Failure> {
    let host = Capacity::observe()
        .map_err(|error| Failure::io("read the host's CPUs and memory", &error))?;
    let reserve = project
        .map(|project| project.host_reserve)
        .unwrap_or_default();
    let kept = HostShare::by(&reserve, &host);
    Ok((host, kept))
}

fn starts(machine: &MachinePlan) -> bool {
    machine
        .steps
        .iter()
        .any(|step| matches!(step, Step::Box | Step::Start | Step::Restore))
}

fn changes(machine: &MachinePlan) -> bool {
    machine
        .steps
        .iter()
        .any(|step| matches!(step, Step::Tune { .. }))
}

fn target<'a>(targets: &'a [Target], name: &str) -> Option<&'a Target> {
    targets
        .iter()
        .find(|target| target.wanted.machine.name == name)
}

fn asked(target: &Target) -> StartRequest {
    let machine = &target.wanted.machine;
    let (cpus, memory) = reserved_by_wanted(machine, target.wanted.spec.as_ref());
    StartRequest {
        machine: machine.name.clone(),
        cpus,
        pin: machine.tuning.cpu.pin.clone(),
        memory,
        uses: most_used(machine, target.wanted.spec.as_ref()),
    }
}

fn hold(operation: &Operation) -> Result<Lock, Failure> {
    let locks = operation.session.data.locks();
    Lock::acquire(&locks, LockName::Admission, &own_holder()).map_err(|error| {
        let doing = format!("lock the reservations in {}", locks.shown());
        Failure::io(doing, &error)
    })
}

/// Defines every machine that reserves something, with the claim in its record.
fn claim(operation: &Operation, plan: &Plan) -> Result<(), Failure> {
    let context = operation.context()?;
    for machine in &plan.machines {
        let defined: Option<(&Spec, PhaseKept)> =
            machine.steps.iter().find_map(|step| match step {
                Step::Define { spec, phase } => Some((&**spec, *phase)),
                _ => None,
            });
        let (Some((spec, phase)), Some(target)) =
            (defined, target(&operation.targets, &machine.machine))
        else {
            continue;
        };
        // The remains of an interrupted `destroy` are removed first, so they get no claim.
        let going = machine.steps.contains(&Step::Undefine);
        if let Some(stored) = &target.stored_box
            && spec.tuning.reserves()
            && !going
        {
            apply::claim(&context, &target.wanted, stored, spec, phase)?;
        }
    }
    Ok(())
}
