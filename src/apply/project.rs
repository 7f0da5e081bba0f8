//! Runs provisioners over several machines, after those are set up.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use miette::Diagnostic;
use tokio::{sync::watch, time::Instant};
use tracing::Instrument;

use crate::{
    host::shell::shell_quote,
    machine::{Owner, Provisioned, Provisioning},
    machinefile::ProvisionerKind,
    plan::{ProjectRun, record_name},
    provision::{
        Asking, Who,
        ansible::{AnsibleError, HostRun, run_on_host},
        asks_by,
    },
    report::{Event, EventKind, Outcome, Reporter},
};

use super::{
    ansible::reachable_inventory,
    context::Context,
    error::ApplyError,
    fault, pause,
    provision::{agreed_to, set_provisioning},
    steps::blocking,
};

/// The outcome of a machine's steps before its readiness checks; `None` while they run.
pub(super) type SetUp = watch::Receiver<Option<Outcome>>;

/// Does the runs one after the other, each when its machines are set up. Returns the outcome of each.
pub(super) async fn run_all(
    context: Arc<Context>,
    runs: Vec<ProjectRun>,
    machines: HashMap<String, SetUp>,
    reporter: Reporter,
    interrupted: watch::Receiver<bool>,
) -> Vec<(ProjectRun, Outcome)> {
    let mut ended: Vec<(ProjectRun, Outcome)> = Vec::new();
    for run in runs {
        let before = (ended.iter()).find(|(_, outcome)| *outcome != Outcome::Done);
        let started = Instant::now();
        let outcome = match before {
            Some((_, Outcome::Interrupted)) => Outcome::Interrupted,
            Some(_) => Outcome::Skipped,
            None => one(&context, &run, &machines, &reporter, interrupted.clone()).await,
        };
        reporter.event(&Event::of_provisioner(
            &run.provisioner,
            EventKind::ProvisionerDone {
                outcome,
                seconds: started.elapsed().as_secs_f64(),
            },
        ));
        ended.push((run, outcome));
    }
    ended
}

async fn one(
    context: &Arc<Context>,
    run: &ProjectRun,
    machines: &HashMap<String, SetUp>,
    reporter: &Reporter,
    mut interrupted: watch::Receiver<bool>,
) -> Outcome {
    let say = |kind| reporter.event(&Event::of_provisioner(&run.provisioner, kind));
    for machine in &run.machines {
        // A machine without a job is ready already; the plan has made sure of that.
        let Some(mut set_up) = machines.get(machine).cloned() else {
            continue;
        };
        let waited = set_up.wait_for(Option::is_some).await;
        match waited.map(|value| *value) {
            Ok(Some(Outcome::Done)) => {}
            Ok(Some(Outcome::Interrupted)) => return Outcome::Interrupted,
            _ => return Outcome::Skipped,
        }
    }
    fault::boundary(&run.provisioner, &run.id());
    if *interrupted.borrow() {
        return Outcome::Interrupted;
    }
    say(EventKind::StepStarted {
        step: run.id(),
        doing: run.doing(),
    });
    let span = tracing::info_span!("provisioner", "{}", run.provisioner);
    tracing::info!(parent: &span, "{}", run.doing());
    let started = Instant::now();
    let done = tokio::select! {
        done = provision(context, run, reporter).instrument(span.clone()) => done,
        lost = until_one_is_lost(context, run) => Err(lost),
        _ = interrupted.wait_for(|flag| *flag) => return Outcome::Interrupted,
    };
    match done {
        Ok(()) => {
            say(EventKind::StepDone {
                step: run.id(),
                done: run.done(),
                seconds: started.elapsed().as_secs_f64(),
            });
            Outcome::Done
        }
        Err(error) => {
            tracing::error!(parent: &span, "{error}");
            say(EventKind::StepFailed {
                step: run.id(),
                error: error.to_string(),
                hint: error.help().map(|help| help.to_string()),
                console: Vec::new(),
            });
            Outcome::Failed
        }
    }
}

