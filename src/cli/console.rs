//! `stead console`: types at a machine's serial console.

use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    session::{Detail, Session, console::console, invocation::Invocation},
};

use super::select::OtherProjectArgs;

const EXAMPLES: &str = "\
Examples:
  stead console web          Type at the console of web; Ctrl-] leaves it
  stead console web --force  Take it from whoever is at it";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConsoleArgs {
    /// Machine whose console to open [default: the project's only machine]
    #[arg(value_name = "MACHINE")]
    machine: Option<String>,
    /// Take the console from whoever is at it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

pub(super) fn run(invocation: &Invocation, args: ConsoleArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Existing)?;
    let quiet = invocation.style.quiet;
    console(&session, args.machine.as_deref(), args.force, quiet)?;
    Ok(ExitCode::SUCCESS)
}
