//! Which cards machines get on networks of their project, and by which one stead logs in.

use std::{
    collections::{BTreeMap, HashSet},
    os::unix::net::UnixDatagram,
    path::Path,
};

use uuid::Uuid;

use crate::{
    failure::Failure,
    hypervisor::Survey,
    machine::{NetworkCard, Observed, Phase},
    machinefile::{Machine, MachineNetwork},
    network::{Cable, Egress, Mac, Wanted, assign, mac_of, outward, socket_of_qemu},
    report::clean::Shown,
};

use super::{
    Session,
    networks::{PROGRAM, is_other},
    watch::beside,
};

/// What the MAC of a machine's login card is made from, instead of the name of a network.
const LOGIN: &str = "(login)";

/// The cards of machines on networks of the project, by the machines' names.
pub(super) type Cards = BTreeMap<String, Vec<NetworkCard>>;

impl Session {
    pub(super) fn cable(&self) -> Option<Cable> {
        self.connection.uri().cable()
    }

    /// Returns the cards that machines get at their next boot.
    pub(super) fn cards(&self, survey: &Survey) -> Cards {
        let mut cards = Cards::new();
        if self.cable().is_none() {
            return cards;
        }
        let owner = self.owner();
        // A machine's first card may lead out, which those on isolated networks do not.
        let (inner, outer): (Vec<_>, Vec<_>) =
            (self.project.networks.iter()).partition(|network| network.isolated);
        for network in outer.into_iter().chain(inner) {
            let on: Vec<_> = (self.project.machines.iter())
                .filter_map(|machine| {
                    let own = machine.networks.iter().find(|it| it.name == network.name)?;
                    Some((machine, own, owner.find(&survey.machines, &machine.name)))
                })
                .collect();
            let wanted: Vec<Wanted<'_>> = (on.iter())
                .map(|(machine, own, observed)| {
                    let has = observed.and_then(|observed| {
                        let cards = observed.record.spec.cards.iter();
                        cards.into_iter().find(|card| card.network == network.name)
                    });
                    Wanted {
                        machine: &machine.name,
                        fixed: own.address,
                        has: has.map(|card| card.address),
                    }
                })
                .collect();
            // Those of machines that the Machinefile does not name any more, and that run, are not free.
            let others = (survey.machines.iter())
                .filter(|observed| is_other(self, &observed.record) && observed.is_up())
                .flat_map(|observed| &observed.record.spec.cards)
                .filter(|card| card.network == network.name)
                .map(|card| Wanted {
                    machine: "",
                    fixed: None,
                    has: Some(card.address),
                });
            let wanted: Vec<Wanted<'_>> = wanted.into_iter().chain(others).collect();
            let addresses = assign(network.subnet, &wanted);
            let mut macs = HashSet::new();
            for ((machine, own, observed), address) in on.iter().zip(addresses) {
                let Some(address) = address else { continue };
                let uuid = survey.identify(&owner, &machine.name).uuid;
                let is_first = !cards.contains_key(&machine.name);
                let login = self.login_card(machine, &uuid, *observed);
                // Two of a network are the same once in thousands of projects.
                let mac = (login.filter(|_| is_first).into_iter())
                    .chain((0..).map(|n| mac_of(&uuid, &network.name, n)))
                    .find(|it| macs.insert(*it));
                let Some(mac) = mac else { continue };
                cards
                    .entry(machine.name.clone())
                    .or_default()
                    .push(NetworkCard {
                        network: network.name.clone(),
                        subnet: network.subnet,
                        mac,
                        address,
                        aliases: own.aliases.clone(),
                    });
            }
        }
        cards
    }

    /// The card by which stead logs in to a machine at its next boot; `None`: one on QEMU's own network. A machine that
    /// exists keeps what it has, because its guest may know its cards by their MACs.
    pub(super) fn login_card(
        &self,
        machine: &Machine,
        uuid: &Uuid,
        observed: Option<&Observed>,
    ) -> Option<Mac> {
        if let Some(observed) = observed
            && observed.record.phase == Phase::Created
        {
            return observed.record.spec.login_card;
        }
        self.cable()?;
        let can_be = !machine.internet || self.way_out().is_ok();
        can_be.then(|| mac_of(uuid, LOGIN, 0))
    }

    /// What a machine is to reach beyond its networks. If stead-net leads to it, that is not this computer itself.
    pub(super) fn egress(&self, machine: &Machine, login_card: Option<Mac>) -> Option<Egress> {
        let leads_out = |own: &MachineNetwork| {
            let mut networks = self.project.networks.iter();
            networks.any(|network| network.name == own.name && !network.isolated)
        };
        // A machine with internet that is on isolated networks only leaves by a bridge of the host.
        let has_way = machine.networks.is_empty() || machine.networks.iter().any(leads_out);
        let is_open = machine.internet && has_way && login_card.is_some();
        (machine.egress.clone()).or_else(|| is_open.then(Egress::default))
    }

    /// Whether this computer has what the way out of networks takes: stead-net, and libslirp. If not, why, and what to do.
    pub(super) fn way_out(&self) -> &Result<(), Failure> {
        self.way_out.get_or_init(|| {
            let program = beside(PROGRAM)?;
            outward::is_available(&program).map_err(|said| Failure::error(said, outward::HINT))
        })
    }

    /// Returns a line for each card of a running machine whose cable is cut for good: the socket was deleted, or is of
    /// a kind that this stead does not use.
    pub(crate) fn cards_cut_off(&self, observed: &Observed) -> Vec<String> {
        let files = self.network_files();
        let Some(files) =
            files.filter(|_| observed.is_up() && self.cable() == Some(Cable::Sockets))
        else {
            return Vec::new();
        };
        let record = &observed.record;
        (record.wired_cards().iter())
            .filter_map(|card| {
                let socket = socket_of_qemu(&files.sockets(), card.mac);
                let why = match socket.exists() {
                    false => format!("somebody deleted its socket in {}", files.sockets().shown()),
                    true if is_of_datagrams(&socket) => {
                        "an older stead started the machine".to_string()
                    }
                    true => return None,
                };
                Some(format!(
                    "its card on network {} is cut off: {why}; `stead restart {}` fixes it",
                    card.network, record.machine
                ))
            })
            .collect()
    }
}

/// Whether a process has the datagram socket of this name.
fn is_of_datagrams(path: &Path) -> bool {
    UnixDatagram::unbound().is_ok_and(|socket| socket.connect(path).is_ok())
}
