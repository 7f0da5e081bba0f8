//! `link`: the conditions of links between machines, and their frames.

use std::{
    future::pending,
    time::{Duration, SystemTime},
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use crate::{
    failure::Failure,
    host::{interrupt, runtime::runtime},
    hypervisor::{Lifecycle, LifecycleEvents},
    machinefile::Machine,
    network::{self, ByHand, Links, Mac, NetworkFiles, Reply, Scope, Settings, Wiring},
    report::clean::words,
};

use super::{Detail, Invocation, OtherProject, Session, networks};

/// How long the network may take to end a recording.
const PATIENCE: Duration = Duration::from_secs(3);

/// The links that a command is about.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// Two: their link. One: all its links. None: all links.
    pub machines: Vec<String>,
    /// `None`: all networks.
    pub network: Option<String>,
    /// Only frames that the first machine sends.
    pub one_way: bool,
}

/// Opens the project of this folder, also if only libvirt's records of it are left.
pub fn open(invocation: &Invocation) -> Result<Session, Failure> {
    Session::of_machines(invocation, &OtherProject::default(), Detail::Existing)
}

/// Returns the links of the project's network, and what its cards have sent and got; `None` if it does not run.
pub fn links(session: &Session) -> Result<Option<(Reply, Links)>, Failure> {
    files(session)?;
    networks::ask(session, None, network::links)
}

/// Sets conditions, or restores those of the Machinefile if there are none, for a time or until the network ends.
pub fn set(
    session: &Session,
    ends: &Ends,
    settings: Option<Settings>,
    time: Option<Duration>,
) -> Result<(), Failure> {
    for name in &ends.machines {
        session.known(name)?;
    }
    no_bridge(session, ends)?;
    let (files, links) = running(session, ends)?;
    check(&links.wiring, ends).map_err(|failure| only_bridges(session, ends).unwrap_or(failure))?;
    let mut machines = ends.machines.iter();
    let mut next = || machines.next().into_iter().cloned().collect();
    let rule = ByHand {
        scope: Scope {
            from: next(),
            to: next(),
            network: ends.network.clone(),
            one_way: ends.one_way,
        },
        settings,
        until: time.and_then(|time| {
            let time = SignedDuration::try_from(time).ok()?;
            Timestamp::now().checked_add(time).ok()
        }),
    };
    match network::set(&files, rule)? {
        true => Ok(()),
        false => Err(not_running(session)),
    }
}

/// What was recorded, in frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    pub frames: u64,
    /// What was not recorded because its reader was slow.
    pub missed: u64,
}

/// Takes a frame, and returns whether more is wanted.
pub type Keep<'a> = dyn FnMut(SystemTime, &[u8]) -> Result<bool, Failure> + 'a;

/// The cards to record.
pub struct Subject<'a> {
    session: &'a Session,
    files: NetworkFiles,
    macs: Vec<Mac>,
    machine: Uuid,
}

/// Returns a machine's cards, on one network or on all.
pub fn subject<'a>(
    session: &'a Session,
    machine: &str,
    network: Option<&str>,
) -> Result<Subject<'a>, Failure> {
    session.known(machine)?;
    let ends = Ends {
        machines: vec![machine.to_string()],
        network: network.map(ToString::to_string),
        one_way: false,
    };
    no_bridge(session, &ends)?;
    let (files, links) = running(session, &ends)?;
    need_network(&links.wiring, &ends)?;
    let macs = cards(&links.wiring, &ends);
    if macs.is_empty() {
        let failure = only_bridges(session, &ends);
        return Err(failure.unwrap_or_else(|| no_card(machine, network)));
    }
    Ok(Subject {
        session,
        files,
        macs,
        machine: session.identity(machine)?.uuid,
    })
}

