//! What commands ask and tell the process that is a project's network. Nothing here starts, replaces or ends it.

use std::{io, time::Duration};

use super::{
    Mac, Probed,
    background::{NetworkError, PATIENCE, ask, controls},
    conditions::ByHand,
    control::{FORMAT, Links, Reply, Request},
    record::Recording,
    state::NetworkFiles,
};

/// How long the process may take to answer if it first writes what it is told to the disk.
const PATIENCE_TO_WRITE: Duration = Duration::from_secs(10);

/// Asks the process for its counts; `None` if none runs.
pub fn look(files: &NetworkFiles) -> Result<Option<Reply>, NetworkError> {
    order(files, &Request::Look)
}

/// Asks the guest with this card whether it takes connections at a TCP port; `None` if no process runs.
pub fn probe(files: &NetworkFiles, mac: Mac, port: u16) -> Result<Option<Probed>, NetworkError> {
    Ok(order(files, &Request::Probe(mac, port))?.and_then(|reply| reply.probed))
}

/// Returns the links of the network, and what its cards have sent and got; `None` if no process runs.
pub fn links(files: &NetworkFiles) -> Result<Option<(Reply, Links)>, NetworkError> {
    Ok(order(files, &Request::Links)?.and_then(|mut reply| {
        let links = reply.links.take()?;
        Some((reply, links))
    }))
}

/// Lays conditions over those of the Machinefile. Returns whether a process runs.
pub fn set(files: &NetworkFiles, rule: ByHand) -> Result<bool, NetworkError> {
    Ok(order(files, &Request::Set(rule))?.is_some())
}

/// Begins to record the frames of these cards; `None` if no process runs.
pub async fn record(
    files: &NetworkFiles,
    macs: Vec<Mac>,
) -> Result<Option<Recording>, NetworkError> {
    let mut failed = None;
    for control in controls(files) {
        match Recording::begin(&control, macs.clone()).await {
            Ok((recording, reply)) => return checked(reply).map(|_| Some(recording)),
            Err(error) => failed = Some(error),
        }
    }
    none_runs(failed)
}

fn order(files: &NetworkFiles, request: &Request) -> Result<Option<Reply>, NetworkError> {
    let patience = match request {
        Request::Set(_) => PATIENCE_TO_WRITE,
        _ => PATIENCE,
    };
    let mut failed = None;
    for control in controls(files) {
        match ask(&control, request, patience) {
            Ok(reply) => return checked(reply).map(Some),
            Err(error) => failed = Some(error),
        }
    }
    none_runs(failed)
}

fn checked(reply: Reply) -> Result<Reply, NetworkError> {
    match reply {
        Reply { format, .. } if format > FORMAT => Err(NetworkError::Newer),
        Reply { format, .. } if format < FORMAT => Err(NetworkError::Older),
        Reply {
            error: Some(said), ..
        } => Err(NetworkError::Refused { said }),
        reply => Ok(reply),
    }
}

fn none_runs<T>(failed: Option<io::Error>) -> Result<Option<T>, NetworkError> {
    match failed {
        Some(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Err(NetworkError::NoAnswer(error))
        }
        _ => Ok(None),
    }
}
