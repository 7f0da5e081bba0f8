//! `stead link`: prints the links of the project's networks.

use std::{net::Ipv4Addr, process::ExitCode, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    failure::Failure,
    network::{Counts, Direction, Held, InForce, Links, Reply, in_force},
    report::{Table, clean, elapsed, say},
    session::{
        invocation::Invocation,
        links::{Ends, links, only_bridges, open},
    },
};

use super::super::output;

#[derive(Serialize)]
struct Report<'a> {
    project: &'a str,
    /// Whether the network runs.
    running: bool,
    networks: Vec<NetworkRow>,
    /// What machines with `egress` or `host-access` wanted to reach and may not.
    refused: Vec<RefusedRow>,
}

#[derive(Serialize)]
struct RefusedRow {
    machine: String,
    /// A name, or an address with a port. The machine chose it.
    to: String,
    times: u64,
}

#[derive(Serialize)]
struct NetworkRow {
    network: String,
    subnet: String,
    cards: Vec<CardRow>,
    /// Only directions with conditions.
    links: Vec<LinkRow>,
}

/// Counts are of frames, since the network started.
#[derive(Serialize)]
struct CardRow {
    machine: String,
    address: Ipv4Addr,
    mac: String,
    sent: u64,
    received: u64,
    /// The machine did not take them in time.
    lost: u64,
    /// Conditions of links dropped them on their way to the machine.
    dropped: u64,
    /// The machine sent them and may not.
    refused: u64,
}

#[derive(Serialize)]
struct LinkRow {
    from: String,
    to: String,
    conditions: Vec<ConditionRow>,
}

