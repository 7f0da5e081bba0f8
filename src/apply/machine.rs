//! Runs one machine's steps, one after the other.

use std::{future::pending, pin::pin, sync::Arc};

use miette::Diagnostic;
use tokio::{sync::watch, time::Instant};
use tracing::Instrument;

use crate::{
    guest::tail,
    host::remedy,
    plan::Step,
    report::{Event, EventKind, Outcome, Reporter},
};

use super::{
    context::{Context, Job},
    error::ApplyError,
    fault,
    pause::until_still,
    reboot::{PATIENCE, rebooted, until_rebooted, why_cut_off},
    steps::{Steps, WhenOff},
    turns::Place,
};

/// How many lines of the console an error shows.
const CONSOLE_LINES: usize = 12;

/// Which of a machine's steps to run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum JobPart {
    /// Those before the readiness checks.
    SetUp,
    /// The readiness checks, and those after them.
    Ready,
    All,
}

pub(super) async fn run_machine(
    context: &Arc<Context>,
    job: &Job,
    part: JobPart,
    place: &mut Place,
    reporter: &Reporter,
    mut interrupted: watch::Receiver<bool>,
) -> Outcome {
    let machine = &job.plan.machine;
    let steps = Steps {
        context,
        job,
        reporter,
    };
    // Whether the guest's clock has been looked at.
    let mut clock = false;
    for step in &job.plan.steps {
        if part != JobPart::All && (part == JobPart::Ready) != step.is_after_runs() {
            continue;
        }
        let id = step.id();
        fault::boundary(machine, &id);
        let tell =
            |busy| reporter.event(&Event::now(machine, EventKind::AwaitsTurn { after: busy }));
        tokio::select! {
            // So that a step that has its turn is not begun after Ctrl-C.
            biased;
            _ = interrupted.wait_for(|flag| *flag) => return Outcome::Interrupted,
            () = place.before(step, tell) => {}
        }
        reporter.event(&Event::now(
            machine,
            EventKind::StepStarted {
                step: id.clone(),
                doing: step.doing(),
            },
        ));
        let span = tracing::info_span!("step", "{id}");
        tracing::info!(parent: &span, "{}", step.doing());
        let started = Instant::now();
        if step.needs_guest().is_some() && !std::mem::replace(&mut clock, true) {
            // The step that waits for the first login does this then.
            if *step != Step::Reach
                && let Err(error) = steps.see_to_clock().await
            {
                tracing::debug!("the guest's clock: {error}");
            }
        }
        let off = step.needs_guest().unwrap_or(WhenOff::Lost);
        let needs_guest = step.needs_guest().is_some();
        let mut lost = pin!(until_still(context, &job.wanted.identity, machine, off));
        let error = rebooted(step, &job.wanted.machine);
        let ends_by_reboot = error.is_some();
        let uuid = job.wanted.identity.uuid;
        let events = context.events.receiver();
        let mut reboots = pin!(async {
            until_rebooted(events, uuid).await;
            match error {
                Some(error) => error,
                None => pending().await,
            }
        });
        let ended = tokio::select! {
            ended = steps.run(step).instrument(span.clone()) => ended,
            // The step waits for a guest that can no longer answer.
            lost = &mut lost, if needs_guest => Err(lost),
            error = &mut reboots, if ends_by_reboot => Err(error),
            // Steps that only wait, or that can be repeated, are interrupted immediately; the others are
            // short, and finish.
            _ = interrupted.wait_for(|flag| *flag), if step.may_be_given_up() => {
                return Outcome::Interrupted;
            }
        };
        let ended = match ended {
            Err(error) if needs_guest && error.is_cut_off() => Err(match steps.record().await {
                Ok((_, record)) => {
                    let why = tokio::select! {
                        why = why_cut_off(lost, reboots, record.ssh_port, &PATIENCE) => why,
                        _ = interrupted.wait_for(|flag| *flag) => None,
                    };
                    why.unwrap_or(error)
                }
                Err(gone) => gone,
            }),
            ended => ended,
        };
        match ended {
            Ok(()) => {
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(parent: &span, "done after {seconds:.3} s");
                reporter.event(&Event::now(
                    machine,
                    EventKind::StepDone {
                        step: id,
                        done: step.done(),
                        seconds,
                    },
                ));
            }
            Err(error) => {
                tracing::error!(parent: &span, "{error}");
                reporter.event(&Event::now(machine, failed(context, job, id, &error)));
                return Outcome::Failed;
            }
        }
    }
    if part != JobPart::SetUp {
        fault::boundary(machine, fault::END);
    }
    Outcome::Done
}

fn failed(context: &Context, job: &Job, step: String, error: &ApplyError) -> EventKind {
    let mut console = Vec::new();
    if error.wants_console() {
        console = tail(&job.files(&context.data).console_log(), CONSOLE_LINES);
        if console.is_empty() {
            console.push("(empty: the machine is still in its firmware)".into());
        }
    }
    EventKind::StepFailed {
        step,
        error: error.to_string(),
        hint: match &job.wanted.copy_of {
            // The copy is removed, so it cannot be inspected.
            Some(original) if error.wants_console() => Some(format!(
                "this was a copy, and machine {original} was not changed; `stead box pack {original}` tries again; if it only boots slowly, set a longer `ready {{ timeout }}`; a copy without the modules of its box's kernel never boots"
            )),
            _ => match remedy::of_causes(error) {
                Some(remedy) => Some(remedy.to_string()),
                None => error.help().map(|help| help.to_string()),
            },
        },
        console,
    }
}
