//! The gates of all machines of a project.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    time::Instant,
};

use super::{
    Card, Refusals, Wiring, dns,
    gate::{Gate, Verdict},
    own_addresses::OwnAddresses,
};

#[derive(Default)]
pub(super) struct Gates {
    /// Of machines that have a way out through a network, by their names.
    gates: HashMap<String, Gate>,
    own_addresses: OwnAddresses,
}

impl Gates {
    /// Makes them what the wiring says. What is counted stays.
    pub(super) fn set(&mut self, wiring: &Wiring) {
        let mut before = std::mem::take(&mut self.gates);
        for card in wiring.networks.iter().flat_map(|it| &it.cards) {
            if let Some(egress) = &card.egress {
                let mut gate = before.remove(&card.machine).unwrap_or_default();
                gate.set(egress);
                self.gates.insert(card.machine.clone(), gate);
            }
        }
    }

    /// Judges a frame of a card to its gateway's MAC.
    pub(super) fn judge(
        &mut self,
        card: &Card,
        frame: &[u8],
        gateway: Ipv4Addr,
        wiring: &Wiring,
    ) -> Verdict {
        let gate = (card.egress.as_ref()).and_then(|_| self.gates.get_mut(&card.machine));
        // It is not counted what is tried where nothing can leave.
        let mut closed = Gate::closed();
        let gate = gate.unwrap_or(&mut closed);
        let now = Instant::now();
        let own = &mut self.own_addresses;
        gate.judge(frame, gateway, |to| wiring.has(to) || own.has(to, now), now)
    }

    /// Whether what comes from this address, and not from the network itself, may go to a card.
    pub(super) fn admits(&self, card: &Card, from: Ipv4Addr) -> bool {
        let gate = (card.egress.as_ref()).and_then(|_| self.gates.get(&card.machine));
        gate.is_some_and(|gate| gate.admits(from, Instant::now()))
    }

    /// Whether a machine may look up a name. Counts it if not.
    pub(super) fn may_ask(&mut self, machine: &str, name: &str) -> bool {
        let gate = self.gates.get_mut(machine);
        let Some(gate) = gate.filter(|gate| !gate.allows_name(name)) else {
            return true;
        };
        // Programs ask for the names of addresses by themselves.
        if !name.ends_with(".arpa") {
            gate.count(name.to_string());
        }
        false
    }

    /// Opens the addresses of an answer to a machine.
    pub(super) fn open(&mut self, machine: &str, answer: &[u8]) {
        if let Some(gate) = self.gates.get_mut(machine) {
            gate.open(&dns::addresses_in(answer), Instant::now());
        }
    }

    /// What was refused to machines, by their names.
    pub(super) fn refusals(&self) -> BTreeMap<String, Refusals> {
        (self.gates.iter())
            .map(|(machine, gate)| (machine.clone(), gate.refusals()))
            .collect()
    }
}
