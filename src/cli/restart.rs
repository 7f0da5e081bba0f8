use std::process::ExitCode;

use clap::Args;

use crate::{
    plan,
    report::{Event, EventKind},
};

use super::{
    Failure, Global,
    admission::check_before_halt,
    condition::need_own_disks,
    select::Selection,
    session::Session,
    trust::{self, Scope},
    up::{Provisioning, bring_up, get_ready, planned},
    work::Work,
};

#[derive(Args)]
pub struct RestartArgs {
    #[command(flatten)]
    selection: Selection,
    /// Pull the plug instead of asking the guest to shut down
    #[arg(long)]
    force: bool,
    /// Leave out what `before` and `after` say of "halt" and "up"
    #[arg(long)]
    no_hooks: bool,
}

pub fn run(global: &Global, args: RestartArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let machines = session.select_named(&args.selection, false)?;
    let scope = Scope::Up {
        hooks: !args.no_hooks,
        provisioners: true,
    };
    let agreement = trust::need(global, &session.data, &session.project, scope)?;
    let mut work = Work::begin(global, "restart", session, machines, None)?;
    work.agreement = agreement;
    leave_out_unmade(&mut work, &args.selection)?;
    let provisioning = Provisioning {
        no_hooks: args.no_hooks,
        ..Provisioning::default()
    };
    // Nothing goes down that could not come up again: all it needs is got and checked before.
    get_ready(&mut work, Work::pairs_if_off, false)?;
    planned(&mut work, Work::pairs_if_off, provisioning)?;
    check_before_halt(&mut work)?;
    need_own_disks(&work.session, &work.subjects)?;
    let mut halt = plan::halt_to_boot(&work.pairs(), args.force);
    if args.no_hooks {
        halt = halt.without_hooks();
    }
    let summary = work.apply(halt)?;
    if !summary.all_done() {
        return Ok(work.conclude(global, &summary));
    }
    // Another `restart` would halt what has come up by then.
    let names: Vec<&str> = (work.subjects.iter())
        .map(|subject| subject.wanted.machine.name.as_str())
        .collect();
    let goes_on = if names.len() == work.session.project.machines.len() {
        "`stead up`".to_string()
    } else {
        format!("`stead up {}`", names.join(" "))
    };
    work.goes_on_with(&goes_on);
    work.look_again()?;
    bring_up(global, &mut work, provisioning, false)
}

/// There is nothing to start again of a machine that was never made.
fn leave_out_unmade(work: &mut Work, selection: &Selection) -> Result<(), Failure> {
    let unmade: Vec<String> = (work.subjects.iter())
        .filter(|subject| subject.existing.observed.is_none())
        .map(|subject| subject.wanted.machine.name.clone())
        .collect();
    if unmade.len() == work.subjects.len() && selection.is_all() {
        return Err(Failure::error(
            format!(
                "no machine of project {} has been made yet",
                work.session.project.name
            ),
            "`stead up` makes them",
        ));
    }
    if !unmade.is_empty() && (!selection.names.is_empty() || unmade.len() == work.subjects.len()) {
        let names = unmade.join(" ");
        return Err(Failure::error(
            match unmade.as_slice() {
                [one] => format!("machine {one} has not been made yet"),
                several => format!("machines {} have not been made yet", several.join(", ")),
            },
            format!("`stead up {names}` does it"),
        ));
    }
    for name in &unmade {
        work.reporter.event(&Event::now(
            name,
            EventKind::Notice {
                message: format!(
                    "is left out: it has not been made yet; `stead up {name}` makes it"
                ),
            },
        ));
    }
    (work.subjects).retain(|subject| subject.existing.observed.is_some());
    Ok(())
}
