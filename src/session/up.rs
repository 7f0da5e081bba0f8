//! `up`: makes machines as the Machinefile describes them, and boots them.

use crate::{
    failure::Failure,
    guest::Remote,
    machine::Observed,
    machinefile::{Accel, ForwardRange, MachinefileError, MachinefileErrors},
    plan::{self, Change, Existing, MachinePlan, Plan, Step, WantedMachine},
    report::{Event, EventKind, Outcome, ago, clean::Shown, talk},
    resolve::box_pins::need_pinned,
    session::{
        Selection, Session,
        admission::{admit, check_abilities, check_reach},
        agreement::{self, Scope},
        closed_folder::closed_folder,
        condition::{cut_off, need_keys, need_own_disks_to_boot, say_additions},
        firmware::need_firmware,
        invocation::Invocation,
        networks,
        operation::Operation,
        prepare::{fetch_missing, need_kernels, need_shares, pin, take_missing},
        project_runs::{ProjectRuns, need_ansible},
        reach::see_to_clock,
        stranded::check_stranded,
    },
};
use std::process::ExitCode;

/// Which provisioners an `up` runs, and whether it runs hooks.
#[derive(Clone, Copy, Default)]
pub struct Provisioning {
    pub none: bool,
    pub all: bool,
    pub no_hooks: bool,
}

/// How machines are seen: as they are, or as they will be once they are halted.
pub type Seen = fn(&Operation) -> Vec<(WantedMachine, Existing)>;

/// Gets and pins what machines need to boot, and checks that this host can give what they ask for.
pub fn get_ready(operation: &mut Operation, seen: Seen, locked: bool) -> Result<(), Failure> {
    operation.clear_copies()?;
    // The catalogue says what the names of missing boxes mean.
    if operation.session.catalogues.is_absent()
        && operation
            .targets
            .iter()
            .any(|target| target.stored_box.is_none())
    {
        operation.session.get_catalogue()?;
        operation.survey_again()?;
    }
    if locked {
        need_pinned(operation.session.resolver())?;
    }
    let draft = plan::up(&seen(operation));
    check_abilities(&operation.session, &operation.targets, &draft)?;
    let boots = draft.boots();
    if fetch_missing(operation, &draft.need_boxes())? {
        operation.survey_again()?;
    }
    if take_missing(operation, &boots)? {
        operation.survey_again()?;
    }
    pin(operation)
}

/// Returns the plan, or an error if something that it needs is missing.
pub fn planned(
    operation: &mut Operation,
    seen: Seen,
    provisioning: Provisioning,
) -> Result<(Plan, ProjectRuns), Failure> {
    let pairs = seen(operation);
    let mut plan = if provisioning.all {
        plan::up_again(&pairs)
    } else {
        plan::up(&pairs)
    };
    let runs = operation.project_runs()?;
    if !provisioning.none {
        plan.add_runs(plan::pending_runs(&runs.within, &pairs, provisioning.all));
    }
    if provisioning.none {
        plan = plan.without_provisioners();
    }
    if provisioning.no_hooks {
        plan = plan.without_hooks();
    }
    need_ansible(operation, &plan)?;
    operation.need_boxes(&plan)?;
    need_cloud_init(operation, &plan)?;
    need_kernels(operation, &plan)?;
    need_firmware(&operation.session, &operation.targets, &plan)?;
    need_shares(operation, &plan)?;
    need_own_disks_to_boot(operation, &plan)?;
    Ok((plan, runs))
}

