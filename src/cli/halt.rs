use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    session::{
        halt::{HaltOptions, halt},
        invocation::Invocation,
    },
};

use super::select::{ElsewhereArgs, SelectionArgs};

#[derive(Args)]
pub struct HaltArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
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

pub fn run(invocation: &Invocation, args: HaltArgs) -> Result<ExitCode, Failure> {
    halt(
        invocation,
        HaltOptions {
            selection: args.selection.into(),
            elsewhere: args.elsewhere.into(),
            leftovers: args.leftovers,
            force: args.force,
            no_hooks: args.no_hooks,
        },
    )
}
