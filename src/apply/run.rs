//! Runs all jobs of a plan in parallel, as far as their dependencies allow.

use std::{collections::HashMap, sync::Arc};

use tokio::{sync::watch, task::JoinSet, time::Instant};
use tracing::Instrument;

use crate::{
    plan::{MachinePlan, ProjectRun},
    report::{BUG, Event, EventKind, Outcome, Reporter, panic_words},
    resources::{Room, Turns},
};

use super::{
    context::{Context, Job},
    machine::{JobPart, run_machine},
    project,
    turns::{Place, Queue, free_memory, turns},
};

/// The outcomes of a run.
#[derive(Debug, Default)]
pub struct Summary {
    /// By machine.
    pub outcomes: HashMap<String, Outcome>,
    /// By provisioner of the project.
    pub runs: HashMap<String, Outcome>,
}

impl Summary {
    pub fn all_done(&self) -> bool {
        (self.outcomes.values().chain(self.runs.values())).all(|outcome| *outcome == Outcome::Done)
    }

    /// Returns the machines, and provisioners of the project, with this outcome.
    pub fn of(&self, outcome: Outcome) -> Vec<String> {
        let mut names: Vec<String> = self
            .outcomes
            .iter()
            .chain(&self.runs)
            .filter(|(_, found)| **found == outcome)
            .map(|(name, _)| name.clone())
            .collect();
        names.sort();
        names
    }
}

/// Runs every job, in parallel as far as dependencies allow; then `runs`, the provisioners over several
/// machines; then the readiness checks of their machines. `room`: how many boot or shut down at the same time.
pub async fn apply(
    context: Arc<Context>,
    jobs: Vec<Job>,
    runs: Vec<ProjectRun>,
    room: Room,
    reporter: &Reporter,
    interrupted: watch::Receiver<bool>,
) -> Summary {
    let mut done: HashMap<String, watch::Receiver<Option<Outcome>>> = HashMap::new();
    let mut senders = HashMap::new();
    for job in &jobs {
        let (sender, receiver) = watch::channel(None);
        done.insert(job.plan.machine.clone(), receiver);
        senders.insert(job.plan.machine.clone(), sender);
    }
    let (over, runs_over) = watch::channel(None);
    let mut covered: HashMap<String, Vec<String>> = HashMap::new();
    for run in &runs {
        for machine in &run.machines {
            let names = covered.entry(machine.clone()).or_default();
            names.push(run.provisioner.clone());
        }
    }
    let all_runs = tokio::spawn({
        let (context, reporter) = (Arc::clone(&context), Arc::clone(reporter));
        let (machines, interrupted) = (done.clone(), interrupted.clone());
        async move {
            let ended = project::run_all(context, runs, machines, reporter, interrupted).await;
            let _ = over.send(Some(ended.clone()));
            ended
        }
    });
    let queue = Queue::new(turns_of(room, &jobs), free_memory);
    let mut tasks = JoinSet::new();
    let mut running = HashMap::new();
    for job in jobs {
        let name = job.plan.machine.clone();
        let Some(sender) = senders.remove(&name) else {
            continue;
        };
        // Machines without a job are not waited for.
        let after: Vec<(String, watch::Receiver<Option<Outcome>>)> = job
            .plan
            .after
            .iter()
            .filter_map(|other| done.get(other).map(|r| (other.clone(), r.clone())))
            .collect();
        let context = Arc::clone(&context);
        let reporter = Arc::clone(reporter);
        let interrupted = interrupted.clone();
        let gate = covered.get(&name).map(|runs| Gate {
            runs: runs.clone(),
            over: runs_over.clone(),
        });
        let place = Place::of(&queue, &name);
        let machine = name.clone();
        let span = tracing::info_span!("machine", "{name}");
        let task = tasks.spawn(
            async move {
                let waits = Waits { after, place, gate };
                let outcome = one(&context, job, waits, sender, &reporter, interrupted).await;
                (name, outcome)
            }
            .instrument(span),
        );
        running.insert(task.id(), machine);
    }
    let mut summary = Summary::default();
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok((name, outcome)) => {
                summary.outcomes.insert(name, outcome);
            }
            Err(error) => {
                let machine = running.remove(&error.id()).unwrap_or_default();
                died(&machine, reporter, error);
                summary.outcomes.insert(machine, Outcome::Failed);
            }
        }
    }
    match all_runs.await {
        Ok(ended) => {
            let ended = ended.into_iter();
            summary.runs = ended
                .map(|(run, outcome)| (run.provisioner, outcome))
                .collect();
        }
        Err(error) => {
            died("", reporter, error);
            let name = "provisioners of the project".to_string();
            summary.runs.insert(name, Outcome::Failed);
        }
    }
    summary
}