#[derive(Clone, PartialEq, Serialize)]
struct ConditionRow {
    condition: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// `machinefile` or `hand`.
    set_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

pub(super) fn run(invocation: &Invocation) -> Result<ExitCode, Failure> {
    let session = open(invocation)?;
    let found = links(&session)?;
    let refused = found
        .as_ref()
        .map_or_else(Vec::new, |(reply, _)| refused(reply));
    let report = Report {
        project: &session.project.name,
        running: found.is_some(),
        networks: found.map_or_else(Vec::new, |(reply, links)| rows(&reply, &links)),
        refused,
    };
    if invocation.style.json {
        output::json(&report)?;
    } else if report.running {
        let mut text = text(&report.networks, Timestamp::now(), output::width());
        text.push_str(&refused_text(&report.refused, output::width()));
        output::data(&text)?;
    } else {
        match only_bridges(&session, &Ends::default()) {
            Some(failure) => say(invocation.style, &failure.message()),
            None => say(
                invocation.style,
                "no network is running; `stead up` starts it with the machines",
            ),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(reply: &Reply, links: &Links) -> Vec<NetworkRow> {
    let directions = in_force(&links.wiring, &links.by_hand);
    (links.wiring.networks.iter().enumerate())
        .map(|(n, network)| NetworkRow {
            network: network.name.clone(),
            subnet: network.subnet.to_string(),
            cards: (network.cards.iter())
                .map(|card| {
                    let none = Counts::default();
                    let counts = reply.counts.get(&card.mac).unwrap_or(&none);
                    CardRow {
                        machine: card.machine.clone(),
                        address: card.address,
                        mac: card.mac.to_string(),
                        sent: counts.from_guest,
                        received: counts.to_guest,
                        lost: counts.lost,
                        dropped: counts.dropped,
                        refused: counts.refused,
                    }
                })
                .collect(),
            links: (directions.iter().filter(|it| it.network == n))
                .map(|it: &Direction| LinkRow {
                    from: network.cards[it.from].machine.clone(),
                    to: network.cards[it.to].machine.clone(),
                    conditions: conditions(&it.conditions),
                })
                .collect(),
        })
        .collect()
}

fn refused(reply: &Reply) -> Vec<RefusedRow> {
    (reply.refusals.iter())
        .flat_map(|(machine, refusals)| {
            refusals.to.iter().map(|refusal| RefusedRow {
                machine: machine.clone(),
                to: clean::words(&refusal.to),
                times: refusal.times,
            })
        })
        .collect()
}

fn refused_text(refused: &[RefusedRow], width: Option<usize>) -> String {
    let mut table = Table::new(&["MACHINE", "MAY NOT REACH", "TIMES"]);
    for row in refused {
        table.row([row.machine.clone(), row.to.clone(), row.times.to_string()]);
    }
    match table.is_empty() {
        true => String::new(),
        false => format!("\n{}", table.fitted(width)),
    }
}

fn conditions(in_force: &InForce) -> Vec<ConditionRow> {
    fn row<T: ToString>(
        condition: &'static str,
        held: Option<Held<T>>,
        has_value: bool,
    ) -> Option<ConditionRow> {
        held.map(|held| ConditionRow {
            condition,
            value: has_value.then(|| held.value.to_string()),
            set_by: if held.by_hand { "hand" } else { "machinefile" },
            until: held.until,
        })
    }
    [
        row("cut", in_force.cut, false),
        row("latency", in_force.latency, true),
        row("jitter", in_force.jitter, true),
        row("loss", in_force.loss, true),
        row("rate", in_force.rate, true),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn text(networks: &[NetworkRow], now: Timestamp, width: Option<usize>) -> String {
    let mut cards = Table::new(&[
        "NETWORK", "MACHINE", "ADDRESS", "SENT", "RECEIVED", "LOST", "DROPPED", "REFUSED",
    ]);
    let mut links = Table::new(&["NETWORK", "LINK", "CONDITIONS"]);
    for network in networks {
        for card in &network.cards {
            cards.row([
                network.network.clone(),
                card.machine.clone(),
                card.address.to_string(),
                card.sent.to_string(),
                card.received.to_string(),
                card.lost.to_string(),
                card.dropped.to_string(),
                card.refused.to_string(),
            ]);
        }
        for (n, link) in network.links.iter().enumerate() {
            let is_back = |other: &LinkRow| {
                other.from == link.to
                    && other.to == link.from
                    && other.conditions == link.conditions
            };
            let back = network.links.iter().position(is_back);
            // Both directions are in one row, where the first one would be.
            if back.is_some_and(|back| back < n) {
                continue;
            }
            let arrow = if back.is_some() { "↔" } else { "→" };
            links.row([
                network.network.clone(),
                format!("{} {arrow} {}", link.from, link.to),
                words(&link.conditions, now),
            ]);
        }
    }
    let mut text = cards.fitted(width);
    text.push('\n');
    match links.is_empty() {
        true => text.push_str("No link has conditions.\n"),
        false => text.push_str(&links.fitted(width)),
    }
    text
}

fn words(conditions: &[ConditionRow], now: Timestamp) -> String {
    let list = |set_by: &str| -> Vec<String> {
        (conditions.iter().filter(|it| it.set_by == set_by))
            .map(|it| {
                let value = it.value.iter().map(|value| format!(" {value}"));
                let left = it.until.map(|until| {
                    let left = Duration::try_from(until.duration_since(now));
                    format!(" ({} left)", elapsed(left.unwrap_or_default()))
                });
                (std::iter::once(it.condition.to_string())
                    .chain(value)
                    .chain(left))
                .collect()
            })
            .collect()
    };
    let (declared, by_hand) = (list("machinefile"), list("hand"));
    let mut parts = Vec::new();
    if !declared.is_empty() {
        parts.push(declared.join(", "));
    }
    if !by_hand.is_empty() {
        parts.push(format!("by hand: {}", by_hand.join(", ")));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_read_well() {
        let card = |machine: &str, last: u8, dropped| CardRow {
            machine: machine.into(),
            address: Ipv4Addr::new(10, 77, 0, last),
            mac: format!("52:54:00:00:00:{last:02x}"),
            sent: 1204,
            received: 988,
            lost: 0,
            dropped,
            refused: 1,
        };
        let condition = |condition, value: Option<&str>, set_by| ConditionRow {
            condition,
            value: value.map(ToString::to_string),
            set_by,
            until: None,
        };
        let link = |from: &str, to: &str, conditions: &[ConditionRow]| LinkRow {
            from: from.into(),
            to: to.into(),
            conditions: conditions.to_vec(),
        };
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let cut = ConditionRow {
            until: Some("2026-01-01T00:00:24.3Z".parse().unwrap()),
            ..condition("cut", None, "hand")
        };
        let both = [condition("latency", Some("80ms"), "machinefile"), cut];
        let mut network = NetworkRow {
            network: "back".into(),
            subnet: "10.77.0.0/24".into(),
            cards: vec![card("db", 10, 31), card("web-1", 11, 0)],
            links: Vec::new(),
        };
        let without = text(std::slice::from_ref(&network), now, None);
        assert!(without.ends_with("No link has conditions.\n"), "{without}");
        network.links = vec![
            link("db", "web-1", &both),
            link("db", "web-2", &[condition("loss", Some("2%"), "hand")]),
            link("web-1", "db", &both),
            link(
                "web-2",
                "db",
                &[condition("loss", Some("3%"), "machinefile")],
            ),
        ];
        insta::assert_snapshot!(text(&[network], now, None));
    }

    #[test]
    fn what_was_refused_reads_well() {
        let row = |to: &str, times| RefusedRow {
            machine: "web".into(),
            to: to.into(),
            times,
        };
        let rows = [row("198.51.100.9:80", 12), row("tracker.example.org", 1)];
        assert_eq!(refused_text(&[], None), "");
        insta::assert_snapshot!(refused_text(&rows, None), @"
        MACHINE  MAY NOT REACH        TIMES
        web      198.51.100.9:80      12
        web      tracker.example.org  1
        ");
    }
}
