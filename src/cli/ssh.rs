use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    session::{Looks, Session, handover::replace, invocation::Invocation},
};

use super::select::ElsewhereArgs;

#[derive(Args)]
pub struct SshArgs {
    /// Machine to log in to; may be left out where the project has only one
    #[arg(value_name = "MACHINE")]
    machine: Option<String>,
    /// Run this command line in the guest's shell instead of logging in
    #[arg(
        short = 'c',
        long = "command",
        value_name = "COMMAND",
        conflicts_with = "words"
    )]
    command: Option<String>,
    /// The same, word after word; the guest's shell sees them joined by spaces
    #[arg(last = true, value_name = "COMMAND")]
    words: Vec<String>,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
}

pub fn run(invocation: &Invocation, args: SshArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.elsewhere.into(), Looks::There)?;
    let (_, remote) = session.reachable(args.machine.as_deref())?;
    let mut ssh = remote.ssh();
    ssh.arg(&remote.machine);
    ssh.args(&args.command).args(&args.words);
    Err(replace(ssh))
}
