//! The networks of a project: which card each machine gets, and the process that connects them.

use std::{
    collections::{BTreeMap, HashSet},
    net::Ipv4Addr,
    os::unix::net::UnixDatagram,
    path::Path,
};

use crate::{
    failure::Failure,
    guest::MachineFiles,
    hypervisor::Survey,
    machine::{NetworkCard, Observed, Owner, Record, Spec},
    machinefile::Machine,
    network::{
        self, Cable, Card, Egress, Guest, Keeper, Network, NetworkError, NetworkFiles, Rule, State,
        Wanted, Wiring, assign, domain_of, host_address, mac_of, outward, socket_of_qemu,
    },
    plan::Plan,
    report::{
        Event, EventKind,
        clean::{Shown, words},
        counted, warn,
    },
};

use super::{Detail, Operation, Session, watch::beside};

/// The program that is a project's network.
pub const PROGRAM: &str = "stead-net";

/// The cards of machines on networks of the project, by the machines' names.
pub(super) type Cards = BTreeMap<String, Vec<NetworkCard>>;

impl Session {
    fn cable(&self) -> Option<Cable> {
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
            for ((machine, own, _), address) in on.iter().zip(addresses) {
                let Some(address) = address else { continue };
                let uuid = survey.identify(&owner, &machine.name).uuid;
                // Two of a network are the same once in thousands of projects.
                let mac = (0..)
                    .map(|n| mac_of(&uuid, &network.name, n))
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
        (record.spec.cards.iter())
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

    /// Whether a machine runs that has a card on a network of the project.
    fn is_networked(&self, survey: &Survey) -> bool {
        survey.machines.iter().any(|observed| {
            self.owner().owns(&observed.record)
                && observed.is_up()
                && !observed.record.spec.cards.is_empty()
        })
    }

    pub(super) fn network_files(&self) -> Option<NetworkFiles> {
        files_of(self, &self.owner())
    }

    /// Returns the wiring of machines that run, of those that exist, and of all others of the Machinefile: so two
    /// commands that start different machines mean the same wiring. A machine that runs has the cards that it was
    /// started with. `plan`: what is about to change.
    pub(super) fn wiring(&self, survey: &Survey, plan: Option<&Plan>) -> Wiring {
        let owner = self.owner();
        let boots = plan.map(Plan::boots).unwrap_or_default();
        let wanted = self.cards(survey);
        let mut networks: Vec<Network> = Vec::new();
        // Those that run, or are about to.
        let mut live: HashSet<&str> = boots.iter().map(String::as_str).collect();
        for machine in &self.project.machines {
            let stays = (owner.find(&survey.machines, &machine.name)).filter(|observed| {
                (observed.is_up() || observed.condition.saved) && !boots.contains(&machine.name)
            });
            match stays {
                Some(observed) => {
                    live.insert(&machine.name);
                    let tuned = plan.and_then(|plan| plan.tunes(&machine.name));
                    let spec = tuned.unwrap_or(&observed.record.spec);
                    add(&mut networks, &machine.name, &spec.cards, Reach::of(spec));
                }
                None => {
                    let cards = wanted.get(&machine.name).map_or(&[][..], Vec::as_slice);
                    let reach = Reach {
                        internet: machine.internet,
                        egress: machine.egress.as_ref(),
                    };
                    add(&mut networks, &machine.name, cards, reach);
                }
            }
        }
        for observed in &survey.machines {
            let record = &observed.record;
            if is_other(self, record) && observed.is_up() {
                let spec = &record.spec;
                live.insert(&record.machine);
                add(&mut networks, &record.machine, &spec.cards, Reach::of(spec));
            }
        }
        give_way(&mut networks, &live);
        let guests = self.guests(survey, &boots, &networks);
        Wiring {
            domain: domain_of(&self.project.name),
            networks,
            links: match self.detail {
                Detail::Recorded { .. } => None,
                _ => Some(self.project.links.clone()),
            },
            guests,
        }
    }
}

impl Session {
    /// Returns the machines whose ports appear on the host: those of the Machinefile that have a card.
    fn guests(&self, survey: &Survey, boots: &[String], networks: &[Network]) -> Vec<Guest> {
        let owner = self.owner();
        let guest = |machine: &Machine| {
            let cards = networks.iter().flat_map(|network| &network.cards);
            let addresses: Vec<_> = (cards.filter(|card| card.machine == machine.name))
                .map(|card| card.address)
                .collect();
            let observed = owner.find(&survey.machines, &machine.name);
            let uuid = survey.identify(&owner, &machine.name).uuid;
            let has_booted = observed.is_some_and(|it| it.is_up() && it.running.is_some());
            Some(Guest {
                machine: machine.name.clone(),
                ssh_config: MachineFiles::new(&self.data, &uuid).ssh_config(),
                host_address: host_address(*addresses.first()?)?,
                addresses,
                is_reached: has_booted && !boots.contains(&machine.name),
            })
        };
        let mut taken = HashSet::new();
        (self.project.machines.iter())
            .filter(|machine| machine.auto_forward)
            .filter_map(guest)
            // Two subnets may end alike.
            .filter(|guest| taken.insert(guest.host_address))
            .collect()
    }
}

/// What a machine reaches beyond its networks.
#[derive(Clone, Copy)]
struct Reach<'a> {
    internet: bool,
    egress: Option<&'a Egress>,
}

impl<'a> Reach<'a> {
    fn of(spec: &'a Spec) -> Self {
        Reach {
            internet: spec.internet,
            egress: spec.egress.as_ref(),
        }
    }
}

/// Adds the cards of a machine to their networks. The first one leads out.
fn add(networks: &mut Vec<Network>, machine: &str, cards: &[NetworkCard], reach: Reach<'_>) {
    for (n, card) in cards.iter().enumerate() {
        let same = |it: &Network| it.name == card.network && it.subnet == card.subnet;
        let network = match networks.iter().position(same) {
            Some(known) => &mut networks[known],
            None => {
                networks.push(Network {
                    name: card.network.clone(),
                    subnet: card.subnet,
                    cards: Vec::new(),
                });
                let last = networks.len() - 1;
                &mut networks[last]
            }
        };
        network.cards.push(Card {
            machine: machine.to_string(),
            mac: card.mac,
            address: card.address,
            aliases: card.aliases.clone(),
            internet: reach.internet,
            egress: reach.egress.filter(|_| n == 0).cloned(),
        });
    }
}

/// Removes cards of machines that do not run, and whose address one that runs has until it boots again.
fn give_way(networks: &mut [Network], live: &HashSet<&str>) {
    for network in networks {
        let cards = network.cards.iter();
        let held: HashSet<_> = (cards.filter(|card| live.contains(&*card.machine)))
            .map(|card| card.address)
            .collect();
        (network.cards)
            .retain(|card| live.contains(&*card.machine) || !held.contains(&card.address));
    }
}

/// Whether a machine belongs to the project, and its Machinefile does not name it any more.
fn is_other(session: &Session, record: &Record) -> bool {
    session.owner().owns(record)
        && session.project.machine(&record.machine).is_none()
        && record.copy_of.is_none()
        && record.run_of.is_none()
}

/// Says that a newer stead runs the network, if one does.
fn newer(files: &NetworkFiles) -> Option<NetworkError> {
    // One that is stopped would not answer.
    let is_stopped = files.read().is_some_and(|it| it.process.is_stopped());
    let looked = (!is_stopped).then(|| network::look(files))?;
    looked
        .err()
        .filter(|error| matches!(error, NetworkError::Newer))
}

/// Runs before a command changes anything, and for `stead plan`: fails if the machines that boot could not be connected.
pub(crate) fn check(session: &Session, survey: &Survey, plan: &Plan) -> Result<(), Failure> {
    let Some(files) = session.network_files() else {
        return Ok(());
    };
    if let Some(error) = newer(&files) {
        return Err(error.into());
    }
    let wiring = session.wiring(survey, Some(plan));
    match clash(&wiring, &plan.boots()) {
        None => Ok(()),
        Some((network, card, other)) => Err(Failure::error(
            format!(
                "machine {} cannot have address {} on network {:?}: machine {} has it while it runs",
                card.machine, card.address, network.name, other.machine
            ),
            format!(
                "shut that one down first (`stead halt {}`), or give {} another address",
                other.machine, card.machine
            ),
        )),
    }
}

/// Returns a machine that would boot with an address that another one has.
fn clash<'a>(wiring: &'a Wiring, boots: &[String]) -> Option<(&'a Network, &'a Card, &'a Card)> {
    let of_boots = wiring.networks.iter().flat_map(|network| {
        let boot = |card: &&Card| boots.contains(&card.machine);
        network
            .cards
            .iter()
            .filter(boot)
            .map(move |card| (network, card))
    });
    (of_boots.into_iter()).find_map(|(network, card)| {
        let same = |it: &&Card| it.address == card.address && it.machine != card.machine;
        let other = network.cards.iter().find(same)?;
        Some((network, card, other))
    })
}

