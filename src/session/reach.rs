//! Finds machines that can be logged in to.

use std::{io::ErrorKind, os::unix::net::UnixStream, time::Duration};

use crate::{
    apply::{may_be_off, set_right},
    failure::Failure,
    guest::{Remote, SshTarget, dial, no_answer},
    host::runtime::{blocking, runtime},
    hypervisor::Connection,
    machine::{Identity, Observed},
    report::{stdio, talk},
    session::{
        condition::{need_keys, need_running},
        networks,
        stranded::stranded,
    },
};

use super::{Detail, Session, Target};

/// How often a machine is looked at while stead waits for it.
const LOOK: Duration = Duration::from_secs(2);

impl Session {
    /// Writes OpenSSH's files of an existing machine, if they differ.
    pub fn reachable_files(&self, target: &Target) -> Result<(), Failure> {
        if let Some(observed) = &target.existing.observed
            && observed.is_up()
        {
            ssh_target(self, observed).write(&self.files(&target.wanted.identity))?;
        }
        Ok(())
    }

    /// Returns the machine of that name, or the project's only one. Fails unless it is running. Writes
    /// its OpenSSH files if they differ.
    pub fn reachable(&self, name: Option<&str>) -> Result<(Observed, Remote), Failure> {
        let name = self.the_machine(name)?;
        let identity = self.identity(&name)?;
        let found = self.connection.observe(&identity)?;
        self.check_not_elsewhere(&name, &identity, found.as_ref(), &mut None)?;
        if found.is_none() && self.project.machine(&name).is_none() {
            return Err(self.unknown(&name));
        }
        if found.is_none()
            && let Some((message, hint)) = stranded(self, &self.connection.survey()?, &[&name])
        {
            return Err(Failure::error(message, hint));
        }
        if self.project.machine(&name).is_none()
            && !found.as_ref().is_some_and(|observed| observed.is_up())
            && !matches!(self.detail, Detail::Recorded { .. })
        {
            return Err(self.no_longer(&name));
        }
        let observed = need_running(&name, found.as_ref())?.clone();
        if observed.record.spec.is_wired() {
            networks::revive(self, None);
        }
        let files = self.files(&identity);
        need_keys(self, &name, &identity)?;
        ssh_target(self, &observed).write(&files)?;
        Ok((
            observed,
            Remote {
                machine: name,
                files,
            },
        ))
    }
}

/// Waits until a machine's SSH server answers, so that stead itself says why it does not: `stead dial`, which ssh runs,
/// has no stderr of its own. There is nothing to wait for while a ControlMaster has a connection. The wait ends if the machine
/// is paused or stops meanwhile.
pub fn wait_for_answer(
    session: &Session,
    observed: &Observed,
    remote: &Remote,
) -> Result<(), Failure> {
    if UnixStream::connect(remote.files.control_socket()).is_ok() {
        return Ok(());
    }
    let (machine, port) = (&remote.machine, observed.record.ssh_port);
    let tell = |line: &str| {
        if stdio::stderr_is_terminal() {
            talk(line);
        }
    };
    let is_led = observed.record.led_card().is_some();
    let connection = session.connection.clone();
    let (identity, name) = (observed.identity.clone(), machine.clone());
    let answered = runtime()?.block_on(async {
        tokio::select! {
            answered = dial(machine, port, is_led, tell) => Ok(answered),
            lost = until_lost(connection, identity, name) => Err(lost),
        }
    });
    match answered? {
        Ok(_) => Ok(()),
        // The `stead dial` of ssh has the network lead to the machine again.
        Err(error) if is_led && error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => {
            let (message, hint) = no_answer(machine, port, &error);
            Err(Failure::error(message, hint))
        }
    }
}

/// Ends when the machine does not run any more, and returns why.
async fn until_lost(connection: Connection, identity: Identity, name: String) -> Failure {
    loop {
        tokio::time::sleep(LOOK).await;
        let (connection, identity, name) = (connection.clone(), identity.clone(), name.clone());
        let looked = blocking(move || {
            let observed = connection.observe(&identity)?;
            need_running(&name, observed.as_ref()).map(drop)
        });
        match looked.await {
            Ok(Ok(())) => {}
            Ok(Err(lost)) => return lost,
            Err(error) => {
                return Failure::error(format!("stead itself failed: {error}"), crate::report::BUG);
            }
        }
    }
}

/// Puts the clock of a running guest right if it may be off. Returns what people should know. Nobody waits for more than some
/// seconds, and a guest that keeps its clock is used as it is.
pub fn see_to_clock(session: &Session, observed: &Observed, remote: &Remote) -> Option<String> {
    if !may_be_off(observed) {
        return None;
    }
    let seen = runtime().map(|runtime| {
        runtime.block_on(set_right(&session.connection, &observed.identity, remote))
    });
    match seen {
        Ok(Ok(words)) => words,
        Ok(Err(error)) => {
            tracing::debug!("the clock of {}: {error}", remote.machine);
            None
        }
        Err(_) => None,
    }
}

/// Returns how OpenSSH reaches a machine.
pub fn ssh_target(session: &Session, observed: &Observed) -> SshTarget {
    let uri = &session.connection.uri().uri;
    SshTarget::of(&observed.record, &observed.identity.domain, uri)
}
