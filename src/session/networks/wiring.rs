//! Which networks a project has, and which cards are on them, as stead-net is told.

use std::collections::HashSet;

use crate::{
    guest::MachineFiles,
    hypervisor::Survey,
    machine::{NetworkCard, Record, Spec, wired},
    machinefile::Machine,
    network::{Card, Egress, Guest, Network, WayIn, Wiring, domain_of, host_address},
    plan::{Plan, WantedMachine},
};

use crate::session::{Detail, Session};

impl Session {
    /// Returns the wiring of machines that run, of those that exist, and of all others of the Machinefile: so two
    /// commands that start different machines mean the same wiring. A machine that runs has the cards that it was
    /// started with. `plan`: what is about to change.
    pub(in crate::session) fn wiring(&self, survey: &Survey, plan: Option<&Plan>) -> Wiring {
        self.wiring_with(survey, plan, &[])
    }

    /// The same, with machines of `stead run`.
    pub(super) fn wiring_with(
        &self,
        survey: &Survey,
        plan: Option<&Plan>,
        runs: &[&WantedMachine],
    ) -> Wiring {
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
pub(in crate::session) fn is_other(session: &Session, record: &Record) -> bool {
    session.owner().owns(record)
        && session.project.machine(&record.machine).is_none()
        && record.copy_of.is_none()
        && record.run_of.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network;

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

    #[test]
    fn an_address_is_not_given_away_while_a_machine_that_runs_has_it() {
        let left = |live: &[&'static str]| {
            let card = |machine: &str, last: u8| Card {
                machine: machine.into(),
                mac: network::Mac([0x52, 0x54, 0, 0, 0, last]),
                address: [10, 77, 0, 10].into(),
                aliases: Vec::new(),
                internet: true,
                egress: None,
            };
            let mut networks = vec![Network {
                name: "back".into(),
                subnet: "10.77.0.0/24".parse().unwrap(),
                cards: vec![card("pg", 1), card("db", 2)],
            }];
            give_way(&mut networks, &live.iter().copied().collect());
            let cards = networks.into_iter().flat_map(|network| network.cards);
            cards.map(|card| card.machine).collect::<Vec<_>>()
        };
        assert_eq!(left(&[]), ["pg", "db"]);
        assert_eq!(left(&["db"]), ["db"]);
        assert_eq!(left(&["db", "pg"]), ["pg", "db"]);
    }
}
