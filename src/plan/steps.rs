use serde::Serialize;

use crate::{
    boxes::{Destination, Packing},
    machine::{KernelSpec, Phase, Power, Share, Spec},
    machinefile::{Hook, HookRuns, Machine, Moment, SyncFolder, SyncKind},
    report::clean::Shown,
};

use super::{
    drift::{Drift, after_boot, drift},
    hooks::{after_up, hooks},
    project::ProjectRun,
    provision::{Stale, due, stale},
    tuning::{after_live, changes},
    wanted::{Existing, Wanted},
};

/// Steps for every machine; machines go in parallel, each after those it depends on.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub machines: Vec<MachinePlan>,
    /// What runs over several of them, one after the other.
    pub runs: Vec<ProjectRun>,
}

#[derive(Clone, Debug, Serialize)]
pub struct MachinePlan {
    pub machine: String,
    /// Machines whose steps must be done before this one's begin.
    pub after: Vec<String>,
    pub steps: Vec<Step>,
    /// What will still differ from the Machinefile when the steps are done.
    pub drift: Vec<Drift>,
    /// Provisioners that changed since they ran, and that these steps do not run.
    pub stale: Vec<Stale>,
}

/// One step. Each can be run again when it was cut short, and does nothing when it was done.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Check the box's files by their digests.
    Box,
    /// Define the domain, which claims the machine's name and its SSH port.
    Define {
        #[serde(skip)]
        spec: Box<Spec>,
        #[serde(skip)]
        phase: PhaseKept,
    },
    /// Make the overlay over the box's disk.
    Disk,
    /// Make keys, and write the seed and OpenSSH's files.
    Seed,
    Start,
    /// Start it where it was when it was saved, with what was in its memory.
    Restore,
    /// Let it go on where it was paused.
    Resume,
    /// Change what can be changed while the machine runs.
    Tune {
        #[serde(skip)]
        spec: Box<Spec>,
        changes: String,
    },
    /// Wait until SSH lets us in and the seed is done.
    Reach,
    /// Install the kernel in the guest and boot it.
    InstallKernel {
        /// Its release, or what names it where that is not known yet.
        kernel: String,
    },
    /// Mount the folders of the host that the guest has as file systems.
    Mount {
        shares: Vec<Share>,
    },
    Sync {
        #[serde(flatten)]
        folder: SyncFolder,
    },
    Provision {
        name: String,
        reason: ProvisionReason,
    },
    /// What the Machinefile has run beside the machine's going up, down or away.
    Hook {
        #[serde(skip)]
        hook: Box<Hook>,
        /// Which of its moment's it is, from 1.
        n: usize,
        /// For the guest of a machine that is off: it only says so.
        left_out: bool,
    },
    /// The machine's own readiness checks; then it counts as up.
    Ready,
    /// Record that the machine is going, so that no `up` takes it for whole.
    Retire,
    Stop {
        /// Whether the guest is asked first.
        graceful: bool,
    },
    DeleteDisk,
    /// Remove keys, seed and console log.
    RemoveFiles,
    Undefine,
    /// Copy the disk of the machine that this one is a copy of.
    CopyDisk,
    /// Take out what makes it that machine and no other.
    Clean,
    /// Make one file of its disk and all that backs it.
    Seal,
    /// Put the box where it is wanted.
    Keep {
        #[serde(skip)]
        packing: Box<Packing>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseKept {
    /// The disk is yet to be made.
    New,
    /// The disk is there and stays.
    Created,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProvisionReason {
    NeverRan,
    /// What goes in differs from when it ran.
    Changed,
    /// `run="always"`
    Always,
    /// By its name, or with all others.
    Asked,
}

impl ProvisionReason {
    pub(super) fn words(self) -> &'static str {
        match self {
            ProvisionReason::NeverRan => "it has not run yet",
            ProvisionReason::Changed => "it changed since it ran",
            ProvisionReason::Always => "it runs always",
            ProvisionReason::Asked => "asked for",
        }
    }
}

impl Step {
    /// Whether runs over several machines come before it: what a readiness check looks for is often
    /// their work.
    pub fn is_after_runs(&self) -> bool {
        match self {
            Step::Ready => true,
            Step::Hook { hook, .. } => hook.moment == Moment::AfterUp,
            _ => false,
        }
    }

    /// A stable name, unique within the machine: what events carry.
    pub fn id(&self) -> String {
        match self {
            Step::Box => "box".into(),
            Step::Define { .. } => "define".into(),
            Step::Disk => "disk".into(),
            Step::Seed => "seed".into(),
            Step::Start => "start".into(),
            Step::Restore => "restore".into(),
            Step::Resume => "resume".into(),
            Step::Tune { .. } => "tune".into(),
            Step::Reach => "reach".into(),
            Step::InstallKernel { .. } => "kernel:install".into(),
            Step::Mount { .. } => "mount".into(),
            Step::Sync { folder } => format!("sync:{}", folder.to),
            Step::Provision { name, .. } => format!("provision:{name}"),
            Step::Hook { hook, n, .. } => format!("{}:{n}", hook.moment.id()),
            Step::Ready => "ready".into(),
            Step::Retire => "retire".into(),
            Step::Stop { .. } => "stop".into(),
            Step::DeleteDisk => "delete-disk".into(),
            Step::RemoveFiles => "remove-files".into(),
            Step::Undefine => "undefine".into(),
            Step::CopyDisk => "copy-disk".into(),
            Step::Clean => "clean".into(),
            Step::Seal => "seal".into(),
            Step::Keep { .. } => "keep".into(),
        }
    }

    /// For `stead plan`: what will be done.
    pub fn describe(&self) -> String {
        match self {
            Step::Box => "check the box by its digests".into(),
            Step::Define { spec, .. } => format!(
                "define the domain ({} {}, {} on {})",
                spec.cpus,
                if spec.cpus == 1 { "CPU" } else { "CPUs" },
                spec.memory,
                spec.accel
            ),
            Step::Disk => "create the disk over the box's image".into(),
            Step::Seed => "write keys and seed".into(),
            Step::Start => "boot".into(),
            Step::Restore => "go on from its saved memory".into(),
            Step::Resume => "resume (it is paused)".into(),
            Step::Tune { changes, .. } => format!("change while it runs: {changes}"),
            Step::Reach => "wait for SSH".into(),
            Step::InstallKernel { kernel } => {
                format!("install kernel {kernel} in the guest and boot it, unless it runs")
            }
            Step::Mount { shares } if shares.is_empty() => {
                "take folders of the host out of what it mounts".into()
            }
            Step::Mount { shares } => {
                let list: Vec<String> = (shares.iter())
                    .map(|share| {
                        let readonly = if share.readonly { ", read-only" } else { "" };
                        format!("{} ({}{readonly})", share.to, share.kind.word())
                    })
                    .collect();
                format!("mount {}", list.join(", "))
            }
            Step::Sync { folder } if folder.kind == SyncKind::TwoWay => {
                format!("sync both ways with {}", folder.to)
            }
            Step::Sync { folder } => format!("sync to {}", folder.to),
            Step::Provision { name, reason } => {
                format!("run provisioner {name} ({})", reason.words())
            }
            Step::Hook { hook, left_out, .. } => super::hooks::describe(hook, *left_out),
            Step::Ready => "check that it is ready".into(),
            Step::Retire => "mark it as going".into(),
            Step::Stop { graceful: true } => "shut down".into(),
            Step::Stop { graceful: false } => "power off".into(),
            Step::DeleteDisk => "delete the disk".into(),
            Step::RemoveFiles => "remove keys, seed and console log".into(),
            Step::Undefine => "undefine the domain".into(),
            Step::CopyDisk => "copy the disk".into(),
            Step::Clean => "clean the copy".into(),
            Step::Seal => "make one image of the disk".into(),
            Step::Keep { .. } => "keep the box".into(),
        }
    }

    /// What a progress line says while it runs.
    pub fn doing(&self) -> String {
        match self {
            Step::Box => "checking box".into(),
            Step::Define { .. } => "defining".into(),
            Step::Disk => "creating disk".into(),
            Step::Seed => "seeding".into(),
            Step::Start => "starting".into(),
            Step::Restore => "restoring".into(),
            Step::Resume => "resuming".into(),
            Step::Tune { changes, .. } => format!("changing {changes}"),
            Step::Reach => "booting".into(),
            Step::InstallKernel { kernel } => format!("seeing to kernel {kernel}"),
            Step::Mount { .. } => "mounting folders".into(),
            Step::Sync { folder } => format!("syncing {}", folder.to),
            Step::Provision { name, .. } => format!("provisioning {name}"),
            Step::Hook { hook, .. } => format!("running {} ({})", hook.moment, hook.label()),
            Step::Ready => "checking readiness".into(),
            Step::Retire => "retiring".into(),
            Step::Stop { graceful: true } => "shutting down".into(),
            Step::Stop { graceful: false } => "powering off".into(),
            Step::DeleteDisk => "deleting disk".into(),
            Step::RemoveFiles => "removing files".into(),
            Step::Undefine => "undefining".into(),
            Step::CopyDisk => "copying the disk".into(),
            Step::Clean => "cleaning".into(),
            Step::Seal => "making one image".into(),
            Step::Keep { packing } => match &packing.to {
                Destination::Store => "hashing".into(),
                Destination::Archive(path) | Destination::Image(_, path) => {
                    format!("writing {}", path.shown())
                }
            },
        }
    }
}

fn is_host_hook(step: &Step) -> bool {
    matches!(step, Step::Hook { hook, .. } if matches!(hook.runs, HookRuns::Host(_)))
}

impl Plan {
    /// `--no-hooks`
    pub fn without_hooks(mut self) -> Self {
        for machine in &mut self.machines {
            machine
                .steps
                .retain(|step| !matches!(step, Step::Hook { .. }));
        }
        self
    }

    /// Without hooks that run on the host.
    pub fn without_host_hooks(mut self) -> Self {
        for machine in &mut self.machines {
            machine.steps.retain(|step| !is_host_hook(step));
        }
        self
    }

    pub fn has_host_hooks(&self) -> bool {
        (self.machines.iter()).any(|machine| machine.steps.iter().any(is_host_hook))
    }

    /// `--no-provision`
    pub fn without_provisioners(mut self) -> Self {
        for machine in &mut self.machines {
            machine
                .steps
                .retain(|step| !matches!(step, Step::Provision { .. }));
            // Without provisioners there is nothing that could have made it less ready.
            if machine.steps == [Step::Ready] {
                machine.steps.clear();
            }
        }
        self
    }

    /// Machines that are made or booted, for which their boxes have to be here.
    pub fn boots(&self) -> Vec<String> {
        self.machines
            .iter()
            .filter(|machine| machine.boots())
            .map(|machine| machine.machine.clone())
            .collect()
    }
}

impl MachinePlan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub fn boots(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step, Step::Box | Step::Define { .. } | Step::Disk))
    }
}

