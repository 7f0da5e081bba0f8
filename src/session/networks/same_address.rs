//! Addresses of machines on this computer that machines of other projects have too.

use std::net::Ipv4Addr;

use crate::{
    hypervisor::Survey,
    machine::Observed,
    report::clean::{Shown, words},
    session::Session,
};

/// A machine of another project, in words.
pub(in crate::session) fn named(other: &Observed) -> String {
    let record = &other.record;
    format!(
        "machine {} of project {} ({})",
        words(&record.machine),
        words(&record.project),
        record.root.shown()
    )
}

/// Returns a machine's own address on this computer, and the machine of another project that runs and has it too.
pub(in crate::session) fn shares_address<'a>(
    session: &Session,
    survey: &'a Survey,
    observed: &Observed,
) -> Option<(Ipv4Addr, &'a Observed)> {
    let address = observed.record.spec.host_address()?;
    Some((address, other_at(session, survey, address)?))
}

pub(super) fn other_at<'a>(
    session: &Session,
    survey: &'a Survey,
    address: Ipv4Addr,
) -> Option<&'a Observed> {
    survey.machines.iter().find(|other| {
        let record = &other.record;
        !session.owner().owns(record)
            && other.is_up()
            && record.spec.host_address() == Some(address)
    })
}

/// Says that two machines have an address on this computer.
pub(in crate::session) fn shared(address: Ipv4Addr, other: &Observed) -> String {
    format!(
        "{} has {address} on this computer too: a port that both have leads to the one that had it first; another subnet for one of the projects ends this",
        named(other)
    )
}
