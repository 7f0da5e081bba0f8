//! The step that waits until stead can log in to a machine.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::{
    guest::{
        KERNELS_SCRIPT, Kernels, MachineFiles, PATIENCE, WaitResult, asks_another_server,
        bridges_without_address, cards_command, cards_without_address, console_length,
        end_marker_script, first_contact, has_no_way_out, hopeless, last_line, outcome_script,
        parse_kernels, seed_errors, tail, turn_unless_connected, wait_for_banner, wait_for_led,
    },
    hypervisor::{Domain, Lifecycle},
    machine::{GivenCertificate, NetworkCard, Power, Record, Running, Signs},
    network::domain_of,
    report::{Event, EventKind, clean::words},
};

use super::{
    clock::slept_seconds,
    error::ApplyError,
    seed::seed_content,
    sight::ConsoleSight,
    steps::{Steps, blocking},
};

/// What OpenSSH says of a login that the server refuses.
const DENIED: &str = "Permission denied (";

/// How long after its login prompt a guest may still get its keys, at least.
const DENIED_FOR: Duration = Duration::from_secs(60);

/// How far above the end of the console a login prompt is looked for.
const PROMPT_LINES: usize = 8;

impl Steps<'_> {
    pub(super) async fn reach(&self) -> Result<(), ApplyError> {
        let mut events = self.context.events.receiver();
        let (domain, record) = self.record().await?;
        let stopped = || ApplyError::Stopped {
            machine: self.name().to_string(),
        };
        // Subscribed before this check, so that no stop is missed.
        if blocking(move || Ok(domain.power()?)).await? == Power::Off {
            return Err(stopped());
        }
        self.write_ssh_files(&record)?;
        let limit = self.job.wanted.machine.ready.timeout;
        let deadline = Instant::now() + limit;
        let uuid = self.job.wanted.identity.uuid;
        let unreachable = |said| ApplyError::Unreachable {
            machine: self.name().to_string(),
            limit,
            said,
        };
        let stop = async {
            loop {
                match events.recv().await {
                    Ok((who, Lifecycle::Stopped { .. })) if who == uuid => return,
                    // Some events were missed; the next one counts again.
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => {
                        std::future::pending::<()>().await;
                    }
                }
            }
        };
        let mut agent = self.context.events.receiver();
        let awake = async move {
            loop {
                match agent.recv().await {
                    Ok((who, Lifecycle::AgentConnected)) if who == uuid => return,
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => {
                        std::future::pending::<()>().await;
                    }
                }
            }
        };
        let console = ConsoleSight::new();
        let files = self.files();
        let answers = async {
            // Others wait meanwhile, and use the connection that this makes.
            let turn = turn_unless_connected(&files, Some(PATIENCE)).await;
            let answered = match record.led_card() {
                _ if turn.is_none() => WaitResult::Ssh,
                Some(_) => wait_for_led(record.ssh_port, limit, || self.lead_again(&record)).await,
                None => wait_for_banner(record.ssh_port, limit, awake).await,
            };
            drop(turn);
            match answered {
                WaitResult::Ssh => Ok(()),
                WaitResult::TimedOut => {
                    let seen = self.look_at(&record, &console).await;
                    Err(unreachable(Some(seen.words())))
                }
            }
        };
        let login = async {
            tokio::select! {
                answered = answers => answered?,
                seen = self.until_hopeless(&record, &console) => return Err(self.no_server(&seen)),
            }
            self.log_in(&record, deadline, &console)
                .await
                .map_err(|error| match error {
                    LogIn::TimedOut(said) => unreachable(said),
                    LogIn::Refused(said) => ApplyError::LoginRefused {
                        machine: self.name().to_string(),
                        said,
                    },
                    LogIn::Failed(error) => error,
                })
        };
        let kernels = tokio::select! {
            ended = login => ended?,
            () = stop => return Err(stopped()),
            sign = self.watch_console(&console) => return Err(ApplyError::Hopeless {
                machine: self.name().to_string(),
                sign,
            }),
        };
        self.see_to_clock().await?;
        self.need_cards(&record, deadline).await?;
        let certificate = self.give_certificate(&record, deadline).await?;
        self.note_kernels(kernels, certificate).await
    }

    /// Has the network lead to the machine again, if it has ended meanwhile.
    async fn lead_again(&self, record: &Record) {
        if let (Some(network), Some(way)) = (self.context.network.clone(), record.way_in())
            && let Err(error) = blocking(move || Ok(network.lead(way)?)).await
        {
            tracing::debug!("the network of the project: {error}");
        }
    }

    /// Waits for the addresses of the machine's cards on networks of the project. Provisioners use them.
    async fn need_cards(&self, record: &Record, deadline: Instant) -> Result<(), ApplyError> {
        let cards = &record.spec.cards;
        // A copy has none.
        let bridges = &record.spec.bridges;
        if (cards.is_empty() && bridges.is_empty()) || record.copy_of.is_some() {
            return Ok(());
        }
        let remote = self.remote();
        let command = cards_command(&record.spec, &domain_of(&record.project));
        loop {
            let output = match timeout_at(deadline, remote.run(&command)).await {
                Ok(output) => output?,
                Err(_) => {
                    return Err(ApplyError::Unreachable {
                        machine: self.name().to_string(),
                        limit: self.job.wanted.machine.ready.timeout,
                        said: Some("it does not say whether its cards have their addresses".into()),
                    });
                }
            };
            let Some((card, why)) =
                (cards_without_address(cards, &output.stdout).into_iter()).next()
            else {
                if asks_another_server(&output.stdout) {
                    self.notice("names of other machines are not found in it: its resolver asks QEMU's name server, 10.0.2.3, first; have it ask the one of its card on the project's network");
                }
                for (card, why) in bridges_without_address(bridges, &output.stdout) {
                    self.notice(format!(
                        "its card on network {} (bridge {}, MAC {}) has no address: {}",
                        card.network,
                        card.interface,
                        card.mac,
                        words(&why)
                    ));
                }
                if let Some(route) = has_no_way_out(&output.stdout) {
                    self.no_way_out(cards, route);
                }
                return self.show_ports().await;
            };
            // The network may have ended while the machine booted.
            if let Some(network) = self.context.network.clone()
                && blocking(move || Ok(network.keep()?)).await?
            {
                continue;
            }
            return Err(ApplyError::NoAddress {
                machine: self.name().to_string(),
                network: card.network.clone(),
                address: card.address,
                mac: card.mac,
                why: match output.status.success() {
                    true => words(&why),
                    false => words(&output.last_words()),
                },
            });
        }
    }

    /// Reports that nothing leaves the guest, although its first network card leads out.
    fn no_way_out(&self, cards: &[NetworkCard], route: &str) {
        let Some(card) = cards.first() else { return };
        self.notice(format!(
            "nothing leaves it: its default route has to lead to {}, by its card on network {}, and is: {}; have its network service take the route that DHCP gives there",
            card.subnet.gateway(),
            card.network,
            words(route)
        ));
    }

    /// Has the machine's ports appear on the host from now on.
    async fn show_ports(&self) -> Result<(), ApplyError> {
        let Some(network) = self.context.network.clone() else {
            return Ok(());
        };
        let name = self.name().to_string();
        // The machine itself needs no ports there, so it goes on.
        if let Err(error) = blocking(move || Ok(network.reached(&name)?)).await {
            self.notice(format!("its ports do not appear on this computer: {error}"));
        }
        Ok(())
    }

    /// Records which kernel runs, and checks that it is the expected one.
    async fn note_kernels(
        &self,
        kernels: Kernels,
        certificate: Option<GivenCertificate>,
    ) -> Result<(), ApplyError> {
        let (domain, mut record) = self.record().await?;
        if let (Some(wanted), Some(running)) = (
            // A kernel that is installed in the guest is checked by the step that installs it.
            (record
                .spec
                .kernel
                .as_ref()
                .filter(|kernel| !kernel.installed))
            .and_then(|kernel| kernel.release.clone()),
            &kernels.running,
        ) && wanted != *running
        {
            return Err(ApplyError::OtherKernel {
                machine: self.name().to_string(),
                wanted,
                running: running.clone(),
            });
        }
        let files = self.files();
        blocking(move || {
            if record.first_kernels.is_empty() && !kernels.installed.is_empty() {
                record.first_kernels = kernels.installed.clone();
                domain.set_record(&record)?;
            }
            Ok(domain.set_running(&Running {
                ready: None,
                kernel: kernels.running,
                installed_kernels: kernels.installed,
                owes_after_up: false,
                slept: Some(slept_seconds()),
                certificate,
                checks: None,
                copied: Some(BTreeSet::new()),
                provisioning: None,
                signs: Some(signs(&domain, &files)?),
            })?)
        })
        .await
    }

    /// Logs in and waits until the seed has been applied. sshd may refuse users at first (pam_nologin(8)), so this
    /// retries until the deadline.
    async fn log_in(
        &self,
        record: &Record,
        deadline: Instant,
        console: &ConsoleSight,
    ) -> Result<Kernels, LogIn> {
        let manifest = self.stored_box().map_err(LogIn::Failed)?.manifest;
        let kind = manifest.seed;
        let script = format!(
            "{}\n{}\n{KERNELS_SCRIPT}",
            end_marker_script(kind),
            outcome_script(kind)
        );
        let remote = self.remote();
        let mut pause = Duration::from_millis(100);
        let mut said = None;
        loop {
            match timeout_at(deadline, remote.run(&script)).await {
                Err(_) => return Err(LogIn::TimedOut(said)),
                Ok(Err(error)) => return Err(LogIn::Failed(error.into())),
                Ok(Ok(output)) if output.status.success() => {
                    for error in seed_errors(&output.stdout) {
                        self.notice(format!(
                            "cloud-init reports an error: {error}; `stead ssh {} -c 'sudo cat /var/log/cloud-init-output.log'` shows more",
                            self.name()
                        ));
                    }
                    return Ok(parse_kernels(&output.stdout));
                }
                Ok(Ok(output)) => said = Some(output.last_words()),
            }
            if kind.begins_with_public_key() {
                let contact = self.make_own(record, &manifest.login_user);
                match timeout_at(deadline, contact).await {
                    Err(_) => return Err(LogIn::TimedOut(said)),
                    Ok(Err(error)) => return Err(LogIn::Failed(error)),
                    Ok(Ok(None)) => continue,
                    Ok(Ok(words)) => said = words,
                }
            }
            if let Some(said) = (said.as_ref()).filter(|said| said.contains(DENIED))
                && console.is_settled(DENIED_FOR, Instant::now())
            {
                return Err(LogIn::Refused(said.clone()));
            }
            if Instant::now() + pause > deadline {
                return Err(LogIn::TimedOut(said));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Gives a machine from a Vagrant box its keys. Returns the output if that failed.
    async fn make_own(
        &self,
        record: &Record,
        box_user: &str,
    ) -> Result<Option<String>, ApplyError> {
        let files = self.files();
        let wanted = &self.job.wanted;
        let content = seed_content(wanted, &wanted.identity, record, &files)?;
        let connection = &self.context.connection;
        // Whose process leads to the guest.
        let is_own = connection.uri().is_session() || record.led_card().is_some();
        let leader = match is_own {
            true => Some(nix::unistd::geteuid().as_raw()),
            false => connection.qemu_ids().map(|(user, _)| user),
        };
        let port = record.ssh_port;
        let output = first_contact(self.name(), &files, port, leader, box_user, &content).await?;
        Ok((!output.status.success()).then(|| output.last_words()))
    }

    /// Reports the console's last line whenever it changes. Ends, with that line, if it shows that the guest will
    /// never boot, so that nobody has to wait for the time-out.
    async fn watch_console(&self, sight: &ConsoleSight) -> String {
        let log = self.files().console_log();
        let mut shown = String::new();
        let mut ticks = interval(Duration::from_millis(250));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if let Some(line) = last_line(&log)
                && line != shown
            {
                self.reporter.event(&Event::now(
                    self.name(),
                    EventKind::Console { line: line.clone() },
                ));
                let lines = tail(&log, PROMPT_LINES);
                sight.changed(&lines, Instant::now());
                if let Some(sign) = hopeless(&lines[lines.len().saturating_sub(4)..]) {
                    return sign;
                }
                shown = line;
            }
        }
    }
}

/// Returns what is seen of a guest now that stead has reached it.
///
/// # Errors
/// If libvirt does not answer.
pub(super) fn signs(domain: &Domain, files: &MachineFiles) -> Result<Signs, ApplyError> {
    Ok(Signs {
        agent: domain.has_agent()?,
        console: console_length(&files.console_log()),
    })
}

enum LogIn {
    TimedOut(Option<String>),
    /// The guest has booted, and knows none of the keys.
    Refused(String),
    Failed(ApplyError),
}
