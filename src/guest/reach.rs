//! Waits for SSH.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::dial::{answered, hang_up};

/// How waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitResult {
    /// sshd answered.
    Ssh,
    TimedOut,
}

/// How long a connection may wait for the banner once the guest is on the network.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may wait before that. QEMU's user-mode network accepts a connection on the host at once and
/// retries the guest at ever longer intervals, so a new connection is needed now and then. But QEMU also
/// keeps connections that were closed here, and all of them reach the guest's sshd while it starts and is
/// busiest.
const EARLY: Duration = Duration::from_secs(3);

/// How often the network is told to lead to a guest that refuses.
const LED: Duration = Duration::from_secs(5);

/// The pause between probes that the guest refuses, which cost it next to nothing.
const PAUSE: Duration = Duration::from_millis(60);

/// Waits until the SSH server behind 127.0.0.1:`port` sends its banner. A guest does not tell the host
/// when its sshd listens, so this polls. `awake` ends when another sign shows that the guest has booted far
/// enough to be polled often.
pub async fn wait_for_banner(
    port: u16,
    limit: Duration,
    awake: impl Future<Output = ()>,
) -> WaitResult {
    tracing::debug!("waiting up to {limit:?} for SSH at 127.0.0.1:{port}");
    let reached = timeout(limit, banner(port, awake))
        .await
        .map_or(WaitResult::TimedOut, |()| WaitResult::Ssh);
    tracing::debug!("SSH at 127.0.0.1:{port}: {reached:?}");
    reached
}

/// As [`wait_for_banner`], where the network of the project leads to the guest. It goes on asking the guest by itself,
/// and the guest never sees a connection that is waited for no longer. So there is one at a time. `lost` is called when
/// nothing listens on the port.
pub async fn wait_for_led<F: Future<Output = ()>>(
    port: u16,
    limit: Duration,
    mut lost: impl FnMut() -> F,
) -> WaitResult {
    let banner = async {
        let mut told = Instant::now();
        loop {
            match answered(port).await {
                Ok(Some(stream)) => return hang_up(stream).await,
                Ok(None) if told.elapsed() < LED => {}
                // Nothing leads there, or no longer to this machine.
                Ok(None) | Err(_) => {
                    lost().await;
                    told = Instant::now();
                }
            }
            sleep(PAUSE).await;
        }
    };
    timeout(limit, banner)
        .await
        .map_or(WaitResult::TimedOut, |()| WaitResult::Ssh)
}

/// Whether the SSH server behind 127.0.0.1:`port` sends its banner within `limit`. Blocks until then.
pub fn answers_within(port: u16, limit: Duration) -> bool {
    let said = || {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.peek(&mut [0; 4])
    };
    said().is_ok_and(|bytes| bytes > 0)
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
    // A guest that has refused a connection is on the network, so it has accepted those that it does not
    // refuse.
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

    #[tokio::test]
    async fn one_look_tells_whether_it_answers() {
        let limit = Duration::from_millis(200);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let look = move || {
            tokio::spawn(crate::host::runtime::blocking(move || {
                answers_within(port, limit)
            }))
        };
        // The connection is not accepted, or closed.
        assert!(!look().await.unwrap().unwrap());
        drop(listener.accept().await.unwrap());
        let looked = look();
        drop(listener.accept().await.unwrap());
        assert!(!looked.await.unwrap().unwrap());
        let looked = look();
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        assert!(looked.await.unwrap().unwrap());
        drop(listener);
        assert!(!look().await.unwrap().unwrap());
    }

    /// Behaves like QEMU's user-mode network: at first a connection hangs, then connections are refused, then
    /// sshd is slow.
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
        assert_eq!(reached, WaitResult::Ssh);
        assert!(server.await.unwrap(), "one connection was not enough");
    }

    #[tokio::test]
    async fn where_the_network_leads_one_connection_is_waited_on() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            drop(listener.accept().await.unwrap());
            let (mut slow, _) = listener.accept().await.unwrap();
            let another = timeout(EARLY + Duration::from_secs(1), listener.accept()).await;
            slow.write_all(b"SSH-2.0-test\r\n").await.unwrap();
            another.is_err()
        });
        let reached = wait_for_led(port, Duration::from_secs(30), || async {}).await;
        assert_eq!(reached, WaitResult::Ssh);
        assert!(server.await.unwrap(), "one connection was not enough");
        // Nobody listens any more.
        let mut asked = 0;
        let lost = || {
            asked += 1;
            async {}
        };
        let reached = wait_for_led(port, Duration::from_millis(300), lost).await;
        assert_eq!(reached, WaitResult::TimedOut);
        assert!(asked > 0);
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
        assert_eq!(reached, WaitResult::TimedOut);
    }
}
