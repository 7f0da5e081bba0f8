//! Begins to halt or destroy machines: also those of a project whose Machinefile is gone or cannot be read.

use crate::{
    failure::Failure,
    machinefile::Machine,
    session::{
        Detail, OtherProject, Selection, Session, invocation::Invocation, leftover::Leftovers,
        operation::Operation, target::Target, targets::report_untouched,
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

/// The machines that a command may take, before their locks are waited for.
pub struct Found {
    session: Session,
    selection: Selection,
    machines: Vec<Machine>,
    leftovers: bool,
}

/// Finds the machines.
pub fn find(invocation: &Invocation, options: &ExistingMachines) -> Result<Found, Failure> {
    let session = Session::of_machines(invocation, &options.other_project, Detail::Existing)?;
    let selection = session.selection(&options.selection)?;
    let machines = session.select(&selection, false)?;
    if !options.no_hooks {
        session.say_no_hooks();
    }
    Ok(Found {
        session,
        selection,
        machines,
        leftovers: options.leftovers,
    })
}

impl Found {
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Returns the machines as they are now. Others may be working on them.
    pub fn targets(&self) -> Result<Vec<Target>, Failure> {
        let leftovers = Leftovers {
            selection: &self.selection,
            asked: self.leftovers,
        };
        let survey = self.session.survey()?;
        (self.session).targets(&survey, self.machines.clone(), Some(leftovers))
    }

    /// Locks the machines.
    pub fn begin(
        self,
        invocation: &Invocation,
        command: &'static str,
    ) -> Result<Operation, Failure> {
        let leftovers = Leftovers {
            selection: &self.selection,
            asked: self.leftovers,
        };
        let (session, machines) = (self.session, self.machines);
        let operation = Operation::begin(invocation, command, session, machines, Some(leftovers))?;
        if self.selection.is_all() {
            report_untouched(invocation, &operation, leftovers, command);
        }
        Ok(operation)
    }
}
