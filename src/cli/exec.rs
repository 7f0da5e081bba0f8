//! `stead exec`: runs a command in a machine.

use std::{ffi::OsString, io::IsTerminal, process::ExitCode};

use clap::Args;

use crate::{
    failure::Failure,
    guest::{UserCommand, terminal_command},
    report::stdio,
    session::{
        Detail, Session,
        handover::replace,
        invocation::Invocation,
        jobs::{JobStart, Jobs},
    },
};

use super::{
    output,
    select::OtherProjectArgs,
    ssh::{answering, as_ssh, at_terminal, put_clock_right, without_terminal},
};

const EXAMPLES: &str = "\
Examples:
  stead exec web -- ls -l /srv           Run a command in web
  stead exec -- uname -r                 Run a command in the project's only machine
  stead exec db -- psql shop <dump.sql   Give it input, of which what it does not read is left
  stead exec --detach web -- make check  Start it as a job, and print the job's name";

/// A shell's exit code where there is no such command.
const NO_COMMAND: u8 = 127;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExecArgs {
    /// Machine to run it in [default: the project's only machine]
    #[arg(value_name = "MACHINE")]
    machine: Option<String>,
    /// Allocate no terminal in the guest
    #[arg(short = 'T', long)]
    no_tty: bool,
    /// Start the command as a job, which goes on without stead and has no input; print the job's name, for `stead job`
    #[arg(short, long)]
    detach: bool,
    /// Command and its arguments; each argument reaches the guest unchanged
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    #[command(flatten)]
    other_project: OtherProjectArgs,
}

pub(super) fn run(invocation: &Invocation, args: ExecArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.other_project.into(), Detail::Existing)?;
    let (machine, style) = (args.machine.as_deref(), invocation.style);
    let command = UserCommand::Words(&args.command);
    if args.detach {
        return match detach(invocation, &session, machine, &args.command) {
            Err(failure @ Failure::Error { .. }) => Err(as_ssh(&failure, style)),
            detached => detached,
        };
    }
    let terminal = !args.no_tty && std::io::stdin().is_terminal() && stdio::stdout_is_terminal();
    if !terminal {
        return without_terminal(&session, machine, command, style);
    }
    let remote = answering(&session, machine, style)?;
    let mut ssh = at_terminal(&remote);
    ssh.args(["-t", "--", &remote.machine]);
    ssh.arg(terminal_command(command));
    Err(replace(ssh, 1))
}

fn detach(
    invocation: &Invocation,
    session: &Session,
    machine: Option<&str>,
    command: &[OsString],
) -> Result<ExitCode, Failure> {
    let (observed, remote) = session.reachable(machine)?;
    put_clock_right(session, &observed, &remote, invocation.style);
    let jobs = Jobs {
        session,
        observed: &observed,
        remote: &remote,
    };
    match jobs.start(command)? {
        JobStart::NoCommand(said) => {
            stdio::talk(&said);
            return Ok(ExitCode::from(NO_COMMAND));
        }
        JobStart::Runs(job) if invocation.style.json => {
            let started = serde_json::json!({ "machine": remote.machine, "job": job.to_string() });
            output::json(&started)?;
        }
        JobStart::Runs(job) => output::data(&format!("{job}\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}
