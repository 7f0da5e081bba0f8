use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::Instant,
};

use crate::report::{Event, EventKind, Outcome, Reporter};

use super::{
    context::{Context, Job},
    machine::run_machine,
};

/// How it went, machine by machine.
#[derive(Debug, Default)]
pub struct Summary {
    pub outcomes: HashMap<String, Outcome>,
}

impl Summary {
    pub fn all_done(&self) -> bool {
        self.outcomes
            .values()
            .all(|outcome| *outcome == Outcome::Done)
    }

    pub fn of(&self, outcome: Outcome) -> Vec<String> {
        let mut names: Vec<String> = self
            .outcomes
            .iter()
            .filter(|(_, found)| **found == outcome)
            .map(|(name, _)| name.clone())
            .collect();
        names.sort();
        names
    }
}

/// Turns true at the first Ctrl-C or SIGTERM; a second one ends the process at once.
pub fn interrupts() -> watch::Receiver<bool> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) else {
            return;
        };
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if *sender.borrow() {
                std::process::exit(130);
            }
            // Nobody listens any more: the work is over.
            if sender.send(true).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Runs every job, in parallel as far as dependencies allow.
pub async fn apply(
    context: Arc<Context>,
    jobs: Vec<Job>,
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
    let mut tasks = JoinSet::new();
    for job in jobs {
        let name = job.plan.machine.clone();
        let Some(sender) = senders.remove(&name) else {
            continue;
        };
        // A machine that is not part of this run is no reason to wait.
        let after: Vec<(String, watch::Receiver<Option<Outcome>>)> = job
            .plan
            .after
            .iter()
            .filter_map(|other| done.get(other).map(|r| (other.clone(), r.clone())))
            .collect();
        let context = Arc::clone(&context);
        let reporter = Arc::clone(reporter);
        let interrupted = interrupted.clone();
        tasks.spawn(async move {
            let outcome = one(&context, job, after, &reporter, interrupted).await;
            let _ = sender.send(Some(outcome));
            (name, outcome)
        });
    }
    let mut summary = Summary::default();
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok((name, outcome)) => {
                summary.outcomes.insert(name, outcome);
            }
            Err(error) => {
                reporter.event(&Event::now(
                    "",
                    EventKind::Notice {
                        message: format!("error: stead itself failed: {error}"),
                    },
                ));
                summary
                    .outcomes
                    .insert(format!("task {}", error.id()), Outcome::Failed);
            }
        }
    }
    summary
}

async fn one(
    context: &Arc<Context>,
    job: Job,
    after: Vec<(String, watch::Receiver<Option<Outcome>>)>,
    reporter: &Reporter,
    mut interrupted: watch::Receiver<bool>,
) -> Outcome {
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
        None => run_machine(context, &job, reporter, interrupted).await,
    };
    let seconds = started.elapsed().max(Duration::ZERO).as_secs_f64();
    reporter.event(&Event::now(
        &name,
        EventKind::MachineDone {
            outcome,
            seconds,
            changed,
        },
    ));
    outcome
}
