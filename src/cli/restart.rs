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
    /// Leave out what `before` and `after` say of "halt" and "up"
    #[arg(long)]
    no_hooks: bool,
}

pub fn run(global: &Global, args: RestartArgs) -> Result<ExitCode, Failure> {
    let session = Session::open(global)?;
    let machines = session.select(&args.selection, false)?;
    let mut work = Work::begin(global, "restart", session, machines, None)?;
    check_before_halt(&mut work)?;
    let mut halt = plan::halt(&work.pairs(), args.force);
    if args.no_hooks {
        halt = halt.without_hooks();
    }
    let summary = work.apply(halt)?;
    if !summary.all_done() {
        return Ok(work.conclude(global, &summary));
    }
    work.look_again()?;
    let provisioning = Provisioning {
        no_hooks: args.no_hooks,
        ..Provisioning::default()
    };
    bring_up(global, &mut work, provisioning, false)
}
