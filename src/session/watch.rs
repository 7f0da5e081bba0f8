//! Starts and ends stead-watch, the program that sends edits to machines.

use std::{
    path::PathBuf,
    process::{Command as Program, ExitCode},
};

use crate::{
    failure::Failure,
    host::process::own_program,
    machine::Observed,
    machinefile::Project,
    report::{Event, EventKind, Reporter, Style, clean::Shown},
    session::{Session, handover::replace, invocation::Invocation, operation::Operation},
    sync::watch::{Watched, WatcherFiles, WatcherStart, ensure, stop, stop_if_unneeded, written},
};

pub const PROGRAM: &str = "stead-watch";

/// Returns the path of a program that comes with stead.
pub fn beside(program: &str) -> Result<PathBuf, Failure> {
    let stead = own_program().map_err(|error| Failure::io("find stead itself", &error))?;
    let path = stead.with_file_name(program);
    match path.exists() {
        true => Ok(path),
        false => Err(Failure::error(
            format!("there is no {program} beside {}", stead.shown()),
            how_to_get(program),
        )),
    }
}

/// Says how to get a program that comes with stead.
pub fn how_to_get(program: &str) -> String {
    format!(
        "{program} comes with stead: put both into one folder; `cargo install --locked --path .` in a clone of stead's repository does"
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "it keeps running after stead ends"
)]
fn own(invocation: &Invocation) -> Result<Program, Failure> {
    let mut command = Program::new(beside(PROGRAM)?);
    for (given, flag) in [
        (invocation.style.json, "--json"),
        (invocation.style.quiet, "--quiet"),
        (invocation.style.verbose, "--verbose"),
    ] {
        if given {
            command.arg(flag);
        }
    }
    Ok(command)
}

/// Replaces this process by the watcher, in the foreground.
pub fn in_foreground(invocation: &Invocation, watched: &Watched) -> Result<ExitCode, Failure> {
    let mut command = own(invocation)?;
    command.stdin(written(watched)?);
    Err(replace(command, 0))
}

/// Runs after an `up`: has the folders of running machines watched as the Machinefile asks. Returns
/// false if that failed.
pub fn see_to(
    invocation: &Invocation,
    operation: &Operation,
    up: &[String],
) -> Result<bool, Failure> {
    let project = &operation.session.project;
    let place = WatcherFiles::of(&operation.session.data, &operation.session.owner());
    let uuid_of = |name: &str| operation.session.identity(name).map(|it| it.uuid);
    let Some(watched) = Watched::by_itself(project, uuid_of)? else {
        stop(&place)?;
        return Ok(true);
    };
    let wanted = |machine: &String| (watched.machines.iter()).any(|it| it.machine == *machine);
    if !up.iter().any(wanted) {
        return Ok(true);
    }
    // Its log is for people, even if this command prints JSON.
    let plain = Invocation {
        style: Style {
            json: false,
            quiet: false,
            verbose: false,
            ..invocation.style
        },
        ..invocation.clone()
    };
    let started = match own(&plain) {
        Ok(mut command) => {
            command.arg("--background");
            ensure(&operation.session.data, &watched, &mut command)?.map_err(|said| (said, None))
        }
        Err(Failure::Error { message, hint }) => Err((message, hint)),
        Err(other) => return Err(other),
    };
    match started {
        Ok(WatcherStart::WasRunning) => Ok(true),
        Ok(WatcherStart::Started) => {
            for machine in &watched.machines {
                for folder in &machine.folders {
                    tell(
                        &operation.reporter,
                        &machine.machine,
                        format!(
                            "{} → {}: edits are sent as you make them (see `stead status`)",
                            shown(project, &folder.from),
                            folder.to
                        ),
                    );
                }
            }
            Ok(true)
        }
        Err((said, hint)) => {
            operation.reporter.event(&Event::now(
                "",
                EventKind::StepFailed {
                    step: "watch".into(),
                    error: format!("cannot watch the folders: {said}"),
                    hint,
                    console: Vec::new(),
                },
            ));
            Ok(false)
        }
    }
}

fn shown(project: &Project, path: &std::path::Path) -> String {
    match path.strip_prefix(&project.root) {
        Ok(inner) if inner.as_os_str().is_empty() => ".".into(),
        Ok(inner) => inner.shown(),
        Err(_) => path.shown(),
    }
}

fn tell(reporter: &Reporter, machine: &str, message: String) {
    reporter.event(&Event::now(machine, EventKind::Notice { message }));
}

/// Runs after a `halt` or `destroy`: ends the watcher if none of its machines is up.
pub fn end_if_unneeded(session: &Session) -> Result<(), Failure> {
    let place = WatcherFiles::of(&session.data, &session.owner());
    stop_if_unneeded(&place, |machine| {
        // If libvirt does not answer, machines count as up: the next command checks again.
        !matches!(
            session.observe(machine),
            Ok(observed) if !observed.as_ref().is_some_and(Observed::is_up)
        )
    })?;
    Ok(())
}
