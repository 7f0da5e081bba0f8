//! Machines that stand still: what to say of one, how it goes on, and the end of waits for what a
//! guest that stands still cannot do.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, timeout_at},
};

use crate::{
    host::room,
    hypervisor::{Domain, Identity, Lifecycle, Pause, Power},
    report::{bytes, clean::Shown},
};

use super::{
    context::Context,
    define::taken_port,
    error::ApplyError,
    steps::{Steps, blocking},
};

/// With less than this free a guest whose disk had no room is not resumed: it would stop at its
/// next write.
const ROOM_TO_GO_ON: u64 = 512 << 20;

/// How long a guest has to stay on its feet to count as resumed.
const STEADY: Duration = Duration::from_secs(1);

/// Between looks at a domain of which no event may tell.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// How long something else may be at work on a domain before that is said.
const SILENT: Duration = Duration::from_secs(1);

/// A file system that has to have more room before a machine can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Full {
    mounted_at: PathBuf,
    free: u64,
}

/// What to do about a machine that is paused. `then`: what resumes it.
pub fn remedy(machine: &str, pause: &Pause, then: &str) -> String {
    match pause {
        Pause::Crashed => format!(
            "`stead logs {machine}` shows its console; nothing in it can be shut down any more: `stead halt --force {machine}` powers it off, and `stead up {machine}` boots it again"
        ),
        Pause::Busy { .. } => format!("wait until that is over; then {then}"),
        pause => match full(pause) {
            Some(full) => format!(
                "free at least {} on {} ({} are free there); then {then}",
                bytes(ROOM_TO_GO_ON),
                full.mounted_at.shown(),
                bytes(full.free)
            ),
            None if matches!(pause, Pause::DiskError { disks } if disks.iter().any(|disk| !disk.full)) =>
            {
                format!(
                    "look for errors of the host's disk (`dmesg`) and for space there; then {then}"
                )
            }
            None => then.to_string(),
        },
    }
}

/// The file system that keeps the machine from going on, where one does.
fn full(pause: &Pause) -> Option<Full> {
    let Pause::DiskError { disks } = pause else {
        return None;
    };
    disks.iter().find_map(|disk| {
        let file = disk.file.as_deref()?;
        let free = room::lacking(file.parent()?, ROOM_TO_GO_ON)?;
        Some(Full {
            mounted_at: room::mounted_at(file),
            free,
        })
    })
}

/// The error of a machine that is paused.
pub(super) fn paused(machine: &str, pause: &Pause, then: &str) -> ApplyError {
    ApplyError::Paused {
        machine: machine.to_string(),
        why: pause.to_string(),
        remedy: remedy(machine, pause, then),
    }
}

pub(super) const AGAIN: &str = "run the same command again, which resumes it";

impl Steps<'_> {
    /// Lets a machine go on that is paused, once it can. That it runs already is no error.
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
                    _ => return Ok(()),
                },
                (Power::Off, _) => {
                    return Err(ApplyError::Stopped {
                        machine: machine.to_string(),
                    });
                }
                (Power::Paused, Some(pause)) => Some(pause),
                // On its way down: it is off soon.
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
                    // It goes on only to stop again.
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

    /// Starts what was saved. It has the ports that it had, and nothing can give it others.
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
            match domain.start() {
                Ok(()) => {}
                Err(error) if error.is_port_taken() => {
                    return Err(taken_port(&context, &record, &wanted));
                }
                Err(error) => {
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
        // One that was paused when it was saved is so again.
        self.resume().await
    }
}

async fn look(domain: &Domain) -> Result<(Power, Option<Pause>), ApplyError> {
    let domain = domain.clone();
    blocking(move || Ok(domain.state()?)).await
}

/// What it means for a wait that the machine is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenOff {
    /// What is waited for cannot come.
    Lost,
    /// It is about to be booted again.
    Goes,
}

/// Ends when nothing in the machine can answer any more, with the reason: it is off, gone, or
/// paused and does not go on by itself; or libvirt is gone, which nobody could wait for either.
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
                return paused(machine, &pause, AGAIN);
            }
            Ok(_) => {}
        }
        // An event wakes it; the look is what counts, also where one was missed.
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
    use crate::hypervisor::DiskError;

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
        // There is room by now.
        assert_eq!(remedy("web", &error(true), up), up);
    }
}
