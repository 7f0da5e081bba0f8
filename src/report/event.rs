//! The events that commands report, and who takes them.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::secrets::without;

/// One thing that happened. `--json` prints each as one line; docs/reference/json.md is its contract.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    pub at: Timestamp,
    /// Empty if the event is not about a single machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// The project's provisioner that the event is about; empty if it is about a machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub provisioner: String,
    #[serde(flatten)]
    pub kind: EventKind,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// Information that is neither about a step nor an error.
    Notice {
        message: String,
    },
    /// Another command holds the machine's lock.
    Waiting {
        for_whom: String,
    },
    /// A machine waits for the machines that it depends on.
    Queued {
        after: Vec<String>,
    },
    /// A machine waits until the host can carry one more that boots or shuts down.
    AwaitsTurn {
        /// Those that do now.
        after: Vec<String>,
    },
    StepStarted {
        step: String,
        doing: String,
    },
    StepDone {
        step: String,
        /// What is done, for people.
        #[serde(skip)]
        done: String,
        seconds: f64,
    },
    StepFailed {
        step: String,
        error: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        console: Vec<String>,
    },
    /// The guest's last console line while it boots.
    Console {
        line: String,
    },
    /// A line that a provisioner printed.
    Output {
        source: String,
        stderr: bool,
        line: String,
        /// Whether a terminal may leave lines out if there are many: the log has them.
        #[serde(skip)]
        folds: bool,
    },
    /// The progress of a copy.
    Progress {
        step: String,
        percent: u8,
        rate: String,
        eta: String,
    },
    /// A folder of the machine was synced.
    Synced {
        /// The folder in the guest.
        to: String,
        /// Files and links made or written there.
        sent: u64,
        /// Folders made there.
        made: u64,
        deleted: u64,
        /// Files and folders of which only permissions, owner or times changed.
        touched: u64,
        /// Whether the whole folder was compared, not only the files known to have changed.
        whole: bool,
        seconds: f64,
    },
    /// From now on, edits in a folder of the host are sent to the machine.
    Watching {
        from: std::path::PathBuf,
        to: String,
        /// How many folders are watched, for all machines together.
        folders: usize,
    },
    /// A machine whose folders are watched cannot be reached; changes are sent when it is back.
    Away {
        reason: String,
    },
    /// The command has finished with the machine.
    MachineDone {
        outcome: Outcome,
        seconds: f64,
        /// Whether any step ran.
        changed: bool,
    },
    /// A provisioner that runs over several machines has ended.
    ProvisionerDone {
        outcome: Outcome,
        seconds: f64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Done,
    Failed,
    /// Not tried, because a machine it depends on failed.
    Skipped,
    /// Ctrl-C ended it.
    Interrupted,
}

impl Event {
    pub fn now(machine: &str, kind: EventKind) -> Self {
        Event {
            at: Timestamp::now(),
            machine: machine.to_string(),
            provisioner: String::new(),
            kind,
        }
    }

    /// An event about a provisioner that runs over several machines.
    pub fn of_provisioner(name: &str, kind: EventKind) -> Self {
        Event {
            provisioner: name.to_string(),
            ..Self::now("", kind)
        }
    }

    /// The machine or provisioner that the event is about; empty if there is neither.
    pub fn who(&self) -> &str {
        if self.machine.is_empty() {
            &self.provisioner
        } else {
            &self.machine
        }
    }
}

/// Takes events from any task. Implementations do their own locking.
pub trait Report: Send + Sync {
    fn event(&self, event: &Event);
    /// Whether the output of programs may have colours.
    fn color(&self) -> bool {
        false
    }
    /// Whether the user can be asked something.
    fn may_ask(&self) -> bool {
        false
    }
    /// Called before a question is printed: holds back what would disturb whoever reads and answers it.
    fn hold(&self) {}
    /// Called after it: prints what was held back.
    fn release(&self) {}
    /// Called once at the end, before anything else is printed.
    fn finish(&self) {}
}

pub type Reporter = Arc<dyn Report>;

/// Reports events without secrets in what stead itself says. What programs print is passed on as it is.
pub(super) struct WithoutSecrets(pub Reporter);

impl Report for WithoutSecrets {
    fn event(&self, event: &Event) {
        let mut event = event.clone();
        let texts: Vec<&mut String> = match &mut event.kind {
            EventKind::Notice { message } => vec![message],
            EventKind::StepStarted { doing, .. } => vec![doing],
            EventKind::StepFailed { error, hint, .. } => {
                std::iter::once(error).chain(hint.as_mut()).collect()
            }
            EventKind::Away { reason } => vec![reason],
            _ => Vec::new(),
        };
        for text in texts {
            *text = without(text).into_owned();
        }
        self.0.event(&event);
    }

    fn color(&self) -> bool {
        self.0.color()
    }

    fn may_ask(&self) -> bool {
        self.0.may_ask()
    }

    fn hold(&self) {
        self.0.hold();
    }

    fn release(&self) {
        self.0.release();
    }

    fn finish(&self) {
        self.0.finish();
    }
}
