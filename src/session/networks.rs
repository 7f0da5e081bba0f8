//! The networks of a project, and the process that connects its machines.

use std::{collections::HashSet, net::Ipv4Addr};

use crate::{
    failure::Failure,
    guest::MachineFiles,
    hypervisor::Survey,
    machine::{NetworkCard, Observed, Owner, Phase, Record, Spec, wired},
    machinefile::Machine,
    network::{
        self, Card, Egress, Guest, Keeper, Network, NetworkError, NetworkFiles, Reply, Rule, State,
        WayIn, Wiring, domain_of, host_address, outward,
    },
    plan::{Plan, WantedMachine},
    report::{
        Event, EventKind,
        clean::{Shown, words},
        counted, warn,
    },
};

use super::{Detail, Invocation, Operation, OtherProject, Session, Target, watch::beside};

/// The program that is a project's network.
pub const PROGRAM: &str = "stead-net";

impl Session {
    /// Whether a machine runs that has a card on a network of the project.
    fn is_networked(&self, survey: &Survey) -> bool {
        survey.machines.iter().any(|observed| {
            self.owner().owns(&observed.record)
                && observed.is_up()
                && observed.record.spec.is_wired()
        })
    }

    pub(super) fn network_files(&self) -> Option<NetworkFiles> {
        files_of(self, &self.owner())
    }

    /// Returns the wiring of machines that run, of those that exist, and of all others of the Machinefile: so two
    /// commands that start different machines mean the same wiring. A machine that runs has the cards that it was
    /// started with. `plan`: what is about to change.
    pub(super) fn wiring(&self, survey: &Survey, plan: Option<&Plan>) -> Wiring {
        self.wiring_with(survey, plan, &[])
    }

    /// The same, with machines of `stead run`.
    fn wiring_with(&self, survey: &Survey, plan: Option<&Plan>, runs: &[&WantedMachine]) -> Wiring {
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
                    let cards = spec.wired_cards(&machine.name);
                    add(&mut networks, &machine.name, &cards, Reach::of(spec));
                }
                None => {
                    let observed = owner.find(&survey.machines, &machine.name);
                    let uuid = survey.identify(&owner, &machine.name).uuid;
                    let login_card = self.login_card(machine, &uuid, observed);
                    let cards = wanted.get(&machine.name).cloned().unwrap_or_default();
                    let cards = wired(cards, login_card, &machine.name);
                    let egress = self.egress(machine, login_card);
                    let reach = Reach {
                        internet: machine.internet,
                        egress: egress.as_ref(),
                    };
                    add(&mut networks, &machine.name, &cards, reach);
                }
            }
        }
        for observed in &survey.machines {
            let record = &observed.record;
            // Those of another `stead run` may be about to start.
            let is_run = record.run_of.is_some() && owner.owns(record);
            if (is_other(self, record) && observed.is_up()) || is_run {
                let cards = record.wired_cards();
                live.insert(&record.machine);
                add(
                    &mut networks,
                    &record.machine,
                    &cards,
                    Reach::of(&record.spec),
                );
            }
        }
        for run in runs {
            let name = &run.machine.name;
            if let Some(spec) = &run.spec
                && !live.contains(&**name)
            {
                live.insert(name);
                let cards = spec.wired_cards(name);
                add(&mut networks, name, &cards, Reach::of(spec));
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
            ways_in: self.ways_in(survey, &boots),
            starting: boots,
        }
    }

    /// The ports that lead to machines which run on.
    fn ways_in(&self, survey: &Survey, boots: &[String]) -> Vec<WayIn> {
        let owner = self.owner();
        let running = (survey.machines.iter()).filter(|observed| {
            let record = &observed.record;
            owner.owns(record) && observed.is_up() && !boots.contains(&record.machine)
        });
        running
            .filter_map(|observed| observed.record.way_in())
            .collect()
    }
}