/// Reports that a task of stead's own panicked. The process's panic hook has reported the details.
fn died(machine: &str, reporter: &Reporter, error: tokio::task::JoinError) {
    let said = match error.try_into_panic() {
        Ok(payload) => panic_words(&*payload),
        Err(error) => error.to_string(),
    };
    let failed = EventKind::StepFailed {
        step: "stead".into(),
        error: format!("stead itself failed: {said}"),
        hint: Some(BUG.into()),
        console: Vec::new(),
    };
    reporter.event(&Event::now(machine, failed));
    if !machine.is_empty() {
        let done = EventKind::MachineDone {
            outcome: Outcome::Failed,
            seconds: 0.0,
            changed: true,
        };
        reporter.event(&Event::now(machine, done));
    }
}

/// The runs that a machine's readiness checks wait for.
struct Gate {
    /// Runs over this machine.
    runs: Vec<String>,
    /// The outcomes of all runs, once all have ended.
    over: watch::Receiver<Option<Vec<(ProjectRun, Outcome)>>>,
}

/// What a job waits for.
struct Waits {
    /// The machines that it depends on.
    after: Vec<(String, watch::Receiver<Option<Outcome>>)>,
    place: Place,
    gate: Option<Gate>,
}

fn turns_of(room: Room, jobs: &[Job]) -> Turns {
    let plans: Vec<MachinePlan> = jobs.iter().map(|job| job.plan.clone()).collect();
    turns(room, &plans, |name| {
        let job = jobs.iter().find(|job| job.plan.machine == name)?;
        job.wanted.spec.as_ref()
    })
}

/// Runs one job. Sends on `set_up` when machines that depend on it, and runs over it, may start; the gate then
/// waits for those runs.
async fn one(
    context: &Arc<Context>,
    job: Job,
    waits: Waits,
    set_up: watch::Sender<Option<Outcome>>,
    reporter: &Reporter,
    mut interrupted: watch::Receiver<bool>,
) -> Outcome {
    let Waits {
        after,
        mut place,
        gate,
    } = waits;
    let name = job.plan.machine.clone();
    let changed = !job.plan.is_empty();
    let waits: Vec<String> = after
        .iter()
        .filter(|(_, receiver)| receiver.borrow().is_none())
        .map(|(name, _)| name.clone())
        .collect();
    if changed && !waits.is_empty() {
        reporter.event(&Event::now(&name, EventKind::Queued { after: waits }));
    }
    let mut outcome = None;
    for (_, mut receiver) in after {
        tokio::select! {
            waited = receiver.wait_for(Option::is_some) => {
                match waited.map(|value| *value) {
                    Ok(Some(Outcome::Done)) => {}
                    Ok(Some(Outcome::Interrupted)) => outcome = Some(Outcome::Interrupted),
                    _ => outcome = Some(outcome.unwrap_or(Outcome::Skipped)),
                }
            }
            _ = interrupted.wait_for(|flag| *flag) => outcome = Some(Outcome::Interrupted),
        }
    }
    let started = Instant::now();
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => {
            let part = if gate.is_some() {
                JobPart::SetUp
            } else {
                JobPart::All
            };
            let interrupted = interrupted.clone();
            run_machine(context, &job, part, &mut place, reporter, interrupted).await
        }
    };
    // Nobody waits for a machine that itself waits for runs over others.
    place.leave();
    let waited = place.waited;
    let done = |outcome| {
        let seconds = started.elapsed().saturating_sub(waited).as_secs_f64();
        reporter.event(&Event::now(
            &name,
            EventKind::MachineDone {
                outcome,
                seconds,
                changed,
            },
        ));
    };
    match gate {
        Some(gate) if outcome == Outcome::Done => {
            let _ = set_up.send(Some(outcome));
            let outcome = after_runs(context, &job, gate, place, reporter, interrupted).await;
            done(outcome);
            outcome
        }
        _ => {
            // Reported before others start, so that their reports come after it.
            done(outcome);
            let _ = set_up.send(Some(outcome));
            outcome
        }
    }
}

/// Runs a machine's readiness checks, after the runs over it.
async fn after_runs(
    context: &Arc<Context>,
    job: &Job,
    mut gate: Gate,
    mut place: Place,
    reporter: &Reporter,
    interrupted: watch::Receiver<bool>,
) -> Outcome {
    let name = &job.plan.machine;
    if gate.over.borrow().is_none() {
        reporter.event(&Event::now(name, EventKind::Queued { after: gate.runs }));
    }
    let outcomes: Vec<Outcome> = match gate.over.wait_for(Option::is_some).await {
        Ok(ended) => (ended.iter().flatten())
            .filter(|(run, _)| run.machines.contains(name))
            .map(|(_, outcome)| *outcome)
            .collect(),
        // The task of the runs panicked, which is reported already.
        Err(_) => vec![Outcome::Failed],
    };
    if outcomes.contains(&Outcome::Interrupted) {
        Outcome::Interrupted
    } else if outcomes.iter().any(|outcome| *outcome != Outcome::Done) {
        Outcome::Failed
    } else {
        run_machine(
            context,
            job,
            JobPart::Ready,
            &mut place,
            reporter,
            interrupted,
        )
        .await
    }
}
