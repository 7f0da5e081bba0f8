//! Events as lines of text.

use std::{sync::Mutex, time::Duration};

use crate::report::clean::Shown;

use super::{
    Event, EventKind, Outcome, Report, Style,
    clean::{self, words},
    numbers::{counted, elapsed},
    question::somebody_is_there,
    stdio,
};

/// Writes lines with a time to stderr, for logs and CI.
pub(super) struct PlainLines {
    width: usize,
    only_trouble: bool,
    verbose: bool,
    dated: bool,
    may_ask: bool,
    lock: Mutex<()>,
}

impl PlainLines {
    pub(super) fn new(machines: &[String], style: Style) -> Self {
        PlainLines {
            width: name_width(machines),
            only_trouble: false,
            verbose: style.verbose,
            dated: style.dated,
            may_ask: somebody_is_there(),
            lock: Mutex::new(()),
        }
    }

    /// For `--quiet`: reports only failures.
    pub(super) fn only_trouble() -> Self {
        PlainLines {
            width: 0,
            only_trouble: true,
            verbose: false,
            dated: false,
            may_ask: somebody_is_there(),
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

/// Returns the lines of an event, without time and machine; none for events that only a live line shows. With
/// `color`, the output of programs keeps its colours; other lines have none.
pub(super) fn lines(kind: &EventKind, verbose: bool, color: bool) -> Vec<String> {
    if let EventKind::Output { line, .. } = kind {
        return vec![format!("| {}", clean::text(line, color).replace('\n', " "))];
    }
    let mut lines = sentences(kind, verbose);
    for line in &mut lines {
        *line = words(line);
    }
    lines
}

/// The lines in stead's own words, with foreign words in them that are not cleaned yet.
fn sentences(kind: &EventKind, verbose: bool) -> Vec<String> {
    match kind {
        EventKind::Notice { message } => indented(message),
        EventKind::Waiting { for_whom } => vec![format!("waiting: held by {for_whom}")],
        EventKind::Queued { after } => vec![format!("waiting for {}", after.join(", "))],
        EventKind::AwaitsTurn { after } => {
            vec![format!("waiting for its turn, after {}", after.join(", "))]
        }
        EventKind::StepStarted { doing, .. } => vec![format!("{doing} …")],
        EventKind::StepDone { done, seconds, .. } => {
            // Short steps need no second line.
            if *seconds < 1.0 && !verbose {
                Vec::new()
            } else {
                vec![format!(
                    "{done} in {}",
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
        EventKind::Console { .. } | EventKind::Output { .. } | EventKind::Progress { .. } => {
            Vec::new()
        }
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
                "{} → {to}: edits are sent as you make them",
                from.shown()
            )]
        }
        EventKind::Away { reason } => {
            vec![format!(
                "cannot be reached ({reason}); changes are sent when it is back"
            )]
        }
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
        EventKind::ProvisionerDone { outcome, seconds } => match outcome {
            Outcome::Done => vec![format!(
                "done in {}",
                elapsed(Duration::from_secs_f64(*seconds))
            )],
            Outcome::Failed => Vec::new(),
            Outcome::Skipped => vec!["not tried: something before it failed".into()],
            Outcome::Interrupted => vec!["interrupted".into()],
        },
    }
}

/// Such as `/srv/app: 3 files, 1 deleted in 0.2s`. `None` if nothing changed, unless `verbose`.
fn synced(
    to: &str,
    [sent, made, deleted, touched]: [u64; 4],
    whole: bool,
    seconds: f64,
    verbose: bool,
) -> Option<String> {
    let mut parts = Vec::new();
    if sent > 0 {
        parts.push(counted(sent, "file"));
    }
    if made > 0 {
        parts.push(counted(made, "folder"));
    }
    if deleted > 0 {
        parts.push(format!("{deleted} deleted"));
    }
    if touched > 0 && (parts.is_empty() || verbose) {
        parts.push(format!("{touched} with new permissions or times"));
    }
    if parts.is_empty() {
        if !verbose {
            return None;
        }
        parts.push(if whole { "up to date" } else { "no changes" }.into());
    }
    Some(format!(
        "{to}: {} in {}",
        parts.join(", "),
        elapsed(Duration::from_secs_f64(seconds))
    ))
}

pub(super) fn failure(error: &str, hint: Option<&str>, console: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(indented(&format!("error: {error}")));
    if !console.is_empty() {
        lines.push("the end of its console:".into());
        lines.extend(console.iter().map(|line| format!("  {line}")));
    }
    if let Some(hint) = hint {
        lines.extend(indented(&format!("hint: {hint}")));
    }
    lines
}

/// Splits a text into lines. Those after the first start with spaces, so that none looks like another error
/// or hint.
pub fn indented(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(words).collect();
    for line in lines.iter_mut().skip(1) {
        line.insert_str(0, "  ");
    }
    lines
}

impl PlainLines {
    /// Returns the lines of an event, with time and machine; nothing for events that are not reported.
    fn text(&self, event: &Event) -> String {
        let mut text = String::new();
        if self.only_trouble && !matches!(event.kind, EventKind::StepFailed { .. }) {
            return text;
        }
        let format = match self.dated {
            true => "%Y-%m-%dT%H:%M:%SZ",
            false => "%H:%M:%SZ",
        };
        let time = event.at.strftime(format);
        for line in lines(&event.kind, self.verbose, false) {
            if event.who().is_empty() {
                text.push_str(&format!("{time} {line}\n"));
            } else {
                let width = self.width;
                let who = words(event.who());
                text.push_str(&format!("{time} {who:<width$}  {line}\n"));
            }
        }
        text
    }
}

impl Report for PlainLines {
    fn event(&self, event: &Event) {
        let text = self.text(event);
        if !text.is_empty() {
            let _held = self.lock.lock();
            stdio::talk(&text);
        }
    }

    fn may_ask(&self) -> bool {
        self.may_ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log of a watcher is kept for weeks.
    #[test]
    fn lines_of_a_log_have_a_date() {
        let event = Event {
            at: "2026-02-03T04:05:06Z".parse().unwrap(),
            ..Event::now(
                "web",
                EventKind::Notice {
                    message: "back again".into(),
                },
            )
        };
        let line = |dated| {
            let style = Style {
                json: false,
                quiet: false,
                live: false,
                color: false,
                verbose: false,
                dated,
            };
            PlainLines::new(&["web".into()], style).text(&event)
        };
        assert_eq!(line(false), "04:05:06Z web  back again\n");
        assert_eq!(line(true), "2026-02-03T04:05:06Z web  back again\n");
    }
}
