use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    session::{
        invocation::Invocation,
        provision::{ProvisionOptions, provision},
    },
};

use super::select::SelectionArgs;

#[derive(Args)]
pub struct ProvisionArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Run all of them again, but for those with run="never"
    #[arg(long, conflicts_with_all = ["only", "from"])]
    all: bool,
    /// Only this provisioner, whether it has run or not (may be repeated)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// This provisioner and those after it, whether they have run or not
    #[arg(long, value_name = "NAME", conflicts_with = "only")]
    from: Option<String>,
}

pub fn run(invocation: &Invocation, args: ProvisionArgs) -> Result<ExitCode, Failure> {
    provision(
        invocation,
        ProvisionOptions {
            selection: args.selection.into(),
            all: args.all,
            only: args.only,
            from: args.from,
        },
    )
}
