//! Finds machines that can be logged in to.

use std::{io::ErrorKind, task::Poll, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    apply::{may_be_off, set_right},
    failure::Failure,
    guest::{
        DIAL_LIMIT, Output, Remote, SILENT, SSH_FAILED, SshTarget, dial, hang_up, no_answer,
        turn_unless_connected,
    },
    host::runtime::{blocking, runtime},
    machine::{Observed, Power},
    machinefile::Ready,
    report::{clean::words, stdio, talk},
    session::{
        condition::{need_keys, need_running},
        networks,
        rebooting::note_reboots,
        stranded::stranded,
    },
};

use super::{Detail, Session, Target};

/// How often a machine is looked at while stead waits for it.
const LOOK: Duration = Duration::from_secs(2);

/// How long a guest that boots may refuse users, once its SSH server is there (pam_nologin(8)).
const LOGIN: Duration = Duration::from_secs(60);

/// The pause between two logins.
const AGAIN: Duration = Duration::from_secs(1);

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
    /// its OpenSSH files if they differ, and ends connections to a guest that reboots.
    pub fn reachable(&self, name: Option<&str>) -> Result<(Observed, Remote), Failure> {
        let (name, observed) = self.running(name)?;
        if observed.record.spec.is_wired() {
            networks::revive(self, None);
        }
        let files = self.files(&observed.identity);
        need_keys(self, &name, &observed.identity)?;
        ssh_target(self, &observed).write(&files)?;
        let remote = Remote {
            machine: name,
            files,
        };
        end_stale_connections(&observed, &remote);
        Ok((observed, remote))
    }

    /// Returns the machine of that name, or the project's only one. Fails unless it is running.
    pub fn running(&self, name: Option<&str>) -> Result<(String, Observed), Failure> {
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
        let mut observed = need_running(&name, found.as_ref())?.clone();
        note_reboots(&self.data, std::iter::once(&mut observed));
        Ok((name, observed))
    }
}

/// Ends connections to a guest as it was before it rebooted: commands by them would hang.
fn end_stale_connections(observed: &Observed, remote: &Remote) {
    if observed.condition.rebooting {
        remote.disconnect();
    }
}

/// Waits until a machine's SSH server answers, so that stead itself says why it does not: `stead dial`, which ssh runs,
/// has no stderr of its own. There is nothing to wait for while a ControlMaster has a connection. The wait ends if the machine
/// is paused or stops meanwhile. A guest that still boots has to let stead log in, too.
pub fn wait_for_answer(
    session: &Session,
    observed: &Observed,
    remote: &Remote,
) -> Result<(), Failure> {
    end_stale_connections(observed, remote);
    runtime()?.block_on(async {
        tokio::select! {
            answered = answered(session, observed, remote) => answered,
            lost = until_lost(session, observed, &remote.machine, Reboots::Pass) => Err(lost.failure),
        }
    })
}

/// The part of [`wait_for_answer`] that ends by itself. Another process may wait already, such as `stead up`: its limit counts
/// then, and its connection is used.
pub(super) async fn answered(
    session: &Session,
    observed: &Observed,
    remote: &Remote,
) -> Result<(), Failure> {
    let (machine, port) = (&remote.machine, observed.record.ssh_port);
    let tell = |line: &str| {
        if stdio::stderr_is_terminal() {
            talk(line);
        }
    };
    let others = turn_unless_connected(&remote.files, None);
    tokio::pin!(others);
    let turn = tokio::select! {
        turn = &mut others => turn,
        () = sleep(SILENT) => {
            tell(&format!("{machine} does not answer yet; another stead waits for its SSH server\n"));
            others.await
        }
    };
    let Some(turn) = turn else { return Ok(()) };
    let limit = patience(session, observed);
    let is_led = observed.record.led_card().is_some();
    match dial(machine, port, is_led, limit, tell).await {
        Ok(stream) => hang_up(stream).await,
        // The `stead dial` of ssh has the network lead to the machine again.
        Err(error) if is_led && error.kind() == ErrorKind::ConnectionRefused => {}
        Err(error) => {
            let (message, hint) = no_answer(machine, port, limit, &error);
            return Err(Failure::error(message, hint));
        }
    }
    drop(turn);
    if observed.has_booted() {
        return Ok(());
    }
    let begun = Instant::now();
    let mut is_told = false;
    loop {
        let output = remote.connect().await?;
        // Otherwise, its login shell has ended, which nobody has to wait for.
        if output.status.code() != Some(SSH_FAILED) {
            return Ok(());
        }
        if begun.elapsed() >= LOGIN {
            return Err(not_logged_in(machine, &output));
        }
        if begun.elapsed() >= LOOK && !std::mem::replace(&mut is_told, true) {
            tell(&format!(
                "{machine} does not let stead log in yet; waiting for that\n"
            ));
        }
        sleep(AGAIN).await;
    }
}

