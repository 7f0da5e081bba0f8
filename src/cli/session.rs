//! What most commands start from: the project, the connection, and what there is.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use crate::{
    boxes::{BoxError, Source, Store, StoredBox},
    guest::{MachineFiles, Remote, SshTarget},
    host::{
        open::in_place_of_file,
        paths::{DATA_DIR_VARIABLE, DataDir},
    },
    hypervisor::{Connection, HostFacts, Runtime, Survey, Uri, choose_acceleration, choose_uri},
    lockfile::LockFile,
    machine::{Identity, Observed, Owner, Spec},
    machinefile::{self, Bytes, LOCAL, Machine, Project},
    plan::{self, Existing, Wanted, WantedProvisioner},
    provision::{self, Inventory},
    report::clean::Shown,
    trust::{Me, stranger},
};

use super::{
    Failure, Global,
    adopt::stranded,
    catalogues::Catalogues,
    condition::{need_keys, need_running},
    cpu::wanted_cpu,
    kernels::wanted_kernel,
    leftover::{Leftovers, leftover},
    select::Selection,
    shares::{HostShares, WantedShares, wanted_shares},
};

pub struct Session {
    pub project: Project,
    pub data: DataDir,
    pub store: Store,
    pub lock_file: LockFile,
    pub catalogues: Catalogues,
    pub connection: Connection,
    pub looks: Looks,
    /// The one machine that `--domain` names.
    pub only: Option<String>,
}

/// What is asked of machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looks {
    /// All that the Machinefile wants of them, against what there is.
    Wanted,
    /// The same, as far as that can be known: what cannot is said, and no error.
    Shown,
    /// What there is; of the Machinefile what `halt` and `destroy` need: hooks and order. A box that
    /// is away, a script or a file that cannot be read is no matter then.
    There,
    /// What there is alone: the Machinefile is gone, or cannot be read. It names these machines, as
    /// far as that can be known.
    Recorded { named: Option<Vec<String>> },
}

/// A machine of the project, wanted and found.
pub struct Subject {
    pub wanted: Wanted,
    pub existing: Existing,
    pub stored_box: Option<StoredBox>,
    /// Why there is no box for it; matters only when one is to be made or booted.
    pub no_box: Option<Failure>,
    /// Why its kernel cannot be booted; matters only when it is to be booted.
    pub no_kernel: Option<Failure>,
    /// Why it cannot have a folder that is to be shared; matters only when it is to be booted.
    pub no_share: Option<Failure>,
    /// What folders of type auto come to.
    pub shares_said: Vec<String>,
    /// It is in libvirt, but no longer in the Machinefile.
    pub leftover: bool,
}

/// Finds and reads the project's Machinefile.
pub fn load_project(global: &Global) -> Result<Project, Failure> {
    let file = find_machinefile(global)?;
    machinefile::load(&file, &|name| std::env::var(name).ok())
        .map_err(|errors| Failure::Machinefile(Box::new(errors)))
}

pub fn find_machinefile(global: &Global) -> Result<PathBuf, Failure> {
    let start = start_folder(global)?;
    if let Some(file) = &global.file {
        let file = start.join(file);
        is_machinefile(&file)?;
        if !file.exists() {
            return Err(Failure::usage(
                format!("there is no file {}", file.shown()),
                "-f takes the path of a Machinefile",
            ));
        }
        return Ok(file);
    }
    let file = machinefile::find(&start).ok_or_else(|| {
        Failure::usage(
            format!(
                "there is no Machinefile in {} or any folder above it",
                start.shown()
            ),
            "`stead init` writes one; -C DIR or -f FILE looks elsewhere",
        )
    })?;
    is_machinefile(&file)?;
    if file.parent() != Some(&start) {
        only_own(&file)?;
    }
    Ok(file)
}

/// Fails where something else than a file lies there.
fn is_machinefile(file: &Path) -> Result<(), Failure> {
    match in_place_of_file(file) {
        None => Ok(()),
        Some(what) => Err(Failure::usage(
            format!("{} is {what}, and a Machinefile is a file", file.shown()),
            "move it away, or -f FILE or -C DIR name another one",
        )),
    }
}