/// Runs before machines boot: connects those that the plan leaves running or boots.
pub(super) fn start(operation: &mut Operation, plan: &Plan) -> Result<(), Failure> {
    let session = &operation.session;
    let boots = plan.boots();
    if session.cable().is_none() {
        return without(operation, &boots);
    }
    let wiring = session.wiring(&operation.survey, Some(plan));
    let has_card = |name: &str| {
        let mut cards = wiring.networks.iter().flat_map(|network| &network.cards);
        cards.any(|card| card.machine == name)
    };
    let is_needed =
        boots.iter().any(|name| has_card(name)) || session.is_networked(&operation.survey);
    if !is_needed {
        return Ok(());
    }
    check_way_out(&wiring, &boots)?;
    let changes = link_changes(session);
    operation.network = serve(session, &wiring)?;
    for guest in wiring
        .guests
        .iter()
        .filter(|it| boots.contains(&it.machine))
    {
        if let Some(other) = other_at(session, &operation.survey, guest.host_address) {
            let message = shared(guest.host_address, other);
            let event = Event::now(&guest.machine, EventKind::Notice { message });
            operation.reporter.event(&event);
        }
    }
    for change in changes {
        let message = format!("links: {change}");
        (operation.reporter).event(&Event::now("", EventKind::Notice { message }));
    }
    Ok(())
}

