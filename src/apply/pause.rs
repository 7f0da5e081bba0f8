//! Paused machines: what to report, how to resume them, and how to end waits for a guest that cannot answer.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, timeout_at},
};

use crate::{
    host::free_space,
    hypervisor::{Domain, Lifecycle},
    machine::{Identity, Pause, Power},
    report::{bytes, clean::Shown},
};

use super::{
    context::Context,
    error::ApplyError,
    ports::taken_port,
    start::{close_ports, open_ports},
    steps::{Steps, WhenOff, blocking},
};

/// A guest that was paused because of a full disk is resumed only with at least this many bytes free: with
/// less, it would be paused again at its next write.
const ROOM_TO_GO_ON: u64 = 512 << 20;

/// How long a guest must run to count as resumed.
const STEADY: Duration = Duration::from_secs(1);

/// The pause between checks of a domain's state, in case an event is missed.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// How long another operation may work on a domain before stead reports it.
const SILENT: Duration = Duration::from_secs(1);

/// A file system that needs more free space before a machine can be resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Full {
    mounted_at: PathBuf,
    free: u64,
}

/// Returns what to do about a paused machine. `then`: the text about what resumes it.
pub fn remedy(machine: &str, pause: &Pause, then: &str) -> String {
    match pause {
        Pause::Crashed => format!(
            "`stead logs {machine}` shows its console; it cannot shut down any more: `stead halt --force {machine}` powers it off, and `stead up {machine}` boots it again"
        ),
        Pause::Busy { .. } => format!("wait until that is over; then {then}"),
        pause => match full(pause) {
            Some(full) => format!(
                "free at least {} on {} ({} free now); then {then}",
                bytes(ROOM_TO_GO_ON),
                full.mounted_at.shown(),
                bytes(full.free)
            ),
            None if matches!(pause, Pause::DiskError { disks } if disks.iter().any(|disk| !disk.full)) =>
            {
                format!(
                    "check the host's disk for errors (`dmesg`) and for free space; then {then}"
                )
            }
            None => then.to_string(),
        },
    }
}

/// Returns the full file system that keeps the machine from being resumed, if there is one.
fn full(pause: &Pause) -> Option<Full> {
    let Pause::DiskError { disks } = pause else {
        return None;
    };
    disks.iter().find_map(|disk| {
        let file = disk.file.as_deref()?;
        let free = free_space::lacking(file.parent()?, ROOM_TO_GO_ON)?;
        Some(Full {
            mounted_at: free_space::mounted_at(file),
            free,
        })
    })
}

/// Returns the error for a paused machine.
pub(super) fn paused(machine: &str, pause: &Pause, then: &str) -> ApplyError {
    ApplyError::Paused {
        machine: machine.to_string(),
        why: pause.to_string(),
        remedy: remedy(machine, pause, then),
    }
}

pub(super) const AGAIN: &str = "run the same command again, which resumes it";

