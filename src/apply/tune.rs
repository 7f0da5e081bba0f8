//! Reservations and limits of a machine: set up before it starts, checked after it has started, and changed
//! while it runs.

use crate::{
    boxes::StoredBox,
    guest::MachineFiles,
    hypervisor::Domain,
    machine::Spec,
    plan::{PhaseKept, WantedMachine},
    resources::{online_cpus, prepare_partition, verify_partition, weight_scale},
};

use super::{
    context::Context,
    define::define,
    error::ApplyError,
    steps::{Steps, blocking},
};

/// Records in libvirt what a machine will reserve, before `up` does anything else to it. Blocks.
pub fn claim(
    context: &Context,
    wanted: &WantedMachine,
    stored: &StoredBox,
    spec: &Spec,
    phase: PhaseKept,
) -> Result<(), ApplyError> {
    let files = MachineFiles::new(&context.data, &wanted.identity.uuid);
    define(context, wanted, stored, spec.clone(), phase, &files, None)
}

/// Prepares the host for reserved CPUs.
pub(super) fn before_start(machine: &str, spec: &Spec) -> Result<(), ApplyError> {
    if spec.tuning.cpu.reserve {
        prepare_partition(machine)?;
    }
    Ok(())
}

/// Checks that reserved CPUs are really reserved. If not, the machine is powered off.
pub(super) fn after_start(machine: &str, spec: &Spec, domain: &Domain) -> Result<(), ApplyError> {
    if !spec.tuning.cpu.reserve {
        return Ok(());
    }
    let looked = match domain.process() {
        Some(pid) => verify_partition(machine, pid).map_err(ApplyError::from),
        None => Err(ApplyError::Internal(format!(
            "libvirt does not report the process of {}",
            domain.name()
        ))),
    };
    if looked.is_err() {
        domain.power_off()?;
    }
    looked
}

impl Steps<'_> {
    pub(super) async fn tune(&self, spec: &Spec) -> Result<(), ApplyError> {
        let (domain, mut record) = self.record().await?;
        let spec = spec.clone();
        blocking(move || {
            domain.tune(&record.spec, &spec, &online_cpus(), weight_scale())?;
            record.spec = spec;
            Ok(domain.set_record(&record)?)
        })
        .await
    }
}
