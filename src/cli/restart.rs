use std::process::ExitCode;

use clap::Args;

use crate::plan;

use super::{
    Failure, Global,
    admission::check_before_halt,
    select::Selection,
    session::Session,
    up::{Provisioning, bring_up},
    work::Work,
};

#[derive(Args)]
pub struct RestartArgs {
    #[command(flatten)]
    selection: Selection,
    /// Pull the plug instead of asking the guest to shut down
    #[arg(long)]
    force: bool,
}

pub fn run(global: &Global, args: RestartArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let machines = session.select(&args.selection, false)?;
    let mut work = Work::begin(global, "restart", session, machines, None)?;
    check_before_halt(&mut work)?;
    let summary = work.apply(plan::halt(&work.pairs(), args.force))?;
    if !summary.all_done() {
        return Ok(work.conclude(global, &summary));
    }
    work.look_again()?;
    bring_up(global, &mut work, Provisioning::default(), false)
}
