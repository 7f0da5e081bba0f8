//! Makes connections for OpenSSH, which gets them once an SSH server has answered.
//!
//! QEMU's user-mode network accepts a connection on the host at once, whether or not the guest is up, and
//! then retries the guest at ever longer intervals. ssh by itself takes that for a connection and waits:
//! after a reboot of the guest for a minute and more, long after sshd is back.

use std::{
    io::{self, IoSlice},
    net::{SocketAddr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

/// When another connection is tried.
struct Pace {
    /// After one that is still waiting for an answer. It keeps waiting beside the new one.
    waits: Duration,
    /// After one that the guest refused: the guest is on the network, but its sshd is not up.
    refused: Duration,
    /// How long a connection may wait: a busy guest is slow to send the first line.
    patience: Duration,
}

/// Where QEMU leads to the guest.
const BY_QEMU: Pace = Pace {
    waits: Duration::from_secs(3),
    refused: Duration::from_millis(100),
    patience: Duration::from_secs(15),
};

/// Where the project's network does. It goes on asking the guest by itself, so there is one connection at a time.
const BY_NETWORK: Pace = Pace {
    waits: Duration::MAX,
    refused: Duration::from_millis(100),
    patience: Duration::MAX,
};

/// How long to wait for the SSH server of a guest that nobody else waits for.
pub const DIAL_LIMIT: Duration = Duration::from_secs(120);

/// How long to wait for the end of a connection.
const END: Duration = Duration::from_secs(5);

/// How long to wait in silence before saying what the wait is for.
pub const SILENT: Duration = Duration::from_secs(3);

/// Returns a connection to 127.0.0.1:`port` on which an SSH server has sent the start of its banner. The
/// banner is peeked at, not consumed. `is_led`: whether the project's network leads to the guest, and not QEMU. `waits`
/// is called with a line for people if that takes seconds.
///
/// # Errors
/// If nothing listens on the port: QEMU does not run. `TimedOut` after `limit`.
pub async fn dial(
    machine: &str,
    port: u16,
    is_led: bool,
    limit: Duration,
    waits: impl FnOnce(&str),
) -> io::Result<TcpStream> {
    let pace = match is_led {
        true => &BY_NETWORK,
        false => &BY_QEMU,
    };
    let answer = within(port, limit, pace);
    tokio::pin!(answer);
    tokio::select! {
        connection = &mut answer => return connection,
        () = sleep(SILENT) => {}
    }
    waits(&format!(
        "{machine} does not answer yet; waiting for its SSH server\n"
    ));
    answer.await
}

/// Ends a connection that was only to show that the server is there, and waits until the server has ended it too: it never
/// has two that are not logged in.
pub async fn hang_up(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    // How it ends does not matter.
    let _ = timeout(END, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
}

/// Returns why [`dial`] failed, and what to do. `limit` is how long it took.
pub fn no_answer(machine: &str, port: u16, limit: Duration, error: &io::Error) -> (String, String) {
    let why = match error.kind() {
        io::ErrorKind::TimedOut => format!(
            "no SSH server answers on 127.0.0.1:{port} in {} s",
            limit.as_secs()
        ),
        _ => format!("127.0.0.1:{port}: {error}"),
    };
    (
        format!("{machine} cannot be reached: {why}"),
        format!(
            "`stead logs {machine}` shows its console, and `stead console {machine}` types at it"
        ),
    )
}

async fn within(port: u16, limit: Duration, pace: &Pace) -> io::Result<TcpStream> {
    timeout(limit, first_to_answer(port, pace))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn first_to_answer(port: u16, pace: &Pace) -> io::Result<TcpStream> {
    let mut tries = JoinSet::new();
    loop {
        tries.spawn(timeout(pace.patience, answered(port)));
        let mut pause = pace.waits;
        loop {
            let ended = tokio::select! {
                Some(ended) = tries.join_next() => ended,
                () = sleep(pause) => break,
            };
            match ended.map_err(io::Error::other)? {
                Ok(Ok(Some(stream))) => return Ok(stream),
                Ok(Ok(None)) => pause = pace.refused,
                Ok(Err(error)) => return Err(error),
                // This one timed out; later ones are still waiting.
                Err(_) => {}
            }
        }
    }
}

/// Makes one connection, and returns it once an SSH server has sent the start of its banner. `None` if the
/// guest closed it, or it is not an SSH server. RFC 4253 §4.2: the server's first line starts with `SSH-`.
pub(super) async fn answered(port: u16) -> io::Result<Option<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut start = [0; 4];
    let said = stream.peek(&mut start).await.unwrap_or(0);
    Ok((said > 0 && b"SSH-".starts_with(&start[..said])).then_some(stream))
}

/// Returns the uid of the program at the other end of a connection over 127.0.0.1 (proc_net_tcp(5)). It is
/// right once that program has sent something: until a connection is accepted, the kernel shows root.
/// `None` if the kernel does not list it.
pub fn user_at_the_other_end(stream: &TcpStream) -> io::Result<Option<u32>> {
    let (own, other) = (stream.local_addr()?, stream.peer_addr()?);
    let (SocketAddr::V4(own), SocketAddr::V4(other)) = (own, other) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string("/proc/net/tcp")?;
    Ok(user_of(&text, other, own))
}

/// Returns the uid of the socket that is bound to `local` and connected to `remote`.
fn user_of(table: &str, local: SocketAddrV4, remote: SocketAddrV4) -> Option<u32> {
    let written = |it: SocketAddrV4| {
        format!(
            "{:08X}:{:04X}",
            u32::from_ne_bytes(it.ip().octets()),
            it.port()
        )
    };
    let (local, remote) = (written(local), written(remote));
    (table.lines())
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.get(1) == Some(&&*local) && words.get(2) == Some(&&*remote))
        .and_then(|words| words.get(7)?.parse().ok())
}

/// Sends a connection over `to`, in the form that ssh_config(5) expects from a ProxyCommand with
/// ProxyUseFdpass: one byte, and with it the descriptor.
pub fn hand_over(stream: TcpStream, to: &impl AsFd) -> io::Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    sendmsg::<()>(
        to.as_fd().as_raw_fd(),
        &[IoSlice::new(&[0])],
        &[ControlMessage::ScmRights(&[stream.as_raw_fd()])],
        MsgFlags::empty(),
        None,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{IoSliceMut, Read},
        os::{fd::FromRawFd, unix::net::UnixStream},
    };

    use nix::sys::socket::{ControlMessageOwned, recvmsg};
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    async fn listen() -> (TcpListener, u16) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    /// Behaves like QEMU's user-mode network while a guest reboots.
    #[expect(unsafe_code, reason = "a descriptor comes as a number")]
    #[tokio::test]
    async fn the_first_that_answers_is_taken() {
        let (listener, port) = listen().await;
        tokio::spawn(async move {
            let _waits = listener.accept().await.unwrap();
            for _ in 0..3 {
                drop(listener.accept().await.unwrap());
            }
            let (mut slow, _) = listener.accept().await.unwrap();
            let _waits_too = listener.accept().await.unwrap();
            slow.write_all(b"SSH-2.0-slow\r\n").await.unwrap();
            std::future::pending::<()>().await;
        });
        let pace = Pace {
            waits: Duration::from_millis(20),
            refused: Duration::from_millis(1),
            patience: Duration::from_secs(60),
        };
        let stream = first_to_answer(port, &pace).await.unwrap();
        // The connection still has everything that the server sent.
        let (ours, theirs) = UnixStream::pair().unwrap();
        hand_over(stream, &ours).unwrap();
        let mut byte = [1];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!(std::os::fd::RawFd);
        let message = recvmsg::<()>(
            theirs.as_raw_fd(),
            &mut bytes,
            Some(&mut space),
            MsgFlags::empty(),
        )
        .unwrap();
        let Some(ControlMessageOwned::ScmRights(given)) = message.cmsgs().unwrap().next() else {
            panic!("no descriptor came");
        };
        assert_eq!(message.bytes, 1);
        // SAFETY: recvmsg has just created the descriptor in this process, and nothing else uses it.
        let mut stream = unsafe { std::net::TcpStream::from_raw_fd(given[0]) };
        let mut said = [0; 12];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"SSH-2.0-slow");
    }

    #[tokio::test]
    async fn whose_the_other_end_is_is_known() {
        let (listener, port) = listen().await;
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let _accepted = listener.accept().await.unwrap();
        let own = nix::unistd::geteuid().as_raw();
        assert_eq!(user_at_the_other_end(&stream).unwrap(), Some(own));
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n\
             1: 0100007F:5606 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1004        0 2 1\n";
        let at = |port| SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
        assert_eq!(user_of(table, at(22022), at(40000)), Some(1004));
        assert_eq!(user_of(table, at(40000), at(22022)), None);
        assert_eq!(user_of(table, at(22), at(40000)), None);
    }

    #[tokio::test]
    async fn nobody_there_is_known_at_once() {
        let (listener, port) = listen().await;
        drop(listener);
        let error = dial("web", port, false, DIAL_LIMIT, |_| ())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_guest_that_never_answers_is_given_up() {
        let (_listener, port) = listen().await;
        let error = within(port, Duration::from_millis(50), &BY_QEMU)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
