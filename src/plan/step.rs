//! One step of a machine, and its words.

use serde::Serialize;

use crate::{
    boxes::{Destination, Packing},
    machine::{Share, Spec},
    machinefile::{Hook, HookRuns, Moment, SyncFolder, SyncKind},
    report::{clean::Shown, counted},
};

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
    /// Store the definition of a domain that runs without one.
    Persist,
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
    /// Renew the certificate in a guest that has been reached before.
    Certificate,
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
    /// Its last run failed or was interrupted.
    Failed,
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
            ProvisionReason::Failed => "its last run did not succeed",
            ProvisionReason::Changed => "it changed since it ran",
            ProvisionReason::Always => "it always runs",
            ProvisionReason::Request => "asked for",
        }
    }
}

impl Step {
    /// Whether runs over several machines come before it: readiness checks often check their work.
    pub fn is_after_runs(&self) -> bool {
        match self {
            Step::Ready => true,
            Step::Hook { hook, .. } => hook.moment == Moment::AfterUp,
            _ => false,
        }
    }

    /// Returns a stable name, unique within the machine. Events have it (docs/reference/json.md, "Steps").
    pub fn id(&self) -> String {
        match self {
            Step::Box => "box".into(),
            Step::Define { .. } => "define".into(),
            Step::Persist => "persist".into(),
            Step::Disk => "disk".into(),
            Step::Seed => "seed".into(),
            Step::Start => "start".into(),
            Step::Restore => "restore".into(),
            Step::Resume => "resume".into(),
            Step::Tune { .. } => "tune".into(),
            Step::Reach => "reach".into(),
            Step::Certificate => "certificate".into(),
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
                "define the domain ({}, {} on {}{})",
                counted(spec.cpus, "CPU"),
                spec.memory,
                spec.accel,
                spec.firmware
            ),
            Step::Persist => "define the running domain again (it was undefined)".into(),
            Step::Disk => "create the disk on top of the box's image".into(),
            Step::Seed => "write the keys and the seed".into(),
            Step::Start => "boot".into(),
            Step::Restore => "continue from its saved memory".into(),
            Step::Resume => "resume (it is paused)".into(),
            Step::Tune { changes, .. } => format!("change while it runs: {changes}"),
            Step::Reach => "wait for SSH".into(),
            Step::Certificate => "renew its certificate".into(),
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
            Step::Sync { folder } => match folder.kind {
                SyncKind::TwoWay => format!("sync both ways with {}", folder.to),
                SyncKind::Rsync | SyncKind::Auto | SyncKind::Virtiofs | SyncKind::NineP => {
                    format!("sync to {}", folder.to)
                }
            },
            Step::Provision { name, reason } => {
                format!("run provisioner {name} ({})", reason.words())
            }
            Step::Hook { hook, left_out, .. } => describe_hook(hook, *left_out),
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
            Step::Persist => "defining again".into(),
            Step::Disk => "creating disk".into(),
            Step::Seed => "seeding".into(),
            Step::Start => "starting".into(),
            Step::Restore => "restoring".into(),
            Step::Resume => "resuming".into(),
            Step::Tune { changes, .. } => format!("changing {changes}"),
            Step::Reach => "booting".into(),
            Step::Certificate => "renewing its certificate".into(),
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

    /// Describes the step once it is done.
    pub fn done(&self) -> String {
        match self {
            Step::Box => "checked its box".into(),
            Step::Define { .. } => "defined".into(),
            Step::Persist => "defined again".into(),
            Step::Disk => "created its disk".into(),
            Step::Seed => "wrote its seed".into(),
            Step::Start => "started".into(),
            Step::Restore => "restored".into(),
            Step::Resume => "resumed".into(),
            Step::Tune { changes, .. } => format!("changed {changes}"),
            Step::Reach => "booted".into(),
            Step::Certificate => "renewed its certificate".into(),
            Step::InstallKernel { kernel } => format!("checked kernel {kernel}"),
            Step::Mount { .. } => "mounted folders".into(),
            Step::Sync { folder } => format!("synced {}", folder.to),
            Step::Provision { name, .. } => format!("provisioned {name}"),
            Step::Hook { hook, .. } => format!("ran {} ({})", hook.moment, hook.label()),
            Step::Ready => "checked readiness".into(),
            Step::Retire => "retired".into(),
            Step::Stop { graceful: true } => "shut down".into(),
            Step::Stop { graceful: false } => "powered off".into(),
            Step::DeleteDisk => "deleted its disk".into(),
            Step::RemoveFiles => "removed its files".into(),
            Step::Undefine => "undefined".into(),
            Step::CopyDisk => "copied the disk".into(),
            Step::Clean => "cleaned".into(),
            Step::Seal => "merged the disk".into(),
            Step::Keep { packing } => match &packing.to {
                Destination::Store => "stored".into(),
                Destination::Archive(path) | Destination::Image(_, path) => {
                    format!("wrote {}", path.shown())
                }
            },
        }
    }
}

/// Whether it is a hook that runs on the host.
pub(super) fn is_host_hook(step: &Step) -> bool {
    matches!(step, Step::Hook { hook, .. } if matches!(hook.runs, HookRuns::Host(_)))
}

/// Describes a hook for `stead plan`.
fn describe_hook(hook: &Hook, left_out: bool) -> String {
    let place = match hook.runs {
        HookRuns::Host(_) => "on the host",
        HookRuns::Guest(_) => "in the guest",
    };
    let why = if left_out {
        " (skipped: the machine is off)"
    } else {
        ""
    };
    format!("{}: run {} {place}{why}", hook.moment, hook.label())
}