/// Does the work of `up` once the machines are locked. `restart` ends with it, too.
pub fn bring_up(
    invocation: &Invocation,
    operation: &mut Operation,
    provisioning: Provisioning,
    locked: bool,
) -> Result<ExitCode, Failure> {
    get_ready(operation, Operation::pairs, locked)?;
    let (plan, runs) = planned(operation, Operation::pairs, provisioning)?;
    let wiring = networks::check(&operation.session, &operation.survey, &plan)?;
    say_additions(operation, &plan);
    say_acceleration(operation, &plan)?;
    say_closed_folder(operation, &plan);
    // Before ports are chosen: what an attempt that was killed has opened is closed.
    networks::start(operation, &plan, wiring)?;
    // Reservations are made with ports, too.
    let gave_up = networks::give_up_ports(operation, &plan)?;
    if let Err(refused) = admit(operation, &plan) {
        if gave_up {
            networks::take_back_ports(operation);
        }
        return Err(refused);
    }
    crate::session::prepare::say_cpus(operation, &plan);
    let already: Vec<String> = plan
        .machines
        .iter()
        .filter(|machine| machine.is_empty())
        .map(|machine| machine.machine.clone())
        .collect();
    for target in &operation.targets {
        let (name, identity) = (&target.wanted.machine.name, &target.wanted.identity);
        if already.contains(name) && target.existing.observed.is_some() {
            need_keys(&operation.session, name, identity)?;
        }
    }
    for name in &already {
        operation.reporter.event(&Event::now(
            name,
            EventKind::Notice {
                message: format!("is up{}", since(operation, name)),
            },
        ));
        let lost = (operation.targets.iter())
            .filter(|target| target.wanted.machine.name == *name)
            .filter_map(|target| {
                let files = operation.session.files(&target.wanted.identity);
                let observed = target.existing.observed.as_ref()?;
                let mut lines = cut_off(observed, &files);
                let remote = Remote {
                    machine: name.clone(),
                    files,
                };
                lines.extend(see_to_clock(&operation.session, observed, &remote));
                lines.extend(operation.session.cards_cut_off(observed));
                Some(lines)
            });
        for message in lost.flatten() {
            operation
                .reporter
                .event(&Event::now(name, EventKind::Notice { message }));
        }
    }
    let drifting: Vec<MachinePlan> = plan
        .machines
        .iter()
        .filter(|machine| !machine.drift.is_empty() || !machine.stale.is_empty())
        .cloned()
        .collect();
    let summary = operation.apply(plan)?;
    if gave_up && !summary.all_done() {
        networks::take_back_ports(operation);
    }
    if !provisioning.none {
        runs.say_skipped(operation);
    }
    if !provisioning.all {
        runs.say_stale(operation);
    }
    for machine in &drifting {
        for line in drift_lines(machine) {
            operation.reporter.event(&Event::now(
                &machine.machine,
                EventKind::Notice { message: line },
            ));
        }
    }
    let up = summary.of(Outcome::Done);
    let watching = super::watch::see_to(invocation, operation, &up)?;
    if summary.all_done() && already.len() < operation.targets.len() {
        how_to_get_in(invocation, operation)?;
    }
    let code = operation.conclude(invocation, &summary);
    Ok(if watching || code != ExitCode::SUCCESS {
        code
    } else {
        ExitCode::from(1)
    })
}

/// Fails at the place of `user-data` in the Machinefile if the box has no cloud-init.
fn need_cloud_init(operation: &Operation, plan: &Plan) -> Result<(), Failure> {
    let mut errors = Vec::new();
    for machine in plan.machines.iter().filter(|machine| machine.boots()) {
        let target =
            (operation.targets.iter()).find(|target| target.wanted.machine.name == machine.machine);
        if let Some(target) = target
            && let Some(stored) = &target.stored_box
            && !stored.manifest.seed.runs_user_data()
            && let Some(place) = target.wanted.machine.spans.get("user-data")
        {
            let error = MachinefileError::new(
                place,
                format!(
                    "`user-data` needs cloud-init, but {}, the box of {}, does not have it",
                    stored.manifest.name, machine.machine
                ),
                "this box has no cloud-init",
            );
            errors.push(error.help(
                "use a box with the seed cloud-init (see `stead box list`), or `provision` instead",
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

fn since(operation: &Operation, name: &str) -> String {
    operation
        .targets
        .iter()
        .find(|target| target.wanted.machine.name == name)
        .and_then(|target| target.existing.observed.as_ref())
        .and_then(|observed| observed.running.as_ref()?.ready)
        .map(|ready| format!(", ready {}", ago(ready)))
        .unwrap_or_default()
}

/// Reports that QEMU will not be able to open the machines' disks.
fn say_closed_folder(operation: &Operation, plan: &Plan) {
    let session = &operation.session;
    if plan.boots().is_empty() {
        return;
    }
    if let Some((found, remedy)) = closed_folder(&session.connection, &session.data) {
        let message = format!("warning: {found}; {remedy}");
        let event = Event::now("", EventKind::Notice { message });
        operation.reporter.event(&event);
    }
}

/// Reports that machines run without KVM, and why.
fn say_acceleration(operation: &Operation, plan: &Plan) -> Result<(), Failure> {
    use crate::hypervisor::{HostFacts, choose_acceleration};
    let slow = plan.machines.iter().any(|machine| {
        machine
            .steps
            .iter()
            .any(|step| matches!(step, Step::Define { spec, .. } if spec.accel == Accel::Tcg))
    });
    let asked = operation
        .targets
        .iter()
        .all(|target| target.wanted.machine.accel.is_some());
    if !slow || asked {
        return Ok(());
    }
    let facts = HostFacts::observe(&operation.session.connection);
    if let Some(why) = choose_acceleration("", None, &facts)?.why_not_kvm {
        operation.reporter.event(&Event::now(
            "",
            EventKind::Notice {
                message: format!("cannot use KVM: {why}; QEMU emulates the CPUs, which is slower"),
            },
        ));
    }
    Ok(())
}

/// Returns lines about how a machine differs from the Machinefile.
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
                        "only a new machine can have it: run `stead destroy {0}`, then `stead up {0}`",
                        machine.machine
                    ),
                }
            )
        })
        .chain(stale)
        .collect()
}