/// The files of the network of a project on the same connection.
pub(super) fn files_of(session: &Session, owner: &Owner) -> Option<NetworkFiles> {
    Some(NetworkFiles::of(
        &session.data,
        &owner.short(),
        session.cable()?,
    ))
}

/// A machine of another project, in words.
pub(super) fn named(other: &Observed) -> String {
    let record = &other.record;
    format!(
        "machine {} of project {} ({})",
        words(&record.machine),
        words(&record.project),
        record.root.shown()
    )
}

/// Returns a machine's own address on this computer, and the machine of another project that runs and has it too.
pub(super) fn shares_address<'a>(
    session: &Session,
    survey: &'a Survey,
    observed: &Observed,
) -> Option<(Ipv4Addr, &'a Observed)> {
    let address = observed.record.spec.host_address()?;
    Some((address, other_at(session, survey, address)?))
}

fn other_at<'a>(session: &Session, survey: &'a Survey, address: Ipv4Addr) -> Option<&'a Observed> {
    survey.machines.iter().find(|other| {
        let record = &other.record;
        !session.owner().owns(record)
            && other.is_up()
            && record.spec.host_address() == Some(address)
    })
}

/// Says that two machines have an address on this computer.
pub(super) fn shared(address: Ipv4Addr, other: &Observed) -> String {
    format!(
        "{} has {address} on this computer too: a port that both have leads to the one that had it first; another subnet for one of the projects ends this",
        named(other)
    )
}

/// Fails if a machine that boots would have no way out, because this computer lacks what it takes.
fn check_way_out(wiring: &Wiring, boots: &[String]) -> Result<(), Failure> {
    let cards = wiring.networks.iter().flat_map(|network| &network.cards);
    let guarded =
        (cards.filter(|card| card.egress.is_some())).find(|card| boots.contains(&card.machine));
    let Some(card) = guarded else {
        return Ok(());
    };
    outward::is_available(&beside(PROGRAM)?).map_err(|said| {
        Failure::error(
            format!("machine {} has no way out: {said}", card.machine),
            outward::HINT,
        )
    })
}

