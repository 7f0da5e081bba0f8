//! Provisioners of the whole project: which are to run over machines once those are set up.

use serde::Serialize;

use crate::{
    hypervisor::{Phase, Provisioned},
    machinefile::RunPolicy,
};

use super::{
    steps::{Plan, ProvisionReason, Step},
    wanted::{Existing, Wanted},
};

/// A provisioner of the project, with its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRun {
    pub name: String,
    pub run: RunPolicy,
    /// sha256 of everything that goes in.
    pub digest: String,
    /// Those it runs over.
    pub machines: Vec<String>,
}

/// One run over several machines. It comes after all else that is done to them but their
/// readiness checks: what those look for is often its work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProjectRun {
    pub provisioner: String,
    pub machines: Vec<String>,
    pub reason: ProvisionReason,
    /// What is recorded in each machine when it has run.
    #[serde(skip)]
    pub digest: String,
}

impl ProjectRun {
    pub fn new(wanted: &WantedRun, reason: ProvisionReason) -> Self {
        ProjectRun {
            provisioner: wanted.name.clone(),
            machines: wanted.machines.clone(),
            reason,
            digest: wanted.digest.clone(),
        }
    }

    /// As that of a machine's step.
    pub fn id(&self) -> String {
        self.step().id()
    }

    pub fn describe(&self) -> String {
        format!(
            "run provisioner {} over {} ({})",
            self.provisioner,
            self.machines.join(", "),
            self.reason.words()
        )
    }

    pub fn doing(&self) -> String {
        format!("provisioning {}", self.machines.join(", "))
    }

    fn step(&self) -> Step {
        Step::Provision {
            name: self.provisioner.clone(),
            reason: self.reason,
        }
    }
}

/// Under which name a machine's record has it: no provisioner of a machine's own has a `/`.
pub fn record_name(provisioner: &str) -> String {
    format!("project/{provisioner}")
}

/// Runs that are pending: some machine of theirs lacks them.
pub fn pending_runs(wanted: &[WantedRun], machines: &[(Wanted, Existing)]) -> Vec<ProjectRun> {
    (wanted.iter())
        .filter_map(|run| Some(ProjectRun::new(run, reason(run, machines)?)))
        .collect()
}

fn reason(wanted: &WantedRun, machines: &[(Wanted, Existing)]) -> Option<ProvisionReason> {
    let name = record_name(&wanted.name);
    let ran: Vec<Option<&Provisioned>> = (wanted.machines.iter())
        .map(|machine| {
            let (_, existing) = (machines.iter()).find(|(it, _)| it.machine.name == *machine)?;
            let record = &existing.observed.as_ref()?.record;
            (record.phase == Phase::Created).then_some(())?;
            record.provisioned.get(&name)
        })
        .collect();
    if ran.iter().any(Option::is_none) {
        Some(ProvisionReason::NeverRan)
    } else if (ran.iter().flatten()).any(|ran| ran.digest != wanted.digest) {
        Some(ProvisionReason::Changed)
    } else if wanted.run == RunPolicy::Always {
        Some(ProvisionReason::Always)
    } else {
        None
    }
}

impl Plan {
    /// Adds runs; machines that they are over are checked for readiness after them.
    pub fn add_runs(&mut self, runs: Vec<ProjectRun>) {
        self.runs.extend(runs);
        for machine in &mut self.machines {
            let covered = (self.runs.iter()).any(|run| run.machines.contains(&machine.machine));
            if covered && machine.steps.last() != Some(&Step::Ready) {
                machine.steps.push(Step::Ready);
            }
        }
    }

    /// Runs that a machine's readiness checks come after.
    pub fn runs_over(&self, machine: &str) -> Vec<&str> {
        (self.runs.iter())
            .filter(|run| run.machines.iter().any(|name| name == machine))
            .map(|run| run.provisioner.as_str())
            .collect()
    }
}
