//! The conditions of links: what the Machinefile says, what `stead link` lays over it, and what holds for each
//! direction between two cards.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Wiring,
    measures::{Delay, Loss, Rate},
};

/// How many rules `stead link` may lay over those of the Machinefile.
const MOST: usize = 256;

/// The links that a rule is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scope {
    /// The machines at one end. Empty: all.
    pub from: Vec<String>,
    /// The machines at the other end. Empty: all.
    pub to: Vec<String>,
    /// `None`: all networks.
    pub network: Option<String>,
    /// Whether it is only about frames from `from` to `to`.
    pub one_way: bool,
}

/// What a rule says. It leaves alone what is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Whether nothing passes.
    #[serde(skip_serializing_if = "is_false")]
    pub cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Delay>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Delay>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A rule of the Machinefile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    #[serde(flatten)]
    pub scope: Scope,
    #[serde(flatten)]
    pub settings: Settings,
}

/// A rule of `stead link`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand {
    pub scope: Scope,
    /// `None`: what the Machinefile says.
    pub settings: Option<Settings>,
    /// When it ends. `None`: with the network.
    pub until: Option<Timestamp>,
}

/// A condition in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held<T> {
    pub value: T,
    /// Whether `stead link` has set it, and not the Machinefile.
    pub by_hand: bool,
    pub until: Option<Timestamp>,
}

/// The conditions in force in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    pub cut: Option<Held<bool>>,
    pub latency: Option<Held<Delay>>,
    pub jitter: Option<Held<Delay>>,
    pub loss: Option<Held<Loss>>,
    pub rate: Option<Held<Rate>>,
}

/// A direction between two cards of a network, by their positions in the wiring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    pub network: usize,
    pub from: usize,
    pub to: usize,
    pub conditions: InForce,
}

impl Scope {
    /// Whether it covers every direction that `other` covers.
    fn contains(&self, other: &Scope) -> bool {
        let has = |all: &[String], some: &[String]| {
            all.is_empty() || (!some.is_empty() && some.iter().all(|name| all.contains(name)))
        };
        let on = self.network.is_none() || self.network == other.network;
        let covers = |from: &[String], to: &[String]| {
            (has(&self.from, from) && has(&self.to, to))
                || (!self.one_way && has(&self.to, from) && has(&self.from, to))
        };
        on && covers(&other.from, &other.to) && (other.one_way || covers(&other.to, &other.from))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |names: &[String]| match names {
            [] => "all".to_string(),
            names => names.join(", "),
        };
        let arrow = if self.one_way { "→" } else { "↔" };
        write!(f, "{} {arrow} {}", end(&self.from), end(&self.to))?;
        (self.network.iter()).try_for_each(|network| write!(f, " on {network}"))
    }
}

impl Settings {
    pub fn is_empty(&self) -> bool {
        *self == Settings::default()
    }

    /// Removes what another one says too.
    fn without(self, other: &Settings) -> Settings {
        Settings {
            cut: self.cut && !other.cut,
            latency: self.latency.filter(|_| other.latency.is_none()),
            jitter: self.jitter.filter(|_| other.jitter.is_none()),
            loss: self.loss.filter(|_| other.loss.is_none()),
            rate: self.rate.filter(|_| other.rate.is_none()),
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(self.cut.then(|| "cut".to_string()));
        words.extend(self.latency.map(|it| format!("latency {it}")));
        words.extend(self.jitter.map(|it| format!("jitter {it}")));
        words.extend(self.loss.map(|it| format!("loss {it}")));
        words.extend(self.rate.map(|it| format!("rate {it}")));
        f.write_str(&words.join(", "))
    }
}

impl InForce {
    fn lay(&mut self, settings: &Settings, by_hand: bool, until: Option<Timestamp>) {
        fn over<T>(
            under: &mut Option<Held<T>>,
            value: Option<T>,
            by_hand: bool,
            until: Option<Timestamp>,
        ) {
            if let Some(value) = value {
                *under = Some(Held {
                    value,
                    by_hand,
                    until,
                });
            }
        }
        over(&mut self.cut, settings.cut.then_some(true), by_hand, until);
        over(&mut self.latency, settings.latency, by_hand, until);
        over(&mut self.jitter, settings.jitter, by_hand, until);
        over(&mut self.loss, settings.loss, by_hand, until);
        over(&mut self.rate, settings.rate, by_hand, until);
    }
}

/// Adds a rule to those of `stead link`, and removes those that it makes meaningless.
///
/// # Errors
/// If there are too many.
pub(super) fn add(rules: &mut Vec<ByHand>, new: ByHand) -> Result<(), String> {
    let mut kept = Vec::new();
    for mut old in std::mem::take(rules) {
        match (&new.settings, &mut old.settings) {
            // All of it is restored.
            (None, _) if new.scope.contains(&old.scope) => continue,
            // What is underneath shows again when the new one ends.
            (Some(said), Some(had))
                if new.scope.contains(&old.scope) && outlasts(new.until, old.until) =>
            {
                *had = had.without(said);
                if had.is_empty() {
                    continue;
                }
            }
            _ => {}
        }
        kept.push(old);
    }
    // What is restored when nothing is set is as it was.
    if new.settings.is_some() || !kept.is_empty() {
        kept.push(new);
    }
    *rules = kept;
    match rules.len() > MOST {
        true => {
            rules.pop();
            Err(format!(
                "there are {MOST} conditions set by hand, and no more are possible"
            ))
        }
        false => Ok(()),
    }
}

fn outlasts(new: Option<Timestamp>, old: Option<Timestamp>) -> bool {
    match (new, old) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(new), Some(old)) => new >= old,
    }
}