/// Steps that bring `wanted` up. `Err` names a machine whose box is missing.
pub fn up(machines: &[(Wanted, Existing)]) -> Plan {
    up_with(machines, false)
}

/// As [`up`], with every provisioner run again, but for those that only run by name.
pub fn up_again(machines: &[(Wanted, Existing)]) -> Plan {
    up_with(machines, true)
}

fn up_with(machines: &[(Wanted, Existing)], again: bool) -> Plan {
    let plans = machines
        .iter()
        .map(|(wanted, existing)| MachinePlan {
            machine: wanted.machine.name.clone(),
            after: wanted.machine.depends_on.clone(),
            steps: up_steps(wanted, existing, again),
            stale: if again {
                Vec::new()
            } else {
                stale(wanted, existing)
            },
            drift: match &existing.observed {
                Some(observed) if observed.record.phase == Phase::Created => {
                    let has = if observed.is_up() {
                        after_live(&observed.record.spec, wanted)
                    } else if observed.condition.saved {
                        // What was saved is what goes on.
                        observed.record.spec.clone()
                    } else {
                        after_boot(&observed.record.spec, wanted)
                    };
                    drift(wanted, &has)
                }
                _ => Vec::new(),
            },
        })
        .collect();
    Plan {
        machines: plans,
        runs: Vec::new(),
    }
}