/// Nobody else may put a Machinefile above the folder that one works in, as into /tmp.
fn only_own(file: &Path) -> Result<(), Failure> {
    let me = Me::find();
    let local = file.with_file_name(LOCAL);
    let looked = [file.parent(), Some(file), Some(&local)];
    for path in looked.into_iter().flatten() {
        match stranger(path, me) {
            Ok(None) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(Some(stranger)) => {
                return Err(Failure::usage(
                    format!(
                        "{} was found above this folder, and {} {}",
                        file.shown(),
                        path.shown(),
                        stranger.words()
                    ),
                    format!(
                        "a Machinefile of a folder above has to be yours alone; -f {} takes this one all the same",
                        file.shown()
                    ),
                ));
            }
            Err(error) => {
                return Err(Failure::io(format!("look at {}", path.shown()), &error));
            }
        }
    }
    Ok(())
}

/// Where the command is to work.
pub fn start_folder(global: &Global) -> Result<PathBuf, Failure> {
    let here =
        std::env::current_dir().map_err(|error| Failure::io("find the current folder", &error))?;
    Ok(match &global.directory {
        None => here,
        Some(directory) => {
            let directory = here.join(directory);
            if !directory.is_dir() {
                return Err(Failure::usage(
                    format!("there is no folder {}", directory.shown()),
                    "-C takes a folder to work in",
                ));
            }
            directory
        }
    })
}

pub fn data_dir() -> Result<DataDir, Failure> {
    let data = DataDir::find().ok_or_else(|| {
        Failure::error(
            "no home directory is known, so there is no place for images",
            format!("set HOME, or {DATA_DIR_VARIABLE} to a folder of your own"),
        )
    })?;
    // It goes into libvirt's XML and OpenSSH's configuration, which take nothing else.
    if data.root().to_str().is_none() {
        return Err(Failure::error(
            format!(
                "the path of stead's data is not valid UTF-8: {}",
                data.root().shown()
            ),
            format!("set {DATA_DIR_VARIABLE} to a folder with a plain name"),
        ));
    }
    match data.prepare() {
        // Commands that only look need none; the others say what they could not write.
        Err(_) if !data.root().exists() => Ok(data),
        Err(error) => Err(Failure::error(
            format!(
                "cannot prepare stead's data folder {}: {error}",
                data.root().shown()
            ),
            format!("it must be a folder of your own; {DATA_DIR_VARIABLE} names another one"),
        )),
        Ok(()) => Ok(data),
    }
}

pub fn uri(global: &Global, project: Option<&Project>) -> Uri {
    choose_uri(
        global.connect.as_deref(),
        project
            .and_then(|project| project.connect)
            .map(machinefile::Libvirt::uri),
        nix::unistd::geteuid().is_root(),
    )
}

/// Opens the connection of the flag, the project, or the default. Commands about the host give no
/// project: which machines they see is not for the folder to say in which they are started.
pub fn connect(global: &Global, project: Option<&Project>) -> Result<Connection, Failure> {
    let uri = uri(global, project);
    if !uri.is_local() {
        return Err(Failure::error(
            format!(
                "{} is on another host, which stead does not reach yet",
                uri.uri
            ),
            "run stead on that host, or use qemu:///session here",
        ));
    }
    if uri.uri.starts_with("qemu:///system") && !nix::unistd::geteuid().is_root() {
        return Err(Failure::error(
            format!(
                "{} ({}) runs QEMU as a user of its own, who cannot read images in your home",
                uri.uri, uri.source
            ),
            "use qemu:///session, which needs no rights, or run stead as root",
        ));
    }
    Ok(Connection::open(&uri)?)
}

impl Session {
    pub fn open(global: &Global) -> Result<Self, Failure> {
        let project = load_project(global)?;
        let data = data_dir()?;
        let connection = connect(global, Some(&project))?;
        Ok(Session {
            store: Store::open(&data),
            lock_file: LockFile::read(&project.root)?,
            catalogues: Catalogues::open(&data, Some(&project))?,
            project,
            data,
            connection,
            looks: Looks::Wanted,
            only: None,
        })
    }

