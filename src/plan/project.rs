//! Chooses the provisioners of the whole project that run over machines after those are set up.

use serde::Serialize;

use crate::{
    machine::{Phase, Provisioned},
    machinefile::RunPolicy,
};

use super::{
    provision::Request,
    steps::{Plan, ProvisionReason, Step},
    wanted::{Existing, WantedMachine},
};

/// A provisioner of the project, with its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedRun {
    pub name: String,
    pub run: RunPolicy,
    /// The sha256 of all its inputs.
    pub digest: String,
    /// The machines that it runs over.
    pub machines: Vec<String>,
}

/// One run over several machines. It comes after all else that is done to them but their
/// readiness checks: what those look for is often its work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProjectRun {
    pub provisioner: String,
    pub machines: Vec<String>,
    pub reason: ProvisionReason,
    /// Each machine records this after the run.
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

    /// Like the id of a machine's step.
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

/// Returns its name in a machine's record. The names of a machine's own provisioners have no `/`.
pub fn record_name(provisioner: &str) -> String {
    format!("project/{provisioner}")
}

/// What an `up` runs: what some machine of it lacks, what has changed, what always runs; with
/// `again`, also what ran before.
pub fn pending_runs(
    wanted: &[WantedRun],
    machines: &[(WantedMachine, Existing)],
    again: bool,
) -> Vec<ProjectRun> {
    let reason = |run: &WantedRun| {
        use RunPolicy::{Always, Changed, Never, Once};
        match (run.run, ran(run, machines)) {
            (Never, _) => None,
            (_, LastRun::Never) => Some(ProvisionReason::NeverRan),
            _ if again => Some(ProvisionReason::Request),
            (Changed | Always, LastRun::Otherwise) => Some(ProvisionReason::Changed),
            (Always, LastRun::AsItIs) => Some(ProvisionReason::Always),
            (Once, _) | (Changed, LastRun::AsItIs) => None,
        }
    };
    (wanted.iter())
        .filter_map(|run| Some(ProjectRun::new(run, reason(run)?)))
        .collect()
}

/// Returns runs that changed since they ran, and that only run on request.
pub fn stale_runs<'a>(
    wanted: &'a [WantedRun],
    machines: &[(WantedMachine, Existing)],
) -> Vec<&'a WantedRun> {
    (wanted.iter())
        .filter(|run| run.run == RunPolicy::Once && ran(run, machines) == LastRun::Otherwise)
        .collect()
}

/// What `stead provision` runs. Those of the project come after those of machines: `--from` one of
/// a machine has all of them, `--from` one of the project those from it on.
pub fn asked_runs(
    wanted: &[WantedRun],
    machines: &[(WantedMachine, Existing)],
    asked: &Request,
) -> Vec<ProjectRun> {
    let named = |run: &WantedRun| ProjectRun::new(run, ProvisionReason::Request);
    match asked {
        Request::Due => {
            let pending = pending_runs(wanted, machines, false);
            let stale = stale_runs(wanted, machines);
            // In the order of the Machinefile.
            (wanted.iter())
                .filter_map(|run| {
                    let found = pending.iter().find(|it| it.provisioner == run.name);
                    found.cloned().or_else(|| {
                        (stale.contains(&run))
                            .then(|| ProjectRun::new(run, ProvisionReason::Changed))
                    })
                })
                .collect()
        }
        Request::All => pending_runs(wanted, machines, true),
        Request::Only(names) => (wanted.iter())
            .filter(|run| names.contains(&run.name))
            .map(named)
            .collect(),
        Request::From(name) => {
            let first = wanted.iter().position(|run| run.name == *name).unwrap_or(0);
            (wanted[first..].iter())
                .filter(|run| run.name == *name || run.run != RunPolicy::Never)
                .map(named)
                .collect()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastRun {
    /// It has not run over some of its machines.
    Never,
    /// It ran with other inputs than now.
    Otherwise,
    AsItIs,
}

fn ran(wanted: &WantedRun, machines: &[(WantedMachine, Existing)]) -> LastRun {
    let name = record_name(&wanted.name);
    let ran: Option<Vec<&Provisioned>> = (wanted.machines.iter())
        .map(|machine| {
            let (_, existing) = (machines.iter()).find(|(it, _)| it.machine.name == *machine)?;
            let record = &existing.observed.as_ref()?.record;
            (record.phase == Phase::Created).then_some(())?;
            record.provisioned.get(&name)
        })
        .collect();
    match ran {
        None => LastRun::Never,
        Some(ran) if ran.iter().any(|ran| ran.digest != wanted.digest) => LastRun::Otherwise,
        Some(_) => LastRun::AsItIs,
    }
}

impl Plan {
    /// Adds runs. The readiness of their machines is checked after them.
    pub fn add_runs(&mut self, runs: Vec<ProjectRun>) {
        self.runs.extend(runs);
        for machine in &mut self.machines {
            let covered = (self.runs.iter()).any(|run| run.machines.contains(&machine.machine));
            if covered && !machine.steps.contains(&Step::Ready) {
                machine.steps.push(Step::Ready);
            }
        }
    }

    /// Returns the runs before a machine's readiness checks.
    pub fn runs_over(&self, machine: &str) -> Vec<&str> {
        (self.runs.iter())
            .filter(|run| run.machines.iter().any(|name| name == machine))
            .map(|run| run.provisioner.as_str())
            .collect()
    }
}
