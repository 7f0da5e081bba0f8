//! `stead through`: what rsync and scp run in place of ssh. The login shell reads nothing of their commands, and they
//! nothing of what the login prints.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;

use crate::{
    failure::Failure,
    guest::{MachineFiles, Remote, carry},
    host::runtime::runtime,
};

#[derive(Args)]
pub(super) struct ThroughArgs {
    /// Folder of the machine's files
    folder: PathBuf,
    /// Machine to run it in
    machine: String,
    /// Command, for a shell
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(super) fn run(args: ThroughArgs) -> Result<ExitCode, Failure> {
    let Some(files) = MachineFiles::in_folder(&args.folder) else {
        return Err(Failure::usage(
            "`stead through` is run by rsync and scp, and cannot be used by hand",
            "`stead sync`",
        ));
    };
    let remote = Remote {
        machine: args.machine,
        files,
    };
    // As ssh does it. Whoever runs this has quoted what has to be.
    let script = args.command.join(" ");
    let runtime = runtime()?;
    let (child, status) = match runtime.block_on(remote.start(&script))? {
        Ok(mut child) => {
            let streams = carry(
                &mut child,
                own(&io::stdin())?,
                own(&io::stdout())?,
                own(&io::stderr())?,
            );
            streams.map_err(|error| Failure::io("speak to ssh", &error))?;
            let status = runtime.block_on(child.wait());
            let status = status.map_err(|error| Failure::io("wait for ssh", &error))?;
            (Some(child), status)
        }
        Err(output) => {
            // Best effort: nobody may read it.
            let _ = own(&io::stderr())?.write_all(output.stderr.as_bytes());
            (None, output.status)
        }
    };
    drop(child);
    // A read of standard input may never end.
    runtime.shutdown_background();
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(u8::MAX),
    ))
}

fn own(stream: &impl AsFd) -> Result<File, Failure> {
    let stream = stream.as_fd().try_clone_to_owned();
    let stream = stream.map_err(|error| Failure::io("duplicate a stream", &error))?;
    Ok(File::from(stream))
}
