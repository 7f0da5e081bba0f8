use std::process::ExitCode;

use clap::Args;

use crate::{machinefile::Moment, plan};

use super::{
    Failure, Global,
    adopt::say_stranded,
    belonging::Elsewhere,
    condition::say_foreign_disks,
    leftover::{Leftovers, say_left_alone},
    output,
    select::Selection,
    session::{Looks, Session},
    trust::hooks_or_without,
    watch::end_if_unneeded,
    work::Work,
};

#[derive(Args)]
pub struct HaltArgs {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    elsewhere: Elsewhere,
    /// Take also machines of this project that its Machinefile does not name any more
    #[arg(long)]
    leftovers: bool,
    /// Pull the plug instead of asking the guest to shut down
    #[arg(long)]
    force: bool,
    /// Leave out what `before "halt"` and `after "halt"` say
    #[arg(long)]
    no_hooks: bool,
}

pub fn run(global: &Global, args: HaltArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(global, &args.elsewhere, Looks::There)?;
    let selection = session.selection(&args.selection)?;
    let leftovers = Leftovers {
        selection: &selection,
        asked: args.leftovers,
    };
    let machines = session.select(&selection, false)?;
    if !args.no_hooks {
        session.say_no_hooks();
    }
    let mut work = Work::begin(global, "halt", session, machines, Some(leftovers))?;
    if selection.is_all() {
        say_left_alone(global, &work, leftovers, "halt");
    }
    let mut plan = plan::halt(&work.pairs(), args.force);
    if args.no_hooks {
        plan = plan.without_hooks();
    }
    (work.agreement, plan) = hooks_or_without(
        global,
        &work.session.data,
        &work.session.project,
        &[Moment::BeforeHalt, Moment::AfterHalt],
        plan,
    )?;
    if plan.machines.iter().all(|machine| machine.is_empty()) {
        output::say(global, "nothing is running");
        say_stranded(&work.session, &work.survey, &work.subjects);
    }
    say_foreign_disks(&work);
    let summary = work.apply(plan)?;
    end_if_unneeded(&work.session)?;
    Ok(work.conclude(global, &summary))
}
