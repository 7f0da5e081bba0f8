//! Waits until something listens on a port of a guest, where those reach it who are to.

use std::{
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    guest::{Remote, listening_script, while_called},
    host::ports::{Protocol, first_for_users},
    machine::{OWN_ADDRESS, Record},
    machinefile::{Forward, Machine},
    network::{Mac, Probed, is_shown, listening_at},
    report::clean::words,
};

use super::{
    error::ApplyError,
    steps::{Steps, blocking},
};

/// How long something may listen where nobody reaches it before people are told.
const SILENT: Duration = Duration::from_secs(3);

/// How often a guest is asked whether it takes connections.
const AGAIN: Duration = Duration::from_millis(250);

/// How long a port may take to appear on this computer, and how often that is looked at. The guest says its ports once a
/// second.
const APPEARS: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// A port of this computer that leads to the port of a guest.
struct Way<'a> {
    forward: &'a Forward,
    /// The address of the guest that it leads to.
    to: Ipv4Addr,
    /// The card by which it does, if stead-net leads.
    card: Option<Mac>,
}

impl<'a> Way<'a> {
    fn to(record: &'a Record, port: u16) -> Option<Self> {
        let forward = (record.spec.forwards.iter())
            .find(|it| it.protocol == Protocol::Tcp && it.guest == port)?;
        let card = record.led_card();
        let cards = record.wired_cards();
        let led = cards.iter().find(|it| Some(it.mac) == card);
        Some(Way {
            forward,
            to: led.map_or(OWN_ADDRESS, |it| it.address),
            card,
        })
    }

    /// Whether it seems to reach what listens at these addresses. A firewall may be in the way, and what listens at `::`
    /// may take IPv6 only.
    fn seems_to_reach(&self, at: &[IpAddr]) -> bool {
        at.iter()
            .any(|it| it.is_unspecified() || *it == IpAddr::V4(self.to))
    }
}

/// Says why the way does not reach what listens on the port at these addresses.
fn why_not(port: u16, at: &[IpAddr], way: &Way<'_>, probed: Option<Probed>) -> String {
    if at.is_empty() {
        return format!("nothing listens on port {port} in the guest");
    }
    let host = way.forward.host;
    if way.seems_to_reach(at) {
        let takes_ipv4 = at.iter().any(IpAddr::is_ipv4);
        return match probed == Some(Probed::Refuses) && !takes_ipv4 {
            true => format!(
                "what listens on port {port} of the guest takes no IPv4, by which the forward of port {host} comes: let it listen on 0.0.0.0 too"
            ),
            false => format!(
                "what listens on port {port} of the guest does not answer the forward of port {host}: a firewall of the guest may be in the way"
            ),
        };
    }
    let mut places: Vec<String> = Vec::new();
    for it in at {
        let place = match it {
            IpAddr::V4(it) => it.to_string(),
            IpAddr::V6(it) => format!("[{it}]"),
        };
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let leads = match at.iter().all(IpAddr::is_loopback) {
        true => String::new(),
        false => format!(", which leads to {},", way.to),
    };
    format!(
        "what listens on port {port} does so on {} of the guest only; the forward of port {host}{leads} cannot reach it: let it listen on 0.0.0.0",
        places.join(" and ")
    )
}

/// What is heard of a port of a guest.
struct Heard {
    /// Where something listens.
    at: Vec<IpAddr>,
    /// The last line that is something else.
    last: Option<String>,
}

/// A port of a guest that is waited for.
struct Awaited<'a> {
    port: u16,
    way: Option<Way<'a>>,
    heard: Mutex<Heard>,
    /// Whether people know that something listens where nobody reaches it.
    is_told: bool,
}

impl Awaited<'_> {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, line: &str) {
        let mut heard = self.heard();
        match listening_at(line, self.port) {
            Some(at) => heard.at = at,
            None if line.trim().is_empty() => {}
            None => heard.last = Some(line.to_string()),
        }
    }

    fn why_not(&self, probed: Option<Probed>) -> String {
        let heard = self.heard();
        match &self.way {
            Some(way) => why_not(self.port, &heard.at, way, probed),
            None => format!("nothing listens on port {} in the guest", self.port),
        }
    }
}

