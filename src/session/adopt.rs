//! `adopt`: takes over the machines of a project that was moved.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    failure::Failure,
    host::lock::{Lock, LockName, holder},
    machine::{Observed, Owner},
    report::{clean::Shown, say, warn},
    session::{
        Session,
        invocation::Invocation,
        locate::start_folder,
        other_project::resolved,
        stranded::{fits, is_moved},
    },
    sync::watch::{WatcherFiles, stop},
};

#[derive(Clone, Debug, Default)]
pub struct AdoptOptions {
    pub names: Vec<String>,
    pub from: Option<PathBuf>,
}

/// Gives the machines of a project that was moved to the project of this folder. Only their records
/// change. A project that is still in its place keeps its machines, so that a copy cannot take them.
pub fn adopt(invocation: &Invocation, options: AdoptOptions) -> Result<ExitCode, Failure> {
    let session = Session::open(invocation)?;
    let survey = session.connection.survey()?;
    let new = session.owner();
    let from = match &options.from {
        Some(path) => Some(resolved(&start_folder(invocation)?.join(path))),
        None => None,
    };
    let mut found: Vec<Observed> = (survey.machines.iter())
        .filter(|observed| fits(observed, &new, from.as_deref()))
        .cloned()
        .collect();
    let old = owner(&session, &found, from.as_deref())?;
    if !options.names.is_empty() {
        found.retain(|observed| options.names.contains(&observed.record.machine));
        let missing =
            (options.names.iter()).find(|name| !found.iter().any(|it| it.record.machine == **name));
        if let Some(name) = missing {
            return Err(Failure::usage(
                format!(
                    "project {} in {} has no machine {name}",
                    old.project,
                    old.root.shown()
                ),
                "`stead list` shows all machines",
            ));
        }
    }
    let twice = (found.iter()).find(|it| new.find(&survey.machines, &it.record.machine).is_some());
    if let Some(twice) = twice {
        let name = &twice.record.machine;
        return Err(Failure::error(
            format!(
                "this project has a machine {name} already, so it cannot take over another machine {name}"
            ),
            format!(
                "name the machines to take over; or remove this folder's with `stead destroy {name}`, or the other with `stead destroy --domain {}`",
                twice.identity.domain
            ),
        ));
    }
    // Every command locks in this order, so that no two wait for each other.
    found.sort_by_key(|observed| observed.identity.uuid);
    let holder = holder("`stead adopt`");
    let mut locks = Vec::new();
    for observed in &found {
        let name = LockName::Machine(observed.identity.uuid);
        let lock = Lock::acquire(&session.data.locks(), name, &holder).map_err(|error| {
            Failure::in_data(format!("lock machine {}", observed.record.machine), &error)
        })?;
        locks.push(lock);
    }
    // The watcher's folders are gone.
    stop(&WatcherFiles::of(&session.data, &old))?;
    for observed in &found {
        take_over(&session, &old, &new, observed)?;
        say(
            invocation.style,
            &format!(
                "{}: belongs to this project now, with its disk and keys",
                observed.record.machine
            ),
        );
    }
    let shared = (found.iter()).filter(|it| {
        it.is_up()
            && it
                .record
                .spec
                .shares
                .iter()
                .any(|share| share.from.starts_with(&old.root))
    });
    for observed in shared {
        warn(&format!(
            "{}: its shared folders of {} are gone until `stead restart {0}`",
            observed.record.machine,
            old.root.shown()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the project that was moved.
fn owner(session: &Session, found: &[Observed], from: Option<&Path>) -> Result<Owner, Failure> {
    let new = session.owner();
    let mut owners: Vec<Owner> = (found.iter())
        .map(|it| Owner::of_record(&it.record))
        .collect();
    owners.sort_by_key(Owner::path);
    owners.dedup_by_key(|owner| owner.path());
    match (owners.as_slice(), from) {
        ([], Some(from)) => Err(Failure::error(
            format!(
                "no machine of another project was made from {}",
                from.shown()
            ),
            "`stead list` shows the folders of all machines",
        )),
        ([], None) => Err(Failure::error(
            format!("found no moved project {} with machines", new.project),
            "`stead list` shows the folders of all machines; if the project had another name, give its folder with --from FOLDER",
        )),
        ([old], _) if is_moved(old, &new) => Ok(old.clone()),
        ([old], _) => Err(Failure::error(
            format!(
                "{} still exists, so it keeps its machines",
                old.path().shown()
            ),
            format!(
                "if that is a copy that you no longer want, remove it first; `stead -C {} destroy` removes its machines",
                old.root.shown()
            ),
        )),
        (several, _) => {
            let paths: Vec<String> = (several.iter()).map(|it| it.path().shown()).collect();
            Err(Failure::usage(
                format!("several projects were moved: {}", paths.join(", ")),
                "choose one with --from PATH",
            ))
        }
    }
}

fn take_over(
    session: &Session,
    old: &Owner,
    new: &Owner,
    observed: &Observed,
) -> Result<(), Failure> {
    let name = &observed.record.machine;
    let gone = || {
        Failure::error(
            format!("another command has changed machine {name} in the meantime"),
            "run the same command again",
        )
    };
    let domain = (session.connection.lookup(&observed.identity)?).ok_or_else(gone)?;
    let mut record = domain.record()?.ok_or_else(gone)?;
    if Owner::of_record(&record).path() != old.path() {
        return Err(gone());
    }
    record.project.clone_from(&new.project);
    record.root.clone_from(&new.root);
    record.file = Some(new.file.clone());
    Ok(domain.set_record(&record)?)
}
