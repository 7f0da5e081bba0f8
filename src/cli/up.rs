use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    session::{
        invocation::Invocation,
        up::{UpOptions, up},
    },
};

use super::select::SelectionArgs;

#[derive(Args)]
pub struct UpArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Do not run provisioners
    #[arg(long, conflicts_with = "provision")]
    no_provision: bool,
    /// Run every provisioner again, but for those with run="never"
    #[arg(long)]
    provision: bool,
    /// Leave out what `before "up"` and `after "up"` say
    #[arg(long)]
    no_hooks: bool,
    /// Fail instead of changing Machinefile.lock
    #[arg(long)]
    locked: bool,
}

pub fn run(invocation: &Invocation, args: UpArgs) -> Result<ExitCode, Failure> {
    up(
        invocation,
        UpOptions {
            selection: args.selection.into(),
            no_provision: args.no_provision,
            provision: args.provision,
            no_hooks: args.no_hooks,
            locked: args.locked,
        },
    )
}
