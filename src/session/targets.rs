//! The machines that a command acts on: as the Machinefile describes them, and as they are.

use crate::{
    boxes::{BoxError, StoredBox},
    failure::Failure,
    host::address,
    hypervisor::{HostFacts, Survey, choose_acceleration},
    machine::{Identity, Observed, Spec},
    machinefile::{Bytes, Machine},
    plan::{self, Existing, WantedMachine, WantedProvisioner},
    provision::{self, Inventory},
    report::{clean::Shown, say},
    resolve::{
        cpu::wanted_cpu,
        firmware::wanted_firmware,
        kernel::wanted_kernel,
        shares::{HostShares, WantedShares, wanted_shares},
    },
    session::{
        bridges::BridgeCards,
        cards::Cards,
        invocation::Invocation,
        leftover::{Leftovers, leftover},
        operation::Operation,
        target::Target,
    },
};

use super::{Detail, Session};

impl Session {
    /// Returns everything about the machines, as a survey found them, and about the leftovers that
    /// the command includes.
    pub fn targets(
        &self,
        survey: &Survey,
        machines: Vec<Machine>,
        leftovers: Option<Leftovers<'_>>,
    ) -> Result<Vec<Target>, Failure> {
        let owner = self.owner();
        let cards = match self.detail {
            Detail::Wanted | Detail::Shown => self.cards(survey),
            Detail::Existing | Detail::Recorded { .. } => Cards::new(),
        };
        let bridges = self.bridge_cards(survey);
        let cards = (&cards, &bridges);
        let mut facts = None;
        let mut host_shares = HostShares::default();
        let mut qemus = None;
        let mut targets = Vec::new();
        for machine in machines {
            let found = owner.find(&survey.machines, &machine.name).cloned();
            let identity = survey.identify(&owner, &machine.name);
            if let Some(broken) = (survey.unreadable.iter()).find(|it| it.uuid == identity.uuid) {
                return Err(broken.error.clone().into());
            }
            self.check_not_elsewhere(&machine.name, &identity, found.as_ref(), &mut qemus)?;
            targets.push(match (&self.detail, found) {
                (Detail::Recorded { .. }, Some(found)) => Target {
                    leftover: false,
                    ..leftover(found)
                },
                (Detail::Wanted, found) => self.target(
                    machine,
                    identity,
                    found,
                    cards,
                    &mut facts,
                    &mut host_shares,
                )?,
                (Detail::Shown, found) => {
                    let (plain, at) = (machine.clone(), identity.clone());
                    self.target(
                        machine,
                        identity,
                        found.clone(),
                        cards,
                        &mut facts,
                        &mut host_shares,
                    )
                    .unwrap_or_else(|failure| Target {
                        no_box: Some(failure),
                        ..self.there(plain, at, found)
                    })
                }
                (_, found) => self.there(machine, identity, found),
            });
        }
        if let Some(leftovers) = leftovers {
            for found in self.leftovers(survey) {
                if leftovers.fits(&found.record) {
                    let (name, identity) = (&found.record.machine, &found.identity);
                    self.check_not_elsewhere(name, identity, Some(found), &mut qemus)?;
                    targets.push(leftover(found.clone()));
                }
            }
        }
        Ok(targets)
    }

