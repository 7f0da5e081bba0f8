//! The process that is the network of a project: starts, asks, tells and ends it.

use crate::{
    failure::Failure,
    hypervisor::Survey,
    machine::{Observed, Owner},
    network::{self, Keeper, NetworkError, NetworkFiles, Reply, State, Wiring},
    report::{counted, warn},
};

use crate::session::{Detail, Invocation, Operation, Session, watch::beside};

use super::PROGRAM;

impl Session {
    /// Whether a machine runs that has a card on a network of the project.
    pub(super) fn is_networked(&self, survey: &Survey) -> bool {
        survey.machines.iter().any(|observed| {
            self.owner().owns(&observed.record)
                && observed.is_up()
                && observed.record.spec.is_wired()
        })
    }

    pub(in crate::session) fn network_files(&self) -> Option<NetworkFiles> {
        files_of(self, &self.owner())
    }
}

/// The files of the network of a project on the same connection.
pub(in crate::session) fn files_of(session: &Session, owner: &Owner) -> Option<NetworkFiles> {
    Some(NetworkFiles::of(
        &session.data,
        &owner.short(),
        session.cable()?,
    ))
}

/// Says that a newer stead runs the network, if one does.
pub(super) fn newer(files: &NetworkFiles) -> Option<NetworkError> {
    // One that is stopped would not answer.
    let is_stopped = files.read().is_some_and(|it| it.process.is_stopped());
    let looked = (!is_stopped).then(|| network::look(files))?;
    looked
        .err()
        .filter(|error| matches!(error, NetworkError::Newer))
}

pub(super) fn works(state: &State) -> bool {
    state.process.is_alive() && !state.process.is_stopped()
}

/// Runs before a machine is reached or shown: starts the process again if it was killed, or if somebody else started
/// the machine.
pub(crate) fn revive(session: &Session, survey: Option<&Survey>) {
    let Some(files) = session.network_files() else {
        return;
    };
    let state = files.read();
    if state.as_ref().is_some_and(works) {
        return;
    }
    let surveyed;
    let survey = match survey {
        Some(survey) => survey,
        None => match session.connection.survey() {
            Ok(survey) => {
                surveyed = survey;
                &surveyed
            }
            // The command itself says that libvirt does not answer.
            Err(_) => return,
        },
    };
    let done = match session.is_networked(survey) {
        true => serve(session, &session.wiring(survey, None)).map(drop),
        false if state.is_some() => network::stop(&files).map(drop).map_err(Failure::from),
        false => Ok(()),
    };
    if let Err(failure) = done {
        warn(&format!(
            "machines do not reach each other: {}",
            failure.message()
        ));
    }
}

/// Has the process of a project lead to its machines again, given the name of a domain: it was killed, or somebody else
/// has started the machine. Returns whether it does.
pub fn lead_again(invocation: &Invocation, domain: &str) -> bool {
    let detail = Detail::Recorded { named: None };
    let led = Session::of_domain(invocation, domain, detail).and_then(|(session, survey)| {
        let is_up = (survey.machines.iter()).any(|it| it.identity.domain == domain && it.is_up());
        match is_up {
            true => serve(&session, &session.wiring(&survey, None)),
            false => Ok(None),
        }
    });
    led.is_ok_and(|led| led.is_some())
}

/// Has the process lead to the machines that run by the ports in their records.
pub(super) fn lead_as_recorded(session: &Session) -> Result<(), Failure> {
    addresses_changed(session, &session.connection.survey()?)
}

/// Runs after addresses of this computer have changed, which ports of machines are to be at.
pub(in crate::session) fn addresses_changed(
    session: &Session,
    survey: &Survey,
) -> Result<(), Failure> {
    match session.is_networked(survey) {
        true => serve(session, &session.wiring(survey, None)).map(drop),
        false => Ok(()),
    }
}

/// Runs after a `halt` or `destroy`: ends the process if no machine needs it, and else tells it who is left.
pub(in crate::session) fn keep(operation: &Operation) -> Result<(), Failure> {
    let session = &operation.session;
    let Some(files) = session.network_files() else {
        return Ok(());
    };
    if files.read().is_none() {
        return Ok(());
    }
    // If libvirt does not answer, the next command does this.
    let Ok(survey) = session.connection.survey() else {
        return Ok(());
    };
    if let Some(error) = newer(&files) {
        // It needs not be told who is gone, and ends by itself.
        warn(&format!("{error}, and is left as it is"));
        return Ok(());
    }
    match session.is_networked(&survey) {
        true => serve(session, &session.wiring(&survey, None)).map(drop),
        false => {
            network::stop(&files)?;
            let owner = session.owner();
            if !survey.machines.iter().any(|it| owner.owns(&it.record)) {
                files.forget();
            }
            Ok(())
        }
    }
}

/// Asks the process. One that was killed is started again before, and so is one of an older stead: guests keep their
/// links. `None`: none runs.
pub(in crate::session) fn ask<T>(
    session: &Session,
    survey: Option<&Survey>,
    what: fn(&NetworkFiles) -> Result<Option<T>, NetworkError>,
) -> Result<Option<T>, Failure> {
    revive(session, survey);
    let Some(files) = session.network_files() else {
        return Ok(None);
    };
    let mut answer = what(&files);
    if matches!(answer, Err(NetworkError::Older)) {
        serve(
            session,
            &session.wiring(&session.connection.survey()?, None),
        )?;
        answer = what(&files);
    }
    Ok(answer?)
}

/// Asks the process, after it leads to these machines again: somebody else may have started them.
pub(in crate::session) fn look_at_led(
    session: &Session,
    survey: &Survey,
    machines: &[&Observed],
) -> Result<Option<Reply>, Failure> {
    let reply = ask(session, Some(survey), network::look)?;
    let is_lost = |observed: &&&Observed| {
        let record = &observed.record;
        let is_led = |reply: &Reply| reply.led.contains(&record.machine);
        record.led_card().is_some() && !reply.as_ref().is_some_and(is_led)
    };
    match machines.iter().any(|it| is_lost(&it)) {
        true => {
            serve(session, &session.wiring(survey, None))?;
            ask(session, Some(survey), network::look)
        }
        false => Ok(reply),
    }
}

/// Makes the process be this network. Returns what keeps it.
pub(super) fn serve(session: &Session, wiring: &Wiring) -> Result<Option<Keeper>, Failure> {
    let Some(files) = session.network_files() else {
        return Ok(None);
    };
    let keeper = Keeper::new(files, wiring.clone(), beside(PROGRAM)?);
    let started = keeper.tell()?;
    let cards = wiring
        .networks
        .iter()
        .map(|network| network.cards.len())
        .sum::<usize>();
    tracing::debug!(
        "the network of the project: {}, {}",
        counted(cards, "card"),
        if started { "started" } else { "told" }
    );
    Ok(Some(keeper))
}
