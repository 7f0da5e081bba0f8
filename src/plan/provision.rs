//! Chooses the provisioners that run, and finds those that only changed.

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    machine::{Phase, Record},
    machinefile::RunPolicy,
};

use super::{
    hooks::after_up,
    steps::{MachinePlan, Plan, ProvisionReason, Step, install_kernel},
    wanted::{Existing, WantedMachine, WantedProvisioner},
};

/// A provisioner that ran with other inputs than it has now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stale {
    pub provisioner: String,
    /// When it ran.
    pub ran: Timestamp,
}

/// The provisioners that `stead provision` was asked to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Provisioners that have not run, that changed, or that always run.
    Due,
    /// All, except those that only run by name.
    All,
    Only(Vec<String>),
    /// This one and all after it, except those that only run by name.
    From(String),
}

/// Returns what an `up` runs; with `again`, also what ran before.
pub(super) fn due(wanted: &WantedMachine, record: Option<&Record>, again: bool) -> Vec<Step> {
    let reason = |provisioner: &WantedProvisioner| {
        use RunPolicy::{Always, Changed, Never, Once};
        let ran = record.and_then(|record| record.provisioned.get(&provisioner.name));
        let changed = ran.is_some_and(|ran| ran.digest != provisioner.digest);
        match (provisioner.run, ran) {
            (Never, _) => None,
            (_, None) => Some(ProvisionReason::NeverRan),
            _ if again => Some(ProvisionReason::Request),
            (Changed | Always, _) if changed => Some(ProvisionReason::Changed),
            (Always, _) => Some(ProvisionReason::Always),
            (Once | Changed, _) => None,
        }
    };
    steps(wanted, reason)
}

fn steps(
    wanted: &WantedMachine,
    reason: impl Fn(&WantedProvisioner) -> Option<ProvisionReason>,
) -> Vec<Step> {
    (wanted.provisioners.iter())
        .filter_map(|provisioner| {
            Some(Step::Provision {
                name: provisioner.name.clone(),
                reason: reason(provisioner)?,
            })
        })
        .collect()
}

/// Returns provisioners that changed and only run on request.
pub(super) fn stale(wanted: &WantedMachine, existing: &Existing) -> Vec<Stale> {
    let Some(record) = (existing.observed.as_ref())
        .map(|observed| &observed.record)
        .filter(|record| record.phase == Phase::Created)
    else {
        return Vec::new();
    };
    (wanted.provisioners.iter())
        .filter(|provisioner| provisioner.run == RunPolicy::Once)
        .filter_map(|provisioner| {
            let ran = record.provisioned.get(&provisioner.name)?;
            (ran.digest != provisioner.digest).then(|| Stale {
                provisioner: provisioner.name.clone(),
                ran: ran.at,
            })
        })
        .collect()
}

/// Returns the steps of `stead provision`. After them, a machine that was not ready is ready.
pub fn provision(machines: &[(WantedMachine, Existing)], asked: &Request) -> Plan {
    let plans = machines
        .iter()
        .map(|(wanted, existing)| MachinePlan {
            machine: wanted.machine.name.clone(),
            after: wanted.machine.depends_on.clone(),
            steps: provision_steps(wanted, existing, asked),
            drift: Vec::new(),
            stale: Vec::new(),
        })
        .collect();
    Plan {
        machines: plans,
        runs: Vec::new(),
    }
}

fn provision_steps(wanted: &WantedMachine, existing: &Existing, asked: &Request) -> Vec<Step> {
    let observed = existing.observed.as_ref();
    let record = observed.map(|observed| &observed.record);
    let by_name = |provisioner: &WantedProvisioner, named: bool| {
        (named || provisioner.run != RunPolicy::Never).then_some(ProvisionReason::Request)
    };
    let provisions = match asked {
        Request::All => due(wanted, record, true),
        Request::Only(names) => steps(wanted, |provisioner| {
            by_name(provisioner, true).filter(|_| names.contains(&provisioner.name))
        }),
        Request::From(name) => {
            let start = (wanted.provisioners.iter()).position(|it| it.name == *name);
            let after: Vec<&str> = start
                .map(|start| &wanted.provisioners[start..])
                .unwrap_or_default()
                .iter()
                .map(|provisioner| provisioner.name.as_str())
                .collect();
            steps(wanted, |provisioner| {
                by_name(provisioner, provisioner.name == *name)
                    .filter(|_| after.contains(&provisioner.name.as_str()))
            })
        }
        Request::Due => {
            let changed = stale(wanted, existing);
            let due = due(wanted, record, false);
            // In the order of the Machinefile.
            steps(wanted, |provisioner| {
                let is_changed = |it: &Stale| it.provisioner == provisioner.name;
                let reason = due.iter().find_map(|step| match step {
                    Step::Provision { name, reason } if *name == provisioner.name => Some(*reason),
                    _ => None,
                });
                reason.or_else(|| {
                    (changed.iter().any(is_changed)).then_some(ProvisionReason::Changed)
                })
            })
        }
    };
    if provisions.is_empty() {
        return provisions;
    }
    let ready = observed.filter(|observed| observed.is_ready());
    let mut all = Vec::new();
    if ready.is_none() {
        all.push(Step::Reach);
        let kernel = record.and_then(|record| record.spec.kernel.as_ref());
        all.extend(kernel.and_then(install_kernel));
    }
    all.extend(provisions);
    all.push(Step::Ready);
    all.extend(after_up(wanted, ready));
    all
}