fn how_to_get_in(invocation: &Invocation, operation: &Operation) -> Result<(), Failure> {
    if invocation.style.json || invocation.style.quiet {
        return Ok(());
    }
    let mut lines = String::from("\n");
    for target in &operation.targets {
        let name = &target.wanted.machine.name;
        if let Some(observed) = operation
            .session
            .connection
            .observe(&target.wanted.identity)?
        {
            lines.push_str(&format!("  {name}: stead ssh {name}{}\n", ports(&observed)));
        }
    }
    talk(&lines);
    Ok(())
}

fn ports(observed: &Observed) -> String {
    let spec = &observed.record.spec;
    let own = spec.host_address();
    let mut list: Vec<String> = own.iter().map(|own| format!("ports at {own}")).collect();
    list.extend(
        (ForwardRange::all_of(&spec.forwards).iter())
            .map(|it| format!("{}:{} → {}", it.first.address, it.hosts(), it.guests())),
    );
    if list.is_empty() {
        String::new()
    } else {
        format!("   ({})", list.join(", "))
    }
}

#[derive(Clone, Debug, Default)]
pub struct UpOptions {
    pub selection: Selection,
    pub no_provision: bool,
    pub provision: bool,
    pub no_hooks: bool,
    pub locked: bool,
    /// How many machines boot at the same time.
    pub jobs: Option<u16>,
}

pub fn up(invocation: &Invocation, options: UpOptions) -> Result<ExitCode, Failure> {
    let session = Session::open(invocation)?;
    let machines = session.select_named(&options.selection, true)?;
    if machines.is_empty() {
        return Err(Failure::usage(
            format!("{} describes no machine", session.project.file.shown()),
            "add one: machine \"web\" { box \"debian-12\" }",
        ));
    }
    let scope = Scope::Up {
        hooks: !options.no_hooks,
        provisioners: !options.no_provision,
        networks: true,
    };
    // Who agrees should not learn only then that it was for nothing.
    let (survey, owner) = (session.connection.survey()?, session.owner());
    check_reach(
        &session,
        (machines.iter()).filter(|machine| {
            (owner.find(&survey.machines, &machine.name))
                .is_none_or(|it| !it.is_up() && !it.condition.saved)
        }),
    )?;
    let agreement = agreement::need(invocation, &session.data, &session.project, scope)?;
    let mut operation = Operation::begin(invocation, "up", session, machines, None)?;
    operation.agreement = agreement;
    operation.jobs = options.jobs;
    check_stranded(&operation)?;
    bring_up(
        invocation,
        &mut operation,
        Provisioning {
            none: options.no_provision,
            all: options.provision,
            no_hooks: options.no_hooks,
        },
        options.locked,
    )
}
