//! What a project's networks cannot be: checks before anything changes.

use crate::{
    failure::Failure,
    hypervisor::Survey,
    machine::Phase,
    network::{Card, Network, Wiring},
    plan::Plan,
    report::{Event, EventKind},
};

use crate::session::{Operation, Session, Target};

use super::process::newer;

/// Runs before a command changes anything, and for `stead plan`: fails if the machines that boot could not be connected.
/// Returns how they will be; `None` if this connection has no networks.
pub(crate) fn check(
    session: &Session,
    survey: &Survey,
    plan: &Plan,
) -> Result<Option<Wiring>, Failure> {
    let Some(files) = session.network_files() else {
        return Ok(None);
    };
    if let Some(error) = newer(&files) {
        return Err(error.into());
    }
    let wiring = session.wiring(survey, Some(plan));
    match clash(&wiring, &plan.boots()) {
        None => Ok(Some(wiring)),
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

/// Fails if a machine that boots would have no way out, because this computer lacks what it takes.
pub(super) fn check_way_out(
    session: &Session,
    wiring: &Wiring,
    boots: &[String],
) -> Result<(), Failure> {
    let cards = wiring.networks.iter().flat_map(|network| &network.cards);
    let guarded =
        (cards.filter(|card| card.egress.is_some())).find(|card| boots.contains(&card.machine));
    let Some(card) = guarded else {
        return Ok(());
    };
    session.way_out().as_ref().map_err(|lack| {
        Failure::error(
            format!(
                "machine {} has no way out: {}",
                card.machine,
                lack.message()
            ),
            lack.hint().unwrap_or_default(),
        )
    })?;
    Ok(())
}

/// Says which machines are made with a card on QEMU's own network, because this computer lacks what it takes.
pub(super) fn say_without_way_out(operation: &Operation, boots: &[String]) {
    let is_new = |target: &&Target| {
        let observed = target.existing.observed.as_ref();
        observed.is_none_or(|it| it.record.phase != Phase::Created)
    };
    for target in operation.targets.iter().filter(is_new) {
        let machine = &target.wanted.machine;
        let is_led = (target.wanted.spec.as_ref()).is_none_or(|spec| spec.login_card.is_some());
        if boots.contains(&machine.name)
            && !is_led
            && let Err(lack) = operation.session.way_out()
        {
            let message = without_way_out(lack);
            let event = Event::now(&machine.name, EventKind::Notice { message });
            operation.reporter.event(&event);
        }
    }
}

fn without_way_out(lack: &Failure) -> String {
    let hint = lack.hint().map(|hint| format!("; {hint}"));
    format!(
        "gets a card on QEMU's own network, by which it reaches every service on this computer's 127.0.0.1, because networks have no way out: {}{}",
        lack.message(),
        hint.unwrap_or_default()
    )
}

/// Fails if the Machinefile declares networks that this connection cannot have.
pub(super) fn without(operation: &Operation, boots: &[String]) -> Result<(), Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Mac;

    /// db runs with an address that the Machinefile gives to pg by now.
    #[test]
    fn an_address_is_one_machines_while_it_runs() {
        let card = |machine: &str, last: u8| Card {
            machine: machine.into(),
            mac: Mac([0x52, 0x54, 0, 0, 0, last]),
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
        let both = of("back", "10.77.0.0/24", vec![card("pg", 1), card("db", 2)]);
        let found = |wiring: &Wiring, boots: &[&str]| {
            let boots: Vec<String> = boots.iter().map(ToString::to_string).collect();
            let (network, card, other) = clash(wiring, &boots)?;
            Some(format!(
                "{} {} {}",
                network.name, card.machine, other.machine
            ))
        };
        let all = wiring(vec![of("front", "10.78.0.0/24", vec![]), both]);
        assert_eq!(found(&all, &["web"]), None);
        assert_eq!(found(&all, &["pg"]).unwrap(), "back pg db");
        // After its subnet has changed, a network is another one.
        let apart = wiring(vec![
            of("back", "10.77.0.0/16", vec![card("pg", 1)]),
            of("back", "10.77.0.0/24", vec![card("db", 2)]),
        ]);
        assert_eq!(found(&apart, &["pg"]), None);
    }

    #[test]
    fn what_is_missing_is_what_the_note_says_to_install() {
        let of = |why: &str, hint: &str| without_way_out(&Failure::error(why, hint));
        let program = of(
            "there is no stead-net beside /usr/bin/stead",
            &crate::session::watch::how_to_get("stead-net"),
        );
        insta::assert_snapshot!(program);
        assert!(!program.contains("libslirp"));
        let library = of("no libslirp.so.0", crate::network::outward::HINT);
        assert!(library.contains("apt install libslirp0"), "{library}");
    }
}