    pub fn owner(&self) -> Owner {
        Owner::of(&self.project)
    }

    /// Gets the project's catalogue from its URL.
    pub fn get_catalogue(&mut self) -> Result<(), Failure> {
        Catalogues::refresh(&self.data, &self.project)?;
        self.catalogues = Catalogues::open(&self.data, Some(&self.project))?;
        Ok(())
    }

    /// Machines that the selection names; with `needed`, also those they depend on.
    pub fn select(&self, selection: &Selection, needed: bool) -> Result<Vec<Machine>, Failure> {
        for name in &selection.names {
            if self.project.machine(name).is_none() && !self.is_leftover(name)? {
                return Err(self.unknown(name));
            }
        }
        let mut chosen: HashSet<&str> = self
            .project
            .machines
            .iter()
            .filter(|machine| selection.fits(&machine.name, &machine.labels))
            .map(|machine| machine.name.as_str())
            .collect();
        if needed {
            let mut open: Vec<&str> = chosen.iter().copied().collect();
            while let Some(name) = open.pop() {
                if let Some(machine) = self.project.machine(name) {
                    for other in &machine.depends_on {
                        if chosen.insert(other) {
                            open.push(other);
                        }
                    }
                }
            }
        }
        let machines: Vec<Machine> = self
            .project
            .machines
            .iter()
            .filter(|machine| chosen.contains(machine.name.as_str()))
            .cloned()
            .collect();
        if machines.is_empty() && !selection.labels.is_empty() {
            return Err(Failure::usage(
                "no machine has these labels",
                "`stead status` lists the machines; `labels` in the Machinefile sets them",
            ));
        }
        Ok(machines)
    }

    /// As [`Self::select`], for commands that go by the Machinefile.
    ///
    /// # Errors
    /// Where a machine is named that the Machinefile no longer has.
    pub fn select_named(
        &self,
        selection: &Selection,
        needed: bool,
    ) -> Result<Vec<Machine>, Failure> {
        let machines = self.select(selection, needed)?;
        let gone = (selection.names.iter()).find(|name| self.project.machine(name).is_none());
        match gone {
            Some(name) => Err(self.no_longer(name)),
            None => Ok(machines),
        }
    }

    fn no_longer(&self, name: &str) -> Failure {
        Failure::usage(
            format!(
                "machine {name} is no longer in {}",
                self.project.file.shown()
            ),
            format!(
                "`stead destroy {name}` removes it; once its name is in the Machinefile again, it goes on as it is"
            ),
        )
    }

    /// The machine of that name in the Machinefile; `what_for` is what cannot be done without it
    /// there.
    pub fn one(&self, name: &str, what_for: &str) -> Result<Machine, Failure> {
        let selection = Selection {
            names: vec![name.to_string()],
            labels: Vec::new(),
        };
        (self.select(&selection, false)?.into_iter().next()).ok_or_else(|| {
            Failure::usage(
                format!("machine {name} is no longer in the Machinefile"),
                format!("put it back there to {what_for}"),
            )
        })
    }

    fn is_leftover(&self, name: &str) -> Result<bool, Failure> {
        Ok(self.observe(name)?.is_some())
    }

    pub fn unknown(&self, name: &str) -> Failure {
        let names: Vec<&str> = self
            .project
            .machines
            .iter()
            .map(|machine| machine.name.as_str())
            .collect();
        Failure::usage(
            format!(
                "there is no machine {name} in {}",
                self.project.file.shown()
            ),
            match names.is_empty() {
                true => "it names no machine".to_string(),
                false => format!("its machines are: {}", names.join(", ")),
            },
        )
    }

    /// What is selected, where `--domain` may have done that.
    pub fn selection(&self, given: &Selection) -> Result<Selection, Failure> {
        let Some(only) = &self.only else {
            return Ok(given.clone());
        };
        if !given.is_all() {
            return Err(Failure::usage(
                "--domain names a machine already",
                format!("leave the others out; it is machine {only}"),
            ));
        }
        Ok(Selection {
            names: vec![only.clone()],
            labels: Vec::new(),
        })
    }

