//! `stead halt`: shuts machines down.

use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    session::{existing::ExistingMachines, halt::halt, invocation::Invocation},
};

use super::select::{OtherProjectArgs, SelectionArgs};

const EXAMPLES: &str = "\
Examples:
  stead halt                  Shut down all machines
  stead halt --label role=db  Shut down the machines with a label";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct HaltArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    other_project: OtherProjectArgs,
    /// Include machines of this project that its Machinefile no longer describes
    #[arg(long)]
    leftovers: bool,
    /// Power off at once instead of asking the guest to shut down
    #[arg(long)]
    force: bool,
    /// Skip the `before "halt"` and `after "halt"` hooks
    #[arg(long)]
    no_hooks: bool,
}

pub(super) fn run(invocation: &Invocation, args: HaltArgs) -> Result<ExitCode, Failure> {
    let machines = ExistingMachines {
        selection: args.selection.into(),
        other_project: args.other_project.into(),
        leftovers: args.leftovers,
        no_hooks: args.no_hooks,
    };
    halt(invocation, &machines, args.force)
}
