//! Waiting for SSH.

use std::time::Duration;

use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// Why waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// sshd answered.
    Ssh,
    TimedOut,
}

/// How long one connection may take to bring the banner. QEMU's user-mode network accepts on the
/// host at once and then tries the guest, with pauses that grow to many seconds; a new connection
/// is a new first try.
const PROBE: Duration = Duration::from_millis(700);

/// Between probes that the guest refused, which cost it next to nothing.
const PAUSE: Duration = Duration::from_millis(60);

/// Waits until the SSH server behind 127.0.0.1:`port` sends its banner. There is no event to
/// wait for: a guest says nothing to the host when its sshd listens.
pub async fn wait_for_banner(port: u16, limit: Duration) -> Reached {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Reached::TimedOut;
        }
        if probe_banner(port, PROBE.min(left)).await {
            return Reached::Ssh;
        }
        sleep(PAUSE).await;
    }
}

/// One try. RFC 4253 §4.2: the server's first line starts with `SSH-`.
pub async fn probe_banner(port: u16, limit: Duration) -> bool {
    let probe = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let mut start = [0u8; 4];
        stream.read_exact(&mut start).await.ok()?;
        (&start == b"SSH-").then_some(())
    };
    matches!(timeout(limit, probe).await, Ok(Some(())))
}