/// Records what cards send and get until Ctrl-C, the end of their machine or of the network, or for a time.
pub fn record(
    subject: Subject<'_>,
    time: Option<Duration>,
    keep: &mut Keep<'_>,
) -> Result<Counted, Failure> {
    let Subject {
        session,
        files,
        macs,
        machine,
    } = subject;
    // Without libvirt's events, the recording does not end with the machine.
    let events = LifecycleEvents::subscribe(&session.connection).ok();
    let events = events.as_ref().map(LifecycleEvents::receiver);
    let listening = interrupt::listen();
    let mut asked = listening.asked();
    runtime()?.block_on(async {
        let begun = Instant::now();
        let Some(mut recording) = network::record(&files, macs).await? else {
            return Err(not_running(session));
        };
        let mut ends = Box::pin(async move {
            tokio::select! {
                _ = asked.wait_for(|asked| *asked) => {}
                () = over(begun, time) => {}
                () = stopped(machine, events) => {}
            }
        });
        let mut counted = Counted::default();
        let mut gives_up: Option<Instant> = None;
        loop {
            tokio::select! {
                got = recording.next() => match got {
                    Ok(Some(recorded)) => {
                        counted.frames += 1;
                        if !keep(recorded.at, &recorded.frame)? {
                            break;
                        }
                    }
                    // The network may have been killed.
                    Ok(None) | Err(_) => break,
                },
                () = &mut ends, if gives_up.is_none() => {
                    gives_up = Some(Instant::now() + PATIENCE);
                    if recording.finish().await.is_err() {
                        break;
                    }
                }
                () = at(gives_up) => break,
            }
        }
        counted.missed = recording.missed;
        Ok(counted)
    })
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

async fn over(begun: Instant, time: Option<Duration>) {
    at(time.map(|time| begun + time)).await;
}

/// Waits until the machine stops.
async fn stopped(uuid: Uuid, events: Option<Receiver<(Uuid, Lifecycle)>>) {
    let Some(mut events) = events else {
        return pending().await;
    };
    loop {
        match events.recv().await {
            Ok((of, Lifecycle::Stopped { .. })) if of == uuid => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return pending().await,
        }
    }
}

fn files(session: &Session) -> Result<NetworkFiles, Failure> {
    session.network_files().ok_or_else(|| {
        Failure::error(
            format!(
                "machines on {} have no links that stead knows",
                session.connection.uri().uri
            ),
            "networks between machines need qemu:///session, or root and qemu:///system",
        )
    })
}

/// Returns the links of the network that runs. It is started again if it was killed.
fn running(session: &Session, ends: &Ends) -> Result<(NetworkFiles, Links), Failure> {
    let files = files(session)?;
    match networks::ask(session, None, network::links)? {
        Some((_, links)) => Ok((files, links)),
        None => Err(only_bridges(session, ends).unwrap_or_else(|| not_running(session))),
    }
}

/// Returns why there are no links, if the machines have only cards on bridges of this computer.
pub fn only_bridges(session: &Session, ends: &Ends) -> Option<Failure> {
    on_bridges(&session.project.machines, &ends.machines)
}

/// `named`: the machines of the links; none: those of all.
fn on_bridges(machines: &[Machine], named: &[String]) -> Option<Failure> {
    let meant = |machine: &&Machine| named.is_empty() || named.contains(&machine.name);
    let is_only = |machine: &&Machine| machine.networks.is_empty() && !machine.bridges.is_empty();
    let has_link = |machine: &Machine| !machine.networks.is_empty();
    if named.is_empty() && machines.iter().any(has_link) {
        return None;
    }
    let machine = machines.iter().filter(meant).find(is_only)?;
    let bridge = &machine.bridges.first()?.interface;
    Some(Failure::usage(
        format!(
            "machine {} is on no network of stead's, only on bridge {bridge} of this computer, so stead neither sees nor changes what passes there",
            machine.name
        ),
        "put machines on a network without `bridge` as well, such as `network \"default\"`; or use `tcpdump` on this computer to record, and `tc` in the guests to slow them down",
    ))
}

fn not_running(session: &Session) -> Failure {
    Failure::error(
        format!(
            "no network of project {} is running, because none of its machines is up on one",
            words(&session.project.name)
        ),
        "`stead up` starts machines with their networks",
    )
}

/// The cards of the first machine, or of all.
fn cards(wiring: &Wiring, ends: &Ends) -> Vec<Mac> {
    (networks_of(wiring, ends).flat_map(|network| &network.cards))
        .filter(|card| {
            ends.machines
                .first()
                .is_none_or(|name| *name == card.machine)
        })
        .map(|card| card.mac)
        .collect()
}

fn networks_of<'a>(
    wiring: &'a Wiring,
    ends: &'a Ends,
) -> impl Iterator<Item = &'a network::Network> {
    let is_meant = |name: &str| ends.network.as_deref().is_none_or(|only| only == name);
    (wiring.networks.iter()).filter(move |network| is_meant(&network.name))
}

/// Fails if the ends name a network that is a bridge of the host.
fn no_bridge(session: &Session, ends: &Ends) -> Result<(), Failure> {
    let mut bridges = session.project.machines.iter().flat_map(|it| &it.bridges);
    match bridges.find(|it| ends.network.as_deref() == Some(it.network.as_str())) {
        Some(bridge) => Err(Failure::usage(
            format!(
                "network {} is the bridge {} of this computer, so stead neither sees nor changes what passes there",
                bridge.network, bridge.interface
            ),
            "use `tcpdump -i BRIDGE` on this computer to record, and `tc` in the guests to slow them down",
        )),
        None => Ok(()),
    }
}

fn need_network(wiring: &Wiring, ends: &Ends) -> Result<(), Failure> {
    let declared = wiring.networks.iter().filter(|it| !it.is_own());
    let mut names: Vec<&str> = declared.map(|it| it.name.as_str()).collect();
    match &ends.network {
        Some(name) if !names.contains(&name.as_str()) => {
            names.dedup();
            Err(Failure::usage(
                format!("there is no network {}", words(name)),
                format!("the networks are {}", names.join(", ")),
            ))
        }
        _ => Ok(()),
    }
}

fn no_card(machine: &str, network: Option<&str>) -> Failure {
    Failure::usage(
        match network {
            Some(network) => format!("machine {machine} is not on network {network}"),
            None => format!("machine {machine} is on no network"),
        },
        "`stead link` shows which machines are on which network",
    )
}

