//! Chooses the provisioners that run, and finds those that only changed.

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    machine::{Phase, Record},
    machinefile::RunPolicy,
};

use super::{
    step::{ProvisionReason, Step},
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

/// Returns the provisioners that an `up` runs; with `again`, also those that ran before.
pub(super) fn due(wanted: &WantedMachine, record: Option<&Record>, again: bool) -> Vec<Step> {
    let reason = |provisioner: &WantedProvisioner| {
        use RunPolicy::{Always, Changed, Never, Once};
        let ran = record.and_then(|record| record.provisioned.get(&provisioner.name));
        let changed = ran.is_some_and(|ran| ran.digest != provisioner.digest);
        let failed = record.is_some_and(|record| record.failed.contains_key(&provisioner.name));
        match (provisioner.run, ran) {
            (Never, _) => None,
            (_, None) if failed => Some(ProvisionReason::Failed),
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

/// Returns what `stead provision` runs.
pub(super) fn asked_steps(
    wanted: &WantedMachine,
    existing: &Existing,
    asked: &Request,
) -> Vec<Step> {
    let record = (existing.observed.as_ref()).map(|observed| &observed.record);
    let by_name = |provisioner: &WantedProvisioner, named: bool| {
        (named || provisioner.run != RunPolicy::Never).then_some(ProvisionReason::Request)
    };
    match asked {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        machine::Power,
        plan::{
            tests::{existing, one, wanted},
            up, up_again,
        },
    };

    /// An edited provisioner is reported, and runs only if its `run` says so.
    #[test]
    fn an_edited_provisioner_runs_as_its_run_says() {
        let steps = |run, digest: &str| {
            let mut web = wanted("web", &[]);
            web.provisioners.pop();
            web.provisioners[0].run = run;
            web.provisioners[0].digest = digest.into();
            let ready = existing("web", Phase::Created, Power::Running, true);
            let plan = up(&[(web, ready)]);
            let stale: Vec<_> = (plan.machines[0].stale.iter())
                .map(|stale| stale.provisioner.clone())
                .collect();
            (one(&plan).replace("web after []: ", ""), stale.join(" "))
        };
        let said = |steps: &str, stale: &str| (steps.to_string(), stale.to_string());
        use RunPolicy::{Always, Changed, Never, Once};
        assert_eq!(steps(Once, "edited"), said("", "app"));
        assert_eq!(steps(Once, "one"), said("", ""));
        assert_eq!(steps(Changed, "edited"), said("provision:app ready", ""));
        assert_eq!(steps(Changed, "one"), said("", ""));
        assert_eq!(steps(Always, "one"), said("provision:app ready", ""));
        assert_eq!(steps(Never, "edited"), said("", ""));
    }

    #[test]
    fn one_that_failed_runs_again_and_says_why() {
        let mut ready = existing("web", Phase::Created, Power::Running, true);
        let record = &mut ready.observed.as_mut().unwrap().record;
        record.provisioned.remove("app");
        record.failed.insert("app".into(), Timestamp::UNIX_EPOCH);
        let steps = due(&wanted("web", &[]), Some(record), false);
        assert_eq!(
            steps[0].describe(),
            "run provisioner app (its last run did not succeed)"
        );
    }

    #[test]
    fn all_provisioners_run_again() {
        let mut web = wanted("web", &[]);
        web.provisioners[1].run = RunPolicy::Never;
        let ready = existing("web", Phase::Created, Power::Running, true);
        let plan = up_again(&[(web, ready)]);
        assert_eq!(one(&plan), "web after []: provision:app ready");
        assert_eq!(
            plan.machines[0].steps[0].describe(),
            "run provisioner app (asked for)"
        );
    }
}
