use std::{os::unix::process::CommandExt, process::ExitCode};

use clap::Args;

use super::{
    Failure, Global,
    belonging::Elsewhere,
    session::{Looks, Session},
};

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
    elsewhere: Elsewhere,
}

pub fn run(global: &Global, args: SshArgs) -> Result<ExitCode, Failure> {
    let session = Session::of_machines(global, &args.elsewhere, Looks::There)?;
    let (_, remote) = session.reachable(args.machine.as_deref())?;
    let mut ssh = remote.ssh();
    ssh.arg(&remote.machine);
    ssh.args(&args.command).args(&args.words);
    Err(replace(ssh))
}

/// Becomes `command`: its standard streams, terminal and exit code are the user's own.
pub fn replace(mut command: std::process::Command) -> Failure {
    let program = command.get_program().to_string_lossy().into_owned();
    let error = command.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        Failure::error(
            format!("{program} is not installed"),
            "install it (Debian: `apt install openssh-client`)",
        )
    } else {
        Failure::io(format!("run {program}"), &error)
    }
}
