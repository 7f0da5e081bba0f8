//! Keeps guests' clocks right: a guest does not notice that it was paused, or that this computer slept.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    guest::{Clock, Remote, set_clock},
    host::clock::slept,
    hypervisor::Connection,
    machine::{Identity, Observed, Power, Running},
};

use super::{
    error::ApplyError,
    steps::{Steps, blocking},
};

/// How long a guest may take to say what its clock is.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many seconds this computer has slept, which a [`Running`] records when the guest's clock was right.
pub(super) fn slept_seconds() -> u64 {
    slept().as_secs()
}

/// Whether something has happened since the clock of a running guest was right: it was paused, or this computer slept.
/// libvirt says until the next boot that a machine was paused, so such a guest is asked each time.
pub fn may_be_off(observed: &Observed) -> bool {
    let before = observed.running.as_ref().and_then(|it| it.slept);
    observed.power == Power::Running
        && (observed.condition.was_paused || has_slept(before, slept_seconds()))
}

/// `before`: as recorded; `None`: an older stead booted the machine. After a boot of this computer no machine runs.
fn has_slept(before: Option<u64>, now: u64) -> bool {
    before.is_some_and(|before| now.saturating_sub(before) > 1)
}

/// Puts the clock of a guest right, which [`may_be_off`]. Returns what people should know. A guest that does not answer in
/// time keeps its clock: who asked for something else learns from that why it does not answer.
pub async fn set_right(
    connection: &Connection,
    identity: &Identity,
    remote: &Remote,
) -> Result<Option<String>, ApplyError> {
    let found = match timeout(PATIENCE, set_clock(remote)).await {
        Ok(found) => found?,
        Err(_) => Clock::Unknown("it does not answer".into()),
    };
    tracing::debug!("the clock of {}: {found:?}", remote.machine);
    if matches!(found, Clock::Right | Clock::Corrected(_)) {
        let (connection, identity) = (connection.clone(), identity.clone());
        blocking(move || {
            let Some(domain) = connection.lookup(&identity)? else {
                return Ok(());
            };
            if let Some(running) = domain.running()? {
                domain.set_running(&Running {
                    slept: Some(slept_seconds()),
                    ..running
                })?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(found.words(&remote.machine))
}

impl Steps<'_> {
    pub(super) async fn see_to_clock(&self) -> Result<(), ApplyError> {
        let (connection, identity) = (&self.context.connection, &self.job.wanted.identity);
        let (opened, sought) = (connection.clone(), identity.clone());
        let observed = blocking(move || Ok(opened.observe(&sought)?)).await?;
        if observed.as_ref().is_some_and(may_be_off)
            && let Some(words) = set_right(connection, identity, &self.remote()).await?
        {
            self.notice(words);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_computer_has_slept_if_it_did_for_more_than_a_second() {
        assert!(!has_slept(None, 500));
        assert!(!has_slept(Some(500), 500));
        // Two clocks are read one after the other.
        assert!(!has_slept(Some(500), 501));
        assert!(!has_slept(Some(501), 500));
        assert!(has_slept(Some(500), 4100));
    }
}