    /// The machine that is named, or the project's only one.
    pub fn the_machine(&self, name: Option<&str>) -> Result<String, Failure> {
        if let (Some(_), Some(only)) = (name, &self.only) {
            return Err(Failure::usage(
                "--domain names a machine already",
                format!("leave the other name out; it is machine {only}"),
            ));
        }
        let named = name.or(self.only.as_deref());
        match (named, self.project.machines.as_slice()) {
            (Some(name), _) => Ok(name.to_string()),
            (None, [only]) => Ok(only.name.clone()),
            (None, []) => Err(Failure::usage(
                format!("{} names no machine", self.project.file.shown()),
                "`stead status` shows what is left of machines that it named before",
            )),
            (None, machines) => {
                let names: Vec<&str> = machines.iter().map(|m| m.name.as_str()).collect();
                Err(Failure::usage(
                    "this project has several machines; name one",
                    format!("its machines are: {}", names.join(", ")),
                ))
            }
        }
    }

    /// Which domain the machine of that name is, or is to be.
    pub fn identity(&self, machine: &str) -> Result<Identity, Failure> {
        Ok(self.connection.identify(&self.owner(), machine)?)
    }

    /// The machine of that name as libvirt has it now.
    pub fn observe(&self, machine: &str) -> Result<Option<Observed>, Failure> {
        Ok(self.connection.observe(&self.identity(machine)?)?)
    }

    /// Fails where a machine that is off or away, as libvirt says here, runs all the same.
    pub fn check_not_elsewhere(
        &self,
        machine: &str,
        identity: &Identity,
        found: Option<&Observed>,
    ) -> Result<(), Failure> {
        if found.is_some_and(Observed::is_up) {
            return Ok(());
        }
        let noted = self.files(identity).noted_runtime();
        let started: Option<Runtime> = noted.and_then(|text| serde_json::from_str(&text).ok());
        Ok(self
            .connection
            .check_not_elsewhere(machine, &identity.uuid, started.as_ref())?)
    }

