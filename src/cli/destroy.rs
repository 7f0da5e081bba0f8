use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    session::{
        destroy::{DestroyOptions, destroy},
        invocation::Invocation,
    },
};

use super::select::{ElsewhereArgs, SelectionArgs};

#[derive(Args)]
pub struct DestroyArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
    /// Take also machines of this project that its Machinefile does not name any more
    #[arg(long)]
    leftovers: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Leave out what `before "destroy"` and `after "destroy"` say
    #[arg(long)]
    no_hooks: bool,
}

pub fn run(invocation: &Invocation, args: DestroyArgs) -> Result<ExitCode, Failure> {
    destroy(
        invocation,
        DestroyOptions {
            selection: args.selection.into(),
            elsewhere: args.elsewhere.into(),
            leftovers: args.leftovers,
            yes: args.yes,
            no_hooks: args.no_hooks,
        },
    )
}
