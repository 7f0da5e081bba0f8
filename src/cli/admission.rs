//! Whether the host can give what machines ask for, before anything starts.

use crate::{
    apply,
    host::lock::{self, Attempt, Lock},
    machine::Spec,
    machinefile::{Accel, MachinefileErrors, Project},
    plan::{MachinePlan, PhaseKept, Plan, Step},
    report::{Event, EventKind},
    resources::{
        Abilities, Host, HostShare, StartRequest, admit as admit_by_sums, check, ledger, reserved,
        reserved_by_wanted,
    },
};

use super::{
    Failure,
    session::{Session, Subject},
    work::Work,
};

/// Held while sums are made and what they admit is put down.
const LOCK: &str = "admission";

/// What the connection and the host cannot give to machines that start or change: errors where it
/// stands in the Machinefile.
pub fn check_abilities(
    session: &Session,
    subjects: &[Subject],
    plan: &Plan,
) -> Result<(), Failure> {
    let concerned = plan
        .machines
        .iter()
        .filter(|machine| starts(machine) || changes(machine))
        .filter_map(|machine| subject(subjects, &machine.machine));
    check_machines(session, concerned)
}

/// What `up` would refuse of all these machines, seen before they are halted to be started again.
pub fn check_before_halt(work: &mut Work) -> Result<(), Failure> {
    if let Some(failure) = (work.subjects.iter_mut()).find_map(|it| it.no_share.take()) {
        return Err(failure);
    }
    check_machines(&work.session, work.subjects.iter())?;
    let asked: Vec<StartRequest> = work.subjects.iter().map(asked).collect();
    let names: Vec<&str> = asked.iter().map(|asked| asked.machine.as_str()).collect();
    // What they hold is free again when they are off.
    let freed = work
        .subjects
        .iter()
        .filter_map(|subject| subject.existing.observed.as_ref())
        .filter(|observed| observed.is_up())
        .map(|observed| reserved(&observed.record.spec).1.0)
        .sum();
    if asked
        .iter()
        .any(|asked| asked.cpus > 0 || asked.memory.0 > 0)
    {
        sums(work, &asked, &names, freed)?;
    }
    Ok(())
}

fn check_machines<'a>(
    session: &Session,
    subjects: impl Iterator<Item = &'a Subject>,
) -> Result<(), Failure> {
    let concerned: Vec<&Subject> = subjects
        .filter(|subject| subject.wanted.machine.tuning != Default::default())
        .collect();
    if concerned.is_empty() {
        return Ok(());
    }
    let accel = |subject: &Subject| {
        let machine = &subject.wanted.machine;
        let spec = subject.wanted.spec.as_ref().map(|spec| spec.accel);
        spec.or(machine.accel).unwrap_or(Accel::Tcg)
    };
    let kinds: Vec<Accel> = concerned
        .iter()
        .filter(|subject| subject.wanted.machine.tuning.cpu.model.is_some())
        .map(|subject| accel(subject))
        .collect();
    let mut abilities = Abilities::observe(&session.connection, &kinds)?;
    for observed in concerned
        .iter()
        .filter_map(|subject| subject.existing.observed.as_ref())
        .filter(|observed| observed.is_up())
    {
        // Huge pages that a machine has are there for it.
        let spec = &observed.record.spec;
        if let Some(size) = spec.tuning.memory.hugepages
            && let Some(free) = abilities.hugepages.get_mut(&size.0)
        {
            *free += spec.memory.0.div_ceil(size.0);
        }
    }
    let errors: Vec<_> = concerned
        .iter()
        .flat_map(|subject| check(&subject.wanted.machine, accel(subject), &abilities))
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Failure::Machinefile(Box::new(MachinefileErrors::new(
            errors,
        ))))
    }
}

