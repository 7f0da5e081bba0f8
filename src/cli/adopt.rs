use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    failure::Failure,
    session::{
        adopt::{AdoptOptions, adopt},
        invocation::Invocation,
    },
};

#[derive(Args)]
pub struct AdoptArgs {
    /// Machines; none means all of the project that was moved
    #[arg(value_name = "MACHINE")]
    names: Vec<String>,
    /// The folder, or the Machinefile, that they were made from; may be left out where only one
    /// project of this name is gone
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
}

pub fn run(invocation: &Invocation, args: AdoptArgs) -> Result<ExitCode, Failure> {
    adopt(
        invocation,
        AdoptOptions {
            names: args.names,
            from: args.from,
        },
    )
}
