//! `stead up`: makes, starts and provisions machines.

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

const EXAMPLES: &str = "\
Examples:
  stead up                     Start all machines
  stead up web --no-provision  Start web, and what it depends on; skip provisioners";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct UpArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Skip provisioners
    #[arg(long, conflicts_with = "provision")]
    no_provision: bool,
    /// Run all provisioners again, except those with run="never"
    #[arg(long)]
    provision: bool,
    /// Skip the `before "up"` and `after "up"` hooks
    #[arg(long)]
    no_hooks: bool,
    /// Fail instead of changing Machinefile.lock
    #[arg(long)]
    locked: bool,
    /// Number of machines that boot at the same time [default: as many as the host has CPUs and
    /// memory for]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

pub(super) fn run(invocation: &Invocation, args: UpArgs) -> Result<ExitCode, Failure> {
    up(
        invocation,
        UpOptions {
            selection: args.selection.into(),
            no_provision: args.no_provision,
            provision: args.provision,
            no_hooks: args.no_hooks,
            locked: args.locked,
            jobs: args.jobs,
        },
    )
}