/// Admits what the plan starts, or refuses all of it. What is reserved is put down in libvirt
/// before this returns, so that two of these cannot both count on the same.
pub fn admit(work: &Work, plan: &Plan) -> Result<(), Failure> {
    let asked: Vec<StartRequest> = plan
        .machines
        .iter()
        .filter(|machine| starts(machine))
        .filter_map(|machine| subject(&work.subjects, &machine.machine))
        .map(asked)
        .collect();
    if asked.is_empty() {
        return Ok(());
    }
    let claims = plan.machines.iter().any(|machine| {
        starts(machine)
            && subject(&work.subjects, &machine.machine)
                .is_some_and(|subject| subject.wanted.machine.tuning.reserves())
    });
    let _held = match claims {
        true => Some(hold(work)?),
        false => None,
    };
    let names: Vec<&str> = asked.iter().map(|asked| asked.machine.as_str()).collect();
    if let Some(warning) = sums(work, &asked, &names, 0)? {
        work.reporter.event(&Event::now(
            "",
            EventKind::Notice {
                message: format!("warning: {warning}"),
            },
        ));
    }
    if claims {
        claim(work, plan)?;
    }
    Ok(())
}

/// A warning, or why not. `names`: machines of the project that are to start, and so hold what is
/// asked for them and no more. `freed`: memory that will be free by then, in bytes.
fn sums(
    work: &Work,
    asked: &[StartRequest],
    names: &[&str],
    freed: u64,
) -> Result<Option<String>, Failure> {
    let (mut host, kept) = host_and_kept(Some(&work.session.project))?;
    host.available.0 += freed;
    let survey = work.session.connection.survey()?;
    let others: Vec<_> = ledger(&survey.machines)
        .into_iter()
        .filter(|holding| {
            !(work.subjects.iter()).any(|subject| {
                names.contains(&subject.wanted.machine.name.as_str())
                    && subject.wanted.identity == holding.identity
            })
        })
        .collect();
    admit_by_sums(asked, &others, &host, &kept)
        .map_err(|refusal| Failure::error(refusal.message, refusal.hint))
}

/// The host, and what is kept for it.
pub fn host_and_kept(project: Option<&Project>) -> Result<(Host, HostShare), Failure> {
    let host = Host::observe().map_err(|error| Failure::io("see what this host has", &error))?;
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

fn subject<'a>(subjects: &'a [Subject], name: &str) -> Option<&'a Subject> {
    subjects
        .iter()
        .find(|subject| subject.wanted.machine.name == name)
}

fn asked(subject: &Subject) -> StartRequest {
    let machine = &subject.wanted.machine;
    let (cpus, memory) = reserved_by_wanted(machine, subject.wanted.spec.as_ref());
    let most = machine.tuning.memory.max.unwrap_or(machine.memory);
    StartRequest {
        machine: machine.name.clone(),
        cpus,
        pin: machine.tuning.cpu.pin.clone(),
        memory,
        uses: match machine.tuning.memory.hugepages {
            // Set aside already.
            Some(_) => memory,
            None => most.max(memory),
        },
    }
}

fn hold(work: &Work) -> Result<Lock, Failure> {
    let folder = work.session.data.locks();
    let holder = format!("stead (pid {})", std::process::id());
    let failed = |error: &std::io::Error| Failure::io("lock what is reserved", error);
    loop {
        match Lock::try_acquire(&folder, LOCK, &holder).map_err(|error| failed(&error))? {
            Attempt::Held(lock) => return Ok(lock),
            Attempt::Busy { .. } => lock::wait(&folder, LOCK).map_err(|error| failed(&error))?,
        }
    }
}

/// Defines every machine that reserves something, with a claim in its record.
fn claim(work: &Work, plan: &Plan) -> Result<(), Failure> {
    let context = work.context()?;
    for machine in &plan.machines {
        let defined: Option<(&Spec, PhaseKept)> =
            machine.steps.iter().find_map(|step| match step {
                Step::Define { spec, phase } => Some((&**spec, *phase)),
                _ => None,
            });
        let (Some((spec, phase)), Some(subject)) =
            (defined, subject(&work.subjects, &machine.machine))
        else {
            continue;
        };
        // What a destroy that was cut short left goes first, and is none to put a claim on.
        let going = machine.steps.contains(&Step::Undefine);
        if let Some(stored) = &subject.stored_box
            && spec.tuning.reserves()
            && !going
        {
            apply::claim(&context, &subject.wanted, stored, spec, phase)?;
        }
    }
    Ok(())
}
