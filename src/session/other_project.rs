//! Finds the project that a command works on, even if its Machinefile is gone or wrong: libvirt's
//! records are enough to halt, destroy, reach and show its machines.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::{
    boxes::Store,
    failure::Failure,
    hypervisor::{Connection, Survey},
    machine::{Observed, Owner},
    machinefile::{self, MACHINEFILE, MachinefileErrors, Project},
    report::{clean::Shown, warn},
    resolve::{catalogues::Catalogues, lockfile::LockFile},
};

use super::{
    Detail, Session,
    invocation::Invocation,
    leftover::machine_of,
    locate::{connect, data_dir, find_machinefile, load_project, start_folder},
};

/// What `--project` and `--domain` name: another project than this folder's. Empty without these options.
#[derive(Clone, Debug, Default)]
pub struct OtherProject {
    /// The project, by its name, or by the folder where it is or was.
    pub project: Option<String>,
    /// The machine, by the name or UUID of its libvirt domain.
    pub domain: Option<String>,
}

/// Why there is no usable Machinefile.
enum Missing {
    Gone(Owner),
    Wrong(PathBuf, Box<MachinefileErrors>),
}

impl Session {
    /// Opens a session for commands that work on existing machines: with the Machinefile if it can
    /// be read, else with libvirt's records of how the machines were made.
    pub fn of_machines(
        invocation: &Invocation,
        other_project: &OtherProject,
        detail: Detail,
    ) -> Result<Self, Failure> {
        if other_project.project.is_none() && other_project.domain.is_none() {
            return at_hand(invocation, detail);
        }
        if invocation.directory.is_some() || invocation.file.is_some() {
            return Err(Failure::usage(
                "-C and -f choose one project, but --project or --domain another",
                "use only one of them",
            ));
        }
        if let Some(domain) = &other_project.domain {
            let (session, _) = Session::of_domain(invocation, domain, detail)?;
            return Ok(session);
        }
        let connection = connect(invocation, None)?;
        let survey = connection.survey()?;
        let named = other_project.project.as_deref().unwrap_or_default();
        let machines = of_project(survey.machines, named);
        let owner = one_owner(&machines, named, &connection)?;
        of_owner(invocation, owner, connection, &machines, detail)
    }

    /// Opens a session for the project of a libvirt domain, which is its only machine. Returns the survey in which it was found,
    /// too.
    pub(super) fn of_domain(
        invocation: &Invocation,
        domain: &str,
        detail: Detail,
    ) -> Result<(Self, Survey), Failure> {
        let connection = connect(invocation, None)?;
        let mut survey = connection.survey()?;
        let observed = by_domain(&mut survey, domain, &connection)?;
        let mut session = of_owner(
            invocation,
            Owner::of_record(&observed.record),
            connection,
            std::slice::from_ref(&observed),
            detail,
        )?;
        session.only = Some(observed.record.machine);
        Ok((session, survey))
    }

    /// Reports that hooks are skipped if the Machinefile cannot be read.
    pub fn say_no_hooks(&self) {
        if matches!(self.detail, Detail::Recorded { .. }) {
            warn("skipping hooks, because the Machinefile cannot be read");
        }
    }

    fn with(project: Project, connection: Connection, detail: Detail) -> Result<Self, Failure> {
        let data = data_dir()?;
        // Existing machines need none of this, so errors are only warnings.
        let lock_file = LockFile::read(&project.root).unwrap_or_else(|error| {
            warn(&error.to_string());
            LockFile::default()
        });
        let catalogues = match Catalogues::open(&data, Some(&project)) {
            Ok(catalogues) => catalogues,
            Err(failure) => {
                warn(&failure.message());
                Catalogues::open(&data, None)?
            }
        };
        Ok(Session {
            store: Store::open(&data),
            lock_file,
            catalogues,
            project,
            data,
            connection,
            detail,
            only: None,
            way_out: OnceLock::new(),
        })
    }

    /// A session from libvirt's records. `named` are the machines that the Machinefile names, if
    /// that is known.
    fn recorded(
        owner: Owner,
        machines: &[Observed],
        named: Option<Vec<String>>,
        connection: Connection,
    ) -> Result<Self, Failure> {
        let mut ours: BTreeMap<&str, &Observed> = BTreeMap::new();
        for observed in machines {
            let record = &observed.record;
            let is_named = (named.as_ref()).is_none_or(|named| named.contains(&record.machine));
            if record.copy_of.is_none() && record.run_of.is_none() && is_named {
                ours.insert(&record.machine, observed);
            }
        }
        let project = Project {
            read: Vec::new(),
            variables: Vec::new(),
            warnings: Vec::new(),
            name: owner.project.clone(),
            file: owner.path(),
            root: owner.root,
            catalogue: None,
            connect: None,
            host_reserve: Default::default(),
            networks: Vec::new(),
            links: Vec::new(),
            machines: (ours.values())
                .map(|observed| machine_of(&observed.record))
                .collect(),
            groups: Vec::new(),
            provisioners: Vec::new(),
        };
        Session::with(project, connection, Detail::Recorded { named })
    }
}

