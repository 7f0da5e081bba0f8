//! `halt`: shuts machines down.

use std::process::ExitCode;

use crate::{
    failure::Failure,
    machinefile::Moment,
    plan,
    report::say,
    session::{
        Detail, Elsewhere, Selection, Session, agreement::hooks_or_without,
        condition::say_foreign_disks, invocation::Invocation, leftover::Leftovers,
        look::report_untouched, operation::Operation, stranded::say_stranded,
        watch::end_if_unneeded,
    },
};

#[derive(Clone, Debug, Default)]
pub struct HaltOptions {
    pub selection: Selection,
    pub elsewhere: Elsewhere,
    pub leftovers: bool,
    pub force: bool,
    pub no_hooks: bool,
}

pub fn halt(invocation: &Invocation, options: HaltOptions) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &options.elsewhere, Detail::Existing)?;
    let selection = session.selection(&options.selection)?;
    let leftovers = Leftovers {
        selection: &selection,
        asked: options.leftovers,
    };
    let machines = session.select(&selection, false)?;
    if !options.no_hooks {
        session.say_no_hooks();
    }
    let mut operation = Operation::begin(invocation, "halt", session, machines, Some(leftovers))?;
    if selection.is_all() {
        report_untouched(invocation, &operation, leftovers, "halt");
    }
    let mut plan = plan::halt(&operation.pairs(), options.force);
    if options.no_hooks {
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
    let summary = operation.apply(plan)?;
    end_if_unneeded(&operation.session)?;
    Ok(operation.conclude(invocation, &summary))
}
