use std::process::ExitCode;

use clap::Args;

use crate::{
    boxes::SeedKind,
    machine::Observed,
    machinefile::{Accel, MachinefileError, MachinefileErrors},
    plan::{self, Change, Existing, MachinePlan, Plan, Step, Wanted},
    report::{Event, EventKind, Outcome, clean::Shown},
};

use super::{
    Failure, Global,
    admission::{admit, check_abilities},
    adopt::check_stranded,
    condition::{need_keys, need_own_disks_to_boot, say_additions},
    kernels::{need_kernels, take_missing},
    output,
    pin::{fetch_missing, need_pinned, pin},
    project_runs::{ProjectRuns, need_ansible},
    select::Selection,
    session::Session,
    shares::{cut_off, need_shares},
    trust::{self, Scope},
    work::Work,
};

#[derive(Args)]
pub struct UpArgs {
    #[command(flatten)]
    selection: Selection,
    /// Do not run provisioners
    #[arg(long, conflicts_with = "provision")]
    no_provision: bool,
    /// Run every provisioner again, but for those with run="never"
    #[arg(long)]
    provision: bool,
    /// Leave out what `before "up"` and `after "up"` say
    #[arg(long)]
    no_hooks: bool,
    /// Fail instead of changing Machinefile.lock
    #[arg(long)]
    locked: bool,
}

pub fn run(global: &Global, args: UpArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let machines = session.select_named(&args.selection, true)?;
    if machines.is_empty() {
        return Err(Failure::usage(
            format!("{} names no machine", session.project.file.shown()),
            "add one: machine \"web\" { box \"debian-12\" }",
        ));
    }
    let scope = Scope::Up {
        hooks: !args.no_hooks,
        provisioners: !args.no_provision,
    };
    let agreement = trust::need(global, &session.data, &session.project, scope)?;
    let mut work = Work::begin(global, "up", session, machines, None)?;
    work.agreement = agreement;
    check_stranded(&work)?;
    bring_up(
        global,
        &mut work,
        Provisioning {
            none: args.no_provision,
            all: args.provision,
            no_hooks: args.no_hooks,
        },
        args.locked,
    )
}

/// Which provisioners an `up` runs, and whether hooks.
#[derive(Clone, Copy, Default)]
pub struct Provisioning {
    pub none: bool,
    pub all: bool,
    pub no_hooks: bool,
}

/// How machines are looked at: as they are, or as they will be once they are halted.
pub type Seen = fn(&Work) -> Vec<(Wanted, Existing)>;

/// Gets and pins what machines need that would boot, and looks whether this host can give what they
/// ask for.
pub fn get_ready(work: &mut Work, seen: Seen, locked: bool) -> Result<(), Failure> {
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
    let draft = plan::up(&seen(work));
    check_abilities(&work.session, &work.subjects, &draft)?;
    let boots = draft.boots();
    if fetch_missing(work, &boots)? {
        work.look_again()?;
    }
    if take_missing(work, &boots)? {
        work.look_again()?;
    }
    pin(work)
}

/// What is to be done, once all that it needs is there, or an error where something is not.
pub fn planned(
    work: &mut Work,
    seen: Seen,
    provisioning: Provisioning,
) -> Result<(Plan, ProjectRuns), Failure> {
    let pairs = seen(work);
    let mut plan = if provisioning.all {
        plan::up_again(&pairs)
    } else {
        plan::up(&pairs)
    };
    let runs = work.project_runs()?;
    if !provisioning.none {
        plan.add_runs(plan::pending_runs(&runs.within, &pairs, provisioning.all));
    }
    if provisioning.none {
        plan = plan.without_provisioners();
    }
    if provisioning.no_hooks {
        plan = plan.without_hooks();
    }
    need_ansible(work, &plan)?;
    work.need_boxes(&plan)?;
    need_cloud_init(work, &plan)?;
    need_kernels(work, &plan)?;
    need_shares(work, &plan)?;
    need_own_disks_to_boot(work, &plan)?;
    Ok((plan, runs))
}

/// What `up` does once the machines are locked; `restart` ends with the same.
pub fn bring_up(
    global: &Global,
    work: &mut Work,
    provisioning: Provisioning,
    locked: bool,
) -> Result<ExitCode, Failure> {
    get_ready(work, Work::pairs, locked)?;
    let (plan, runs) = planned(work, Work::pairs, provisioning)?;
    say_additions(work, &plan);
    say_acceleration(work, &plan)?;
    admit(work, &plan)?;
    super::cpu::say_cpus(work, &plan);
    let already: Vec<String> = plan
        .machines
        .iter()
        .filter(|machine| machine.is_empty())
        .map(|machine| machine.machine.clone())
        .collect();
    for subject in &work.subjects {
        let (name, identity) = (&subject.wanted.machine.name, &subject.wanted.identity);
        if already.contains(name) && subject.existing.observed.is_some() {
            need_keys(&work.session, name, identity)?;
        }
    }
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
        .filter(|machine| !machine.drift.is_empty() || !machine.stale.is_empty())
        .cloned()
        .collect();
    let summary = work.apply(plan)?;
    if !provisioning.none {
        runs.say_left_out(work);
    }
    if !provisioning.all {
        runs.say_stale(work);
    }
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

/// User-data is for boxes that cloud-init seeds; others are told of where it stands.
fn need_cloud_init(work: &Work, plan: &Plan) -> Result<(), Failure> {
    let mut errors = Vec::new();
    for machine in plan.machines.iter().filter(|machine| machine.boots()) {
        let subject =
            (work.subjects.iter()).find(|subject| subject.wanted.machine.name == machine.machine);
        if let Some(subject) = subject
            && let Some(stored) = &subject.stored_box
            && stored.manifest.seed != SeedKind::CloudInit
            && let Some(place) = subject.wanted.machine.places.get("user-data")
        {
            let error = MachinefileError::new(
                place,
                format!(
                    "user-data is set, but {}, the box of {}, has no cloud-init to take it",
                    stored.manifest.name, machine.machine
                ),
                "nobody there to take it",
            );
            errors.push(error.help(
                "use a box whose seed is cloud-init (`stead box list` shows it), or a `provision` instead",
            ));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::Machinefile(Box::new(MachinefileErrors::new(
        errors,
    ))))
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
    let stale = machine.stale.iter().map(|stale| {
        format!(
            "provisioner {} changed since it ran; `stead provision {}` runs it",
            stale.provisioner, machine.machine
        )
    });
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
        .chain(stale)
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
