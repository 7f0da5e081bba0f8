//! `stead adopt`: takes over the machines of a project whose folder was moved.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    failure::Failure,
    session::{
        adopt::{AdoptOptions, adopt},
        invocation::Invocation,
    },
};

const EXAMPLES: &str = "\
Examples:
  stead adopt                    Take over the machines of the moved project
  stead adopt --from ~/old/shop  Name the folder that they were made from";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct AdoptArgs {
    /// Machines to take over [default: all of the moved project]
    #[arg(value_name = "MACHINE")]
    names: Vec<String>,
    /// Folder or Machinefile that they were made from [default: that of the only project of this
    /// name whose folder is gone]
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
}

pub(super) fn run(invocation: &Invocation, args: AdoptArgs) -> Result<ExitCode, Failure> {
    adopt(
        invocation,
        AdoptOptions {
            names: args.names,
            from: args.from,
        },
    )
}
