//! `halt`: shuts machines down.

use std::process::ExitCode;

use crate::{
    failure::Failure,
    machinefile::Moment,
    plan,
    report::say,
    session::{
        agreement::hooks_or_without,
        condition::say_foreign_disks,
        existing::{self, ExistingMachines},
        invocation::Invocation,
        networks,
        stranded::say_stranded,
        watch::end_if_unneeded,
    },
};

pub fn halt(
    invocation: &Invocation,
    machines: &ExistingMachines,
    force: bool,
) -> Result<ExitCode, Failure> {
    let mut operation = existing::find(invocation, machines)?.begin(invocation, "halt")?;
    let mut plan = plan::halt(&operation.pairs(), force);
    if machines.no_hooks {
        plan = plan.without_hooks();
    }
    (operation.agreement, plan) = hooks_or_without(
        invocation,
        &operation.session.data,
        &operation.session.project,
        &[Moment::BeforeHalt, Moment::AfterHalt],
        plan,
    )?;
    if plan.machines.iter().all(|machine| machine.is_empty()) {
        say(invocation.style, "no machine is running");
        say_stranded(&operation.session, &operation.survey, &operation.targets);
    }
    say_foreign_disks(&operation);
    networks::start_saved(&mut operation, &plan)?;
    let summary = operation.apply(plan)?;
    end_if_unneeded(&operation.session)?;
    networks::keep(&operation)?;
    Ok(operation.conclude(invocation, &summary))
}
