//! What the ways out of networks need of the switch.

use std::collections::BTreeMap;

use super::{
    super::{frame, outward::Task},
    Key, State, Switch,
};

impl Switch {
    /// Why networks have no way out, by their names.
    pub(in crate::network) fn ways_out(&self) -> BTreeMap<String, String> {
        let state = self.state.borrow();
        (state.nets.iter())
            .filter_map(|net| Some((net.key.0.clone(), net.way_out.failed()?.to_string())))
            .collect()
    }
}

impl State {
    /// Makes the ways out what the wiring says.
    pub(super) fn set_ways_out(&mut self) {
        for (network, net) in self.wiring.networks.iter().zip(&mut self.nets) {
            let ways = (network.cards.iter()).filter_map(|card| card.egress.as_ref());
            let to_host: Vec<bool> = ways.map(|it| !it.host_tcp.is_empty()).collect();
            net.way_out.want((!to_host.is_empty()).then(|| Task {
                subnet: network.subnet,
                host_loopback: to_host.contains(&true),
            }));
        }
    }

    /// Passes on a packet that comes from beyond a network, to a card that leads out.
    pub(super) fn come_in(&mut self, network: &Key, packet: &[u8]) {
        let position = self.nets.iter().position(|net| net.key == *network);
        let (Some(position), Some((from, to))) = (position, frame::ends(packet)) else {
            return;
        };
        let mut cards = self.wiring.networks[position].cards.iter();
        let is_own = from == network.1.gateway();
        let to = cards.find(|card| {
            card.address == to && card.egress.is_some() && (is_own || self.gates.admits(card, from))
        });
        if let Some(to) = to
            && let Some(line) = self.lines.get_mut(&to.mac)
        {
            let frame = self.nets[position].gateway.packet(to.mac, packet);
            line.send(&frame, to.mac, &self.recorders);
        }
    }
}
