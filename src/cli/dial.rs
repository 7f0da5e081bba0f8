//! `stead dial`: the ProxyCommand in a machine's ssh_config, through which OpenSSH connects.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::{
        fd::AsFd,
        unix::{fs::FileTypeExt, net::UnixStream},
    },
    process::ExitCode,
};

use clap::Args;
use nix::unistd::getppid;
use tokio::net::TcpStream;

use crate::{
    failure::Failure,
    guest::{DIAL_LIMIT, dial, hand_over, no_answer, user_at_the_other_end},
    host::runtime::{blocking, runtime},
    report::clean::words,
    session::{invocation::Invocation, networks},
};

#[derive(Args)]
pub(super) struct DialArgs {
    /// Machine to name in messages
    machine: String,
    /// Port of 127.0.0.1 that leads to its SSH server
    port: u16,
    /// Connect only if the server's process has this user ID
    #[arg(long, hide = true)]
    of: Option<u32>,
    /// Domain of the machine, if the network of its project leads to it
    #[arg(long, hide = true)]
    domain: Option<String>,
}

pub(super) fn run(args: DialArgs, invocation: &Invocation) -> Result<ExitCode, Failure> {
    let DialArgs {
        machine,
        port,
        of,
        domain,
    } = args;
    let machine = words(&machine);
    let Some(ssh) = ssh_socket() else {
        return Err(Failure::usage(
            "`stead dial` is run by OpenSSH, and cannot be used by hand",
            format!("`stead ssh {machine}`"),
        ));
    };
    let ended: io::Result<()> = runtime()?.block_on(async {
        ssh.set_nonblocking(true)?;
        let ssh = tokio::net::UnixStream::from_std(ssh)?;
        tokio::select! {
            connection = reach(invocation, &machine, port, domain) => hand_over(checked(connection?, of)?, &ssh),
            // The sender is gone without a result: it was killed, and nothing waits any longer.
            _ = ssh.readable() => Ok(()),
        }
    });
    Ok(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Best effort: stderr may be closed.
            let (message, hint) = no_answer(&machine, port, DIAL_LIMIT, &error);
            let text = format!("error: {message}\n\nhint: {hint}\n");
            let _ = speech_of_ssh().and_then(|mut to| to.write_all(text.as_bytes()));
            ExitCode::FAILURE
        }
    })
}

/// Returns a connection. If nothing leads to the machine, the network of its project is told to.
async fn reach(
    invocation: &Invocation,
    machine: &str,
    port: u16,
    domain: Option<String>,
) -> io::Result<TcpStream> {
    let is_led = domain.is_some();
    let dialled = dial(machine, port, is_led, DIAL_LIMIT, tell_terminal).await;
    match (dialled, domain) {
        (Err(error), Some(domain)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let invocation = invocation.clone();
            let revived = blocking(move || networks::lead_again(&invocation, &domain)).await;
            match revived {
                Ok(true) => dial(machine, port, is_led, DIAL_LIMIT, tell_terminal).await,
                _ => Err(error),
            }
        }
        (dialled, _) => dialled,
    }
}

/// The socket through which ssh receives the connection: this program's standard output.
fn ssh_socket() -> Option<UnixStream> {
    let out = File::from(io::stdout().as_fd().try_clone_to_owned().ok()?);
    let is_socket = (out.metadata()).is_ok_and(|it| it.file_type().is_socket());
    is_socket.then(|| UnixStream::from(std::os::fd::OwnedFd::from(out)))
}

/// Fails unless the process that answered belongs to the user whose QEMU runs the machine.
fn checked(stream: TcpStream, of: Option<u32>) -> io::Result<TcpStream> {
    let Some(wanted) = of else { return Ok(stream) };
    match user_at_the_other_end(&stream)? {
        Some(user) if user == wanted => Ok(stream),
        user => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "a process of user {} listens there, but the machine belongs to user {wanted}",
                user.map_or("unknown".into(), |user| user.to_string())
            ),
        )),
    }
}

fn tell_terminal(line: &str) {
    if let Ok(mut to) = speech_of_ssh()
        && to.is_terminal()
    {
        // Best effort: the terminal may be gone.
        let _ = to.write_all(line.as_bytes());
    }
}

/// The stderr of ssh itself. When the connection may become a ControlMaster, ssh gives its
/// ProxyCommand no stderr, because a lasting process would hold it open. This one does not last. It is opened again, so
/// in a regular file ssh may write over these words; `stead ssh` and `stead exec` dial before they run ssh.
fn speech_of_ssh() -> io::Result<File> {
    let path = format!("/proc/{}/fd/2", getppid());
    let open = |path: &str| File::options().append(true).open(path);
    open(&path).or_else(|_| match std::fs::read_link(&path) {
        // After `su`, the terminal may belong to the user who logged in.
        Ok(to) if to.starts_with("/dev/pts") => open("/dev/tty"),
        // A socket, for example, which cannot be opened by its path.
        _ => Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?)),
    })
}
