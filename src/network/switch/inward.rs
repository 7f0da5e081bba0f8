//! What the ways into guests need of the switch.

use std::{collections::VecDeque, net::Ipv4Addr, rc::Rc};

use super::{
    super::{Mac, Wiring, inward::Flows},
    State, Switch,
};

impl Switch {
    /// The flows into guests.
    pub(in crate::network) fn flows(&self) -> Rc<Flows> {
        Rc::clone(&self.state.borrow().flows)
    }

    /// The address of a card, and that of its network itself.
    pub(in crate::network) fn ends(&self, mac: Mac) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let state = self.state.borrow();
        let (card, network) = state.wiring.card(state.lines.get(&mac)?.place)?;
        Some((card.address, network.subnet.gateway()))
    }

    /// Whether a QEMU has this card.
    pub(in crate::network) fn has(&self, mac: Mac) -> bool {
        let state = self.state.borrow();
        (state.lines.get(&mac)).is_some_and(|line| line.outlet.is_there(mac))
    }

    /// Has it unknown whether the guest with this card has asked for an address: its QEMU has ended.
    pub(in crate::network) fn forget_question(&self, mac: Mac) {
        if let Some(line) = self.state.borrow_mut().lines.get_mut(&mac) {
            line.has_asked = false;
        }
    }

    /// Sends packets of the network's own address to a card.
    pub(in crate::network) fn send_in(&self, mac: Mac, packets: &VecDeque<Vec<u8>>) {
        let mut state = self.state.borrow_mut();
        let State {
            lines,
            nets,
            recorders,
            ..
        } = &mut *state;
        let Some(line) = lines.get_mut(&mac) else {
            return;
        };
        let Some(net) = nets.get(line.place.network) else {
            return;
        };
        for packet in packets {
            line.send(&net.gateway.packet(mac, packet), mac, recorders);
        }
    }
}

impl State {
    /// Keeps the machines that run on networks of their own, although a wiring lacks them: the command that sends it may
    /// not have seen those of another `stead run`.
    pub(super) fn keep_own(&self, wiring: &mut Wiring) {
        for network in self.wiring.networks.iter().filter(|it| it.is_own()) {
            let is_there = network.cards.iter().any(|card| {
                (self.lines.get(&card.mac)).is_some_and(|line| line.outlet.is_there(card.mac))
            });
            let is_known = wiring.networks.iter().any(|it| it.name == network.name);
            if is_there && !is_known {
                wiring.networks.push(network.clone());
            }
        }
    }
}