/// Returns what the Machinefile changes in the conditions of links, in words. Nothing if no network runs, because
/// one that starts has them from the start.
pub(crate) fn link_changes(session: &Session) -> Vec<String> {
    let files = session
        .network_files()
        .filter(|files| files.read().is_some_and(|it| works(&it)));
    match files.and_then(|files| network::links(&files).ok().flatten()) {
        Some((_, links)) => changes(
            &links.wiring.links.unwrap_or_default(),
            &session.project.links,
        ),
        None => Vec::new(),
    }
}

fn changes(old: &[Rule], new: &[Rule]) -> Vec<String> {
    let words = |rule: &Rule| format!("{}: {}", rule.scope, rule.settings);
    let mut lines: Vec<String> = (old.iter().filter(|rule| !new.contains(rule)))
        .map(|rule| format!("remove {}", words(rule)))
        .collect();
    let added = new.iter().filter(|rule| !old.contains(rule));
    lines.extend(added.map(|rule| format!("set {}", words(rule))));
    if lines.is_empty() && old != new {
        lines.push("apply them in another order".into());
    }
    lines
}

/// Fails if the Machinefile declares networks that this connection cannot have.
fn without(operation: &Operation, boots: &[String]) -> Result<(), Failure> {
    let session = &operation.session;
    let uri = &session.connection.uri().uri;
    let networks = &session.project.networks;
    let declared = networks.iter().find_map(|it| Some((it, it.at.as_ref()?)));
    if let Some((network, at)) = declared.filter(|_| !boots.is_empty()) {
        return Err(Failure::error(
            format!(
                "{at}: network {:?} needs qemu:///session, or root and qemu:///system, and the project uses {uri}",
                network.name
            ),
            "use --connect qemu:///session, or run stead as root; or remove the network",
        ));
    }
    if let Some((at, node)) = boots.iter().find_map(|name| guard(session, name)) {
        return Err(Failure::error(
            format!(
                "{at}: `{node}` needs qemu:///session, or root and qemu:///system, and the project uses {uri}"
            ),
            format!(
                "use --connect qemu:///session, or run stead as root; or remove `{node}`, or write `internet #false` in its place"
            ),
        ));
    }
    let is_alone = |name: &String| {
        let machine = session.project.machine(name);
        machine.is_none_or(|machine| machine.networks.is_empty())
    };
    if !boots.iter().all(is_alone) {
        let message = format!(
            "the machines have no network with each other, because the project uses {uri}: this needs qemu:///session, or root"
        );
        operation
            .reporter
            .event(&Event::now("", EventKind::Notice { message }));
    }
    Ok(())
}

/// Where the Machinefile says that a machine reaches only what it names, and by which node.
fn guard(session: &Session, name: &str) -> Option<(String, &'static str)> {
    let machine = session.project.machine(name)?;
    machine.egress.as_ref()?;
    let nodes = ["egress", "host-access"].into_iter();
    nodes
        .filter_map(|node| Some((machine.spans.get(node)?.text(), node)))
        .next()
}

fn works(state: &State) -> bool {
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

/// Runs after addresses of this computer have changed, which ports of machines are to be at.
pub(super) fn addresses_changed(session: &Session, survey: &Survey) -> Result<(), Failure> {
    match session.is_networked(survey) {
        true => serve(session, &session.wiring(survey, None)).map(drop),
        false => Ok(()),
    }
}

/// Runs after a `halt` or `destroy`: ends the process if no machine needs it, and else tells it who is left.
pub(super) fn keep(operation: &Operation) -> Result<(), Failure> {
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
            Ok(())
        }
    }
}

