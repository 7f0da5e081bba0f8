//! The step that starts a machine.

use std::sync::Arc;

use crate::{
    hypervisor::{Domain, HypervisorError, Runtime},
    machine::{Power, Record, Running},
    network::Keeper,
    plan::PhaseKept,
};

use super::{
    clock::slept_seconds,
    define::define,
    error::ApplyError,
    ports::{can_be_corrected, corrections},
    seed::target,
    share,
    steps::{Steps, blocking},
    tune,
};

/// How many times another program may take QEMU's port before stead gives up.
const START_TRIES: usize = 5;

impl Steps<'_> {
    pub(super) async fn start(&self) -> Result<(), ApplyError> {
        let context = Arc::clone(self.context);
        let wanted = self.job.wanted.clone();
        let stored = self.stored_box()?;
        let files = self.files();
        let network = self.context.network.clone();
        let (mut domain, mut record) = self.record().await?;
        let (moved, corrections) = blocking(move || {
            let mut moved = None;
            let mut started = false;
            for _ in 0..START_TRIES {
                if domain.power()? != Power::Off {
                    started = true;
                    break;
                }
                files.set_console_log_aside()?;
                tune::before_start(&record.machine, &record.spec)?;
                share::before_start(&context, &record, &files)?;
                let runtime = Runtime::here(&context.connection);
                files.note_runtime(&serde_json::to_string(&runtime).map_err(|error| {
                    ApplyError::Internal(format!("cannot write JSON: {error}"))
                })?)?;
                let is_taken = match open_ports(network.as_ref(), &record)? {
                    false => true,
                    true => match begin(&domain, &record) {
                        Ok(()) => {
                            note_begun(&domain, &mut record)?;
                            tune::after_start(&record.machine, &record.spec, &domain)?;
                            started = true;
                            break;
                        }
                        Err(error) if error.is_port_taken() => true,
                        Err(error) => {
                            close_ports(network.as_ref(), &record);
                            share::after_failure(&record, &files);
                            return Err(share::explained(error, &context, &record));
                        }
                    },
                };
                if is_taken {
                    // Another program has taken the port since it was chosen. The user must free a forwarded port,
                    // unless it may be another one; stead can change the SSH port.
                    let forwards = &record.spec.forwards;
                    let by_forward = can_be_corrected(&context, &wanted, forwards)?;
                    let busy = record.ssh_port;
                    define(
                        &context,
                        &wanted,
                        &stored,
                        record.spec.clone(),
                        PhaseKept::Created,
                        &files,
                        (!by_forward).then_some(busy),
                    )?;
                    let again =
                        (context.connection.lookup(&wanted.identity)?).ok_or_else(|| {
                            ApplyError::Gone {
                                domain: wanted.identity.domain.clone(),
                            }
                        })?;
                    domain = again;
                    record = domain.record()?.unwrap_or(record);
                    target(&context, &wanted, &record).write(&files)?;
                    if record.ssh_port != busy {
                        moved = Some((busy, record.ssh_port));
                    }
                }
            }
            if !started {
                return Err(ApplyError::PortsLost { tries: START_TRIES });
            }
            domain.set_running(&Running {
                slept: Some(slept_seconds()),
                ..Running::default()
            })?;
            Ok((moved, corrections(&record)))
        })
        .await?;
        if let Some((busy, port)) = moved {
            self.notice(format!(
                "another program uses port {busy}; SSH is on port {port} now"
            ));
        }
        for correction in corrections {
            self.notice(correction);
        }
        Ok(())
    }
}

fn begin(domain: &Domain, record: &Record) -> Result<(), HypervisorError> {
    match record.firmware.fresh {
        true => domain.start_with_new_variables(),
        false => domain.start(),
    }
}

/// Records that the variables are the machine's own from now on.
fn note_begun(domain: &Domain, record: &mut Record) -> Result<(), HypervisorError> {
    if std::mem::take(&mut record.firmware.fresh) {
        domain.set_record(record)?;
    }
    Ok(())
}

/// Has the network open the ports of a machine to which it leads. Returns whether it could open all; if not, it has none.
pub(super) fn open_ports(network: Option<&Keeper>, record: &Record) -> Result<bool, ApplyError> {
    let Some(way) = record.way_in() else {
        return Ok(true);
    };
    let network = network.ok_or_else(|| ApplyError::NoNetwork {
        machine: record.machine.clone(),
    })?;
    let unopened = network.lead(way)?;
    if !unopened.is_empty() {
        close_ports(Some(network), record);
    }
    Ok(unopened.is_empty())
}

/// Has the network close them again. If it does not answer, they close by themselves.
pub(super) fn close_ports(network: Option<&Keeper>, record: &Record) {
    if let (Some(network), Some(mut way)) = (network, record.way_in()) {
        way.forwards.clear();
        let _ = network.lead(way);
    }
}