/// Removes rules that have ended. Returns whether there were any.
pub(super) fn expire(rules: &mut Vec<ByHand>, now: Timestamp) -> bool {
    let before = rules.len();
    rules.retain(|rule| rule.until.is_none_or(|until| until > now));
    // A restoring rule with nothing before it restores nothing.
    let first = rules.iter().position(|rule| rule.settings.is_some());
    rules.drain(..first.unwrap_or(rules.len()));
    rules.len() != before
}

/// Returns the directions with conditions: those of the wiring, and over them those of `stead link`. Of several, the
/// last one holds, each of its settings by itself.
pub fn in_force(wiring: &Wiring, by_hand: &[ByHand]) -> Vec<Direction> {
    let links = wiring.links.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    if links.is_empty() && by_hand.is_empty() {
        return found;
    }
    for (network, net) in wiring.networks.iter().enumerate() {
        let cards = net.cards.len();
        let mut grid = vec![InForce::default(); cards * cards];
        let places = |names: &[String]| -> Vec<usize> {
            (net.cards.iter().enumerate())
                .filter(|(_, card)| names.is_empty() || names.contains(&card.machine))
                .map(|(n, _)| n)
                .collect()
        };
        let pairs = |scope: &Scope, act: &mut dyn FnMut(usize)| {
            if scope.network.as_ref().is_some_and(|name| *name != net.name) {
                return;
            }
            let (from, to) = (places(&scope.from), places(&scope.to));
            for (a, b) in (from.iter()).flat_map(|a| to.iter().map(move |b| (*a, *b))) {
                if a != b {
                    act(a * cards + b);
                    if !scope.one_way {
                        act(b * cards + a);
                    }
                }
            }
        };
        for link in links {
            pairs(&link.scope, &mut |at| {
                grid[at].lay(&link.settings, false, None);
            });
        }
        let declared = match by_hand.is_empty() {
            true => Vec::new(),
            false => grid.clone(),
        };
        for rule in by_hand {
            pairs(&rule.scope, &mut |at| match &rule.settings {
                Some(settings) => grid[at].lay(settings, true, rule.until),
                None => grid[at] = declared[at],
            });
        }
        found.extend(grid.into_iter().enumerate().filter_map(|(at, conditions)| {
            (conditions != InForce::default()).then_some(Direction {
                network,
                from: at / cards,
                to: at % cards,
                conditions,
            })
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Card, Mac, Network},
        *,
    };

    fn scope(from: &[&str], to: &[&str]) -> Scope {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Scope {
            from: names(from),
            to: names(to),
            ..Scope::default()
        }
    }

    fn latency(text: &str) -> Settings {
        Settings {
            latency: Some(Delay::parse(text).unwrap()),
            ..Settings::default()
        }
    }

    fn cut() -> Settings {
        Settings {
            cut: true,
            ..Settings::default()
        }
    }

    fn hand(scope: Scope, settings: Option<Settings>) -> ByHand {
        ByHand {
            scope,
            settings,
            until: None,
        }
    }

    /// a, b and c on one network, a and b on another one.
    fn wiring(links: Vec<Rule>) -> Wiring {
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
                network("back", &["a", "b", "c"], 0),
                network("front", &["a", "b"], 1),
            ],
            links: Some(links),
        }
    }

    /// As lines such as `back a→b: latency 5ms (hand)`.
    fn lines(wiring: &Wiring, by_hand: &[ByHand]) -> Vec<String> {
        (in_force(wiring, by_hand).iter())
            .map(|it| {
                let network = &wiring.networks[it.network];
                let name = |n: usize| &network.cards[n].machine;
                let mut words = Vec::new();
                let by = |by_hand| if by_hand { " (hand)" } else { "" };
                if let Some(held) = it.conditions.cut {
                    words.push(format!("cut{}", by(held.by_hand)));
                }
                if let Some(held) = it.conditions.latency {
                    words.push(format!("latency {}{}", held.value, by(held.by_hand)));
                }
                if let Some(held) = it.conditions.loss {
                    words.push(format!("loss {}{}", held.value, by(held.by_hand)));
                }
                let (from, to) = (name(it.from), name(it.to));
                format!("{} {from}→{to}: {}", network.name, words.join(", "))
            })
            .collect()
    }

    #[test]
    fn a_scope_is_both_directions_on_all_networks() {
        let none = wiring(Vec::new());
        let rule = hand(scope(&["b"], &["a"]), Some(cut()));
        assert_eq!(
            lines(&none, std::slice::from_ref(&rule)),
            [
                "back a→b: cut (hand)",
                "back b→a: cut (hand)",
                "front a→b: cut (hand)",
                "front b→a: cut (hand)"
            ]
        );
        let mut one = rule.clone();
        one.scope.one_way = true;
        one.scope.network = Some("front".into());
        assert_eq!(lines(&none, &[one]), ["front b→a: cut (hand)"]);
        // One machine: all its links.
        let mut all = hand(scope(&["c"], &[]), Some(cut()));
        assert_eq!(lines(&none, std::slice::from_ref(&all)).len(), 4);
        all.scope.one_way = true;
        assert_eq!(
            lines(&none, &[all]),
            ["back c→a: cut (hand)", "back c→b: cut (hand)"]
        );
        assert_eq!(
            lines(&none, &[hand(Scope::default(), Some(cut()))]).len(),
            8
        );
        assert_eq!(
            lines(&none, &[hand(scope(&["a"], &["a"]), Some(cut()))]),
            [""; 0]
        );
    }

    #[test]
    fn what_is_set_by_hand_lies_over_the_machinefile() {
        let rule = |from: &[&str], to: &[&str], settings| Rule {
            scope: scope(from, to),
            settings,
        };
        let loss = Settings {
            loss: Some(Loss::parse("2%").unwrap()),
            ..latency("80ms")
        };
        let wiring = wiring(vec![
            rule(&["a"], &["c"], loss),
            rule(&["c"], &[], latency("90ms")),
        ]);
        assert_eq!(
            lines(&wiring, &[]),
            [
                "back a→c: latency 90ms, loss 2%",
                "back b→c: latency 90ms",
                "back c→a: latency 90ms, loss 2%",
                "back c→b: latency 90ms"
            ]
        );
        let mut set = hand(scope(&["a"], &["c"]), Some(latency("0ms")));
        set.scope.one_way = true;
        let cut = hand(scope(&["c"], &[]), Some(cut()));
        let restored = hand(scope(&["b"], &["c"]), None);
        assert_eq!(
            lines(&wiring, &[set, cut, restored]),
            [
                "back a→c: cut (hand), latency 0ms (hand), loss 2%",
                "back b→c: latency 90ms",
                "back c→a: cut (hand), latency 90ms, loss 2%",
                "back c→b: latency 90ms"
            ]
        );
    }

    #[test]
    fn rules_that_mean_nothing_any_more_go() {
        let mut rules = Vec::new();
        let mut add = |rule| add(&mut rules, rule).unwrap();
        add(hand(scope(&["a"], &["b"]), None));
        add(hand(scope(&["a"], &["b"]), Some(latency("1ms"))));
        add(hand(scope(&["a"], &["b"]), Some(cut())));
        add(hand(scope(&["b"], &["a"]), Some(latency("2ms"))));
        let for_a_time = ByHand {
            until: Some("2030-01-01T00:00:00Z".parse().unwrap()),
            ..hand(scope(&["a"], &["b"]), Some(latency("3ms")))
        };
        add(for_a_time.clone());
        assert_eq!(
            rules,
            [
                hand(scope(&["a"], &["b"]), Some(cut())),
                hand(scope(&["b"], &["a"]), Some(latency("2ms"))),
                for_a_time,
            ]
        );
        assert!(!expire(&mut rules, "2029-12-31T23:59:59Z".parse().unwrap()));
        assert!(expire(&mut rules, "2030-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(rules.len(), 2);
        // Restored in one direction only: the other one stays.
        let mut one_way = hand(scope(&["a"], &["b"]), None);
        one_way.scope.one_way = true;
        super::add(&mut rules, one_way).unwrap();
        assert_eq!(rules.len(), 3);
        assert_eq!(
            lines(&wiring(Vec::new()), &rules),
            [
                "back b→a: cut (hand), latency 2ms (hand)",
                "front b→a: cut (hand), latency 2ms (hand)"
            ]
        );
        super::add(&mut rules, hand(scope(&["b"], &[]), None)).unwrap();
        assert_eq!(rules, []);
    }

    #[test]
    fn their_number_is_limited() {
        let mut rules = Vec::new();
        for n in 0..MOST {
            let name = format!("m{n}");
            add(&mut rules, hand(scope(&[&name], &[]), Some(cut()))).unwrap();
        }
        let more = hand(scope(&["x"], &[]), Some(cut()));
        assert!(add(&mut rules, more).is_err());
        assert_eq!(rules.len(), MOST);
        add(&mut rules, hand(Scope::default(), None)).unwrap();
        assert_eq!(rules, []);
    }
}
