//! What OpenSSH runs to get a connection: a machine's ssh_config names it.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::{
        fd::AsFd,
        unix::{fs::FileTypeExt, net::UnixStream},
    },
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use nix::unistd::getppid;
use tokio::net::TcpStream;

use crate::{
    failure::Failure,
    guest::{dial, hand_over, user_at_the_other_end},
    host::runtime::runtime,
    report::clean::words,
};

/// A guest that is on its way up is up by then.
const LIMIT: Duration = Duration::from_secs(120);

/// Whoever looks at a terminal is told after so long what is waited for.
const SILENT: Duration = Duration::from_secs(3);

#[derive(Args)]
pub struct DialArgs {
    /// Whom to speak of
    machine: String,
    /// Where its SSH server is, on 127.0.0.1
    port: u16,
    /// Take a connection only of a program of this user's, by number
    #[arg(long, hide = true)]
    of: Option<u32>,
}

pub fn run(args: DialArgs) -> Result<ExitCode, Failure> {
    let DialArgs { machine, port, of } = args;
    let machine = words(&machine);
    let Some(ssh) = ssh_socket() else {
        return Err(Failure::usage(
            "`stead dial` gives a connection to OpenSSH, which runs it",
            format!("`stead ssh {machine}`"),
        ));
    };
    let ended: io::Result<()> = runtime()?.block_on(async {
        ssh.set_nonblocking(true)?;
        let ssh = tokio::net::UnixStream::from_std(ssh)?;
        tokio::select! {
            connection = connect(&machine, port) => hand_over(checked(connection?, of)?, &ssh),
            // It sends nothing: it was killed, and nobody waits any more.
            _ = ssh.readable() => Ok(()),
        }
    });
    Ok(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever does not listen is not told.
            let text = no_answer(&machine, port, &error);
            let _ = speech_of_ssh().and_then(|mut to| to.write_all(text.as_bytes()));
            ExitCode::FAILURE
        }
    })
}

/// Where ssh takes the connection from: this program's standard output.
fn ssh_socket() -> Option<UnixStream> {
    let out = File::from(io::stdout().as_fd().try_clone_to_owned().ok()?);
    let is_socket = (out.metadata()).is_ok_and(|it| it.file_type().is_socket());
    is_socket.then(|| UnixStream::from(std::os::fd::OwnedFd::from(out)))
}

/// What has answered is QEMU's, or it is not spoken to.
fn checked(stream: TcpStream, of: Option<u32>) -> io::Result<TcpStream> {
    let Some(wanted) = of else { return Ok(stream) };
    match user_at_the_other_end(&stream)? {
        Some(user) if user == wanted => Ok(stream),
        user => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "user {} listens there, and the machine is one of user {wanted}",
                user.map_or("unknown".into(), |user| user.to_string())
            ),
        )),
    }
}

async fn connect(machine: &str, port: u16) -> io::Result<TcpStream> {
    let dialled = dial(port, LIMIT);
    tokio::pin!(dialled);
    tokio::select! {
        connection = &mut dialled => return connection,
        () = tokio::time::sleep(SILENT) => {}
    }
    if let Ok(mut to) = speech_of_ssh()
        && to.is_terminal()
    {
        let _ = writeln!(to, "{machine} does not answer yet; waiting for it");
    }
    dialled.await
}

/// Where ssh itself speaks. It takes stderr away from a ProxyCommand when a ControlMaster may come of the
/// connection, which would hold it open; nothing here stays.
fn speech_of_ssh() -> io::Result<File> {
    let path = format!("/proc/{}/fd/2", getppid());
    let open = |path: &str| File::options().append(true).open(path);
    open(&path).or_else(|_| match std::fs::read_link(&path) {
        // The terminal of a login may belong to who was before `su`.
        Ok(to) if to.starts_with("/dev/pts") => open("/dev/tty"),
        // No file that can be opened, such as a socket.
        _ => Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?)),
    })
}

fn no_answer(machine: &str, port: u16, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::TimedOut => format!(
            "no SSH server answers on 127.0.0.1:{port} in {} s",
            LIMIT.as_secs()
        ),
        _ => format!("127.0.0.1:{port}: {error}"),
    };
    format!(
        "error: {machine} cannot be reached: {why}\n\nhint: `stead logs {machine}` shows its console\n"
    )
}