impl Session {
    /// Returns the machines whose ports appear on the host: those of the Machinefile that have a card.
    fn guests(&self, survey: &Survey, boots: &[String], networks: &[Network]) -> Vec<Guest> {
        let owner = self.owner();
        let guest = |machine: &Machine| {
            let declared = networks.iter().filter(|network| !network.is_own());
            let cards = declared.flat_map(|network| &network.cards);
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
pub(super) fn is_other(session: &Session, record: &Record) -> bool {
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
    say_without_way_out(operation, &boots);
    let wiring = session.wiring(&operation.survey, Some(plan));
    let has_card = |name: &str| {
        let mut cards = wiring.networks.iter().flat_map(|network| &network.cards);
        cards.any(|card| card.machine == name)
    };
    let restores = plan.restores();
    let is_needed = (boots.iter().chain(&restores)).any(|name| has_card(name))
        || session.is_networked(&operation.survey);
    if !is_needed {
        return Ok(());
    }
    check_way_out(session, &wiring, &boots)?;
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

/// Runs before a `halt` or `restart`: a machine that is saved goes on for a moment, to shut down.
pub(super) fn start_saved(operation: &mut Operation, plan: &Plan) -> Result<(), Failure> {
    let session = &operation.session;
    let restores = plan.restores();
    let is_saved = |observed: &&Observed| restores.contains(&observed.record.machine);
    let mut saved = operation.survey.machines.iter().filter(is_saved);
    if saved.any(|it| session.owner().owns(&it.record) && it.record.spec.is_wired()) {
        operation.network = serve(session, &session.wiring(&operation.survey, None))?;
    }
    Ok(())
}

/// Runs before machines of `stead run` boot, for all of them.
pub(super) fn start_runs(operation: &mut Operation) -> Result<(), Failure> {
    let session = &operation.session;
    let runs: Vec<&WantedMachine> = operation.targets.iter().map(|it| &it.wanted).collect();
    let is_wired = |run: &&&WantedMachine| run.spec.as_ref().is_some_and(Spec::is_wired);
    if runs.iter().any(|run| is_wired(&run)) {
        let wiring = session.wiring_with(&operation.survey, None, &runs);
        let network = serve(session, &wiring)?;
        let names: Vec<String> = (runs.iter().map(|run| run.machine.name.clone())).collect();
        say_without_way_out(operation, &names);
        operation.network = network;
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
fn check_way_out(session: &Session, wiring: &Wiring, boots: &[String]) -> Result<(), Failure> {
    let cards = wiring.networks.iter().flat_map(|network| &network.cards);
    let guarded =
        (cards.filter(|card| card.egress.is_some())).find(|card| boots.contains(&card.machine));
    let Some(card) = guarded else {
        return Ok(());
    };
    beside(PROGRAM)?;
    session.way_out().as_ref().map_err(|said| {
        Failure::error(
            format!("machine {} has no way out: {said}", card.machine),
            outward::HINT,
        )
    })?;
    Ok(())
}

/// Says which machines are made with a card on QEMU's own network, because this computer lacks what it takes.
fn say_without_way_out(operation: &Operation, boots: &[String]) {
    let is_new = |target: &&Target| {
        let observed = target.existing.observed.as_ref();
        observed.is_none_or(|it| it.record.phase != Phase::Created)
    };
    for target in operation.targets.iter().filter(is_new) {
        let machine = &target.wanted.machine;
        let is_led = (target.wanted.spec.as_ref()).is_none_or(|spec| spec.login_card.is_some());
        if boots.contains(&machine.name)
            && !is_led
            && let Err(said) = operation.session.way_out()
        {
            let message = format!(
                "gets a card on QEMU's own network, by which it reaches every service on this computer's 127.0.0.1, because networks have no way out: {said}; {}",
                outward::HINT
            );
            let event = Event::now(&machine.name, EventKind::Notice { message });
            operation.reporter.event(&event);
        }
    }
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

/// Has the process of a project lead to its machines again, given the name of a domain: it was killed, or somebody else
/// has started the machine. Returns whether it does.
pub fn lead_again(invocation: &Invocation, domain: String) -> bool {
    let name = domain.clone();
    let machine = OtherProject {
        domain: Some(domain),
        project: None,
    };
    let detail = Detail::Recorded { named: None };
    let led = Session::of_machines(invocation, &machine, detail).and_then(|session| {
        let survey = session.connection.survey()?;
        let is_up = (survey.machines.iter()).any(|it| it.identity.domain == name && it.is_up());
        match is_up {
            true => serve(&session, &session.wiring(&survey, None)),
            false => Ok(None),
        }
    });
    led.is_ok_and(|led| led.is_some())
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

/// Asks the process, after it leads to these machines again: somebody else may have started them.
pub(super) fn look_at_led(
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
            ways_in: Vec::new(),
            starting: Vec::new(),
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
