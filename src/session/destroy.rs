//! `destroy`: removes machines and their disks.

use std::{net::Ipv4Addr, process::ExitCode};

use crate::{
    failure::Failure,
    machinefile::Moment,
    plan::{self, Plan},
    report::{ask, can_ask, clean::Shown, say},
    session::{
        Session,
        agreement::hooks_or_without,
        condition::snapshots_go,
        existing::{self, ExistingMachines},
        invocation::Invocation,
        networks,
        operation::Operation,
        stranded::say_stranded,
        watch::end_if_unneeded,
    },
};

pub fn destroy(
    invocation: &Invocation,
    machines: &ExistingMachines,
    yes: bool,
) -> Result<ExitCode, Failure> {
    let found = existing::find(invocation, machines)?;
    if !yes && !can_ask() {
        // Before the locks: who holds one may keep it for long, and the answer stays the same.
        let pairs: Vec<_> = (found.targets()?.into_iter())
            .map(|target| (target.wanted, target.existing))
            .collect();
        let plan = plan::destroy(&pairs);
        let names = names_in(&plan);
        if !names.is_empty() {
            return Err(unasked(&names, found.session()));
        }
    }
    let mut operation = found.begin(invocation, "destroy")?;
    operation.add_copies()?;
    let mut plan = plan::destroy(&operation.pairs());
    if machines.no_hooks {
        plan = plan.without_hooks();
    }
    let names = names_in(&plan);
    for target in &operation.targets {
        let observed = target.existing.observed.as_ref();
        if let Some(line) = observed.and_then(|it| snapshots_go(&operation.session, it)) {
            say(invocation.style, &line);
        }
    }
    if names.is_empty() {
        say(invocation.style, "there is nothing to destroy");
        say_stranded(&operation.session, &operation.survey, &operation.targets);
    } else if !yes {
        let question = format!(
            "destroy {} of project {} ({}) and all data on {}?",
            names.join(", "),
            operation.session.project.name,
            operation.session.project.root.shown(),
            if names.len() == 1 {
                "its disk"
            } else {
                "their disks"
            },
        );
        match ask(&question) {
            Some(true) => {}
            Some(false) => {
                say(invocation.style, "nothing was destroyed");
                return Ok(ExitCode::from(1));
            }
            None => return Err(unasked(&names, &operation.session)),
        }
    }
    (operation.agreement, plan) = hooks_or_without(
        invocation,
        &operation.session.data,
        &operation.session.project,
        &[Moment::BeforeDestroy, Moment::AfterDestroy],
        plan,
    )?;
    // Afterwards, no record has them.
    let addresses = addresses(&operation);
    let summary = operation.apply(plan)?;
    end_if_unneeded(&operation.session)?;
    networks::keep(&operation)?;
    if is_gone(&operation.session)
        && let Some(line) = operation.session.names_left(&addresses)
    {
        say(invocation.style, &line);
    }
    Ok(operation.conclude(invocation, &summary))
}

/// The machines of which something is destroyed.
fn names_in(plan: &Plan) -> Vec<&str> {
    (plan.machines.iter())
        .filter(|machine| !machine.is_empty())
        .map(|machine| machine.machine.as_str())
        .collect()
}

fn unasked(names: &[&str], session: &Session) -> Failure {
    Failure::usage(
        format!(
            "destroy would delete {} of project {}, but cannot ask: standard input is not a terminal",
            names.join(", "),
            session.project.name
        ),
        "add -y to destroy without being asked",
    )
}

/// The addresses of all machines of the project on its networks.
fn addresses(operation: &Operation) -> Vec<Ipv4Addr> {
    (operation.session.host_names(&operation.survey).iter())
        .flat_map(|machine| machine.networks.iter().copied())
        .collect()
}

/// Whether no machine of the project is left.
fn is_gone(session: &Session) -> bool {
    (session.connection.survey()).is_ok_and(|survey| {
        !survey
            .machines
            .iter()
            .any(|it| session.owner().owns(&it.record))
    })
}