/// How long to wait for the SSH server of a machine: one that boots has the time that `up` gives it.
fn patience(session: &Session, observed: &Observed) -> Duration {
    if observed.has_booted() {
        return DIAL_LIMIT;
    }
    let wanted = session.project.machine(&observed.record.machine);
    wanted.map_or(Ready::DEFAULT_TIMEOUT, |machine| machine.ready.timeout)
}

/// Returns the error for a guest that does not let stead log in.
pub(super) fn not_logged_in(machine: &str, output: &Output) -> Failure {
    Failure::error(
        format!(
            "cannot log in to {machine}: {}",
            words(&output.last_words())
        ),
        format!("`stead logs {machine}` shows its console"),
    )
}

/// Does `work` in machines until it ends, or one of them cannot answer any more.
///
/// # Errors
/// Those of the work, and why the machine cannot answer.
pub async fn while_answering<T, E: Into<Failure>>(
    session: &Session,
    machines: &[(&Observed, &str)],
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    let mut lost: Vec<_> = (machines.iter())
        .map(|(observed, name)| Box::pin(until_lost(session, observed, name, Reboots::End)))
        .collect();
    let one_is_lost = std::future::poll_fn(|context| {
        let ended = lost
            .iter_mut()
            .find_map(|it| match it.as_mut().poll(context) {
                Poll::Ready(lost) => Some(lost),
                Poll::Pending => None,
            });
        ended.map_or(Poll::Pending, Poll::Ready)
    });
    tokio::select! {
        ended = work => ended.map_err(Into::into),
        lost = one_is_lost => Err(lost.failure),
    }
}

/// Why a guest cannot answer.
pub(super) struct Lost {
    pub(super) failure: Failure,
    /// It may go on.
    pub(super) is_paused: bool,
}

/// What a wait does when the guest reboots by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reboots {
    /// It goes on, because it waits for the boot.
    Pass,
    /// It ends: connections to the guest as it was hang.
    End,
}

/// Ends when the machine does not run any more, and returns why.
pub(super) async fn until_lost(
    session: &Session,
    observed: &Observed,
    name: &str,
    reboots: Reboots,
) -> Lost {
    let mut rebooted = false;
    loop {
        sleep(LOOK).await;
        let (connection, identity) = (session.connection.clone(), observed.identity.clone());
        let (data, name) = (session.data.clone(), name.to_string());
        let looked = blocking(move || {
            let mut observed = connection.observe(&identity)?;
            if reboots == Reboots::End {
                note_reboots(&data, observed.iter_mut());
            }
            let is = |what: &dyn Fn(&Observed) -> bool| observed.as_ref().is_some_and(what);
            let is_paused = is(&|found| found.power == Power::Paused);
            let reboots = is(&|found| found.condition.rebooting);
            let runs = need_running(&name, observed.as_ref()).map(drop);
            Ok((runs, is_paused, reboots))
        });
        let (failure, is_paused) = match looked.await {
            // A guest may be slow to answer once.
            Ok(Ok((Ok(()), _, true))) if rebooted => {
                (has_rebooted(&observed.record.machine), false)
            }
            Ok(Ok((Ok(()), _, reboots))) => {
                rebooted = reboots;
                continue;
            }
            Ok(Ok((Err(failure), is_paused, _))) => (failure, is_paused),
            Ok(Err(failure)) => (failure, false),
            Err(error) => {
                let message = format!("stead itself failed: {error}");
                (Failure::error(message, crate::report::BUG), false)
            }
        };
        return Lost { failure, is_paused };
    }
}

fn has_rebooted(machine: &str) -> Failure {
    Failure::error(
        format!("lost the connection to {machine}: its guest reboots or shuts down by itself"),
        format!("`stead up {machine}` waits for it"),
    )
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