fn up_steps(wanted: &Wanted, existing: &Existing, again: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    // What it runs with once it is up.
    let mut kernel = wanted.spec.as_ref().and_then(|spec| spec.kernel.clone());
    let mut record = existing.observed.as_ref().map(|observed| &observed.record);
    let mut power = existing
        .observed
        .as_ref()
        .map_or(Power::Off, |observed| observed.power);
    let mut ready = existing
        .observed
        .as_ref()
        .is_some_and(|observed| observed.is_ready());
    if record.is_some_and(|record| record.phase == Phase::Destroying) {
        // A destroy was cut short: what is left holds nothing worth keeping.
        steps.extend(destroy_steps(wanted, existing));
        record = None;
        power = Power::Off;
        ready = false;
    }
    let saved = record.is_some_and(|record| record.phase == Phase::Created)
        && (existing.observed.as_ref()).is_some_and(|observed| observed.condition.saved);
    if saved {
        // Not defined anew: libvirt starts what was saved, and then the record would lie.
        steps.extend(hooks(&wanted.machine, Moment::BeforeUp, true));
        steps.push(Step::Restore);
    } else if power == Power::Off {
        steps.extend(hooks(&wanted.machine, Moment::BeforeUp, true));
        steps.push(Step::Box);
        match record {
            Some(record) if record.phase == Phase::Created => {
                let spec = after_boot(&record.spec, wanted);
                kernel.clone_from(&spec.kernel);
                steps.push(Step::Define {
                    spec: Box::new(spec),
                    phase: PhaseKept::Created,
                });
            }
            _ => {
                if let Some(spec) = &wanted.spec {
                    steps.push(Step::Define {
                        spec: Box::new(spec.clone()),
                        phase: PhaseKept::New,
                    });
                }
                steps.push(Step::Disk);
            }
        }
        steps.push(Step::Seed);
        steps.push(Step::Start);
    }
    if power == Power::Paused {
        steps.push(Step::Resume);
    }
    let stays = power != Power::Off || saved;
    if stays && let Some(record) = record {
        kernel.clone_from(&record.spec.kernel);
    }
    if power != Power::Off
        && let Some(record) = record
        && let spec = after_live(&record.spec, wanted)
        && spec != record.spec
    {
        steps.push(Step::Tune {
            changes: changes(wanted, &record.spec),
            spec: Box::new(spec),
        });
    }
    if !ready {
        steps.push(Step::Reach);
        steps.extend(kernel.as_ref().and_then(install_kernel));
        let shares = match record {
            // What the domain has, which is what can be mounted.
            Some(record) if stays => &record.spec.shares,
            _ => (wanted.spec.as_ref()).map_or(&[][..], |spec| &spec.shares),
        };
        let mounted = record.map_or(&[][..], |record| &record.mounted);
        steps.extend(sync_steps(&wanted.machine, shares, mounted));
    }
    let provisions = due(wanted, record, again);
    let provisioned = !provisions.is_empty();
    steps.extend(provisions);
    if !ready || provisioned {
        steps.push(Step::Ready);
    }
    steps.extend(after_up(
        wanted,
        existing.observed.as_ref().filter(|_| ready),
    ));
    steps
}