/// Fails if there are no such links.
fn check(wiring: &Wiring, ends: &Ends) -> Result<(), Failure> {
    need_network(wiring, ends)?;
    if let [one, other] = ends.machines.as_slice()
        && one == other
    {
        return Err(Failure::usage(
            format!("machine {one} has no link to itself"),
            "name two machines, or one machine for all its links",
        ));
    }
    let is_on = |network: &network::Network, name: &String| {
        network.cards.iter().any(|card| card.machine == *name)
    };
    for machine in &ends.machines {
        if !networks_of(wiring, ends).any(|network| is_on(network, machine)) {
            return Err(no_card(machine, ends.network.as_deref()));
        }
    }
    let is_shared = |network: &network::Network| {
        ends.machines.iter().all(|name| is_on(network, name)) && network.cards.len() > 1
    };
    match (
        networks_of(wiring, ends).any(is_shared),
        ends.machines.as_slice(),
    ) {
        (true, _) => Ok(()),
        (false, [one, other]) => Err(Failure::usage(
            format!("machines {one} and {other} are on no network together"),
            "`stead link` shows which machines are on which network",
        )),
        (false, _) => Err(Failure::usage(
            "there is no other machine to have a link with",
            "`stead link` shows which machines are on which network",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Card, Network};

    fn ends(machines: &[&str], network: Option<&str>) -> Ends {
        Ends {
            machines: machines.iter().map(ToString::to_string).collect(),
            network: network.map(ToString::to_string),
            one_way: false,
        }
    }

    /// db and web on one network, web and ci on another one.
    fn wiring() -> Wiring {
        let network = |name: &str, machines: &[&str], third: u8| Network {
            name: name.into(),
            subnet: format!("10.77.{third}.0/24").parse().unwrap(),
            cards: (machines.iter().zip(10..))
                .map(|(machine, last)| Card {
                    machine: machine.to_string(),
                    mac: Mac([0x52, 0x54, 0, 0, third, last]),
                    address: [10, 77, third, last].into(),
                    aliases: Vec::new(),
                    internet: true,
                    egress: None,
                })
                .collect(),
        };
        Wiring {
            guests: Vec::new(),
            ways_in: Vec::new(),
            starting: Vec::new(),
            domain: "shop.internal".into(),
            networks: vec![
                network("back", &["db", "web"], 0),
                network("front", &["web", "ci"], 1),
                network("alone", &["one"], 2),
            ],
            links: None,
        }
    }

    #[test]
    fn links_that_are_not_there_are_refused() {
        let said = |machines: &[&str], network| match check(&wiring(), &ends(machines, network)) {
            Ok(()) => String::new(),
            Err(failure) => failure.message(),
        };
        assert_eq!(said(&[], None), "");
        assert_eq!(said(&["web"], None), "");
        assert_eq!(said(&["web", "ci"], Some("front")), "");
        assert_eq!(
            said(&["db", "ci"], None),
            "machines db and ci are on no network together"
        );
        assert_eq!(
            said(&["db", "db"], None),
            "machine db has no link to itself"
        );
        assert_eq!(
            said(&["db"], Some("front")),
            "machine db is not on network front"
        );
        assert_eq!(said(&["x"], None), "machine x is on no network");
        assert_eq!(said(&[], Some("nope")), "there is no network nope");
        assert_eq!(
            said(&["one"], None),
            "there is no other machine to have a link with"
        );
    }

    /// A network that is down says nothing of machines that have no links at all.
    #[test]
    fn machines_that_are_only_on_bridges_have_no_links() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(crate::machinefile::MACHINEFILE);
        let machines = |text: &str| {
            let text = format!(
                "project \"p\"\ndefaults {{ box \"b\"; }}\nnetwork \"lan\" bridge=\"br0\"\n{text}"
            );
            std::fs::write(&file, text).unwrap();
            crate::machinefile::load(&file, &|_| None).unwrap().machines
        };
        let said = |machines: &[Machine], named: &[&str]| {
            let named: Vec<String> = named.iter().map(ToString::to_string).collect();
            on_bridges(machines, &named).map(|failure| failure.message())
        };
        let all = machines("machine \"a\" { network \"lan\"; }");
        let only = "machine a is on no network of stead's, only on bridge br0 of this computer";
        for named in [&["a"][..], &[]] {
            assert!(said(&all, named).unwrap().starts_with(only));
        }
        let mixed = machines(
            "machine \"a\" { network \"lan\"; }\nmachine \"b\" { network \"lan\"; network \"default\"; }\nmachine \"c\"",
        );
        assert!(said(&mixed, &["b", "a"]).unwrap().starts_with(only));
        assert_eq!(said(&mixed, &["b"]), None);
        assert_eq!(said(&mixed, &[]), None);
    }

    #[test]
    fn a_machine_has_several_cards() {
        assert_eq!(cards(&wiring(), &ends(&["web"], None)).len(), 2);
        assert_eq!(cards(&wiring(), &ends(&["web"], Some("back"))).len(), 1);
        assert_eq!(cards(&wiring(), &ends(&["x"], None)), []);
    }
}