/// Ends when one of the machines cannot answer any more. The playbook itself would wait until its own
/// time-outs, if it has any.
async fn until_one_is_lost(context: &Arc<Context>, run: &ProjectRun) -> ApplyError {
    let mut lost = tokio::task::JoinSet::new();
    for machine in &run.machines {
        let (context, machine) = (Arc::clone(context), machine.clone());
        lost.spawn(async move {
            let (shared, name) = (Arc::clone(&context), machine.clone());
            let identity = blocking(move || {
                let owner = Owner::of(&shared.project);
                Ok(shared.connection.identify(&owner, &name)?)
            });
            match identity.await {
                Ok(identity) => pause::until_lost(&context, &identity, &machine).await,
                Err(error) => error,
            }
        });
    }
    match lost.join_next().await {
        Some(Ok(error)) => error,
        Some(Err(error)) => error.into(),
        None => std::future::pending().await,
    }
}

async fn provision(
    context: &Arc<Context>,
    run: &ProjectRun,
    reporter: &Reporter,
) -> Result<(), ApplyError> {
    let project = &context.project;
    let provisioner = (project.provisioners.iter())
        .find(|it| it.provisioner.name == run.provisioner)
        .ok_or_else(|| ApplyError::Internal(format!("no provisioner {}", run.provisioner)))?;
    let ProvisionerKind::Ansible { playbook } = &provisioner.provisioner.kind else {
        return Err(ApplyError::Internal(format!(
            "provisioner {} of the project is not a playbook",
            run.provisioner
        )));
    };
    let (agreed, kind) = (Arc::clone(context), provisioner.provisioner.kind.clone());
    blocking(move || agreed_to(&agreed, &kind)).await?;
    let shared = Arc::clone(context);
    let (inventory, _) =
        blocking(move || reachable_inventory(&shared.project, &shared.connection, &shared.data))
            .await?;
    let all = run.machines.len() == project.machines.len();
    // If this run fails or is interrupted, the provisioner counts as failed, even if it ran before.
    let (forget, forgotten) = (Arc::clone(context), run.clone());
    blocking(move || record(&forget, &forgotten, None)).await?;
    let asking = Asking {
        reporter,
        who: Who::Provisioner(&run.provisioner),
        by: asks_by(&run.provisioner, playbook),
    };
    let ansible = HostRun {
        answers: &asking,
        name: &run.provisioner,
        playbook,
        inventory: inventory.file(),
        limit: if all {
            Vec::new()
        } else {
            run.machines.iter().map(String::as_str).collect()
        },
        data: &context.data,
        color: reporter.color(),
        again: format!("stead provision --only {}", shell_quote(&run.provisioner)),
        inspect: None,
    };
    let mut line = |stderr, line: &str| {
        reporter.event(&Event::of_provisioner(
            &run.provisioner,
            EventKind::Output {
                source: run.provisioner.clone(),
                stderr,
                line: line.to_string(),
                // A play is followed by its tasks.
                folds: false,
            },
        ));
    };
    run_on_host(&ansible, &mut line)
        .await
        .map_err(|error: AnsibleError| ApplyError::Provision(error.into()))?;
    let (context, run) = (Arc::clone(context), run.clone());
    let ran = Provisioned {
        digest: run.digest.clone(),
        at: Timestamp::now(),
    };
    blocking(move || record(&context, &run, Some(ran))).await
}

/// Records the run in every machine. If one of them is re-created later, the provisioner runs again over all.
fn record(context: &Context, run: &ProjectRun, ran: Option<Provisioned>) -> Result<(), ApplyError> {
    let project = &context.project;
    let name = record_name(&run.provisioner);
    let owner = Owner::of(project);
    for machine in &run.machines {
        let identity = context.connection.identify(&owner, machine)?;
        let gone = || ApplyError::Gone {
            domain: identity.domain.clone(),
        };
        let domain = context.connection.lookup(&identity)?.ok_or_else(gone)?;
        let mut record = domain.record()?.ok_or_else(gone)?;
        match &ran {
            Some(ran) => {
                record.failed.remove(&name);
                record.provisioned.insert(name.clone(), ran.clone());
            }
            None => {
                record.provisioned.remove(&name);
                record.failed.insert(name.clone(), Timestamp::now());
            }
        }
        domain.set_record(&record)?;
        let provisioning = match &ran {
            Some(_) => None,
            None => Provisioning::of(&run.provisioner),
        };
        set_provisioning(&domain, provisioning);
    }
    Ok(())
}