/// Opens the project of this folder, or of the file that `-f` names.
fn at_hand(invocation: &Invocation, detail: Detail) -> Result<Session, Failure> {
    let file = match find_machinefile(invocation) {
        Ok(file) => file,
        Err(failure) => return gone_from_here(invocation, failure),
    };
    match load_project(invocation) {
        Ok(project) => {
            let connection = connect(invocation, Some(&project))?;
            Session::with(project, connection, detail)
        }
        Err(Failure::Machinefile(errors)) => wrong(invocation, &file, errors),
        Err(failure) => Err(failure),
    }
}

/// Opens the project of a Machinefile that cannot be read, if it has machines.
fn wrong(
    invocation: &Invocation,
    file: &Path,
    errors: Box<MachinefileErrors>,
) -> Result<Session, Failure> {
    let outline = machinefile::outline(file, &|name| std::env::var(name).ok());
    let name = file.file_name().and_then(|name| name.to_str());
    let root = (file.parent()).and_then(|folder| folder.canonicalize().ok());
    let (Some(name), Some(root)) = (name, root) else {
        return Err(Failure::Machinefile(errors));
    };
    let (project, uri, named) = match outline {
        Some(outline) => (outline.project, outline.connect, Some(outline.machines)),
        None => (None, None, None),
    };
    let invocation = Invocation {
        connect: (invocation.connect.clone()).or(uri.map(|libvirt| libvirt.uri().to_string())),
        ..invocation.clone()
    };
    // Without libvirt, the errors of the file are the ones to report.
    let found = connect(&invocation, None).ok().and_then(|connection| {
        let machines = connection.survey().ok()?.machines;
        Some((connection, machines))
    });
    let Some((connection, machines)) = found else {
        return Err(Failure::Machinefile(errors));
    };
    let machines = of_file(machines, &root, name, project.as_deref());
    let Some(first) = machines.first() else {
        return Err(Failure::Machinefile(errors));
    };
    let owner = Owner {
        project: project.unwrap_or_else(|| first.record.project.clone()),
        root,
        file: name.to_string(),
    };
    say(&Missing::Wrong(owner.path(), errors));
    Session::recorded(owner, &machines, named, connection)
}

/// Returns the machines of a Machinefile. `project` is its project's name, if that is known. Records
/// without a file are matched by that name, or else if only one project of the folder has records.
fn of_file(
    machines: Vec<Observed>,
    root: &Path,
    name: &str,
    project: Option<&str>,
) -> Vec<Observed> {
    let machines: Vec<Observed> = (machines.into_iter())
        .filter(|observed| observed.record.root == *root)
        .collect();
    let before: BTreeSet<String> = (machines.iter())
        .filter(|observed| observed.record.file.is_none())
        .map(|observed| observed.record.project.clone())
        .collect();
    let only = (before.len() == 1 && name == MACHINEFILE)
        .then(|| before.first())
        .flatten();
    let meant = project.or(only.map(String::as_str));
    (machines.into_iter())
        .filter(|observed| match &observed.record.file {
            Some(file) => file == name,
            None => meant == Some(observed.record.project.as_str()),
        })
        .collect()
}

/// Opens the project that was in this folder, or in one above it, if it has machines.
fn gone_from_here(invocation: &Invocation, failure: Failure) -> Result<Session, Failure> {
    let Ok(here) = std::env::current_dir() else {
        return Err(failure);
    };
    // A folder that is gone cannot be resolved, so its name counts as given.
    let start = match start_folder(invocation) {
        Ok(folder) => folder,
        Err(_) => here.join(invocation.directory.as_deref().unwrap_or(Path::new("."))),
    };
    let (folder, file) = match &invocation.file {
        Some(file) => {
            let file = start.join(file);
            let name = file
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            (file.parent().unwrap_or(&start).to_path_buf(), name)
        }
        None => (start, None),
    };
    let folder = resolved(&folder);
    let Ok(connection) = connect(invocation, None) else {
        return Err(failure);
    };
    let Ok(survey) = connection.survey() else {
        return Err(failure);
    };
    let nearest = (folder.ancestors())
        // -f names exactly one.
        .take(if file.is_some() { 1 } else { usize::MAX })
        .find_map(|folder| {
            let machines: Vec<Observed> = (survey.machines.iter())
                .filter(|observed| {
                    let owner = Owner::of_record(&observed.record);
                    owner.root == folder
                        && file.as_ref().is_none_or(|file| *file == owner.file)
                        && owner.is_gone()
                })
                .cloned()
                .collect();
            (!machines.is_empty()).then(|| (folder.shown(), machines))
        });
    let Some((folder, machines)) = nearest else {
        return Err(failure);
    };
    let owner = one_owner(&machines, &folder, &connection)?;
    of_owner(invocation, owner, connection, &machines, Detail::Existing)
}

