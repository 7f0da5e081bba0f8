//! `stead destroy`: removes machines and their disks.

use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    session::{destroy::destroy, existing::ExistingMachines, invocation::Invocation},
};

use super::select::{OtherProjectArgs, SelectionArgs};

const EXAMPLES: &str = "\
Examples:
  stead destroy            Remove all machines of the project
  stead destroy web --yes  Remove web without asking";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DestroyArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    other_project: OtherProjectArgs,
    /// Include machines of this project that its Machinefile no longer describes
    #[arg(long)]
    leftovers: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
    /// Skip the `before "destroy"` and `after "destroy"` hooks
    #[arg(long)]
    no_hooks: bool,
}

pub(super) fn run(invocation: &Invocation, args: DestroyArgs) -> Result<ExitCode, Failure> {
    let machines = ExistingMachines {
        selection: args.selection.into(),
        other_project: args.other_project.into(),
        leftovers: args.leftovers,
        no_hooks: args.no_hooks,
    };
    destroy(invocation, &machines, args.yes)
}