impl Steps<'_> {
    /// Waits until something listens on a port of the guest. If a port of this computer leads there, what listens must be
    /// reached by that.
    pub(super) async fn listens(
        &self,
        remote: &Remote,
        record: &Record,
        port: u16,
        deadline: Instant,
    ) -> Result<(), ApplyError> {
        let began = Instant::now();
        let mut awaited = Awaited {
            port,
            way: Way::to(record, port),
            heard: Mutex::new(Heard {
                at: Vec::new(),
                last: None,
            }),
            is_told: false,
        };
        loop {
            self.hear(remote, &mut awaited, deadline).await?;
            let Some(way) = &awaited.way else {
                self.say_if_local(record, &awaited);
                return Ok(());
            };
            let probed = self.probe(way.card, port).await;
            match probed {
                Some(Probed::Takes) => return Ok(()),
                None if way.seems_to_reach(&awaited.heard().at) => return Ok(()),
                _ if Instant::now() > deadline => {
                    return Err(self.not_ready(awaited.why_not(probed), None));
                }
                _ if !awaited.is_told && began.elapsed() > SILENT => {
                    self.notice(awaited.why_not(probed));
                    awaited.is_told = true;
                }
                _ => {}
            }
            sleep(AGAIN).await;
        }
    }

    /// Waits until something listens there, and not only on 127.0.0.1 if a port of this computer leads there.
    async fn hear(
        &self,
        remote: &Remote,
        awaited: &mut Awaited<'_>,
        deadline: Instant,
    ) -> Result<(), ApplyError> {
        let script = while_called(&listening_script(awaited.port, awaited.way.is_some()));
        let mut is_told = awaited.is_told;
        let ended = {
            let mut each = |_: bool, line: &str| {
                awaited.take(line);
                false
            };
            let mut held = pin!(timeout_at(deadline, remote.hold(&script, b"", &mut each)));
            loop {
                tokio::select! {
                    ended = &mut held => break ended,
                    () = sleep(SILENT), if !is_told => {
                        if !awaited.heard().at.is_empty() {
                            self.notice(awaited.why_not(None));
                            is_told = true;
                        }
                    }
                }
            }
        };
        awaited.is_told = is_told;
        let last = awaited.heard().last.clone();
        self.judge(ended, || awaited.why_not(None), last)
    }

    /// Asks the guest whether it takes connections. `None`: stead-net does not lead to it, or is away.
    async fn probe(&self, card: Option<Mac>, port: u16) -> Option<Probed> {
        let (network, card) = (self.context.network.clone()?, card?);
        match blocking(move || Ok(network.probe(card, port)?)).await {
            Ok(probed) => probed,
            Err(error) => {
                tracing::debug!("the network of the project: {error}");
                None
            }
        }
    }

    /// Other machines reach no service that listens on 127.0.0.1 only. Those that depend on this one may be meant to.
    fn say_if_local(&self, record: &Record, awaited: &Awaited<'_>) {
        let is_local = awaited.heard().at.iter().all(IpAddr::is_loopback);
        let name = self.name();
        let depends = |other: &Machine| other.depends_on.iter().any(|it| it == name);
        let dependent = self.context.project.machines.iter().find(|it| depends(it));
        if let Some(dependent) = dependent
            && is_local
            && !record.spec.cards.is_empty()
        {
            self.notice(format!(
                "what listens on port {} does so on 127.0.0.1 of the guest only; other machines, such as {}, cannot reach it: let it listen on 0.0.0.0",
                awaited.port, dependent.name
            ));
        }
    }

    /// Waits, for a short time, until the ports are at the machine's own address of this computer, if they are to be.
    pub(super) async fn appear(&self, ports: &[u16]) {
        let Some(network) = self.context.network.clone() else {
            return;
        };
        let deadline = Instant::now() + APPEARS;
        for port in ports.iter().copied().filter(|port| is_shown(*port)) {
            while Instant::now() < deadline {
                let (network, name) = (network.clone(), self.name().to_string());
                let shown = blocking(move || Ok(network.ports_of(&name)?)).await;
                let Ok(Some(shown)) = shown else { return };
                let found = shown.ports.iter().find(|it| it.port == port);
                if let Some(found) = found {
                    if let Some(why) = &found.missing
                        && port >= first_for_users().unwrap_or(1024)
                    {
                        self.notice(format!(
                            "its port {port} is not on this computer: {}",
                            words(why)
                        ));
                    }
                    break;
                }
                sleep(LOOK).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_why_a_forward_reaches_nothing() {
        let forward = Forward::tcp(8080, 80);
        let way = Way {
            forward: &forward,
            to: Ipv4Addr::new(10, 77, 0, 10),
            card: None,
        };
        let said = |at: &[&str], probed| {
            let at: Vec<IpAddr> = at.iter().map(|it| it.parse().unwrap()).collect();
            why_not(80, &at, &way, probed)
        };
        let all = [
            said(&[], None),
            said(&["127.0.0.1"], None),
            said(&["127.0.0.1", "::1", "127.0.0.1"], Some(Probed::Refuses)),
            said(&["192.168.1.7"], Some(Probed::Refuses)),
            said(&["::"], Some(Probed::Refuses)),
            said(&["0.0.0.0"], Some(Probed::Silent)),
            said(&["0.0.0.0"], Some(Probed::Refuses)),
        ];
        insta::assert_snapshot!("unreached", all.join("\n"));
    }

    #[test]
    fn a_port_is_reached_where_its_forward_leads() {
        let mut record = crate::machine::sample_record();
        let way = Way::to(&record, 80).unwrap();
        assert_eq!((way.forward.host, way.to), (8080, OWN_ADDRESS));
        let reaches = |at: &str| way.seems_to_reach(&[at.parse().unwrap()]);
        for at in ["0.0.0.0", "::", "10.0.2.15"] {
            assert!(reaches(at), "{at}");
        }
        for at in ["127.0.0.1", "::1", "10.77.0.10"] {
            assert!(!reaches(at), "{at}");
        }
        assert!(Way::to(&record, 8080).is_none());
        record.spec.forwards[0].protocol = Protocol::Udp;
        assert!(Way::to(&record, 80).is_none());
    }
}
