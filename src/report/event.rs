use jiff::Timestamp;
use serde::Serialize;

/// One thing that happened. `--json` prints each as one line; docs/reference/json.md is its contract.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    pub at: Timestamp,
    /// Empty for what concerns no single machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// The provisioner of the project that it is about; empty for what is about a machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub provisioner: String,
    #[serde(flatten)]
    pub kind: EventKind,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// Something worth a line that is neither step nor error.
    Notice {
        message: String,
    },
    /// Another command holds the machine.
    Waiting {
        for_whom: String,
    },
    /// A machine waits for those it depends on.
    Queued {
        after: Vec<String>,
    },
    StepStarted {
        step: String,
        doing: String,
    },
    StepDone {
        step: String,
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
    },
    /// How far a copy is.
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
        /// Those of which only permissions, owner or times changed.
        touched: u64,
        /// Whether all of it was looked at, and not only what was known to have changed.
        whole: bool,
        seconds: f64,
    },
    /// Edits in a folder of the host go to the machine from here on.
    Watching {
        from: std::path::PathBuf,
        to: String,
        /// How many folders are watched, for all machines together.
        folders: usize,
    },
    /// A machine whose folders are watched cannot be reached; what changes meanwhile goes when it is
    /// back.
    Away {
        reason: String,
    },
    /// The machine's part is over.
    MachineDone {
        outcome: Outcome,
        seconds: f64,
        /// Whether any step was run.
        changed: bool,
    },
    /// A run over several machines is over.
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
    /// Not tried: a machine it depends on failed.
    Skipped,
    /// Ctrl-C came first.
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

    /// About a provisioner that runs over several machines.
    pub fn of_provisioner(name: &str, kind: EventKind) -> Self {
        Event {
            provisioner: name.to_string(),
            ..Self::now("", kind)
        }
    }

    /// The machine or provisioner whose line it is; empty for neither.
    pub fn who(&self) -> &str {
        if self.machine.is_empty() {
            &self.provisioner
        } else {
            &self.machine
        }
    }
}
