use std::process::ExitCode;

use clap::Args;

use crate::{
    hypervisor::Observed,
    machinefile::Accel,
    plan::{self, Change, MachinePlan, Plan, Step},
    report::{Event, EventKind, Outcome},
};

use super::{
    Failure, Global,
    admission::{admit, check_abilities},
    kernels::{need_kernels, take_missing},
    output,
    pin::{fetch_missing, need_pinned, pin},
    select::Selection,
    session::Session,
    shares::{cut_off, need_shares},
    work::Work,
};

#[derive(Args)]
pub struct UpArgs {
    #[command(flatten)]
    selection: Selection,
    /// Do not run provisioners
    #[arg(long, conflicts_with = "provision")]
    no_provision: bool,
    /// Run every provisioner again
    #[arg(long)]
    provision: bool,
    /// Fail instead of changing Machinefile.lock
    #[arg(long)]
    locked: bool,
}

pub fn run(global: &Global, args: UpArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let machines = session.select(&args.selection, true)?;
    let mut work = Work::begin(global, "up", session, machines, None)?;
    bring_up(
        global,
        &mut work,
        Provisioning {
            none: args.no_provision,
            all: args.provision,
        },
        args.locked,
    )
}

/// Which provisioners an `up` runs.
#[derive(Clone, Copy, Default)]
pub struct Provisioning {
    pub none: bool,
    pub all: bool,
}

/// What `up` does once the machines are locked; `restart` ends with the same.
pub fn bring_up(
    global: &Global,
    work: &mut Work,
    provisioning: Provisioning,
    locked: bool,
) -> Result<ExitCode, Failure> {
    work.clear_copies()?;
    // What the names of missing boxes mean has to be known first.
    if work.session.catalogues.is_absent()
        && work
            .subjects
            .iter()
            .any(|subject| subject.stored_box.is_none())
    {
        work.session.get_catalogue()?;
        work.look_again()?;
    }
    if locked {
        need_pinned(&work.session)?;
    }
    let draft = plan::up(&work.pairs());
    check_abilities(&work.session, &work.subjects, &draft)?;
    let boots = draft.boots();
    if fetch_missing(work, &boots)? {
        work.look_again()?;
    }
    if take_missing(work, &boots)? {
        work.look_again()?;
    }
    pin(work)?;
    if provisioning.all {
        for subject in &mut work.subjects {
            if let Some(observed) = &mut subject.existing.observed {
                observed.record.provisioned.clear();
            }
        }
    }
    let mut plan = plan::up(&work.pairs());
    if provisioning.none {
        for machine in &mut plan.machines {
            machine
                .steps
                .retain(|step| !matches!(step, Step::Provision { .. }));
            // Without provisioners there is nothing that could have made it less ready.
            if machine.steps == [Step::Ready] {
                machine.steps.clear();
            }
        }
    }
    work.need_boxes(&plan)?;
    need_kernels(work, &plan)?;
    need_shares(work, &plan)?;
    say_acceleration(work, &plan)?;
    admit(work, &plan)?;
    super::cpu::say_cpus(work, &plan);
    let already: Vec<String> = plan
        .machines
        .iter()
        .filter(|machine| machine.is_empty())
        .map(|machine| machine.machine.clone())
        .collect();
    for name in &already {
        work.reporter.event(&Event::now(
            name,
            EventKind::Notice {
                message: format!("is up{}", since(work, name)),
            },
        ));
        let lost = (work.subjects.iter())
            .filter(|subject| subject.wanted.machine.name == *name)
            .filter_map(|subject| {
                let files = work.session.files(&subject.wanted.identity);
                Some(cut_off(subject.existing.observed.as_ref()?, &files))
            });
        for message in lost.flatten() {
            work.reporter
                .event(&Event::now(name, EventKind::Notice { message }));
        }
    }
    let drifting: Vec<MachinePlan> = plan
        .machines
        .iter()
        .filter(|machine| !machine.drift.is_empty())
        .cloned()
        .collect();
    let summary = work.apply(plan)?;
    for machine in &drifting {
        for line in drift_lines(machine) {
            work.reporter.event(&Event::now(
                &machine.machine,
                EventKind::Notice { message: line },
            ));
        }
    }
    let up = summary.of(Outcome::Done);
    let watching = super::watch::see_to(global, work, &up)?;
    if summary.all_done() && already.len() < work.subjects.len() {
        how_to_get_in(global, work)?;
    }
    let code = work.conclude(global, &summary);
    Ok(if watching || code != ExitCode::SUCCESS {
        code
    } else {
        ExitCode::from(1)
    })
}

fn since(work: &Work, name: &str) -> String {
    work.subjects
        .iter()
        .find(|subject| subject.wanted.machine.name == name)
        .and_then(|subject| subject.existing.observed.as_ref())
        .and_then(|observed| observed.running.as_ref()?.ready)
        .map(|ready| {
            let seconds = (jiff::Timestamp::now() - ready).as_secs();
            format!(
                ", ready {}",
                crate::report::ago(std::time::Duration::from_secs(
                    u64::try_from(seconds).unwrap_or(0)
                ))
            )
        })
        .unwrap_or_default()
}

/// One line that says that machines run without KVM, and why.
fn say_acceleration(work: &Work, plan: &Plan) -> Result<(), Failure> {
    use crate::hypervisor::{HostFacts, choose_acceleration};
    let slow = plan.machines.iter().any(|machine| {
        machine
            .steps
            .iter()
            .any(|step| matches!(step, Step::Define { spec, .. } if spec.accel == Accel::Tcg))
    });
    let asked = work
        .subjects
        .iter()
        .all(|subject| subject.wanted.machine.accel.is_some());
    if !slow || asked {
        return Ok(());
    }
    let facts = HostFacts::observe(&work.session.connection);
    if let Some(why) = choose_acceleration("", None, &facts)?.why_not_kvm {
        work.reporter.event(&Event::now(
            "",
            EventKind::Notice {
                message: format!(
                    "KVM cannot be used: {why}; QEMU emulates the CPUs, which is slower"
                ),
            },
        ));
    }
    Ok(())
}

/// Where a machine differs from the Machinefile, as lines.
pub fn drift_lines(machine: &MachinePlan) -> Vec<String> {
    machine
        .drift
        .iter()
        .map(|drift| {
            format!(
                "differs from the Machinefile: {} is {}, wanted {}; {}",
                drift.what,
                drift.is,
                drift.wanted,
                match drift.takes {
                    Change::Live => format!("`stead up {}` applies it", machine.machine),
                    Change::NextBoot => format!("`stead restart {}` applies it", machine.machine),
                    Change::Replace => format!(
                        "only a new machine has it: `stead destroy {0}`, then `stead up {0}`",
                        machine.machine
                    ),
                }
            )
        })
        .collect()
}

fn how_to_get_in(global: &Global, work: &Work) -> Result<(), Failure> {
    if global.json || global.quiet {
        return Ok(());
    }
    let mut lines = String::from("\n");
    for subject in &work.subjects {
        let name = &subject.wanted.machine.name;
        if let Some(observed) = work.session.connection.observe(&subject.wanted.identity)? {
            lines.push_str(&format!("  {name}: stead ssh {name}{}\n", ports(&observed)));
        }
    }
    output::talk(&lines);
    Ok(())
}

fn ports(observed: &Observed) -> String {
    let list: Vec<String> = observed
        .record
        .spec
        .forwards
        .iter()
        .map(|forward| format!("127.0.0.1:{} → {}", forward.host, forward.guest))
        .collect();
    if list.is_empty() {
        String::new()
    } else {
        format!("   ({})", list.join(", "))
    }
}