impl Steps<'_> {
    /// Resumes a paused machine, once it can run. If it runs already, there is nothing to do.
    pub(super) async fn resume(&self) -> Result<(), ApplyError> {
        let (domain, _) = self.record().await?;
        let machine = self.name();
        let mut asked: Option<Instant> = None;
        let mut said = false;
        let begun = Instant::now();
        loop {
            let pause = match look(&domain).await? {
                (Power::Running, _) => match asked {
                    Some(at) if at.elapsed() < STEADY => None,
                    _ => return self.after_resume(&domain).await,
                },
                (Power::Off, _) => {
                    return Err(ApplyError::Stopped {
                        machine: machine.to_string(),
                    });
                }
                (Power::Paused, Some(pause)) => Some(pause),
                // It is shutting down, and off soon.
                (Power::Stopping | Power::Paused, _) => None,
            };
            match pause {
                Some(pause) if pause.passes() => {
                    let silent = said || begun.elapsed() <= SILENT;
                    if !silent {
                        self.notice(format!("{pause}; waiting until that is over"));
                    }
                    said |= !silent;
                }
                Some(pause) => {
                    // It was resumed already, and was paused again.
                    let in_vain = asked.is_some() && matches!(pause, Pause::DiskError { .. });
                    if !pause.can_go_on() || in_vain || full(&pause).is_some() {
                        return Err(paused(machine, &pause, AGAIN));
                    }
                    let resumed = domain.clone();
                    blocking(move || Ok(resumed.resume(&pause)?)).await?;
                    asked = Some(Instant::now());
                }
                None => {}
            }
            tokio::time::sleep(STEADY / 5).await;
        }
    }

    /// A guest that can be logged in to gets its clock right; for others, the step that logs in does it.
    async fn after_resume(&self, domain: &Domain) -> Result<(), ApplyError> {
        let domain = domain.clone();
        let running = blocking(move || Ok(domain.running()?)).await?;
        match running.is_some_and(|running| running.ready.is_some()) {
            true => self.see_to_clock().await,
            false => Ok(()),
        }
    }

    /// Restores a saved machine. It gets the ports that it had, which cannot be changed.
    pub(super) async fn restore(&self) -> Result<(), ApplyError> {
        let context = Arc::clone(self.context);
        let wanted = self.job.wanted.clone();
        let files = self.files();
        let (domain, record) = self.record().await?;
        blocking(move || {
            if domain.power()? != Power::Off {
                return Ok(());
            }
            super::share::before_start(&context, &record, &files)?;
            let network = context.network.as_ref();
            // A halt has no network: the guest is only to shut down.
            if network.is_some() && !open_ports(network, &record)? {
                return Err(taken_port(&context, &record, &wanted));
            }
            match domain.start() {
                Ok(()) => {}
                Err(error) if error.is_port_taken() => {
                    return Err(taken_port(&context, &record, &wanted));
                }
                Err(error) => {
                    close_ports(network, &record);
                    super::share::after_failure(&record, &files);
                    return Err(ApplyError::NotRestored {
                        machine: record.machine.clone(),
                        domain: wanted.identity.domain.clone(),
                        message: error.to_string(),
                    });
                }
            }
            Ok(domain.set_running(&Default::default())?)
        })
        .await?;
        // A machine that was paused when it was saved is paused again.
        self.resume().await
    }
}

async fn look(domain: &Domain) -> Result<(Power, Option<Pause>), ApplyError> {
    let domain = domain.clone();
    blocking(move || Ok(domain.state()?)).await
}

/// Ends when the guest cannot answer any more, and returns the reason: the machine is off, removed, or paused
/// until somebody resumes it, or libvirt does not answer.
pub async fn until_lost(context: &Arc<Context>, identity: &Identity, machine: &str) -> ApplyError {
    until_still(context, identity, machine, WhenOff::Lost).await
}

pub(super) async fn until_still(
    context: &Arc<Context>,
    identity: &Identity,
    machine: &str,
    off: WhenOff,
) -> ApplyError {
    let mut events = context.events.receiver();
    loop {
        let (connection, sought) = (context.connection.clone(), identity.clone());
        let found = blocking(move || match connection.lookup(&sought)? {
            Some(domain) => Ok(domain.state()?),
            None => Err(ApplyError::Gone {
                domain: sought.domain,
            }),
        });
        match found.await {
            Err(error) => return error,
            Ok((Power::Off, _)) if off == WhenOff::Lost => {
                return ApplyError::Stopped {
                    machine: machine.to_string(),
                };
            }
            Ok((Power::Paused, Some(pause))) if !pause.passes() => {
                let hint = format!(
                    "`stead up {machine}` resumes it; after that, run the same command again"
                );
                return paused(machine, &pause, &hint);
            }
            Ok(_) => {}
        }
        // An event only wakes it up; the state counts, even if an event was missed.
        let next = Instant::now() + LOOK;
        loop {
            match timeout_at(next, events.recv()).await {
                Err(_) => break,
                Ok(Ok((who, Lifecycle::Stopped { .. } | Lifecycle::Suspended)))
                    if who == identity.uuid =>
                {
                    break;
                }
                Ok(Ok(_) | Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) => {
                    tokio::time::sleep_until(next).await;
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::DiskError;

    #[test]
    fn what_to_do_is_said_for_each() {
        let up = "`stead up web` resumes it";
        assert_eq!(remedy("web", &Pause::Asked, up), up);
        let saved = Pause::Busy {
            with: "being saved",
        };
        assert!(remedy("web", &saved, up).starts_with("wait until"));
        assert!(remedy("web", &Pause::Crashed, up).contains("halt --force web"));
        let place = tempfile::tempdir().unwrap();
        let error = |full| Pause::DiskError {
            disks: vec![DiskError {
                disk: "vda".into(),
                file: Some(place.path().join("disk.qcow2")),
                full,
            }],
        };
        assert!(remedy("web", &error(false), up).contains("dmesg"));
        // There is enough space now.
        assert_eq!(remedy("web", &error(true), up), up);
    }
}
