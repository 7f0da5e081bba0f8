//! `stead exec`: runs a command in a machine.

use std::{io::IsTerminal, process::ExitCode};

use clap::Args;

use crate::{
    failure::Failure,
    host::shell::shell_quote,
    report::stdio,
    session::{Detail, Session, handover::replace, invocation::Invocation},
};

use super::{select::OtherProjectArgs, ssh::answering};

const EXAMPLES: &str = "\
Examples:
  stead exec web -- ls -l /srv  Run a command in web
  stead exec -- uname -r        Run a command in the project's only machine";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExecArgs {
    /// Machine to run it in [default: the project's only machine]
    #[arg(value_name = "MACHINE")]
    machine: Option<String>,
    /// Allocate no terminal in the guest
    #[arg(short = 'T', long)]
    no_tty: bool,
    /// Command and its arguments; each argument reaches the guest unchanged
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

pub(super) fn run(invocation: &Invocation, args: ExecArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Existing)?;
    let remote = answering(&session, args.machine.as_deref(), invocation.style)?;
    let mut ssh = remote.ssh();
    let terminal = !args.no_tty && std::io::stdin().is_terminal() && stdio::stdout_is_terminal();
    ssh.arg(if terminal { "-t" } else { "-T" });
    // sshd joins the words with spaces and gives them to a shell, so each word is quoted.
    let words: Vec<String> = args.command.iter().map(|word| shell_quote(word)).collect();
    ssh.arg(&remote.machine).arg(words.join(" "));
    Err(replace(ssh, 1))
}
