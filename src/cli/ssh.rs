//! `stead ssh`: logs in to a machine.

use std::{
    ffi::{OsStr, OsString},
    process::{Command, ExitCode},
};

use clap::Args;

use crate::{
    failure::Failure,
    guest::{Remote, SSH_FAILED, UserCommand, terminal_name},
    machine::Observed,
    report::{Style, say},
    session::{
        Detail, Session,
        exec::{ExecEnd, Streams, exec},
        handover::replace,
        invocation::Invocation,
        reach::{see_to_clock, wait_for_answer},
    },
};

use super::{render::render, select::OtherProjectArgs};

const EXAMPLES: &str = "\
Examples:
  stead ssh web                     Log in to web
  stead ssh web -c 'cd /srv && ls'  Run a command line in web
  stead ssh web -- -A               Give OpenSSH an option: lend your agent";

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
    command: Option<OsString>,
    /// Options for OpenSSH, which then gets a connection of its own, and a command; without options, the command's words
    /// are joined by spaces and given to the guest's shell
    #[arg(last = true, value_name = "OPTION|COMMAND")]
    words: Vec<OsString>,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

pub(super) fn run(invocation: &Invocation, args: SshArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Existing)?;
    let (machine, style) = (args.machine.as_deref(), invocation.style);
    let is_option = |word: &OsString| word.as_encoded_bytes().starts_with(b"-");
    let has_options = args.words.first().is_some_and(is_option);
    let line = match args.command {
        Some(line) => Some(line),
        None if !args.words.is_empty() && !has_options => Some(args.words.join(OsStr::new(" "))),
        None => None,
    };
    if let Some(line) = line {
        return without_terminal(&session, machine, UserCommand::Line(&line), style);
    }
    let remote = answering(&session, machine, style)?;
    let mut ssh = at_terminal(&remote);
    if has_options {
        // The shared connection has its agent, display and ports already, which are none.
        ssh.args(["-S", "none"]);
        if args
            .words
            .iter()
            .any(|word| names_agent(&word.to_string_lossy()))
        {
            ssh.args(["-o", "IdentityAgent=SSH_AUTH_SOCK"]);
        }
    }
    // ssh takes options behind the host, too.
    ssh.arg(&remote.machine).args(&args.words);
    Err(replace(ssh, args.words.len()))
}

/// Whether a word may be an option that leads the user's agent into the guest.
fn names_agent(word: &str) -> bool {
    let is_option = word.starts_with('-') && word.contains('A');
    is_option || word.to_ascii_lowercase().contains("forwardagent")
}

/// Returns `ssh` for the user's terminal, to which the caller adds the rest.
pub(super) fn at_terminal(remote: &Remote) -> Command {
    let mut ssh = remote.ssh();
    let name = std::env::var("TERM").unwrap_or_default();
    if let Some(name) = terminal_name(&name) {
        ssh.env("TERM", name);
    }
    ssh
}

/// Runs a command that has the streams of this process. If it cannot be run, the exit code is that of ssh.
pub(super) fn without_terminal(
    session: &Session,
    machine: Option<&str>,
    command: UserCommand<'_>,
    style: Style,
) -> Result<ExitCode, Failure> {
    let (observed, remote) = session.reachable(machine)?;
    put_clock_right(session, &observed, &remote, style);
    match exec(session, &observed, &remote, command, Streams::own()?)? {
        ExecEnd::Code(code) => Ok(ExitCode::from(code)),
        ExecEnd::Failed(failure) => Err(as_ssh(&failure, style)),
    }
}

/// Reports a failure, after which the exit code is that of ssh's own.
pub(super) fn as_ssh(failure: &Failure, style: Style) -> Failure {
    render(failure, style);
    Failure::Reported(u8::try_from(SSH_FAILED).unwrap_or(u8::MAX))
}

/// Returns a running machine whose SSH server answers. If it does not answer, the command exits as ssh does.
pub(super) fn answering(
    session: &Session,
    name: Option<&str>,
    style: Style,
) -> Result<Remote, Failure> {
    let (observed, remote) = session.reachable(name)?;
    if let Err(failure) = wait_for_answer(session, &observed, &remote) {
        return Err(as_ssh(&failure, style));
    }
    put_clock_right(session, &observed, &remote, style);
    Ok(remote)
}

pub(super) fn put_clock_right(
    session: &Session,
    observed: &Observed,
    remote: &Remote,
    style: Style,
) {
    if let Some(words) = see_to_clock(session, observed, remote) {
        say(style, &format!("{}: {words}", remote.machine));
    }
}
