//! `provision`: runs provisioners in running machines.

use std::process::ExitCode;

use crate::{
    failure::Failure,
    machinefile::Machine,
    plan::{self, Request},
    report::{Event, EventKind},
    session::{
        Selection, Session,
        agreement::{self, Scope},
        condition::need_running,
        invocation::Invocation,
        operation::Operation,
        project_runs::need_ansible,
    },
};

#[derive(Clone, Debug, Default)]
pub struct ProvisionOptions {
    pub selection: Selection,
    pub all: bool,
    pub only: Vec<String>,
    pub from: Option<String>,
}

pub fn provision(invocation: &Invocation, options: ProvisionOptions) -> Result<ExitCode, Failure> {
    let session = Session::open(invocation)?;
    let machines = session.select_named(&options.selection, false)?;
    let names = names(&session, &machines);
    for name in options.only.iter().chain(&options.from) {
        check_name(name, &names)?;
    }
    let asked = match options.from {
        Some(name) => Request::From(name),
        None if options.all => Request::All,
        None if options.only.is_empty() => Request::Due,
        None => Request::Only(options.only),
    };
    let agreement = agreement::need(
        invocation,
        &session.data,
        &session.project,
        Scope::Provision,
    )?;
    let mut operation = Operation::begin(invocation, "provision", session, machines, None)?;
    operation.agreement = agreement;
    if asked != Request::Due {
        operation.goes_on_with("the same command");
    }
    let runs = operation.project_runs()?;
    if let Request::Only(names) = &asked
        && let Some(run) = runs.skipped.iter().find(|run| names.contains(&run.name))
    {
        return Err(Failure::usage(
            format!(
                "provisioner {} runs on {}",
                run.name,
                run.machines.join(", ")
            ),
            format!(
                "name all of these machines, or none: `stead provision --only {}`",
                run.name
            ),
        ));
    }
    let mut plan = plan::provision(&operation.pairs(), &asked);
    plan.add_runs(plan::asked_runs(&runs.within, &operation.pairs(), &asked));
    for (target, steps) in operation.targets.iter().zip(&plan.machines) {
        let name = &target.wanted.machine.name;
        let observed = target.existing.observed.as_ref();
        if steps.is_empty() {
            operation.reporter.event(&Event::now(
                name,
                EventKind::Notice {
                    message: "nothing to do".into(),
                },
            ));
        } else {
            need_running(name, observed)?;
            if steps.needs_box() && target.stored_box.is_none() {
                return Err(Failure::error(
                    format!("{name} has not booted yet, and its box is not in the store any more"),
                    format!("`stead up {name}` gets it again, and waits for the machine"),
                ));
            }
            // OpenSSH's files may have been removed, or the port may have changed.
            operation.session.reachable_files(target)?;
        }
    }
    need_ansible(&operation, &plan)?;
    let summary = operation.apply(plan)?;
    if !matches!(asked, Request::Only(_)) {
        runs.say_skipped(&operation);
    }
    Ok(operation.conclude(invocation, &summary))
}

/// Returns the names of all provisioners, of machines and of the project.
fn names(session: &Session, machines: &[Machine]) -> Vec<String> {
    let of_machines = machines.iter().flat_map(|machine| &machine.provisioners);
    let of_project = (session.project.provisioners.iter()).map(|it| &it.provisioner);
    let mut names: Vec<String> = of_machines
        .chain(of_project)
        .map(|provisioner| provisioner.name.clone())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn check_name(name: &str, names: &[String]) -> Result<(), Failure> {
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    Err(Failure::usage(
        format!("there is no provisioner {name}"),
        if names.is_empty() {
            "there are none; add one with `provision` in the Machinefile".to_string()
        } else {
            format!("the provisioners are: {}", names.join(", "))
        },
    ))
}
