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

#[derive(Args)]
pub struct RestartArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Pull the plug instead of asking the guest to shut down
    #[arg(long)]
    force: bool,
    /// Leave out what `before` and `after` say of "halt" and "up"
    #[arg(long)]
    no_hooks: bool,
}

pub fn run(invocation: &Invocation, args: RestartArgs) -> Result<ExitCode, Failure> {
    restart(
        invocation,
        RestartOptions {
            selection: args.selection.into(),
            force: args.force,
            no_hooks: args.no_hooks,
        },
    )
}
