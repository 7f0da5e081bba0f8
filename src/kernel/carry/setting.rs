//! The settings of a captured host, and the decisions on them.

use serde::Serialize;

/// The properties of a machine that settings depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    pub cpus: u32,
    /// In bytes.
    pub memory: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    Cmdline,
    Sysctl,
    Module,
    Kernel,
}

impl Subject {
    pub fn word(self) -> &'static str {
        match self {
            Subject::Cmdline => "cmdline",
            Subject::Sysctl => "sysctl",
            Subject::Module => "module",
            Subject::Kernel => "kernel",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    Kept,
    Changed,
    Dropped,
}

impl Decision {
    pub fn word(self) -> &'static str {
        match self {
            Decision::Kept => "kept",
            Decision::Changed => "changed",
            Decision::Dropped => "dropped",
        }
    }
}

/// The decision on one setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CarriedSetting {
    pub subject: Subject,
    /// An option's, a sysctl's or a module's name.
    pub name: String,
    pub there: String,
    /// `None` if it is dropped, or depends on a machine that is not known yet.
    pub here: Option<String>,
    pub verdict: Decision,
    pub why: &'static str,
    /// Whether somebody set it on the host, as far as is known. False for the kernel's own choice.
    pub set: bool,
}

/// The settings that a machine gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Carried {
    pub cmdline: String,
    /// By path below /proc/sys, in the order in which they must be written.
    pub sysctl: Vec<(String, String)>,
    pub modules: Vec<String>,
    pub rows: Vec<CarriedSetting>,
    /// By path below /run.
    pub files: Vec<(String, String)>,
}

impl Carried {
    /// Returns why a difference in `name` is expected; `None` if it is not.
    pub fn announced(&self, subject: Subject, name: &str) -> Option<&'static str> {
        self.rows
            .iter()
            .find(|row| row.subject == subject && row.name == name)
            .filter(|row| row.verdict != Decision::Kept)
            .map(|row| row.why)
    }
}

pub(super) const OF_HARDWARE: &str = "is for that host's hardware";
pub(super) const CLAMPED: &str = "reduced to the machine's CPUs and memory";

/// At most the machine's memory divided by this becomes huge pages.
pub(super) const HUGE_SHARE: u64 = 2;

/// Whether a name matches a rule. A star at the end matches all names that begin so.
pub(super) fn fits(rule: &str, name: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => rule == name,
    }
}
