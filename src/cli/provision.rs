//! `stead provision`: runs provisioners again.

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

const EXAMPLES: &str = "\
Examples:
  stead provision                 Run what is new or has changed
  stead provision web --only app  Run provisioner app again in web";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ProvisionArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Run all provisioners again, except those with run="never"
    #[arg(long, conflicts_with_all = ["only", "from"])]
    all: bool,
    /// Run only this provisioner, even if it has run before; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Run this provisioner and all after it, even if they have run before
    #[arg(long, value_name = "NAME", conflicts_with = "only")]
    from: Option<String>,
}

pub(super) fn run(invocation: &Invocation, args: ProvisionArgs) -> Result<ExitCode, Failure> {
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
