use std::{io::IsTerminal, process::ExitCode};

use clap::Args;

use crate::{
    failure::Failure,
    host::shell::shell_quote,
    report::stdio,
    session::{Looks, Session, handover::replace, invocation::Invocation},
};

use super::select::ElsewhereArgs;

#[derive(Args)]
pub struct ExecArgs {
    /// Machine to run it in; may be left out where the project has only one
    #[arg(value_name = "MACHINE")]
    machine: Option<String>,
    /// No terminal in the guest, even if there is one here
    #[arg(short = 'T', long)]
    no_tty: bool,
    /// The command and its arguments, which reach the guest word by word
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
}

pub fn run(invocation: &Invocation, args: ExecArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(invocation, &args.elsewhere.into(), Looks::There)?;
    let (_, remote) = session.reachable(args.machine.as_deref())?;
    let mut ssh = remote.ssh();
    let terminal = !args.no_tty && std::io::stdin().is_terminal() && stdio::stdout_is_terminal();
    ssh.arg(if terminal { "-t" } else { "-T" });
    // sshd joins the words with spaces and gives them to a shell: quoted, they stay words.
    let words: Vec<String> = args.command.iter().map(|word| shell_quote(word)).collect();
    ssh.arg(&remote.machine).arg(words.join(" "));
    Err(replace(ssh))
}
