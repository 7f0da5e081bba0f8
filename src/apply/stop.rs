//! The step that stops a machine.

use std::time::Duration;

use tokio::{
    sync::broadcast::Receiver,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use crate::{
    guest::{answers_within, boots_since, hopeless, tail},
    hypervisor::{Domain, Lifecycle, ShutdownMethod},
    machine::Power,
    report::elapsed,
};

use super::{
    error::ApplyError,
    pause::{self, AGAIN, LOOK},
    steps::{Steps, blocking},
};

/// How long a guest that can hear it may take to shut down, each time it is asked.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(90);

/// How often the power button is pressed. A guest that still boots has nobody yet who hears it; one that shuts down does
/// nothing more.
const PRESS_AGAIN: Duration = Duration::from_secs(5);

/// How long a guest may take to answer that it has booted.
const ANSWER: Duration = Duration::from_secs(1);

impl Steps<'_> {
    pub(super) async fn stop(&self, graceful: bool) -> Result<(), ApplyError> {
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
            let has_agent = self.agent_answers(&domain).await?;
            if has_agent {
                if self.ask_agent(&domain).await? {
                    return Ok(());
                }
                self.notice(format!(
                    "the guest did not shut down within {} after a request to its agent; pressing its power button",
                    elapsed(SHUTDOWN_LIMIT)
                ));
            }
            if self.press_until_off(&domain, has_agent).await? {
                return Ok(());
            }
        }
        let off = domain.clone();
        blocking(move || Ok(off.power_off()?)).await
    }

    async fn agent_answers(&self, domain: &Domain) -> Result<bool, ApplyError> {
        let asked = domain.clone();
        blocking(move || Ok(asked.agent_answers(Duration::from_secs(2)))).await
    }

    /// Returns `false` if the guest is not off in time.
    async fn ask_agent(&self, domain: &Domain) -> Result<bool, ApplyError> {
        let events = self.context.events.receiver();
        self.ask(domain, ShutdownMethod::Agent).await?;
        self.wait_until_off(domain, events, Instant::now() + SHUTDOWN_LIMIT)
            .await
    }

    /// Presses the power button until the guest is off. Returns `false` if it is not off in time.
    ///
    /// The time begins when the guest can hear it: a guest that still boots may write to its disk, and goes down by itself
    /// as soon as it has booted. An agent that comes then is asked once, unless it `was_asked` before: not every guest hears
    /// its power button.
    async fn press_until_off(
        &self,
        domain: &Domain,
        mut was_asked: bool,
    ) -> Result<bool, ApplyError> {
        let begun = Instant::now();
        let boots = self.job.wanted.machine.ready.timeout.max(SHUTDOWN_LIMIT);
        let mut hears = self.hears(domain).await?;
        let mut deadline = begun + if hears { SHUTDOWN_LIMIT } else { boots };
        let mut is_told = false;
        loop {
            let events = self.context.events.receiver();
            let way = match !was_asked && self.agent_answers(domain).await? {
                true => ShutdownMethod::Agent,
                false => ShutdownMethod::Acpi,
            };
            was_asked |= way == ShutdownMethod::Agent;
            self.ask(domain, way).await?;
            let next = (Instant::now() + PRESS_AGAIN).min(deadline);
            if self.wait_until_off(domain, events, next).await? {
                return Ok(true);
            }
            if !hears {
                if !std::mem::replace(&mut is_told, true) {
                    let name = self.name();
                    self.notice(format!(
                        "still boots, so that nothing in it hears its power button yet; pressing it until it is heard (`stead halt --force {name}` powers it off)"
                    ));
                }
                hears = self.hears(domain).await?;
                if hears {
                    deadline = Instant::now() + SHUTDOWN_LIMIT;
                }
            }
            if Instant::now() >= deadline {
                self.notice(format!(
                    "the guest did not shut down within {} after the first press of its power button; powering it off",
                    elapsed(begun.elapsed())
                ));
                return Ok(false);
            }
        }
    }

    /// Whether the guest has booted, as far as is known: stead has logged in since, or its SSH server or its agent answers. A
    /// guest that never will boot counts as one that has.
    async fn hears(&self, domain: &Domain) -> Result<bool, ApplyError> {
        let log = self.files().console_log();
        let (look, (_, record)) = (domain.clone(), self.record().await?);
        blocking(move || {
            let signs = look.running()?.and_then(|running| running.signs);
            let reboots = signs.is_some_and(|signs| boots_since(&log, signs.console));
            Ok(signs.is_some() && !reboots
                || look.has_agent()?
                || hopeless(&tail(&log, 4)).is_some()
                || answers_within(record.ssh_port, ANSWER))
        })
        .await
    }

    /// Asks the guest to shut down.
    ///
    /// # Errors
    /// If it could not be asked, and still runs: then it is not powered off.
    async fn ask(&self, domain: &Domain, way: ShutdownMethod) -> Result<(), ApplyError> {
        let asked = domain.clone();
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
        if let Err(error) = sent
            && self.still_runs(domain).await?
        {
            return Err(ApplyError::NotAsked {
                machine: self.name().to_string(),
                message: error.to_string(),
            });
        }
        Ok(())
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

    /// Returns `false` if it is not off by then.
    ///
    /// # Errors
    /// If it gets paused meanwhile, so that it cannot shut down.
    async fn wait_until_off(
        &self,
        domain: &Domain,
        mut events: Receiver<(Uuid, Lifecycle)>,
        deadline: Instant,
    ) -> Result<bool, ApplyError> {
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
