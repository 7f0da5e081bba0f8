//! Runs provisioners and hooks, and records what ran.

use std::{ffi::OsString, sync::Arc};

use jiff::Timestamp;

use crate::{
    host::shell::shell_quote,
    hypervisor::Domain,
    machine::{Provisioned, Provisioning},
    machinefile::{Hook, HookRuns, Moment, ProvisionerKind},
    plan::Step,
    provision::{self, AnsibleContext, Asking, ProvisionMessage, Task, Who},
    report::{Event, EventKind},
};

use super::{
    context::Context,
    error::ApplyError,
    steps::{Steps, blocking},
};

/// The environment variable that tells stead commands which are run by a hook whose locks they must not wait
/// for.
pub const HOOK_OF_VARIABLE: &str = "STEAD_HOOK_OF";

impl Steps<'_> {
    pub(super) async fn provision(&self, name: &str) -> Result<(), ApplyError> {
        let wanted = &self.job.wanted;
        let provisioner = wanted
            .machine
            .provisioners
            .iter()
            .find(|provisioner| provisioner.name == name)
            .ok_or_else(|| ApplyError::Internal(format!("no provisioner {name}")))?;
        let digest = wanted
            .provisioners
            .iter()
            .find(|known| known.name == name)
            .map(|known| known.digest.clone())
            .unwrap_or_default();
        if provisioner.kind.playbook().is_some() {
            let (context, agreed) = (Arc::clone(self.context), provisioner.kind.clone());
            blocking(move || agreed_to(&context, &agreed)).await?;
        }
        // If this run fails or is interrupted, the provisioner counts as failed, even if it ran before.
        let (domain, mut record) = self.record().await?;
        record.provisioned.remove(name);
        record.failed.insert(name.to_string(), Timestamp::now());
        let provisioning = Provisioning::of(name);
        blocking(move || {
            domain.set_record(&record)?;
            set_provisioning(&domain, provisioning);
            Ok(())
        })
        .await?;
        let step = format!("provision:{name}");
        let ansible = AnsibleContext {
            data: &self.context.data,
            inventory: self.inventory(provisioner).await?,
            reporter: self.reporter,
        };
        // A play is followed by its tasks.
        let folds = matches!(provisioner.kind, ProvisionerKind::Shell(_));
        provision::run(provisioner, &self.remote(), &ansible, &mut |message| {
            self.say(name, &step, folds, message);
        })
        .await?;
        let (domain, mut record) = self.record().await?;
        record.failed.remove(name);
        record.provisioned.insert(
            name.to_string(),
            Provisioned {
                digest,
                at: Timestamp::now(),
            },
        );
        blocking(move || {
            domain.set_record(&record)?;
            set_provisioning(&domain, None);
            Ok(())
        })
        .await
    }

    fn say(&self, source: &str, step: &str, folds: bool, message: ProvisionMessage<'_>) {
        match message {
            ProvisionMessage::Line { stderr, line } => {
                tracing::info!(target: "stead::output", "{source} | {line}");
                self.reporter.event(&Event::now(
                    self.name(),
                    EventKind::Output {
                        source: source.to_string(),
                        stderr,
                        line: line.to_string(),
                        folds,
                    },
                ));
            }
            ProvisionMessage::Copied(progress) => self.progress(step, progress),
        }
    }

    pub(super) async fn hook(
        &self,
        step: &Step,
        hook: &Hook,
        left_out: bool,
    ) -> Result<(), ApplyError> {
        if left_out {
            self.notice(format!(
                "is off, so {} of `{}` did not run in the guest",
                hook.label(),
                hook.moment
            ));
            return Ok(());
        }
        let id = step.id();
        let task = Task {
            what: format!("the hook {} ({})", hook.moment, hook.label()),
            name: &id.replace(':', "-"),
            hint: self.how_to_go_on(hook.moment),
        };
        let mut each = |message: ProvisionMessage<'_>| self.say(&id, &id, true, message);
        match &hook.runs {
            HookRuns::Host(command) => {
                let (context, agreed) = (Arc::clone(self.context), hook.clone());
                blocking(move || Ok(context.agreement.hook(&context.project, &agreed)?)).await?;
                let wanted = &self.job.wanted;
                let environment: [(&str, OsString); 6] = [
                    ("STEAD_PROJECT", wanted.owner.project.clone().into()),
                    ("STEAD_ROOT", wanted.owner.root.clone().into()),
                    ("STEAD_MACHINE", self.name().into()),
                    ("STEAD_SSH_CONFIG", self.files().ssh_config().into()),
                    (
                        "STEAD_CONNECT",
                        self.context.connection.uri().uri.clone().into(),
                    ),
                    (HOOK_OF_VARIABLE, std::process::id().to_string().into()),
                ];
                let asking = Asking {
                    reporter: self.reporter,
                    who: Who::Machine(self.name()),
                    by: task.what.clone(),
                };
                let root = &wanted.owner.root;
                provision::run_on_host(&task, command, root, &environment, &mut each, &asking)
                    .await?;
            }
            HookRuns::Guest(shell) => {
                let (_, record) = self.record().await?;
                self.write_ssh_files(&record)?;
                provision::run_in_guest(&task, shell, &self.remote(), &mut each).await?;
            }
        }
        if hook.moment == Moment::AfterUp && self.last_after_up() == Some(id) {
            let (domain, _) = self.record().await?;
            blocking(move || Ok(domain.change_running(|it| it.owes_after_up = false)?)).await?;
        }
        Ok(())
    }

    /// The last step of `after "up"`, if there is one.
    pub(super) fn last_after_up(&self) -> Option<String> {
        let last = self.job.plan.steps.iter().rfind(
            |step| matches!(step, Step::Hook { hook, .. } if hook.moment == Moment::AfterUp),
        );
        last.map(Step::id)
    }

    fn how_to_go_on(&self, moment: Moment) -> String {
        let machine = shell_quote(self.name());
        let command = moment.command();
        match moment {
            Moment::BeforeUp | Moment::BeforeHalt | Moment::BeforeDestroy => format!(
                "nothing was done to the machine; `stead {command} {machine} --no-hooks` continues without hooks"
            ),
            Moment::AfterUp => format!(
                "the machine is running; `stead up {machine}` runs its hooks again, `--no-hooks` skips them"
            ),
            Moment::AfterHalt => "the machine is off; the hook does not run again by itself".into(),
            Moment::AfterDestroy => {
                "the machine is destroyed; the hook does not run again by itself".into()
            }
        }
    }
}

/// Records which provisioner runs, for `status`. A machine that has just powered itself off has no such record, and
/// needs none.
pub(super) fn set_provisioning(domain: &Domain, provisioning: Option<Provisioning>) {
    if let Err(error) = domain.change_running(|it| it.provisioning = provisioning) {
        tracing::debug!("which provisioner runs is not recorded: {error}");
    }
}

/// Checks that the user has agreed to a playbook as it is now.
///
/// # Errors
/// If it has changed since.
pub(super) fn agreed_to(context: &Context, kind: &ProvisionerKind) -> Result<(), ApplyError> {
    let here = kind.runs_on_host();
    if let Some(playbook) = kind.playbook() {
        (context.agreement).playbook(&context.project, playbook, here)?;
    }
    Ok(())
}
