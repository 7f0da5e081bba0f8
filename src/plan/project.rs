//! Chooses the provisioners of the whole project that run over machines after those are set up.

use serde::Serialize;

use crate::{
    machine::{Phase, Provisioned},
    machinefile::RunPolicy,
};

use super::{
    provisioners::Request,
    step::{ProvisionReason, Step},
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

/// A run over several machines. It comes after all their other steps except the readiness checks, which often check
/// its work.
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

    pub fn done(&self) -> String {
        format!("provisioned {}", self.machines.join(", "))
    }

    fn step(&self) -> Step {
        Step::Provision {
            name: self.provisioner.clone(),
            reason: self.reason,
        }
    }
}

/// Returns the name of a project's provisioner in a machine's record. The names of a machine's own provisioners have no `/`.
pub fn record_name(provisioner: &str) -> String {
    format!("project/{provisioner}")
}

/// Returns the runs of an `up`: those that some of their machines lack, those that changed, and those that always run.
/// With `again`, also those that ran before.
pub fn pending_runs(
    wanted: &[WantedRun],
    machines: &[(WantedMachine, Existing)],
    again: bool,
) -> Vec<ProjectRun> {
    let failed = |run: &WantedRun| {
        let name = record_name(&run.name);
        (machines.iter())
            .filter(|(wanted, _)| run.machines.contains(&wanted.machine.name))
            .filter_map(|(_, existing)| existing.observed.as_ref())
            .any(|observed| observed.record.failed.contains_key(&name))
    };
    let reason = |run: &WantedRun| {
        use RunPolicy::{Always, Changed, Never, Once};
        match (run.run, ran(run, machines)) {
            (Never, _) => None,
            (_, LastRun::Never) if failed(run) => Some(ProvisionReason::Failed),
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

/// Returns the runs of `stead provision`. They come after the machines' own provisioners. So `--from` with a
/// machine's provisioner has all runs, and `--from` with a project's has that one and those after it.
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        machine::Power,
        plan::{
            tests::{existing, said, wanted},
            up,
        },
    };

    fn site(digest: &str, run: RunPolicy) -> WantedRun {
        WantedRun {
            name: "site".into(),
            run,
            digest: digest.into(),
            machines: vec!["db".into(), "web".into()],
        }
    }

    /// A machine that is up and whose record has the project's provisioner with this digest.
    fn ran(name: &str, digest: Option<&str>) -> (WantedMachine, Existing) {
        let mut existing = existing(name, Phase::Created, Power::Running, true);
        if let Some(observed) = &mut existing.observed {
            observed.record.provisioned.extend(digest.map(|digest| {
                let ran = Provisioned {
                    digest: digest.into(),
                    at: Timestamp::UNIX_EPOCH,
                };
                (record_name("site"), ran)
            }));
        }
        let mut wanted = wanted(name, &[]);
        wanted.provisioners.retain(|it| it.run == RunPolicy::Once);
        (wanted, existing)
    }

    #[test]
    fn a_run_over_several_machines_is_pending_while_one_lacks_it() {
        let reason = |run: &WantedRun, machines: &[(WantedMachine, Existing)]| {
            (pending_runs(std::slice::from_ref(run), machines, false).first()).map(|run| run.reason)
        };
        let once = site("one", RunPolicy::Once);
        let done = [ran("db", Some("one")), ran("web", Some("one"))];
        assert_eq!(reason(&once, &done), None);
        let new = [ran("db", Some("one")), ran("web", None)];
        assert_eq!(reason(&once, &new), Some(ProvisionReason::NeverRan));
        let mut failed = new.clone();
        if let Some(observed) = &mut failed[1].1.observed {
            let when = Timestamp::UNIX_EPOCH;
            observed.record.failed.insert(record_name("site"), when);
        }
        assert_eq!(reason(&once, &failed), Some(ProvisionReason::Failed));
        let edited = site("two", RunPolicy::Changed);
        assert_eq!(reason(&edited, &done), Some(ProvisionReason::Changed));
        let by_name = site("one", RunPolicy::Never);
        assert_eq!(reason(&by_name, &new), None);
        let always = site("one", RunPolicy::Always);
        assert_eq!(reason(&always, &done), Some(ProvisionReason::Always));
        // What ran on a machine that is being destroyed does not count.
        let mut going = done.clone();
        if let Some(observed) = &mut going[0].1.observed {
            observed.record.phase = Phase::Destroying;
        }
        assert_eq!(reason(&once, &going), Some(ProvisionReason::NeverRan));
    }

    /// If a run with `run="once"` changed, it waits for a request, like a machine's own provisioner.
    #[test]
    fn a_run_over_several_machines_that_changed_waits_to_be_asked_for() {
        let done = [ran("db", Some("one")), ran("web", Some("one"))];
        let wanted = [site("two", RunPolicy::Once)];
        assert!(pending_runs(&wanted, &done, false).is_empty());
        assert_eq!(stale_runs(&wanted, &done).len(), 1);
        let reasons = |asked: &Request| -> Vec<ProvisionReason> {
            (asked_runs(&wanted, &done, asked).iter())
                .map(|run| run.reason)
                .collect()
        };
        assert_eq!(reasons(&Request::Due), [ProvisionReason::Changed]);
        assert_eq!(reasons(&Request::All), [ProvisionReason::Request]);
        assert_eq!(
            reasons(&Request::Only(vec!["site".into()])),
            [ProvisionReason::Request]
        );
        assert!(reasons(&Request::Only(vec!["app".into()])).is_empty());
        assert_eq!(
            reasons(&Request::From("app".into())),
            [ProvisionReason::Request]
        );
        let same = [site("one", RunPolicy::Once)];
        assert!(asked_runs(&same, &done, &Request::Due).is_empty());
    }

    #[test]
    fn readiness_is_checked_after_a_run_over_the_machine() {
        let machines = [ran("db", Some("one")), ran("web", None), ran("lone", None)];
        let mut plan = up(&machines);
        assert!(plan.machines.iter().all(|machine| machine.is_empty()));
        let pending = pending_runs(&[site("one", RunPolicy::Once)], &machines, false);
        plan.add_runs(pending);
        assert_eq!(
            said(&plan),
            [
                "db after []: ready",
                "web after []: ready",
                "lone after []: "
            ]
        );
        assert_eq!(plan.runs_over("web"), ["site"]);
        assert!(plan.runs_over("lone").is_empty());
        assert_eq!(
            plan.runs[0].describe(),
            "run provisioner site over db, web (it has not run yet)"
        );
    }
}