    /// Everything about the machines, as a survey found them, and with them what `leftovers` picks
    /// of what the Machinefile does not name any more.
    pub fn subjects(
        &self,
        survey: &Survey,
        machines: Vec<Machine>,
        leftovers: Option<Leftovers<'_>>,
    ) -> Result<Vec<Subject>, Failure> {
        let owner = self.owner();
        let mut facts = None;
        let mut host_shares = HostShares::default();
        let mut subjects = Vec::new();
        for machine in machines {
            let found = owner.find(&survey.machines, &machine.name).cloned();
            let identity = match &found {
                Some(observed) => observed.identity.clone(),
                None => owner.free(&survey.machines, &machine.name),
            };
            if let Some(broken) = (survey.unreadable.iter()).find(|it| it.uuid == identity.uuid) {
                return Err(broken.error.clone().into());
            }
            self.check_not_elsewhere(&machine.name, &identity, found.as_ref())?;
            subjects.push(match (&self.looks, found) {
                (Looks::Recorded { .. }, Some(found)) => Subject {
                    leftover: false,
                    ..leftover(found)
                },
                (Looks::Wanted, found) => {
                    self.subject(machine, identity, found, &mut facts, &mut host_shares)?
                }
                (Looks::Shown, found) => {
                    let (plain, at) = (machine.clone(), identity.clone());
                    self.subject(
                        machine,
                        identity,
                        found.clone(),
                        &mut facts,
                        &mut host_shares,
                    )
                    .unwrap_or_else(|failure| Subject {
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
                    self.check_not_elsewhere(name, identity, Some(found))?;
                    subjects.push(leftover(found.clone()));
                }
            }
        }
        Ok(subjects)
    }

    /// Machines of this project that its Machinefile does not name any more.
    fn leftovers<'a>(&self, survey: &'a Survey) -> Vec<&'a Observed> {
        let owner = self.owner();
        (survey.machines.iter())
            .filter(|observed| {
                owner.owns(&observed.record)
                    && self.project.machine(&observed.record.machine).is_none()
            })
            .collect()
    }

    /// Identities of these machines, and of the leftovers that are picked: what is to be locked
    /// before anybody looks. Machines of a `stead run` are not among the leftovers.
    pub fn identities(
        &self,
        machines: &[Machine],
        leftovers: Option<Leftovers<'_>>,
    ) -> Result<Vec<(Identity, String)>, Failure> {
        let owner = self.owner();
        // A copy is worked on by whoever has the lock of the machine.
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

    /// Names of machines that the Machinefile does not name any more, and that were not asked for.
    pub fn left_alone(&self, survey: &Survey, leftovers: Leftovers<'_>) -> Vec<String> {
        (self.leftovers(survey).into_iter())
            .map(|observed| &observed.record)
            .filter(|record| {
                record.copy_of.is_none() && record.run_of.is_none() && !leftovers.fits(record)
            })
            .map(|record| record.machine.clone())
            .collect()
    }

    /// Copies of these machines, which a `box pack` that was killed left, or is at work on where
    /// their locks are not held here.
    pub fn copies(&self, survey: &Survey, machines: &[&str]) -> Result<Vec<Subject>, Failure> {
        let owner = self.owner();
        let ours = |observed: &Observed| {
            owner.owns(&observed.record)
                && (observed.record.copy_of.as_deref()).is_some_and(|of| machines.contains(&of))
        };
        let mut copies = Vec::new();
        for observed in survey.machines.iter().filter(|it| ours(it)) {
            let (name, identity) = (&observed.record.machine, &observed.identity);
            self.check_not_elsewhere(name, identity, Some(observed))?;
            copies.push(leftover(observed.clone()));
        }
        Ok(copies)
    }

    /// A machine as far as `halt` and `destroy` have to know it.
    fn there(&self, machine: Machine, identity: Identity, observed: Option<Observed>) -> Subject {
        let disk = self.data.images().join(identity.overlay()).exists();
        Subject {
            wanted: Wanted {
                owner: self.owner(),
                identity,
                machine,
                spec: (observed.as_ref()).map(|observed| observed.record.spec.clone()),
                provisioners: Vec::new(),
                copy_of: None,
                run_of: None,
            },
            existing: Existing { observed, disk },
            stored_box: None,
            no_box: None,
            no_kernel: None,
            no_share: None,
            shares_said: Vec::new(),
            leftover: false,
        }
    }

    fn subject(
        &self,
        machine: Machine,
        identity: Identity,
        observed: Option<Observed>,
        facts: &mut Option<HostFacts>,
        host_shares: &mut HostShares,
    ) -> Result<Subject, Failure> {
        let wanted_box = self.wanted_box(&machine);
        // A machine that is there keeps the box it was made from, whatever the name means now.
        let own_box = observed
            .as_ref()
            .map(|observed| self.store.resolve(&observed.record.spec.box_digest));
        let mut no_kernel = None;
        let mut shares = WantedShares::default();
        let spec = match &wanted_box {
            Ok(stored) => {
                let mut spec = self.spec(&machine, stored, observed.as_ref(), facts)?;
                // A machine that is there keeps its box, and its command line starts as that box's.
                let kernel = wanted_kernel(
                    self,
                    &machine,
                    own_box
                        .as_ref()
                        .and_then(|it| it.as_ref().ok())
                        .unwrap_or(stored),
                )?;
                spec.kernel = kernel.spec;
                no_kernel = kernel.missing;
                match wanted_cpu(self, &machine, &spec) {
                    Ok(cpu) => spec.cpu = cpu,
                    Err(failure) => no_kernel = no_kernel.or(Some(failure)),
                }
                shares = wanted_shares(self, &machine, &spec, observed.as_ref(), host_shares)?;
                spec.shares = std::mem::take(&mut shares.shares);
                Some(spec)
            }
            Err(_) => None,
        };
        let (stored_box, no_box) = match own_box.unwrap_or(wanted_box) {
            Ok(stored) => (Some(stored), None),
            Err(error) => (None, Some(error.into())),
        };
        let mut provisioners = Vec::new();
        for provisioner in &machine.provisioners {
            let input = match provisioner.kind.playbook() {
                Some(_) => Inventory::of(&self.project).input(&[&machine.name]),
                None => serde_json::Value::Null,
            };
            let digest = provision::digest(provisioner, &input).map_err(|(path, error)| {
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
        Ok(Subject {
            wanted: Wanted {
                owner: self.owner(),
                identity,
                machine,
                spec,
                provisioners,
                copy_of: None,
                run_of: None,
            },
            existing: Existing { observed, disk },
            stored_box,
            no_box,
            no_kernel,
            no_share: shares.missing,
            shares_said: shares.said,
            leftover: false,
        })
    }

    /// The box that the Machinefile and its lock file mean, if it is in the store.
    pub fn wanted_box(&self, machine: &Machine) -> Result<StoredBox, BoxError> {
        let reference = &machine.box_ref;
        let arch = std::env::consts::ARCH;
        let pinned = match (
            &machine.box_sha256,
            self.lock_file.get(&machine.box_key, arch),
        ) {
            (Some(sha256), _) => Some(sha256),
            (None, Some(entry)) => Some(&entry.sha256),
            (None, None) => None,
        };
        let source = Source::parse(reference, &self.project.root).unwrap_or(Source::Name);
        let named = source == Source::Name;
        let key = &origin_key(&machine.box_key, &source);
        let found = match pinned {
            Some(sha256) if !named || self.is_listed(reference) => {
                self.store.by_reference_and_source(key, sha256, arch)
            }
            _ if !named => self.store.by_reference(key, arch),
            _ => {
                let Some(found) = self.catalogues.find(reference, arch)? else {
                    return self.named_box(reference);
                };
                self.store.by_listing(reference, &found.image.urls, arch)
            }
        };
        found
            .map(|(_, stored)| stored)
            .ok_or_else(|| BoxError::NotFetched {
                reference: machine.box_key.clone(),
            })
    }

    /// The box that a name means which no catalogue has: the one that the lock file says.
    fn named_box(&self, reference: &str) -> Result<StoredBox, BoxError> {
        let Some(pinned) = self.lock_file.named(reference, std::env::consts::ARCH) else {
            return self.store.resolve_named(reference);
        };
        match self.store.resolve_named(&pinned.digest) {
            Err(BoxError::NotFound { .. }) => Err(BoxError::Pinned {
                reference: reference.to_string(),
                pinned: format!("{} ({})", pinned.version, short(&pinned.digest)),
                now: match self.store.resolve_named(reference) {
                    Ok(now) => format!(
                        "; here that name means {} ({})",
                        now.manifest.version,
                        now.digest.short()
                    ),
                    Err(_) => String::new(),
                },
            }),
            found => found,
        }
    }

    /// Whether a reference is the name of a box that was built, packed or added here; a whole
    /// digest means one box for ever, and needs no pin.
    pub fn is_named(&self, reference: &str) -> bool {
        let source = Source::parse(reference, &self.project.root);
        source == Ok(Source::Name) && !is_digest(reference) && !self.is_listed(reference)
    }

    /// Whether a catalogue has a box of that name, in whatever version. A broken catalogue is told
    /// of where a box is looked for.
    pub fn is_listed(&self, reference: &str) -> bool {
        !matches!(
            self.catalogues.find(reference, std::env::consts::ARCH),
            Ok(None)
        )
    }

    /// Whether an entry of the lock file is of a machine's box that may be pinned so.
    pub fn is_pin_of_a_place(&self, key: &str) -> bool {
        (self.project.machines.iter())
            .any(|machine| machine.box_key == key && self.may_be_pinned(&machine.box_ref))
    }

    /// Whether the lock file may say what it is.
    pub fn may_be_pinned(&self, reference: &str) -> bool {
        match Source::parse(reference, &self.project.root) {
            Ok(Source::Name) => self.is_listed(reference),
            Ok(_) => true,
            Err(_) => false,
        }
    }

    fn spec(
        &self,
        machine: &Machine,
        stored: &StoredBox,
        observed: Option<&Observed>,
        facts: &mut Option<HostFacts>,
    ) -> Result<Spec, Failure> {
        if stored.manifest.arch != std::env::consts::ARCH {
            return Err(Failure::error(
                format!(
                    "machine {}: its box {} is for {}, and this host is {}",
                    machine.name,
                    stored.manifest.name,
                    stored.manifest.arch,
                    std::env::consts::ARCH
                ),
                "take a box that was made for this architecture",
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
                format!("ask for at least {box_size}, or leave `disk` out"),
            ));
        }
        let user_data = match &machine.user_data {
            None => None,
            Some(path) => Some(provision::digest_file(path).map_err(|(path, error)| {
                Failure::io(format!("read user-data {}", path.shown()), &error)
            })?),
        };
        // Which acceleration works is asked only for machines to be made: it costs a look at the
        // host, and a machine that is there keeps what it has.
        let accel = match observed {
            Some(observed) if machine.accel.is_none() => observed.record.spec.accel,
            _ => {
                let facts = facts.get_or_insert_with(|| HostFacts::observe(&self.connection));
                choose_acceleration(&machine.name, machine.accel, facts)?.accel
            }
        };
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
            user_data,
            forwards: machine.forwards.clone(),
            internet: machine.internet,
            tuning: machine.tuning.clone(),
            shares: Vec::new(),
        })
    }

    pub fn files(&self, identity: &Identity) -> MachineFiles {
        MachineFiles::new(&self.data, &identity.uuid)
    }

    /// Writes OpenSSH's files of a machine that is there, where they differ.
    pub fn reachable_files(&self, subject: &Subject) -> Result<(), Failure> {
        if let Some(observed) = &subject.existing.observed
            && observed.is_up()
        {
            ssh_target(observed).write(&self.files(&subject.wanted.identity))?;
        }
        Ok(())
    }

    /// The one machine that `name` means, or the project's only one, running and reachable: its
    /// record, and OpenSSH's files written where they differ.
    pub fn reachable(&self, name: Option<&str>) -> Result<(Observed, Remote), Failure> {
        let name = self.the_machine(name)?;
        let identity = self.identity(&name)?;
        let found = self.connection.observe(&identity)?;
        self.check_not_elsewhere(&name, &identity, found.as_ref())?;
        if found.is_none() && self.project.machine(&name).is_none() {
            return Err(self.unknown(&name));
        }
        if found.is_none()
            && let Some((message, hint)) = stranded(self, &self.connection.survey()?, &[&name])
        {
            return Err(Failure::error(message, hint));
        }
        if self.project.machine(&name).is_none()
            && !found.as_ref().is_some_and(|observed| observed.is_up())
            && !matches!(self.looks, Looks::Recorded { .. })
        {
            return Err(self.no_longer(&name));
        }
        let observed = need_running(&name, found.as_ref())?.clone();
        let files = self.files(&identity);
        need_keys(self, &name, &identity)?;
        ssh_target(&observed).write(&files)?;
        Ok((
            observed,
            Remote {
                machine: name,
                files,
            },
        ))
    }
}

/// `sha256:` and all digits.
pub fn is_digest(reference: &str) -> bool {
    let all = |hex: &str| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit());
    reference.strip_prefix("sha256:").is_some_and(all)
}

/// The first digits of a digest.
pub fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

/// What origins are remembered by: a path means another file in another folder.
pub fn origin_key(reference: &str, source: &Source) -> String {
    match source {
        Source::File(path) => path.to_string_lossy().into_owned(),
        _ => reference.to_string(),
    }
}

/// How OpenSSH reaches a machine.
pub fn ssh_target(observed: &Observed) -> SshTarget {
    SshTarget {
        machine: observed.record.machine.clone(),
        domain: observed.identity.domain.clone(),
        user: observed.record.login_user.clone(),
        port: observed.record.ssh_port,
    }
}

/// The order in which every command locks, so that no two wait for each other; each once.
fn in_order(mut found: Vec<(Identity, String)>) -> Vec<(Identity, String)> {
    found.sort_by_key(|(identity, _)| identity.uuid);
    found.dedup();
    found
}

/// The name of the lock of a machine.
pub fn lock_name(identity: &Identity) -> String {
    identity.uuid.to_string()
}