/// What brings a machine's folders up to date. `shares` is what its domain has, `mounted` what the
/// guest was told to mount.
pub fn sync_steps(machine: &Machine, shares: &[Share], mounted: &[Share]) -> Vec<Step> {
    let mut steps = Vec::new();
    if !shares.is_empty() || !mounted.is_empty() {
        steps.push(Step::Mount {
            shares: shares.to_vec(),
        });
    }
    let copied = (machine.syncs.iter()).filter_map(|folder| {
        let kind = match folder.kind {
            // What would be shared by now, but only after a restart.
            SyncKind::Virtiofs | SyncKind::NineP => return None,
            SyncKind::Auto => SyncKind::Rsync,
            kind => kind,
        };
        // What is copied to where another folder of the host is mounted would be written, and
        // deleted, there.
        let taken = |share: &Share| within(&share.to, &folder.to) || within(&folder.to, &share.to);
        (!shares.iter().any(taken)).then(|| Step::Sync {
            folder: SyncFolder {
                kind,
                ..folder.clone()
            },
        })
    });
    steps.extend(copied);
    steps
}

/// Whether a path is another or below it.
fn within(path: &str, above: &str) -> bool {
    (path.strip_prefix(above)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What comes after the first login on a machine that is to boot by itself a kernel of its
/// Machinefile.
pub fn install_kernel(kernel: &KernelSpec) -> Option<Step> {
    kernel.installed.then(|| Step::InstallKernel {
        kernel: (kernel.release.clone()).unwrap_or_else(|| kernel.source.clone()),
    })
}

/// Steps that shut machines down, dependents first.
pub fn halt(machines: &[(Wanted, Existing)], force: bool) -> Plan {
    backwards(machines, |wanted, existing| {
        let Some(observed) = (existing.observed.as_ref()).filter(|it| it.is_up()) else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        // Nobody in a paused guest can be asked anything.
        let paused = observed.power == Power::Paused;
        if paused && !force {
            steps.push(Step::Resume);
        }
        steps.extend(hooks(
            &wanted.machine,
            Moment::BeforeHalt,
            !(paused && force),
        ));
        steps.push(Step::Stop { graceful: !force });
        steps.extend(hooks(&wanted.machine, Moment::AfterHalt, false));
        steps
    })
}

/// As [`halt`], for machines that are then booted: one that is saved goes on first, so that it can
/// be shut down and nothing in its memory is lost.
pub fn halt_to_boot(machines: &[(Wanted, Existing)], force: bool) -> Plan {
    let mut plan = halt(machines, force);
    for (machine, (_, existing)) in plan.machines.iter_mut().zip(machines) {
        let saved = (existing.observed.as_ref()).is_some_and(|it| it.condition.saved);
        if saved && machine.is_empty() {
            machine.steps = vec![Step::Restore, Step::Stop { graceful: !force }];
        }
    }
    plan
}

/// Steps after which nothing is left of the machines, dependents first.
pub fn destroy(machines: &[(Wanted, Existing)]) -> Plan {
    backwards(machines, destroy_steps)
}

pub(super) fn destroy_steps(wanted: &Wanted, existing: &Existing) -> Vec<Step> {
    let mut steps = Vec::new();
    let Some(observed) = &existing.observed else {
        if existing.disk {
            steps.push(Step::DeleteDisk);
            steps.push(Step::RemoveFiles);
        }
        return steps;
    };
    // One that has begun was not kept from it by what comes before.
    if observed.record.phase != Phase::Destroying {
        steps.extend(hooks(
            &wanted.machine,
            Moment::BeforeDestroy,
            observed.power == Power::Running,
        ));
    }
    steps.push(Step::Retire);
    if observed.is_up() {
        steps.push(Step::Stop { graceful: false });
    }
    steps.push(Step::DeleteDisk);
    steps.push(Step::RemoveFiles);
    steps.push(Step::Undefine);
    steps.extend(hooks(&wanted.machine, Moment::AfterDestroy, false));
    steps
}

fn backwards(
    machines: &[(Wanted, Existing)],
    steps: impl Fn(&Wanted, &Existing) -> Vec<Step>,
) -> Plan {
    let plans = machines
        .iter()
        .map(|(wanted, existing)| {
            let name = &wanted.machine.name;
            MachinePlan {
                machine: name.clone(),
                after: machines
                    .iter()
                    .filter(|(other, _)| other.machine.depends_on.contains(name))
                    .map(|(other, _)| other.machine.name.clone())
                    .collect(),
                steps: steps(wanted, existing),
                drift: Vec::new(),
                stale: Vec::new(),
            }
        })
        .collect();
    Plan {
        machines: plans,
        runs: Vec::new(),
    }
}
