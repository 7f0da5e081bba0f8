//! What is seen of a guest that cannot be logged in to, so that nobody waits in vain, or without knowing for what.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{guest::shows_prompt, machine::Record, network::Probed};

use super::{
    error::ApplyError,
    steps::{Steps, blocking},
};

/// The port of SSH servers.
const SSH: u16 = 22;

/// How long after a login prompt an SSH server may still start, at least. Where the guest took longer than that to its
/// prompt, it is as long again.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// The same where the guest does not even refuse: its network may not be up yet.
const SILENT_FOR: Duration = Duration::from_secs(120);

/// How often a guest that seems to have no server is asked.
const AGAIN: Duration = Duration::from_secs(5);

/// How long a guest's agent may take to answer.
const AGENT: Duration = Duration::from_secs(2);

/// What the console shows, since when. It is shared by those who look at it and those who wait.
pub(super) struct ConsoleSight {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When a login prompt was there first, and when anything has changed since.
    prompt: Option<(Instant, Instant)>,
}

impl ConsoleSight {
    pub(super) fn new() -> Self {
        ConsoleSight {
            began: Instant::now(),
            state: Mutex::default(),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that the console has changed, and ends with these lines.
    pub(super) fn changed(&self, lines: &[String], now: Instant) {
        self.with(|state| {
            state.prompt = match (shows_prompt(lines), state.prompt) {
                (false, _) => None,
                (true, Some((first, _))) => Some((first, now)),
                (true, None) => Some((now, now)),
            };
        });
    }

    fn shows_prompt(&self) -> bool {
        self.with(|state| state.prompt.is_some())
    }

    /// Whether a login prompt has been there, and nothing has changed, for so long that the guest has booted. `least`: for
    /// how long that must be at least.
    pub(super) fn is_settled(&self, least: Duration, now: Instant) -> bool {
        let prompt = self.with(|state| state.prompt);
        prompt.is_some_and(|(first, last)| now - last >= least.max(first - self.began))
    }
}

/// What is seen of a guest whose SSH server has not answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// What it does with connections to SSH's port. `None`: that is not known.
    port: Option<Probed>,
    /// Whether it has asked for an address by DHCP.
    has_asked: Option<bool>,
    has_agent: bool,
    has_prompt: bool,
}

impl Seen {
    /// Whether it is certain that there is no SSH server, given what the console shows.
    fn is_hopeless(&self, console: &ConsoleSight, now: Instant) -> bool {
        match self.port {
            Some(Probed::Refuses) => console.is_settled(REFUSED_FOR, now),
            Some(Probed::Silent) => console.is_settled(SILENT_FOR, now),
            // A server that is slow, or another one.
            Some(Probed::Takes) | None => false,
        }
    }

    pub(super) fn words(&self) -> String {
        let mut words = vec![match self.port {
            Some(Probed::Refuses) => "nothing listens on its port 22",
            Some(Probed::Silent) => "it does not answer on its port 22",
            Some(Probed::Takes) => "what listens on its port 22 does not speak SSH",
            None => "no SSH server has answered",
        }];
        if self.has_asked == Some(false) {
            words.push("it has not asked for an address by DHCP");
        }
        words.push(match self.has_agent {
            true => "its guest agent answers",
            false => "no guest agent answers",
        });
        if self.has_prompt {
            words.push("its console shows a login prompt");
        }
        words.join(", ")
    }
}

impl Steps<'_> {
    /// Looks at a guest whose SSH server has not answered.
    pub(super) async fn look_at(&self, record: &Record, console: &ConsoleSight) -> Seen {
        let mut seen = self.look_at_network(record).await;
        seen.has_prompt = console.shows_prompt();
        if let Ok(domain) = self.domain().await {
            let asked = blocking(move || Ok(domain.agent_answers(AGENT))).await;
            seen.has_agent = asked.unwrap_or_default();
        }
        seen
    }

    async fn look_at_network(&self, record: &Record) -> Seen {
        let (Some(network), Some(card)) = (self.context.network.clone(), record.led_card()) else {
            return Seen::default();
        };
        let looked = blocking(move || {
            Ok(Seen {
                port: network.probe(card, SSH).unwrap_or_default(),
                has_asked: network.has_asked(card),
                ..Seen::default()
            })
        });
        looked.await.unwrap_or_default()
    }

    /// Ends once it is certain that a guest whose SSH server has not answered has none.
    pub(super) async fn until_hopeless(&self, record: &Record, console: &ConsoleSight) -> Seen {
        loop {
            sleep(AGAIN).await;
            let now = Instant::now();
            if console.is_settled(REFUSED_FOR, now)
                && self.look_at_network(record).await.is_hopeless(console, now)
            {
                return self.look_at(record, console).await;
            }
        }
    }

    pub(super) fn no_server(&self, seen: &Seen) -> ApplyError {
        ApplyError::NoServer {
            machine: self.name().to_string(),
            saw: seen.words(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_string).collect()
    }

    #[test]
    fn a_guest_that_sits_at_its_prompt_has_booted() {
        let console = ConsoleSight::new();
        let at = |seconds| console.began + Duration::from_secs(seconds);
        let is_hopeless = |port, seconds| {
            let seen = Seen {
                port: Some(port),
                ..Seen::default()
            };
            seen.is_hopeless(&console, at(seconds))
        };
        console.changed(
            &lines("Debian GNU/Linux 12 web ttyS0\n\nweb login:"),
            at(80),
        );
        // Its boot took longer than that.
        assert!(!is_hopeless(Probed::Refuses, 150));
        // Something prints on.
        console.changed(
            &lines("web login:\n[  150.1] cloud-init[480]: installing"),
            at(150),
        );
        assert!(!is_hopeless(Probed::Refuses, 229));
        assert!(is_hopeless(Probed::Refuses, 230));
        assert!(!is_hopeless(Probed::Silent, 230) && !is_hopeless(Probed::Takes, 900));
        assert!(is_hopeless(Probed::Silent, 270));
        // It boots again.
        console.changed(
            &lines("[  OK  ] Stopped getty\n[    0.0] Linux version 6.1"),
            at(300),
        );
        assert!(!is_hopeless(Probed::Refuses, 900));
    }

    #[test]
    fn what_was_seen_is_said() {
        let seen = |port, has_asked, has_agent, has_prompt| {
            Seen {
                port,
                has_asked,
                has_agent,
                has_prompt,
            }
            .words()
        };
        let all = [
            seen(Some(Probed::Refuses), Some(true), true, true),
            seen(Some(Probed::Silent), Some(false), false, true),
            seen(Some(Probed::Takes), Some(true), false, false),
            seen(None, None, false, false),
        ];
        insta::assert_snapshot!("seen", all.join("\n"));
    }
}
