//! `stead ssh`: logs in to a machine.

use std::process::ExitCode;

use clap::Args;

use crate::{
    failure::Failure,
    guest::{Remote, SSH_FAILED},
    report::{Style, say},
    session::{
        Detail, Session,
        handover::replace,
        invocation::Invocation,
        reach::{see_to_clock, wait_for_answer},
    },
};

use super::{render::render, select::OtherProjectArgs};

const EXAMPLES: &str = "\
Examples:
  stead ssh web                     Log in to web
  stead ssh web -c 'cd /srv && ls'  Run a command line in web";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SshArgs {
    /// Machine to log in to [default: the project's only machine]
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
    /// The same as words: they are joined by spaces and given to the guest's shell
    #[arg(last = true, value_name = "COMMAND")]
    words: Vec<String>,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

pub(super) fn run(invocation: &Invocation, args: SshArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Existing)?;
    let remote = answering(&session, args.machine.as_deref(), invocation.style)?;
    let mut ssh = remote.ssh();
    ssh.arg(&remote.machine);
    ssh.args(&args.command).args(&args.words);
    let typed = args.command.iter().count() + args.words.len();
    Err(replace(ssh, typed))
}

/// Returns a running machine whose SSH server answers. If it does not answer, the command exits as ssh does.
pub(super) fn answering(
    session: &Session,
    name: Option<&str>,
    style: Style,
) -> Result<Remote, Failure> {
    let (observed, remote) = session.reachable(name)?;
    if let Err(failure) = wait_for_answer(session, &observed, &remote) {
        render(&failure, style);
        return Err(Failure::Reported(
            u8::try_from(SSH_FAILED).unwrap_or(u8::MAX),
        ));
    }
    if let Some(words) = see_to_clock(session, &observed, &remote) {
        say(style, &format!("{}: {words}", remote.machine));
    }
    Ok(remote)
}