/// Resolves symlinks and dots of the part of a path that exists.
pub fn resolved(folder: &Path) -> PathBuf {
    let mut end = PathBuf::new();
    for part in folder.ancestors() {
        if let Ok(found) = part.canonicalize() {
            let rest = folder.strip_prefix(part).unwrap_or(Path::new(""));
            end = found.join(rest);
            break;
        }
    }
    end.components().collect()
}

/// Opens a project by the records of its machines.
fn of_owner(
    invocation: &Invocation,
    owner: Owner,
    connection: Connection,
    machines: &[Observed],
    detail: Detail,
) -> Result<Session, Failure> {
    if owner.is_gone() {
        say(&Missing::Gone(owner.clone()));
        return Session::recorded(owner, machines, None, connection);
    }
    let there = Invocation {
        directory: None,
        file: Some(owner.path()),
        ..invocation.clone()
    };
    match load_project(&there) {
        Ok(project) => Session::with(project, connection, detail),
        Err(Failure::Machinefile(errors)) => {
            say(&Missing::Wrong(owner.path(), errors));
            Session::recorded(owner, machines, None, connection)
        }
        Err(failure) => Err(failure),
    }
}

fn say(missing: &Missing) {
    warn(&match missing {
        Missing::Gone(owner) => format!(
            "{} is gone; using the records of project {}'s machines",
            owner.path().shown(),
            owner.project
        ),
        Missing::Wrong(path, errors) => format!(
            "cannot use {}, so using the records of its machines: {} (`stead validate` shows all errors)",
            path.shown(),
            errors.to_string().lines().next().unwrap_or_default()
        ),
    });
}

/// Returns the machines of all projects of that name, or of that folder.
fn of_project(machines: Vec<Observed>, named: &str) -> Vec<Observed> {
    let folder = (named.contains('/') || named == "." || named == "..")
        .then(|| std::path::absolute(named).map(|path| resolved(&path)));
    (machines.into_iter())
        .filter(|observed| match &folder {
            Some(folder) => (folder.as_ref()).is_ok_and(|folder| observed.record.root == *folder),
            None => observed.record.project == named,
        })
        .collect()
}

/// Returns the only project that these machines belong to.
fn one_owner(
    machines: &[Observed],
    named: &str,
    connection: &Connection,
) -> Result<Owner, Failure> {
    let mut owners: Vec<Owner> = Vec::new();
    for observed in machines {
        let owner = Owner::of_record(&observed.record);
        if !owners.iter().any(|other| other.path() == owner.path()) {
            owners.push(owner);
        }
    }
    match owners.as_slice() {
        [] => Err(Failure::error(
            format!(
                "project {named} has no machines on {}",
                connection.uri().uri
            ),
            "`stead list` shows all machines and their projects",
        )),
        [only] => Ok(only.clone()),
        several => {
            let paths: Vec<String> = (several.iter()).map(|owner| owner.path().shown()).collect();
            Err(Failure::usage(
                format!("several projects are called {named}: {}", paths.join(", ")),
                "choose one by its folder (`--project FOLDER`), or a machine by its domain (`--domain UUID`; `stead list --json` shows them)",
            ))
        }
    }
}

fn by_domain(
    survey: &mut Survey,
    named: &str,
    connection: &Connection,
) -> Result<Observed, Failure> {
    let broken = (survey.unreadable.iter())
        .position(|it| it.domain == named || it.uuid.to_string() == named);
    if let Some(n) = broken {
        return Err(survey.unreadable.swap_remove(n).error.into());
    }
    (survey.machines.iter())
        .find(|it| it.identity.domain == named || it.identity.uuid.to_string() == named)
        .cloned()
        .ok_or_else(|| {
            Failure::error(
                format!(
                    "{} has no domain {named} that stead made",
                    connection.uri().uri
                ),
                "`stead list --json` shows the domains of all machines",
            )
        })
}
