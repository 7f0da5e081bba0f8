//! Knows whether a machine can be reached, by an SSH connection that is held open and does nothing. When
//! the machine reboots, halts or crashes, the connection ends at once, so nothing needs to be polled.

use std::time::Duration;

use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStdout},
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use uuid::Uuid;

use crate::{
    guest::Remote,
    host::{
        lock::{self, Lock, LockName, holder},
        paths::DataDir,
    },
};

/// Pauses between tries to reach a machine that cannot be reached.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The command in the guest: waits for this side to close the connection.
const HERE: &str = "exec cat";

pub(super) struct Presence {
    remote: Remote,
    data: DataDir,
    /// The machine, whose lock commands hold that work on it.
    machine: Uuid,
    /// The number of the connection, counted from 1; 0 while there is none.
    here: watch::Sender<u64>,
    lost: Notify,
}

impl Presence {
    pub(super) fn new(remote: Remote, data: DataDir, machine: Uuid) -> Self {
        Presence {
            remote,
            data,
            machine,
            here: watch::channel(0).0,
            lost: Notify::new(),
        }
    }

    pub(super) fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Receives the number of the current connection; 0 for none.
    pub(super) fn receiver(&self) -> watch::Receiver<u64> {
        self.here.subscribe()
    }

    /// For a sender that finds that the machine does not answer: ends the connection.
    pub(super) fn report_lost(&self) {
        self.lost.notify_one();
    }

    /// Keeps a connection open, for ever. Whenever there is none, `away` is called once with the reason.
    pub(super) async fn keep(&self, away: impl Fn(&str)) {
        let mut pause = FIRST_PAUSE;
        let mut generation = 0;
        let mut reported = false;
        loop {
            self.wait_for_work().await;
            match self.connect().await {
                Ok(mut child) => {
                    generation += 1;
                    pause = FIRST_PAUSE;
                    // A report about the previous connection is out of date.
                    let _ = timeout(Duration::ZERO, self.lost.notified()).await;
                    self.here.send_replace(generation);
                    tokio::select! {
                        // The guest sends nothing until the end.
                        _ = ended(child.stdout.take()) => {}
                        () = self.lost.notified() => {}
                    }
                    self.here.send_replace(0);
                    let _ = child.start_kill();
                    let _ = child.wait().await;
                    away("the connection ended");
                    reported = true;
                }
                Err(said) => {
                    if !reported {
                        away(&said);
                        reported = true;
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits while a command works on the machine. It may be booting the machine, and early connections
    /// make a boot slower.
    async fn wait_for_work(&self) {
        let locks = self.data.locks();
        let name = LockName::Machine(self.machine);
        if lock::path(&locks, name).exists() {
            // It takes a thread for that time. If waiting fails, the connection is tried anyway.
            let _ = lock::wait_async(&locks, name).await;
        }
    }

    async fn connect(&self) -> Result<Child, String> {
        if !self.remote.ssh_config().exists() {
            return Err("it does not exist".into());
        }
        match self.remote.start_bounded(HERE).await {
            Ok(Ok(child)) => Ok(child),
            Ok(Err(output)) => Err(why(&output.last_words())),
            Err(error) => Err(error.to_string()),
        }
    }
}

async fn ended(out: Option<ChildStdout>) {
    let mut byte = [0; 64];
    if let Some(mut out) = out {
        while matches!(out.read(&mut byte).await, Ok(n) if n > 0) {}
    }
}

/// Returns why there is no connection, from the output of `stead dial` and ssh.
fn why(said: &str) -> String {
    if said.contains("Connection refused") {
        return "it is off".into();
    }
    let dialled = said.lines().find_map(|line| line.strip_prefix("error: "));
    match dialled.or_else(|| said.lines().last()) {
        Some(line) => line.trim().to_string(),
        None => "it does not answer".into(),
    }
}

/// Takes the lock that keeps two syncs of one machine from deleting each other's unfinished files. Waits
/// while another process holds it.
pub async fn hold_sync(data: &DataDir, machine: Uuid, what: &str) -> std::io::Result<Lock> {
    Lock::acquire_async(&data.locks(), LockName::Sync(machine), &holder(what)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_there_is_no_connection_is_said_in_a_line() {
        let off = "error: web cannot be reached: 127.0.0.1:22022: Connection refused (os error 111)\n\
             hint: `stead logs web` shows its console\nproxy dialer did not pass back a connection\r\n";
        assert_eq!(why(off), "it is off");
        let hangs = "error: web cannot be reached: no SSH server answers on 127.0.0.1:22022 in 120 s\n\
             hint: `stead logs web` shows its console\nproxy dialer did not pass back a connection\r\n";
        assert_eq!(
            why(hangs),
            "web cannot be reached: no SSH server answers on 127.0.0.1:22022 in 120 s"
        );
        let denied = "stead@127.0.0.1: Permission denied (publickey).\r\n";
        assert_eq!(
            why(denied),
            "stead@127.0.0.1: Permission denied (publickey)."
        );
        assert_eq!(why(""), "it does not answer");
    }
}
