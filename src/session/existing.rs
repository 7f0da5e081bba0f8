//! Begins to halt or destroy machines: also those of a project whose Machinefile is gone or cannot be read.

use crate::{
    failure::Failure,
    session::{
        Detail, OtherProject, Selection, Session, invocation::Invocation, leftover::Leftovers,
        operation::Operation, targets::report_untouched,
    },
};

/// Which machines a command takes, and whether their hooks run.
#[derive(Clone, Debug, Default)]
pub struct ExistingMachines {
    pub selection: Selection,
    pub other_project: OtherProject,
    pub leftovers: bool,
    pub no_hooks: bool,
}

/// Finds the machines and locks them.
pub fn begin(
    invocation: &Invocation,
    command: &'static str,
    options: &ExistingMachines,
) -> Result<Operation, Failure> {
    let session = Session::of_machines(invocation, &options.other_project, Detail::Existing)?;
    let selection = session.selection(&options.selection)?;
    let leftovers = Leftovers {
        selection: &selection,
        asked: options.leftovers,
    };
    let machines = session.select(&selection, false)?;
    if !options.no_hooks {
        session.say_no_hooks();
    }
    let operation = Operation::begin(invocation, command, session, machines, Some(leftovers))?;
    if selection.is_all() {
        report_untouched(invocation, &operation, leftovers, command);
    }
    Ok(operation)
}
