//! `restart`: gets everything that machines need, shuts them down and starts them again.

use std::process::ExitCode;

use crate::{
    failure::Failure,
    machinefile::Machine,
    plan,
    report::{Event, EventKind},
    session::{
        Selection, Session,
        admission::{check_before_halt, check_reach},
        agreement::{self, Scope},
        condition::need_own_disks,
        invocation::Invocation,
        networks,
        operation::Operation,
        up::{Provisioning, bring_up, get_ready, planned},
    },
};

#[derive(Clone, Debug, Default)]
pub struct RestartOptions {
    pub selection: Selection,
    pub force: bool,
    pub no_hooks: bool,
    /// How many machines boot or shut down at the same time.
    pub jobs: Option<u16>,
}

pub fn restart(invocation: &Invocation, options: RestartOptions) -> Result<ExitCode, Failure> {
    let session = Session::open(invocation)?;
    let machines = session.select_named(&options.selection, false)?;
    let scope = Scope::Up {
        hooks: !options.no_hooks,
        provisioners: true,
        networks: true,
    };
    let (survey, owner) = (session.connection.survey()?, session.owner());
    let exists = |machine: &&Machine| owner.find(&survey.machines, &machine.name).is_some();
    check_reach(&session, machines.iter().filter(exists))?;
    let agreement = agreement::need(invocation, &session.data, &session.project, scope)?;
    let mut operation = Operation::begin(invocation, "restart", session, machines, None)?;
    operation.agreement = agreement;
    operation.jobs = options.jobs;
    skip_unmade(&mut operation, &options.selection)?;
    let provisioning = Provisioning {
        no_hooks: options.no_hooks,
        ..Provisioning::default()
    };
    // Everything that machines need is fetched and checked before they are halted, so that they can
    // start again.
    get_ready(&mut operation, Operation::pairs_if_off, false)?;
    let (plan, _) = planned(&mut operation, Operation::pairs_if_off, provisioning)?;
    networks::check(&operation.session, &operation.survey, &plan)?;
    check_before_halt(&operation)?;
    need_own_disks(&operation.session, &operation.targets)?;
    let mut halt = plan::halt_to_boot(&operation.pairs(), options.force);
    if options.no_hooks {
        halt = halt.without_hooks();
    }
    networks::start_saved(&mut operation, &halt)?;
    let summary = operation.apply(halt)?;
    if !summary.all_done() {
        return Ok(operation.conclude(invocation, &summary));
    }
    // `restart` again would halt machines that have started already.
    let names: Vec<&str> = (operation.targets.iter())
        .map(|target| target.wanted.machine.name.as_str())
        .collect();
    let goes_on = if names.len() == operation.session.project.machines.len() {
        "`stead up`".to_string()
    } else {
        format!("`stead up {}`", names.join(" "))
    };
    operation.goes_on_with(&goes_on);
    operation.survey_again()?;
    // Their ports are free from now on.
    networks::keep(&operation)?;
    bring_up(invocation, &mut operation, provisioning, false)
}

/// Skips machines that were never made. Fails if one of them was named.
fn skip_unmade(operation: &mut Operation, selection: &Selection) -> Result<(), Failure> {
    let unmade: Vec<String> = (operation.targets.iter())
        .filter(|target| target.existing.observed.is_none())
        .map(|target| target.wanted.machine.name.clone())
        .collect();
    if unmade.len() == operation.targets.len() && selection.is_all() {
        return Err(Failure::error(
            format!(
                "no machine of project {} has been made yet",
                operation.session.project.name
            ),
            "`stead up` makes them",
        ));
    }
    if !unmade.is_empty()
        && (!selection.names.is_empty() || unmade.len() == operation.targets.len())
    {
        let names = unmade.join(" ");
        return Err(Failure::error(
            match unmade.as_slice() {
                [one] => format!("machine {one} has not been made yet"),
                several => format!("machines {} have not been made yet", several.join(", ")),
            },
            format!("run `stead up {names}`"),
        ));
    }
    for name in &unmade {
        operation.reporter.event(&Event::now(
            name,
            EventKind::Notice {
                message: format!("skipped: it has not been made yet; `stead up {name}` makes it"),
            },
        ));
    }
    (operation.targets).retain(|target| target.existing.observed.is_some());
    Ok(())
}
