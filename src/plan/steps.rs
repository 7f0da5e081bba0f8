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
    wanted::{Existing, WantedMachine},
};

/// The steps of each machine. Machines run in parallel, each after those it depends on.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub machines: Vec<MachinePlan>,
    /// What runs over several machines, one after the other.
    pub runs: Vec<ProjectRun>,
}

#[derive(Clone, Debug, Serialize)]
pub struct MachinePlan {
    pub machine: String,
    /// Machines whose steps must be done before this one's begin.
    pub after: Vec<String>,
    pub steps: Vec<Step>,
    /// What still differs from the Machinefile after the steps.
    pub drift: Vec<Drift>,
    /// Provisioners that changed since they ran, and that these steps do not run.
    pub stale: Vec<Stale>,
}

/// One step. It can be repeated after an interruption, and does nothing if it was done.
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
    /// Start it with the memory that was saved.
    Restore,
    /// Continue where it was paused.
    Resume,
    /// Change what can be changed while the machine runs.
    Tune {
        #[serde(skip)]
        spec: Box<Spec>,
        changes: String,
    },
    /// Wait until SSH accepts a login and the seed is done.
    Reach,
    /// Install the kernel in the guest and boot it.
    InstallKernel {
        /// Its release, or its name if the release is not known yet.
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
    /// A hook of the Machinefile.
    Hook {
        #[serde(skip)]
        hook: Box<Hook>,
        /// Its number among the hooks of its moment, from 1.
        n: usize,
        /// It is for the guest of a machine that is off, so it is only reported as skipped.
        left_out: bool,
    },
    /// Run the machine's readiness checks. After them it counts as up.
    Ready,
    /// Record that the machine is being destroyed, so that no `up` takes it for complete.
    Retire,
    Stop {
        /// Whether the guest is asked to shut down.
        graceful: bool,
    },
    DeleteDisk,
    /// Remove keys, seed and console log.
    RemoveFiles,
    Undefine,
    /// Copy the disk of the original machine.
    CopyDisk,
    /// Remove what is unique to the machine.
    Clean,
    /// Merge its disk and all backing files into one file.
    Seal,
    /// Store the box, or write it to a file.
    Keep {
        #[serde(skip)]
        packing: Box<Packing>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseKept {
    /// The disk does not exist yet.
    New,
    /// The disk exists and is kept.
    Created,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProvisionReason {
    NeverRan,
    /// Its inputs changed since it ran.
    Changed,
    /// `run="always"`
    Always,
    /// It was asked for, by its name or with all others.
    Request,
}

impl ProvisionReason {
    pub(super) fn words(self) -> &'static str {
        match self {
            ProvisionReason::NeverRan => "it has not run yet",
            ProvisionReason::Changed => "it changed since it ran",
            ProvisionReason::Always => "it always runs",
            ProvisionReason::Request => "asked for",
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

    /// Describes the step for `stead plan`.
    pub fn describe(&self) -> String {
        match self {
            Step::Box => "verify the box".into(),
            Step::Define { spec, .. } => format!(
                "define the domain ({} {}, {} on {})",
                spec.cpus,
                if spec.cpus == 1 { "CPU" } else { "CPUs" },
                spec.memory,
                spec.accel
            ),
            Step::Disk => "create the disk on top of the box's image".into(),
            Step::Seed => "write the keys and the seed".into(),
            Step::Start => "boot".into(),
            Step::Restore => "continue from its saved memory".into(),
            Step::Resume => "resume (it is paused)".into(),
            Step::Tune { changes, .. } => format!("change while it runs: {changes}"),
            Step::Reach => "wait for SSH".into(),
            Step::InstallKernel { kernel } => {
                format!("install kernel {kernel} in the guest and boot it, unless it runs")
            }
            Step::Mount { shares } if shares.is_empty() => "unmount folders of the host".into(),
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
            Step::Ready => "check readiness".into(),
            Step::Retire => "mark it as being destroyed".into(),
            Step::Stop { graceful: true } => "shut down".into(),
            Step::Stop { graceful: false } => "power off".into(),
            Step::DeleteDisk => "delete the disk".into(),
            Step::RemoveFiles => "remove the keys, the seed and the console log".into(),
            Step::Undefine => "undefine the domain".into(),
            Step::CopyDisk => "copy the disk".into(),
            Step::Clean => "clean the copy".into(),
            Step::Seal => "merge the disk into one image".into(),
            Step::Keep { .. } => "store the box".into(),
        }
    }

    /// The text of the progress line while it runs.
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
            Step::InstallKernel { kernel } => format!("checking kernel {kernel}"),
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
            Step::Seal => "merging the disk".into(),
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

    /// Returns machines that are made or booted, which need their boxes in the store.
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

/// Returns the steps that bring the machines up.
pub fn up(machines: &[(WantedMachine, Existing)]) -> Plan {
    up_with(machines, false)
}

/// As [`up`], with every provisioner run again, but for those that only run by name.
pub fn up_again(machines: &[(WantedMachine, Existing)]) -> Plan {
    up_with(machines, true)
}

fn up_with(machines: &[(WantedMachine, Existing)], again: bool) -> Plan {
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
                        // The saved memory continues.
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

fn up_steps(wanted: &WantedMachine, existing: &Existing, again: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    // What it runs with after these steps.
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
        // A destroy was interrupted: the rest is not worth keeping.
        steps.extend(destroy_steps(wanted, existing));
        record = None;
        power = Power::Off;
        ready = false;
    }
    let saved = record.is_some_and(|record| record.phase == Phase::Created)
        && (existing.observed.as_ref()).is_some_and(|observed| observed.condition.saved);
    if saved {
        // Not defined again: libvirt starts the saved machine, and the record would not match it.
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
            // Only what the domain has can be mounted.
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
            // Folders that would be shared, but only after a restart.
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
pub fn halt(machines: &[(WantedMachine, Existing)], force: bool) -> Plan {
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
pub fn halt_to_boot(machines: &[(WantedMachine, Existing)], force: bool) -> Plan {
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
pub fn destroy(machines: &[(WantedMachine, Existing)]) -> Plan {
    backwards(machines, destroy_steps)
}

pub(super) fn destroy_steps(wanted: &WantedMachine, existing: &Existing) -> Vec<Step> {
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
    machines: &[(WantedMachine, Existing)],
    steps: impl Fn(&WantedMachine, &Existing) -> Vec<Step>,
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