    /// Returns machines of this project that its Machinefile no longer describes.
    fn leftovers<'a>(&self, survey: &'a Survey) -> Vec<&'a Observed> {
        let owner = self.owner();
        (survey.machines.iter())
            .filter(|observed| {
                owner.owns(&observed.record)
                    && self.project.machine(&observed.record.machine).is_none()
            })
            .collect()
    }

    /// Returns the identities to lock before the machines are surveyed: those of the machines and of
    /// the included leftovers, without machines of a `stead run`.
    pub fn identities(
        &self,
        machines: &[Machine],
        leftovers: Option<Leftovers<'_>>,
    ) -> Result<Vec<(Identity, String)>, Failure> {
        let owner = self.owner();
        // The lock of a machine covers its copies.
        let names: Vec<&str> = (machines.iter())
            .map(|machine| plan::original(&machine.name))
            .collect();
        let with_names = |identities: Vec<Identity>| -> Vec<(Identity, String)> {
            let names = names.iter().map(|name| name.to_string());
            identities.into_iter().zip(names).collect()
        };
        let Some(leftovers) = leftovers else {
            return Ok(in_order(with_names(
                self.connection.identify_all(&owner, &names)?,
            )));
        };
        let survey = self.connection.survey()?;
        let identify = |name: &&str| survey.identify(&owner, name);
        let mut found = with_names(names.iter().map(identify).collect());
        for observed in self.leftovers(&survey) {
            let record = &observed.record;
            if !leftovers.fits(record) || leftovers.is_in_passing(record) {
                continue;
            }
            let name = plan::original(&record.machine);
            let identity = match name == record.machine {
                true => observed.identity.clone(),
                false => survey.identify(&owner, name),
            };
            found.push((identity, name.to_string()));
        }
        Ok(in_order(found))
    }

    /// Returns the names of leftovers that the command does not include.
    pub fn untouched(&self, survey: &Survey, leftovers: Leftovers<'_>) -> Vec<String> {
        (self.leftovers(survey).into_iter())
            .map(|observed| &observed.record)
            .filter(|record| {
                record.copy_of.is_none() && record.run_of.is_none() && !leftovers.fits(record)
            })
            .map(|record| record.machine.clone())
            .collect()
    }

    /// Returns copies of these machines: remains of a `box pack` that was killed, or those of one in
    /// progress if this process does not hold the locks.
    pub fn copies(&self, survey: &Survey, machines: &[&str]) -> Result<Vec<Target>, Failure> {
        let owner = self.owner();
        let ours = |observed: &Observed| {
            owner.owns(&observed.record)
                && (observed.record.copy_of.as_deref()).is_some_and(|of| machines.contains(&of))
        };
        let mut copies = Vec::new();
        let mut qemus = None;
        for observed in survey.machines.iter().filter(|it| ours(it)) {
            let (name, identity) = (&observed.record.machine, &observed.identity);
            self.check_not_elsewhere(name, identity, Some(observed), &mut qemus)?;
            copies.push(leftover(observed.clone()));
        }
        Ok(copies)
    }

    /// Returns a target with what `halt` and `destroy` need.
    fn there(&self, machine: Machine, identity: Identity, observed: Option<Observed>) -> Target {
        let disk = self.data.images().join(identity.overlay()).exists();
        let wanted = WantedMachine {
            owner: self.owner(),
            identity,
            machine,
            spec: (observed.as_ref()).map(|observed| observed.record.spec.clone()),
            provisioners: Vec::new(),
            copy_of: None,
            run_of: None,
        };
        let existing = Existing {
            observed,
            disk,
            needs_certificate: false,
        };
        Target::without_boot(wanted, existing, false)
    }

    fn target(
        &self,
        machine: Machine,
        identity: Identity,
        observed: Option<Observed>,
        cards: (&Cards, &BridgeCards),
        facts: &mut Option<HostFacts>,
        host_shares: &mut HostShares,
    ) -> Result<Target, Failure> {
        let wanted_box = self.resolver().wanted_box(&machine);
        // An existing machine keeps the box that it was made from, whatever the name means now.
        let own_box = observed
            .as_ref()
            .map(|observed| self.store.resolve(&observed.record.spec.box_digest));
        let mut no_kernel = None;
        let mut shares = WantedShares::default();
        let spec = match &wanted_box {
            Ok(stored) => {
                let mut spec =
                    self.spec(&machine, &identity, stored, observed.as_ref(), cards, facts)?;
                // An existing machine keeps its box, so its command line starts with that box's.
                let kernel = wanted_kernel(
                    self.resolver(),
                    &machine,
                    own_box
                        .as_ref()
                        .and_then(|it| it.as_ref().ok())
                        .unwrap_or(stored),
                )?;
                spec.kernel = kernel.spec;
                spec.firmware = wanted_firmware(
                    &self.store,
                    &machine,
                    (own_box.as_ref()).map_or(Some(stored), |own| own.as_ref().ok()),
                    spec.kernel.as_ref(),
                    observed.as_ref(),
                )?;
                no_kernel = kernel.missing;
                match wanted_cpu(self.resolver(), &self.connection, &machine, &spec) {
                    Ok(cpu) => spec.cpu = cpu,
                    Err(failure) => no_kernel = no_kernel.or(Some(failure)),
                }
                shares = wanted_shares(
                    self.resolver(),
                    &self.connection,
                    &machine,
                    &spec,
                    observed.as_ref(),
                    host_shares,
                )?;
                spec.shares = std::mem::take(&mut shares.shares);
                Some(spec)
            }
            Err(_) => None,
        };
        let mut fetches = None;
        let (stored_box, no_box) = match own_box.unwrap_or(wanted_box) {
            Ok(stored) => (Some(stored), None),
            Err(error) => {
                if let BoxError::NotFetched { reference } = &error {
                    fetches = Some(address::shown(reference).into_owned());
                }
                (None, Some(error.into()))
            }
        };
        let mut provisioners = Vec::new();
        let digests = provision::Digests::open(&self.data);
        for provisioner in &machine.provisioners {
            let input = match provisioner.kind.playbook() {
                Some(_) => Inventory::of(&self.project).input(&[&machine.name]),
                None => serde_json::Value::Null,
            };
            let digest = digests.of(provisioner, &input).map_err(|(path, error)| {
                Failure::error(
                    format!(
                        "provisioner {} of {}: cannot read {}: {error}",
                        provisioner.name,
                        machine.name,
                        path.shown()
                    ),
                    "put the file back, or change the Machinefile",
                )
            })?;
            provisioners.push(WantedProvisioner {
                name: provisioner.name.clone(),
                run: provisioner.run,
                digest,
            });
        }
        let disk = self.data.images().join(identity.overlay()).exists();
        Ok(Target {
            wanted: WantedMachine {
                owner: self.owner(),
                identity,
                machine,
                spec,
                provisioners,
                copy_of: None,
                run_of: None,
            },
            existing: Existing {
                needs_certificate: (observed.as_ref())
                    .is_some_and(|observed| self.needs_certificate(observed)),
                observed,
                disk,
            },
            stored_box,
            no_box,
            fetches,
            no_kernel,
            no_share: shares.missing,
            share_notes: shares.notes,
            leftover: false,
        })
    }

    fn spec(
        &self,
        machine: &Machine,
        identity: &Identity,
        stored: &StoredBox,
        observed: Option<&Observed>,
        (cards, bridges): (&Cards, &BridgeCards),
        facts: &mut Option<HostFacts>,
    ) -> Result<Spec, Failure> {
        if stored.manifest.arch != std::env::consts::ARCH {
            return Err(Failure::error(
                format!(
                    "machine {}: its box {} is for {}, but this host is {}",
                    machine.name,
                    stored.manifest.name,
                    stored.manifest.arch,
                    std::env::consts::ARCH
                ),
                "use a box for this architecture",
            ));
        }
        let box_size = Bytes(stored.manifest.disk.virtual_size);
        let disk = machine.disk.unwrap_or(box_size);
        if disk < box_size {
            return Err(Failure::error(
                format!(
                    "machine {}: disk {disk} is smaller than its box {} ({box_size})",
                    machine.name, stored.manifest.name
                ),
                format!("set at least {box_size}, or remove `disk`"),
            ));
        }
        let user_data = match &machine.user_data {
            None => None,
            Some(path) => Some(provision::digest_file(path).map_err(|(path, error)| {
                Failure::io(format!("read user-data {}", path.shown()), &error)
            })?),
        };
        // The host is checked for acceleration only if a machine will be made: an existing machine
        // keeps its own.
        let accel = match observed {
            Some(observed) if machine.accel.is_none() => observed.record.spec.accel,
            _ => {
                let facts = facts.get_or_insert_with(|| HostFacts::observe(&self.connection));
                choose_acceleration(&machine.name, machine.accel, facts)?.accel
            }
        };
        let login_card = self.login_card(machine, &identity.uuid, observed);
        Ok(Spec {
            box_name: stored.manifest.name.clone(),
            box_version: stored.manifest.version.clone(),
            box_digest: stored.digest.to_string(),
            cpus: machine.cpus,
            memory: machine.memory,
            disk,
            hostname: machine.hostname.clone(),
            user: machine.user.clone(),
            accel,
            cpu: None,
            kernel: None,
            firmware: Default::default(),
            user_data,
            forwards: machine.forwards.clone(),
            internet: machine.internet,
            login_card,
            egress: self.egress(machine, login_card),
            cards: cards.get(&machine.name).cloned().unwrap_or_default(),
            bridges: bridges.get(&machine.name).cloned().unwrap_or_default(),
            tuning: machine.tuning.clone(),
            shares: Vec::new(),
        })
    }
}

/// Reports leftovers that a command without names did not include.
pub fn report_untouched(
    invocation: &Invocation,
    operation: &Operation,
    leftovers: Leftovers<'_>,
    command: &str,
) {
    let left = operation.session.untouched(&operation.survey, leftovers);
    if !left.is_empty() {
        say(
            invocation.style,
            &format!(
                "skipped, because the Machinefile no longer describes {}: {} (`stead {command} --leftovers` includes {0})",
                if left.len() == 1 { "it" } else { "them" },
                left.join(", "),
            ),
        );
    }
}

/// Sorts identities into the order in which every command locks, so that no two commands wait for
/// each other, and removes duplicates.
fn in_order(mut found: Vec<(Identity, String)>) -> Vec<(Identity, String)> {
    found.sort_by_key(|(identity, _)| identity.uuid);
    found.dedup();
    found
}
