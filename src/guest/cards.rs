//! Sees to it that the guest's cards on the project's networks have their addresses.

use std::{fmt::Display, net::Ipv4Addr};

use crate::{
    host::shell::shell_quote,
    machine::{BridgeCard, NetworkCard, Spec},
};

const SCRIPT: &str = include_str!("../../provisioners/guest/stead-network");

/// Writes down the name servers, in boxes that stead builds.
const RESOLVER: &str = include_str!("../../provisioners/guest/stead-resolver");

/// Returns the command that waits for the addresses of the cards of a machine, and has the guest ask for those that are
/// missing. If the first network card leads out, the guest's default route has to lead there, too.
pub fn cards_command(spec: &Spec, domain: &str) -> String {
    let way = match (&spec.egress, spec.internet) {
        (Some(_), _) => "card",
        (None, true) => "login",
        (None, false) => "none",
    };
    command(&spec.cards, &spec.bridges, way, domain)
}

fn command(cards: &[NetworkCard], bridges: &[BridgeCard], way: &str, domain: &str) -> String {
    let (script, domain) = (shell_quote(SCRIPT), shell_quote(domain));
    let resolver = shell_quote(RESOLVER);
    let server = (cards.first()).map_or(Ipv4Addr::UNSPECIFIED, |card| card.subnet.gateway());
    let macs: Vec<String> = bridges.iter().map(|card| card.mac.to_string()).collect();
    let macs = shell_quote(&macs.join(" "));
    let mut command =
        format!("sudo -n sh -c {script} stead-network {domain} {server} {resolver} {way} {macs}");
    for card in cards {
        let address = format!("{}/{}", card.address, card.subnet.prefix());
        command.push_str(&format!(" {} {address}", card.mac));
    }
    command
}

/// Returns the cards that have no address, and why, from the command's output. Other lines are ignored.
pub fn cards_without_address<'a>(
    cards: &'a [NetworkCard],
    output: &str,
) -> Vec<(&'a NetworkCard, String)> {
    (cards.iter())
        .filter_map(|card| match said("stead-card", card.mac, output) {
            Some(said) if said == "up" => None,
            Some(said) => Some((card, said)),
            None => Some((card, "the guest does not say why".to_string())),
        })
        .collect()
}

/// Returns the cards on bridges that have no address yet, and why, from the command's output.
pub fn bridges_without_address<'a>(
    cards: &'a [BridgeCard],
    output: &str,
) -> Vec<(&'a BridgeCard, String)> {
    (cards.iter())
        .filter_map(|card| Some((card, said("stead-bridge", card.mac, output)?)))
        .collect()
}

/// What the command says behind a mark of the card with this MAC.
fn said(mark: &str, mac: impl Display, output: &str) -> Option<String> {
    let start = format!("{mark} {mac} ");
    let mut lines = output.lines();
    lines.find_map(|line| line.strip_prefix(&start).map(|it| it.trim().to_string()))
}

/// Whether the guest asks a name server first that does not know the machines of the project, by the command's output.
pub fn asks_another_server(output: &str) -> bool {
    output.lines().any(|line| line.starts_with("stead-names "))
}

/// Why nothing leaves the guest, although its first network card leads out, by the command's output.
pub fn has_no_way_out(output: &str) -> Option<&str> {
    let mut lines = output.lines();
    lines
        .find_map(|line| line.strip_prefix("stead-way "))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_says_of_its_cards_is_read() {
        let card = |last: u8| NetworkCard {
            network: "back".into(),
            subnet: "10.77.0.0/24".parse().unwrap(),
            mac: crate::network::Mac([0x52, 0x54, 0, 0, 0, last]),
            address: [10, 77, 0, last].into(),
            aliases: Vec::new(),
        };
        let cards = [card(1), card(2), card(3)];
        let bridge = |last: u8| BridgeCard {
            network: "lan".into(),
            interface: "br0".into(),
            mac: crate::network::Mac([0x52, 0x54, 0, 0, 1, last]),
        };
        let bridges = [bridge(1), bridge(2)];
        let said = "stead-bridge 52:54:00:00:01:02 no DHCP server has answered \r\n";
        let missing = bridges_without_address(&bridges, said);
        assert_eq!(
            missing,
            [(&bridges[1], "no DHCP server has answered".to_string())]
        );
        let command = command(&cards, &bridges, "card", "shop.internal");
        assert!(command.contains("stead-network shop.internal 10.77.0.1 '#!/bin/sh"));
        assert!(command.ends_with(
            "' card '52:54:00:00:01:01 52:54:00:00:01:02' 52:54:00:00:00:01 10.77.0.1/24 52:54:00:00:00:02 10.77.0.2/24 \
             52:54:00:00:00:03 10.77.0.3/24"
        ));
        let output = "Welcome!\nstead-card 52:54:00:00:00:01 up\r\nstead-card 52:54:00:00:00:02 no DHCP client \n";
        assert_eq!(has_no_way_out(output), None);
        let without = format!("{output}stead-way default via 10.0.2.2 dev eth0 \r\n");
        assert_eq!(
            has_no_way_out(&without),
            Some("default via 10.0.2.2 dev eth0")
        );
        let missing: Vec<_> = (cards_without_address(&cards, output).iter())
            .map(|(card, why)| format!("{}: {why}", card.address))
            .collect();
        assert_eq!(
            missing,
            [
                "10.77.0.2: no DHCP client",
                "10.77.0.3: the guest does not say why"
            ]
        );
    }
}
