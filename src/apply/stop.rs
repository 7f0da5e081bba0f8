//! The step that stops a machine.

use std::time::Duration;

use tokio::{
    sync::broadcast::Receiver,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use crate::{
    hypervisor::{Domain, Lifecycle, ShutdownMethod},
    machine::Power,
    report::elapsed,
};

use super::{
    error::ApplyError,
    pause::{self, AGAIN, LOOK},
    steps::{Steps, blocking},
};

/// How long a guest may take to shut down, each time it is asked.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(90);

impl Steps<'_> {
    pub(super) async fn stop(&self, graceful: bool) -> Result<(), ApplyError> {
        let events = self.context.events.receiver();
        let remote = self.remote();
        let disconnect = remote.clone();
        blocking(move || {
            disconnect.disconnect();
            Ok(())
        })
        .await?;
        let domain = self.domain().await?;
        if graceful {
            self.resume_to_ask(&domain).await?;
            let asked = domain.clone();
            let agent = blocking(move || Ok(asked.agent_answers(Duration::from_secs(2)))).await?;
            let ways: &[ShutdownMethod] = if agent {
                &[ShutdownMethod::Agent, ShutdownMethod::Acpi]
            } else {
                &[ShutdownMethod::Acpi]
            };
            for (n, way) in ways.iter().enumerate() {
                let begun = Instant::now();
                let asked = domain.clone();
                let way = *way;
                let sent = blocking(move || {
                    if asked.power()? == Power::Off {
                        return Ok(());
                    }
                    match asked.shut_down(way) {
                        // The agent's answer is often lost, because the guest shuts down.
                        Err(_) if way == ShutdownMethod::Agent => Ok(()),
                        other => Ok(other?),
                    }
                })
                .await;
                // A guest that could not be asked is not powered off.
                if let Err(error) = sent
                    && self.still_runs(&domain).await?
                {
                    return Err(ApplyError::NotAsked {
                        machine: self.name().to_string(),
                        message: error.to_string(),
                    });
                }
                let off = self.wait_until_off(&domain, events.resubscribe(), SHUTDOWN_LIMIT);
                if off.await? {
                    return Ok(());
                }
                self.notice(format!(
                    "the guest did not shut down within {} after {}; {}",
                    elapsed(begun.elapsed()),
                    match way {
                        ShutdownMethod::Agent => "a request to its agent",
                        ShutdownMethod::Acpi => "a press of its power button",
                    },
                    if n + 1 < ways.len() {
                        "pressing its power button"
                    } else {
                        "powering it off"
                    }
                ));
            }
        }
        let off = domain.clone();
        blocking(move || Ok(off.power_off()?)).await
    }

    async fn still_runs(&self, domain: &Domain) -> Result<bool, ApplyError> {
        let look = domain.clone();
        Ok(blocking(move || Ok(look.power()?)).await? != Power::Off)
    }

    /// Resumes a paused guest, because it cannot hear a request to shut down.
    async fn resume_to_ask(&self, domain: &Domain) -> Result<(), ApplyError> {
        let look = domain.clone();
        if blocking(move || Ok(look.power()?)).await? == Power::Paused {
            self.resume().await?;
        }
        Ok(())
    }

    /// Returns `false` if it is not off within `limit`.
    ///
    /// # Errors
    /// If it gets paused meanwhile, so that it cannot shut down.
    async fn wait_until_off(
        &self,
        domain: &Domain,
        mut events: Receiver<(Uuid, Lifecycle)>,
        limit: Duration,
    ) -> Result<bool, ApplyError> {
        let deadline = Instant::now() + limit;
        let uuid = self.job.wanted.identity.uuid;
        loop {
            let look = domain.clone();
            match blocking(move || Ok(look.state()?)).await? {
                (Power::Off, _) => return Ok(true),
                (Power::Paused, Some(pause)) if !pause.passes() => {
                    return Err(pause::paused(self.name(), &pause, AGAIN));
                }
                _ => {}
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            // An event only wakes this up; the state counts, even if an event was missed.
            let next = deadline.min(Instant::now() + LOOK);
            loop {
                match timeout_at(next, events.recv()).await {
                    Err(_) => break,
                    Ok(Ok((who, Lifecycle::Stopped { .. } | Lifecycle::Suspended)))
                        if who == uuid =>
                    {
                        break;
                    }
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) => {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        break;
                    }
                }
            }
        }
    }
}
