use std::{
    io::{Write, stderr},
    sync::Mutex,
    time::Duration,
};

use super::{Event, EventKind, Outcome, Report, words::elapsed};

/// Timestamped lines on stderr, for logs and CI.
pub struct PlainLines {
    width: usize,
    only_trouble: bool,
    verbose: bool,
    lock: Mutex<()>,
}

impl PlainLines {
    pub fn new(machines: &[String], verbose: bool) -> Self {
        PlainLines {
            width: name_width(machines),
            only_trouble: false,
            verbose,
            lock: Mutex::new(()),
        }
    }

    /// `--quiet`.
    pub fn only_trouble() -> Self {
        PlainLines {
            width: 0,
            only_trouble: true,
            verbose: false,
            lock: Mutex::new(()),
        }
    }
}

pub(super) fn name_width(machines: &[String]) -> usize {
    machines
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0)
}

/// The lines of an event, without time and machine. None for what only a live line shows.
pub(super) fn lines(kind: &EventKind, verbose: bool) -> Vec<String> {
    match kind {
        EventKind::Notice { message } => vec![message.clone()],
        EventKind::Waiting { for_whom } => vec![format!("waiting: held by {for_whom}")],
        EventKind::Queued { after } => vec![format!("waits for {}", after.join(", "))],
        EventKind::StepStarted { doing, .. } => vec![format!("{doing} …")],
        EventKind::StepDone { step, seconds } => {
            // Short steps need no second line.
            if *seconds < 1.0 && !verbose {
                Vec::new()
            } else {
                vec![format!(
                    "{step} done in {}",
                    elapsed(Duration::from_secs_f64(*seconds))
                )]
            }
        }
        EventKind::StepFailed {
            error,
            hint,
            console,
            ..
        } => failure(error, hint.as_deref(), console),
        EventKind::Console { .. } | EventKind::Progress { .. } => Vec::new(),
        EventKind::Synced {
            to,
            sent,
            made,
            deleted,
            touched,
            whole,
            seconds,
        } => synced(
            to,
            [*sent, *made, *deleted, *touched],
            *whole,
            *seconds,
            verbose,
        )
        .into_iter()
        .collect(),
        EventKind::Watching { from, to, .. } => {
            vec![format!(
                "{} → {to}: edits go there as they are made",
                from.display()
            )]
        }
        EventKind::Away { reason } => {
            vec![format!(
                "is away ({reason}); what changes goes when it is back"
            )]
        }
        EventKind::Output { line, .. } => vec![format!("| {line}")],
        EventKind::MachineDone {
            outcome,
            seconds,
            changed,
        } => match outcome {
            Outcome::Done if *changed => vec![format!(
                "done in {}",
                elapsed(Duration::from_secs_f64(*seconds))
            )],
            Outcome::Done | Outcome::Failed => Vec::new(),
            Outcome::Skipped => vec!["not tried: a machine it depends on failed".into()],
            Outcome::Interrupted => vec!["interrupted".into()],
        },
    }
}

/// `/srv/app: 3 files, 1 deleted in 0.2s`. Where nothing changed there is nothing to say.
fn synced(
    to: &str,
    [sent, made, deleted, touched]: [u64; 4],
    whole: bool,
    seconds: f64,
    verbose: bool,
) -> Option<String> {
    let mut parts = Vec::new();
    match sent {
        0 => {}
        1 => parts.push("1 file".to_string()),
        n => parts.push(format!("{n} files")),
    }
    match made {
        0 => {}
        1 => parts.push("1 folder".to_string()),
        n => parts.push(format!("{n} folders")),
    }
    if deleted > 0 {
        parts.push(format!("{deleted} deleted"));
    }
    // A folder's time changes with every file in it.
    if touched > 0 && (parts.is_empty() || verbose) {
        parts.push(format!("{touched} with other permissions or times"));
    }
    if parts.is_empty() {
        if !verbose {
            return None;
        }
        parts.push(if whole { "as it was" } else { "nothing to do" }.into());
    }
    Some(format!(
        "{to}: {} in {}",
        parts.join(", "),
        elapsed(Duration::from_secs_f64(seconds))
    ))
}

pub(super) fn failure(error: &str, hint: Option<&str>, console: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for (n, line) in error.lines().enumerate() {
        lines.push(if n == 0 {
            format!("error: {line}")
        } else {
            format!("  {line}")
        });
    }
    if !console.is_empty() {
        lines.push("the end of its console:".into());
        lines.extend(console.iter().map(|line| format!("  {line}")));
    }
    if let Some(hint) = hint {
        lines.push(format!("hint: {hint}"));
    }
    lines
}

impl Report for PlainLines {
    fn event(&self, event: &Event) {
        if self.only_trouble && !matches!(event.kind, EventKind::StepFailed { .. }) {
            return;
        }
        let lines = lines(&event.kind, self.verbose);
        if lines.is_empty() {
            return;
        }
        let time = event.at.strftime("%H:%M:%SZ");
        let mut text = String::new();
        for line in lines {
            if event.machine.is_empty() {
                text.push_str(&format!("{time} {line}\n"));
            } else {
                let width = self.width;
                text.push_str(&format!("{time} {:<width$}  {line}\n", event.machine));
            }
        }
        let _held = self.lock.lock();
        let _ = stderr().write_all(text.as_bytes());
    }
}
