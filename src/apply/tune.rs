//! Reservations and limits of a machine: set up before it starts, checked after it has started, and changed
//! while it runs.

use std::sync::Arc;

use crate::{
    boxes::StoredBox,
    guest::MachineFiles,
    host::lock::LockName,
    hypervisor::Domain,
    machine::{Record, Spec},
    machinefile::Forward,
    plan::{PhaseKept, WantedMachine},
    resources::{online_cpus, prepare_partition, verify_partition, weight_scale},
};

use super::{
    context::{Context, lock},
    define::define,
    error::ApplyError,
    ports::{self, corrections},
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

/// Has other ports lead to a machine that runs. Returns the forwards with their ports.
fn lead(
    context: &Context,
    wanted: &WantedMachine,
    record: &Record,
    forwards: &[Forward],
) -> Result<Vec<Forward>, ApplyError> {
    let _held = lock(context, LockName::Defining)?;
    let mut taken = ports::taken(context, wanted)?;
    let forwards =
        ports::choose_more(context, wanted, &record.spec.forwards, forwards, &mut taken)?;
    let mut next = record.clone();
    next.spec.forwards = forwards;
    if let (Some(network), Some(way), Some(before)) =
        (&context.network, next.way_in(), record.way_in())
        && let Some(unopened) = network.lead(way)?.first()
    {
        // Those of before are open again.
        network.lead(before)?;
        return Err(ports::unopened(context, wanted, &next, unopened.host));
    }
    Ok(next.spec.forwards)
}

impl Steps<'_> {
    pub(super) async fn tune(&self, spec: &Spec) -> Result<(), ApplyError> {
        let (domain, mut record) = self.record().await?;
        let spec = spec.clone();
        let (context, wanted) = (Arc::clone(self.context), self.job.wanted.clone());
        let corrected = blocking(move || {
            domain.tune(&record.spec, &spec, &online_cpus(), weight_scale())?;
            let forwards = match record.led_card() {
                Some(_) => lead(&context, &wanted, &record, &spec.forwards)?,
                None => spec.forwards.clone(),
            };
            let before = std::mem::replace(&mut record.spec, Spec { forwards, ..spec });
            domain.set_record(&record)?;
            Ok(match record.spec.forwards == before.forwards {
                true => Vec::new(),
                false => corrections(&record),
            })
        })
        .await?;
        for correction in corrected {
            self.notice(correction);
        }
        Ok(())
    }
}