/// Asks the process. One that was killed is started again before, and so is one of an older stead: guests keep their
/// links. `None`: none runs.
pub(super) fn ask<T>(
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

/// Makes the process be this network. Returns what keeps it.
fn serve(session: &Session, wiring: &Wiring) -> Result<Option<Keeper>, Failure> {
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

/// Whether a process has the datagram socket of this name.
fn is_of_datagrams(path: &Path) -> bool {
    UnixDatagram::unbound().is_ok_and(|socket| socket.connect(path).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Delay, Scope, Settings};

    #[test]
    fn the_first_card_of_a_guarded_machine_leads_out() {
        let card = |network: &str, third: u8, last: u8| NetworkCard {
            network: network.into(),
            subnet: format!("10.77.{third}.0/24").parse().unwrap(),
            mac: network::Mac([0x52, 0x54, 0, 0, third, last]),
            address: [10, 77, third, last].into(),
            aliases: Vec::new(),
        };
        let egress = Egress {
            allow: Some(vec!["deb.debian.org".parse().unwrap()]),
            host_tcp: vec![5432],
        };
        let open = Reach {
            internet: true,
            egress: None,
        };
        let guarded = Reach {
            egress: Some(&egress),
            ..open
        };
        let mut networks = Vec::new();
        let web = [card("front", 1, 2), card("back", 2, 2)];
        add(&mut networks, "web", &web, guarded);
        add(&mut networks, "db", &[card("back", 2, 3)], open);
        add(&mut networks, "job", &[card("back", 2, 4)], guarded);
        let lead_out: Vec<String> = (networks.iter())
            .flat_map(|network| network.cards.iter().map(move |card| (network, card)))
            .filter(|(_, card)| card.egress.as_ref() == Some(&egress))
            .map(|(network, card)| format!("{} {}", card.machine, network.name))
            .collect();
        assert_eq!(lead_out, ["web front", "job back"]);
        let cards: usize = networks.iter().map(|network| network.cards.len()).sum();
        assert_eq!((networks.len(), cards), (2, 4));
    }

    /// db runs with an address that the Machinefile gives to pg by now.
    #[test]
    fn an_address_is_one_machines_while_it_runs() {
        let card = |machine: &str, last: u8| Card {
            machine: machine.into(),
            mac: network::Mac([0x52, 0x54, 0, 0, 0, last]),
            address: [10, 77, 0, 10].into(),
            aliases: Vec::new(),
            internet: true,
            egress: None,
        };
        let of = |name: &str, subnet: &str, cards: Vec<Card>| Network {
            name: name.into(),
            subnet: subnet.parse().unwrap(),
            cards,
        };
        let wiring = |networks: Vec<Network>| Wiring {
            domain: "shop.internal".into(),
            networks,
            links: None,
            guests: Vec::new(),
        };
        let both = || of("back", "10.77.0.0/24", vec![card("pg", 1), card("db", 2)]);
        let found = |wiring: &Wiring, boots: &[&str]| {
            let boots: Vec<String> = boots.iter().map(ToString::to_string).collect();
            let (network, card, other) = clash(wiring, &boots)?;
            Some(format!(
                "{} {} {}",
                network.name, card.machine, other.machine
            ))
        };
        let all = wiring(vec![of("front", "10.78.0.0/24", vec![]), both()]);
        assert_eq!(found(&all, &["web"]), None);
        assert_eq!(found(&all, &["pg"]).unwrap(), "back pg db");
        // After its subnet has changed, a network is another one.
        let apart = wiring(vec![
            of("back", "10.77.0.0/16", vec![card("pg", 1)]),
            of("back", "10.77.0.0/24", vec![card("db", 2)]),
        ]);
        assert_eq!(found(&apart, &["pg"]), None);

        let left = |live: &[&'static str]| {
            let mut networks = vec![both()];
            give_way(&mut networks, &live.iter().copied().collect());
            let cards = networks.into_iter().flat_map(|network| network.cards);
            cards.map(|card| card.machine).collect::<Vec<_>>()
        };
        assert_eq!(left(&[]), ["pg", "db"]);
        assert_eq!(left(&["db"]), ["db"]);
        assert_eq!(left(&["db", "pg"]), ["pg", "db"]);
    }

    #[test]
    fn changes_of_links_are_named() {
        let rule = |to: &str, latency: &str| Rule {
            scope: Scope {
                from: vec!["web".into()],
                to: vec![to.into()],
                ..Scope::default()
            },
            settings: Settings {
                latency: Delay::parse(latency).ok(),
                ..Settings::default()
            },
        };
        let old = [rule("db", "80ms"), rule("cache", "5ms")];
        assert_eq!(changes(&old, &old), [""; 0]);
        assert_eq!(
            changes(&old, &[rule("db", "90ms"), rule("cache", "5ms")]),
            [
                "remove web ↔ db: latency 80ms",
                "set web ↔ db: latency 90ms"
            ]
        );
        let turned = [rule("cache", "5ms"), rule("db", "80ms")];
        assert_eq!(changes(&old, &turned), ["apply them in another order"]);
    }
}
