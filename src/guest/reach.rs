//! Waiting for SSH.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::dial::answered;

/// Why waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// sshd answered.
    Ssh,
    TimedOut,
}

/// How long a connection may take to bring the banner once the guest is on the network.
const PATIENCE: Duration = Duration::from_secs(10);

/// And before that. QEMU's user-mode network accepts on the host at once and tries the guest ever
/// more seldom, so now and then a new connection has to be made; but it does not forget those that
/// were given up here, and all of them reach the guest's sshd when that is busiest, with its start.
const EARLY: Duration = Duration::from_secs(3);

/// Between probes that the guest refused, which cost it next to nothing.
const PAUSE: Duration = Duration::from_millis(60);

/// Waits until the SSH server behind 127.0.0.1:`port` sends its banner. A guest says nothing to the
/// host when its sshd listens, so it is tried; `awake` ends when something else tells that the
/// guest is far enough for trying it often.
pub async fn wait_for_banner(
    port: u16,
    limit: Duration,
    awake: impl Future<Output = ()>,
) -> Reached {
    timeout(limit, banner(port, awake))
        .await
        .map_or(Reached::TimedOut, |()| Reached::Ssh)
}

async fn banner(port: u16, awake: impl Future<Output = ()>) {
    let early = async {
        loop {
            match timeout(EARLY, probe(port)).await {
                Ok(found) => return Some(found),
                Err(_) => sleep(PAUSE).await,
            }
        }
    };
    let found = tokio::select! {
        found = early => found,
        () = awake => None,
    };
    if found == Some(Probe::Banner) {
        return;
    }
    // A guest that has refused is on the network, and so what it does not refuse it has accepted.
    loop {
        match timeout(PATIENCE, probe(port)).await {
            Ok(Probe::Banner) => return,
            _ => sleep(PAUSE).await,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Banner,
    Refused,
}

async fn probe(port: u16) -> Probe {
    match answered(port).await {
        Ok(Some(_)) => Probe::Banner,
        _ => Probe::Refused,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    /// As QEMU's user-mode network does: at first it hangs, then it refuses, then sshd takes its
    /// time.
    #[tokio::test]
    async fn a_slow_banner_is_waited_for_on_one_connection() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (wake, woken) = tokio::sync::oneshot::channel();
        let server = tokio::spawn(async move {
            let _hanging = listener.accept().await.unwrap();
            wake.send(()).unwrap();
            for _ in 0..3 {
                drop(listener.accept().await.unwrap());
            }
            let (mut slow, _) = listener.accept().await.unwrap();
            let another = timeout(Duration::from_secs(1), listener.accept()).await;
            slow.write_all(b"SSH-2.0-test\r\n").await.unwrap();
            another.is_err()
        });
        let awake = async {
            let _ = woken.await;
        };
        let reached = wait_for_banner(port, Duration::from_secs(30), awake).await;
        assert_eq!(reached, Reached::Ssh);
        assert!(server.await.unwrap(), "one connection was not enough");
    }

    #[tokio::test]
    async fn what_is_no_ssh_server_runs_into_the_time_out() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(b"220 smtp\r\n").await;
            }
        });
        let reached =
            wait_for_banner(port, Duration::from_millis(300), std::future::pending()).await;
        assert_eq!(reached, Reached::TimedOut);
    }
}
