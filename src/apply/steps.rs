//! Runs the steps of a machine. A killed run may have done a step's work already, in part or completely.

use std::sync::Arc;

use crate::{
    boxes::StoredBox,
    guest::{MachineFiles, Remote},
    host::runtime,
    hypervisor::Domain,
    machine::{Phase, Record, Spec},
    machinefile::HookRuns,
    plan::{PhaseKept, Step},
    report::{Event, EventKind, Reporter},
    sync::virtiofs,
};

use super::{
    context::{Context, Job},
    define::define,
    error::ApplyError,
};

pub(super) struct Steps<'a> {
    pub context: &'a Arc<Context>,
    pub job: &'a Job,
    pub reporter: &'a Reporter,
}

/// What a wait does when the machine is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenOff {
    /// It ends, because the guest cannot answer any more.
    Lost,
    /// It continues, because the machine is about to boot again.
    Goes,
}

impl Step {
    /// Returns what the step does if the machine turns off meanwhile; `None` if it does not need an answer from
    /// the guest.
    pub(super) fn needs_guest(&self) -> Option<WhenOff> {
        match self {
            // It reboots the machine itself.
            Step::InstallKernel { .. } => Some(WhenOff::Goes),
            Step::Reach
            | Step::Certificate
            | Step::Mount { .. }
            | Step::Sync { .. }
            | Step::Provision { .. }
            | Step::Ready
            | Step::Clean => Some(WhenOff::Lost),
            Step::Hook { hook, left_out, .. } => {
                let in_guest = matches!(hook.runs, HookRuns::Guest(_)) && !left_out;
                in_guest.then_some(WhenOff::Lost)
            }
            Step::Box
            | Step::Define { .. }
            | Step::Persist
            | Step::Disk
            | Step::Seed
            | Step::Start
            | Step::Restore
            | Step::Resume
            | Step::Tune { .. }
            | Step::Retire
            | Step::Stop { .. }
            | Step::DeleteDisk
            | Step::RemoveFiles
            | Step::Undefine
            | Step::CopyDisk
            | Step::Seal
            | Step::Keep { .. } => None,
        }
    }

    /// Whether Ctrl-C may interrupt the step.
    pub(super) fn may_be_given_up(&self) -> bool {
        match self {
            Step::Reach
            | Step::Certificate
            | Step::InstallKernel { .. }
            | Step::Mount { .. }
            | Step::Sync { .. }
            | Step::Provision { .. }
            | Step::Hook { .. }
            | Step::Ready
            | Step::Stop { .. }
            | Step::Resume
            | Step::CopyDisk
            | Step::Clean
            | Step::Seal => true,
            Step::Box
            | Step::Define { .. }
            | Step::Persist
            | Step::Disk
            | Step::Seed
            | Step::Start
            | Step::Restore
            | Step::Tune { .. }
            | Step::Retire
            | Step::DeleteDisk
            | Step::RemoveFiles
            | Step::Undefine
            | Step::Keep { .. } => false,
        }
    }
}

/// Runs a blocking call of libvirt or the file system in a thread for such work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApplyError> + Send + 'static,
) -> Result<T, ApplyError> {
    runtime::blocking(work).await?
}

impl Steps<'_> {
    pub(super) async fn run(&self, step: &Step) -> Result<(), ApplyError> {
        match step {
            Step::Box => self.check_box().await,
            Step::Define { spec, phase } => self.define(spec, *phase).await,
            Step::Persist => self.persist().await,
            Step::Disk => self.make_disk().await,
            Step::Seed => self.seed().await,
            Step::Start => self.start().await,
            Step::Restore => self.restore().await,
            Step::Resume => self.resume().await,
            Step::Tune { spec, .. } => self.tune(spec).await,
            Step::Reach => self.reach().await,
            Step::Certificate => self.renew_certificate().await,
            Step::InstallKernel { .. } => self.install_kernel().await,
            Step::Mount { shares } => self.mount(shares).await,
            Step::Sync { folder } => self.sync(folder).await,
            Step::Provision { name, .. } => self.provision(name).await,
            Step::Hook { hook, left_out, .. } => self.hook(step, hook, *left_out).await,
            Step::Ready => self.ready().await,
            Step::Retire => self.retire().await,
            Step::Stop { graceful } => self.stop(*graceful).await,
            Step::DeleteDisk => self.delete_disk().await,
            Step::RemoveFiles => self.remove_files().await,
            Step::Undefine => self.undefine().await,
            Step::CopyDisk => self.copy_disk().await,
            Step::Clean => self.clean().await,
            Step::Seal => self.seal().await,
            Step::Keep { packing } => self.keep(packing).await,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.job.plan.machine
    }

    pub(super) fn files(&self) -> MachineFiles {
        self.job.files(&self.context.data)
    }

    pub(super) fn remote(&self) -> Remote {
        self.job.remote(&self.context.data)
    }

    pub(super) fn notice(&self, message: impl Into<String>) {
        self.reporter.event(&Event::now(
            self.name(),
            EventKind::Notice {
                message: message.into(),
            },
        ));
    }

    pub(super) fn stored_box(&self) -> Result<StoredBox, ApplyError> {
        self.job
            .stored_box
            .clone()
            .ok_or_else(|| ApplyError::Internal("the job has no box".into()))
    }

    pub(super) async fn domain(&self) -> Result<Domain, ApplyError> {
        let connection = self.context.connection.clone();
        let identity = self.job.wanted.identity.clone();
        blocking(move || {
            connection.lookup(&identity)?.ok_or(ApplyError::Gone {
                domain: identity.domain,
            })
        })
        .await
    }

    pub(super) async fn record(&self) -> Result<(Domain, Record), ApplyError> {
        let domain = self.domain().await?;
        blocking(move || {
            let record = domain.record()?.ok_or_else(|| ApplyError::Gone {
                domain: domain.name().to_string(),
            })?;
            Ok((domain, record))
        })
        .await
    }

    async fn check_box(&self) -> Result<(), ApplyError> {
        let stored = self.stored_box()?;
        if !stored.manifest.seed.runs_user_data() && self.job.wanted.machine.user_data.is_some() {
            return Err(ApplyError::NoCloudInit {
                name: stored.manifest.name.clone(),
            });
        }
        let context = Arc::clone(self.context);
        blocking(move || {
            context.store.ensure_intact(&stored)?;
            Ok(context.store.mark_used(&stored)?)
        })
        .await
    }

    async fn define(&self, spec: &Spec, phase: PhaseKept) -> Result<(), ApplyError> {
        let context = Arc::clone(self.context);
        let wanted = self.job.wanted.clone();
        let stored = self.stored_box()?;
        let spec = spec.clone();
        let files = self.files();
        blocking(move || define(&context, &wanted, &stored, spec, phase, &files, None)).await
    }

    async fn persist(&self) -> Result<(), ApplyError> {
        let connection = self.context.connection.clone();
        let identity = self.job.wanted.identity.clone();
        blocking(move || Ok(connection.persist(&identity)?)).await
    }

    async fn retire(&self) -> Result<(), ApplyError> {
        let (domain, mut record) = self.record().await?;
        blocking(move || {
            record.phase = Phase::Destroying;
            Ok(domain.set_record(&record)?)
        })
        .await
    }

    async fn remove_files(&self) -> Result<(), ApplyError> {
        let remote = self.remote();
        blocking(move || {
            remote.disconnect();
            // The machine is off, so nothing needs these processes.
            virtiofs::end_all(&remote.files);
            Ok(remote.files.remove()?)
        })
        .await
    }
}
