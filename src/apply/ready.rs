//! The step that checks whether a machine is ready.

use std::process::ExitStatus;

use jiff::Timestamp;
use tokio::time::{Instant, error::Elapsed, timeout_at};

use crate::{
    guest::{GuestError, Remote, SSH_FAILED, while_called},
    host::shell::shell_quote,
    machine::{Running, mark_of_checks},
};

use super::{
    error::ApplyError,
    reach::signs,
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
        if !ready.tcp.is_empty() {
            let (_, record) = self.record().await?;
            for port in &ready.tcp {
                self.listens(&remote, &record, *port, deadline).await?;
            }
            self.appear(&ready.tcp).await;
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
        let files = self.files();
        blocking(move || {
            let signs = signs(&domain, &files)?;
            Ok(domain.change_running(|it| {
                it.ready = Some(Timestamp::now());
                it.owes_after_up = owes_after_up;
                it.checks = Some(checks);
                it.signs = Some(signs);
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
            remote.hold(&while_called(script), b"", &mut |_, line| {
                last = Some(line.to_string());
                false
            }),
        )
        .await;
        self.judge(ended, what, last)
    }

    /// Says how a check has ended. `what`: what is not so; `last`: the last line that it printed.
    pub(super) fn judge(
        &self,
        ended: Result<Result<Option<ExitStatus>, GuestError>, Elapsed>,
        what: impl Fn() -> String,
        last: Option<String>,
    ) -> Result<(), ApplyError> {
        match ended {
            Ok(Ok(Some(status))) if status.success() => Ok(()),
            Ok(Ok(Some(status))) if status.code() == Some(SSH_FAILED) => Err(ApplyError::CutOff {
                machine: self.name().to_string(),
            }),
            Ok(Err(error)) => Err(error.into()),
            _ => Err(self.not_ready(what(), last)),
        }
    }

    pub(super) fn not_ready(&self, what: String, last: Option<String>) -> ApplyError {
        ApplyError::NotReady {
            machine: self.name().to_string(),
            what: match last {
                Some(line) => format!("{what} (its last output: {line})"),
                None => what,
            },
            limit: self.job.wanted.machine.ready.timeout,
        }
    }
}
