//! One machine's steps, one after the other.

use std::{pin::pin, sync::Arc};

use miette::Diagnostic;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    guest::tail,
    report::{Event, EventKind, Outcome, Reporter},
};

use super::{
    context::{Context, Job},
    error::ApplyError,
    fault,
    pause::{LOOK, WhenOff, until_still},
    steps::Steps,
};

/// How many lines of the console go with an error.
const CONSOLE_LINES: usize = 12;

/// The part of a machine's steps that is to be run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Up to the readiness checks.
    SetUp,
    /// Those, and what comes after them.
    Ready,
    All,
}

pub(super) async fn run_machine(
    context: &Arc<Context>,
    job: &Job,
    part: Part,
    reporter: &Reporter,
    mut interrupted: watch::Receiver<bool>,
) -> Outcome {
    let machine = &job.plan.machine;
    let steps = Steps {
        context,
        job,
        reporter,
    };
    for step in &job.plan.steps {
        if part != Part::All && (part == Part::Ready) != step.is_after_runs() {
            continue;
        }
        let id = step.id();
        fault::boundary(machine, &id);
        if *interrupted.borrow() {
            return Outcome::Interrupted;
        }
        reporter.event(&Event::now(
            machine,
            EventKind::StepStarted {
                step: id.clone(),
                doing: step.doing(),
            },
        ));
        let started = Instant::now();
        let off = step.needs_guest().unwrap_or(WhenOff::Lost);
        let needs_guest = step.needs_guest().is_some();
        let mut lost = pin!(until_still(context, &job.wanted.identity, machine, off));
        let ended = tokio::select! {
            ended = steps.run(step) => ended,
            // What it waits for can no longer come.
            lost = &mut lost, if needs_guest => Err(lost),
            // Steps that only wait, or that run something which may be run again, are given up at
            // once; the others are short and come to their end.
            _ = interrupted.wait_for(|flag| *flag), if step.may_be_given_up() => {
                return Outcome::Interrupted;
            }
        };
        // A connection ends a moment before libvirt says why.
        let ended = match ended {
            Err(error) if needs_guest && error.is_cut_off() => {
                Err(timeout(2 * LOOK, lost).await.unwrap_or(error))
            }
            ended => ended,
        };
        match ended {
            Ok(()) => reporter.event(&Event::now(
                machine,
                EventKind::StepDone {
                    step: id,
                    seconds: started.elapsed().as_secs_f64(),
                },
            )),
            Err(error) => {
                reporter.event(&Event::now(machine, failed(context, job, id, &error)));
                return Outcome::Failed;
            }
        }
    }
    if part != Part::SetUp {
        fault::boundary(machine, fault::END);
    }
    Outcome::Done
}

fn failed(context: &Context, job: &Job, step: String, error: &ApplyError) -> EventKind {
    let mut console = Vec::new();
    if error.wants_console() {
        console = tail(&job.files(&context.data).console_log(), CONSOLE_LINES);
        if console.is_empty() {
            console.push("(nothing yet: it got no further than its firmware)".into());
        }
    }
    EventKind::StepFailed {
        step,
        error: error.to_string(),
        hint: match &job.wanted.copy_of {
            // The copy does not stay, so there is nothing to look at in it.
            Some(original) if error.wants_console() => Some(format!(
                "this was a copy, and machine {original} is as it was; `stead box pack {original}` tries again, a slow boot wants a longer `ready {{ timeout }}`; without the modules of the kernel of its box, it never comes up"
            )),
            _ => error.help().map(|help| help.to_string()),
        },
        console,
    }
}
