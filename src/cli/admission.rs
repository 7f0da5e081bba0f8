//! Whether the host can give what machines ask for, before anything starts.

use crate::{
    apply,
    host::lock::{self, Attempt, Lock},
    hypervisor::Spec,
    machinefile::{Accel, MachinefileErrors, Project},
    plan::{MachinePlan, PhaseKept, Plan, Step},
    report::{Event, EventKind},
    resources::{
        Abilities, Asked, Host, Kept, admit as admit_by_sums, check, ledger, reserved_by_wanted,
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
    let concerned: Vec<&Subject> = plan
        .machines
        .iter()
        .filter(|machine| starts(machine) || changes(machine))
        .filter_map(|machine| subject(subjects, &machine.machine))
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
    let mut kinds: Vec<Accel> = concerned
        .iter()
        .filter(|subject| subject.wanted.machine.tuning.cpu.model.is_some())
        .map(|subject| accel(subject))
        .collect();
    kinds.dedup();
    let abilities = Abilities::observe(&session.connection, &kinds)?;
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
    let asked: Vec<Asked> = plan
        .machines
        .iter()
        .filter(|machine| starts(machine))
        .filter_map(|machine| subject(&work.subjects, &machine.machine))
        .map(asked)
        .collect();
    if asked.is_empty() {
        return Ok(());
    }
    let reserves = asked
        .iter()
        .any(|asked| asked.cpus > 0 || asked.memory.0 > 0);
    let _held = match reserves {
        true => Some(hold(work)?),
        false => None,
    };
    let (host, kept) = host_and_kept(Some(&work.session.project))?;
    let survey = work.session.connection.survey()?;
    let others: Vec<_> = ledger(&survey.machines)
        .into_iter()
        .filter(|holding| {
            // A machine that is to start holds what this plan asks for it.
            !plan.machines.iter().any(|machine| {
                starts(machine) && work.session.identity(&machine.machine) == holding.identity
            })
        })
        .collect();
    match admit_by_sums(&asked, &others, &host, &kept) {
        Ok(None) => {}
        Ok(Some(warning)) => work.reporter.event(&Event::now(
            "",
            EventKind::Notice {
                message: format!("warning: {warning}"),
            },
        )),
        Err(refusal) => return Err(Failure::error(refusal.message, refusal.hint)),
    }
    if reserves {
        claim(work, plan)?;
    }
    Ok(())
}

/// The host, and what is kept for it.
pub fn host_and_kept(project: Option<&Project>) -> Result<(Host, Kept), Failure> {
    let host = Host::observe().map_err(|error| Failure::io("see what this host has", &error))?;
    let reserve = project
        .map(|project| project.host_reserve)
        .unwrap_or_default();
    let kept = Kept::by(&reserve, &host);
    Ok((host, kept))
}

fn starts(machine: &MachinePlan) -> bool {
    machine
        .steps
        .iter()
        .any(|step| matches!(step, Step::Box | Step::Start))
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

fn asked(subject: &Subject) -> Asked {
    let machine = &subject.wanted.machine;
    let (cpus, memory) = reserved_by_wanted(machine, subject.wanted.spec.as_ref());
    let most = machine.tuning.memory.max.unwrap_or(machine.memory);
    Asked {
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
