//! A plan: the steps of each machine, and what runs over several of them.

use serde::Serialize;

use crate::machine::Spec;

use super::{
    drift::Drift,
    project::ProjectRun,
    provisioners::Stale,
    step::{Step, is_host_hook},
};

/// The steps of each machine. Machines run in parallel, each after those it depends on.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub machines: Vec<MachinePlan>,
    /// What runs over several machines, one after the other.
    pub runs: Vec<ProjectRun>,
}

#[derive(Clone, Debug, Serialize)]
pub struct MachinePlan {
    pub machine: String,
    /// Machines whose steps must be done before this one's begin.
    pub after: Vec<String>,
    pub steps: Vec<Step>,
    /// What still differs from the Machinefile after the steps.
    pub drift: Vec<Drift>,
    /// Provisioners that changed since they ran, and that these steps do not run.
    pub stale: Vec<Stale>,
}

impl Plan {
    /// Returns a plan of these machines, without runs.
    pub(super) fn of(machines: Vec<MachinePlan>) -> Self {
        Plan {
            machines,
            runs: Vec::new(),
        }
    }

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

    /// `--no-hooks`
    pub fn without_hooks(mut self) -> Self {
        for machine in &mut self.machines {
            machine
                .steps
                .retain(|step| !matches!(step, Step::Hook { .. }));
        }
        self
    }

    /// Without hooks that run on the host.
    pub fn without_host_hooks(mut self) -> Self {
        for machine in &mut self.machines {
            machine.steps.retain(|step| !is_host_hook(step));
        }
        self
    }

    pub fn has_host_hooks(&self) -> bool {
        (self.machines.iter()).any(|machine| machine.steps.iter().any(is_host_hook))
    }

    /// `--no-provision`
    pub fn without_provisioners(mut self) -> Self {
        for machine in &mut self.machines {
            let before = machine.steps.len();
            machine
                .steps
                .retain(|step| !matches!(step, Step::Provision { .. }));
            // Only provisioners could have made it less ready.
            if machine.steps == [Step::Ready] && before > 1 {
                machine.steps.clear();
            }
        }
        self
    }

    /// Returns what a running machine will be like, if something changes while it runs.
    pub fn tunes(&self, machine: &str) -> Option<&Spec> {
        let plan = self.machines.iter().find(|it| it.machine == machine)?;
        plan.steps.iter().find_map(|step| match step {
            Step::Tune { spec, .. } => Some(&**spec),
            _ => None,
        })
    }

    /// Returns machines that continue from their saved memory.
    pub fn restores(&self) -> Vec<String> {
        let restores = |machine: &&MachinePlan| {
            let mut steps = machine.steps.iter();
            steps.any(|step| matches!(step, Step::Restore))
        };
        let machines = self.machines.iter().filter(restores);
        machines.map(|machine| machine.machine.clone()).collect()
    }

    /// Returns machines whose boxes have to be in the store: those that are made, booted or logged in to for the first time
    /// since they booted.
    pub fn need_boxes(&self) -> Vec<String> {
        (self.machines.iter())
            .filter(|machine| machine.needs_box())
            .map(|machine| machine.machine.clone())
            .collect()
    }

    /// Returns machines that are made or booted.
    pub fn boots(&self) -> Vec<String> {
        self.machines
            .iter()
            .filter(|machine| machine.boots())
            .map(|machine| machine.machine.clone())
            .collect()
    }
}

impl MachinePlan {
    /// Returns a plan that reports neither drift nor changed provisioners.
    pub(super) fn new(machine: &str, after: Vec<String>, steps: Vec<Step>) -> Self {
        MachinePlan {
            machine: machine.to_string(),
            after,
            steps,
            drift: Vec::new(),
            stale: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub fn needs_box(&self) -> bool {
        self.boots() || self.steps.contains(&Step::Reach)
    }

    pub fn boots(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step, Step::Box | Step::Define { .. } | Step::Disk))
    }
}
