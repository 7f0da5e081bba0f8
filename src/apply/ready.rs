//! The step that checks whether a machine is ready.

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::{
    guest::{Remote, SSH_FAILED},
    host::shell::shell_quote,
    machine::{Running, mark_of_checks},
};

use super::{
    error::ApplyError,
    steps::{Steps, blocking},
};

impl Steps<'_> {
    pub(super) async fn ready(&self) -> Result<(), ApplyError> {
        let ready = &self.job.wanted.machine.ready;
        let limit = ready.timeout;
        let deadline = Instant::now() + limit;
        let remote = self.remote();
        let checks = mark_of_checks(ready);
        self.forget_other_checks(checks.clone()).await?;
        for port in &ready.tcp {
            // Listening sockets of the guest, from proc(5): port in hex, state 0A.
            let script = format!(
                "until grep -qsE ': [0-9A-F]+:{port:04X} [0-9A-F]+:[0-9A-F]+ 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done"
            );
            self.check(&remote, &script, deadline, || {
                format!("nothing listens on port {port} in the guest")
            })
            .await?;
        }
        for command in &ready.exec {
            let word = shell_quote(command);
            let script = format!("until sh -c {word}; do sleep 0.2; done");
            self.check(&remote, &script, deadline, || {
                format!("`{command}` does not succeed")
            })
            .await?;
        }
        let domain = self.domain().await?;
        let owes_after_up = self.last_after_up().is_some();
        blocking(move || {
            Ok(domain.change_running(|it| {
                it.ready = Some(Timestamp::now());
                it.owes_after_up = owes_after_up;
                it.checks = Some(checks);
            })?)
        })
        .await
    }

    /// A machine that became ready by other checks is not ready until these have passed.
    async fn forget_other_checks(&self, checks: String) -> Result<(), ApplyError> {
        let domain = self.domain().await?;
        blocking(move || match domain.running()? {
            Some(running) if running.checks.as_ref().is_some_and(|it| *it != checks) => Ok(domain
                .set_running(&Running {
                    ready: None,
                    checks: None,
                    ..running
                })?),
            _ => Ok(()),
        })
        .await
    }

    async fn check(
        &self,
        remote: &Remote,
        script: &str,
        deadline: Instant,
        what: impl Fn() -> String,
    ) -> Result<(), ApplyError> {
        let mut last = None;
        let ended = timeout_at(
            deadline,
            remote.stream(script, None, &mut |_, line| last = Some(line.to_string())),
        )
        .await;
        let limit = self.job.wanted.machine.ready.timeout;
        let machine = self.name().to_string();
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) if status.code() == Some(SSH_FAILED) => {
                Err(ApplyError::Stopped { machine })
            }
            Ok(Err(error)) => Err(error.into()),
            _ => Err(ApplyError::NotReady {
                machine,
                what: match last {
                    Some(line) => format!("{} (its last output: {line})", what()),
                    None => what(),
                },
                limit,
            }),
        }
    }
}
