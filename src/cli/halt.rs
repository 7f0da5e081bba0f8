use std::process::ExitCode;

use clap::Args;

use crate::plan;

use super::{
    Failure, Global, output, select::Selection, session::Session, watch::end_if_unneeded,
    work::Work,
};

#[derive(Args)]
pub struct HaltArgs {
    #[command(flatten)]
    selection: Selection,
    /// Pull the plug instead of asking the guest to shut down
    #[arg(long)]
    force: bool,
}

pub fn run(global: &Global, args: HaltArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let machines = session.select(&args.selection, false)?;
    let work = Work::begin(global, "halt", session, machines, Some(&args.selection))?;
    let plan = plan::halt(&work.pairs(), args.force);
    if plan.machines.iter().all(|machine| machine.is_empty()) {
        output::say(global, "nothing is running");
    }
    let summary = work.apply(plan)?;
    end_if_unneeded(&work.session)?;
    Ok(work.conclude(global, &summary))
}
