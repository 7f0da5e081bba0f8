//! `stead restart`: halts machines and starts them again.

use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    session::{
        invocation::Invocation,
        restart::{RestartOptions, restart},
    },
};

use super::select::SelectionArgs;

const EXAMPLES: &str = "\
Examples:
  stead restart      Restart all machines
  stead restart web  Restart web, with changes of its Machinefile";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RestartArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Power off at once instead of asking the guest to shut down
    #[arg(long)]
    force: bool,
    /// Skip the `before` and `after` hooks of "halt" and "up"
    #[arg(long)]
    no_hooks: bool,
    /// Number of machines that shut down and boot at the same time [default: as many as the host has CPUs and
    /// memory for]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

pub(super) fn run(invocation: &Invocation, args: RestartArgs) -> Result<ExitCode, Failure> {
    restart(
        invocation,
        RestartOptions {
            selection: args.selection.into(),
            force: args.force,
            no_hooks: args.no_hooks,
            jobs: args.jobs,
        },
    )
}
