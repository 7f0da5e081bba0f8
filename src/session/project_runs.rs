//! Provisioners of the whole project: which ones a command may run, and whether this host can.

use crate::{
    failure::Failure,
    host::shell::shell_quote,
    machinefile::RunPolicy,
    plan::{self, Plan, Step, WantedRun},
    provision::{self, Inventory, ansible},
    report::{Event, EventKind, clean::Shown},
};

use super::{Session, operation::Operation, target::Target};

/// Provisioners of the project, for a command that acts on some of its machines.
#[derive(Default)]
pub struct ProjectRuns {
    /// Those with no other machines than the command's.
    pub within: Vec<WantedRun>,
    /// Those that run on other machines too, so the command must not run them.
    pub skipped: Vec<WantedRun>,
}

impl Session {
    pub fn project_runs(&self, targets: &[Target]) -> Result<ProjectRuns, Failure> {
        let mut runs = ProjectRuns {
            within: Vec::new(),
            skipped: Vec::new(),
        };
        if self.project.provisioners.is_empty() {
            return Ok(runs);
        }
        let inventory = Inventory::of(&self.project);
        let digests = provision::Digests::open(&self.data);
        for run in &self.project.provisioners {
            let machines: Vec<&str> = run.machines.iter().map(String::as_str).collect();
            let provisioner = &run.provisioner;
            let digest = digests
                .of(provisioner, &inventory.input(&machines))
                .map_err(|(path, error)| {
                    Failure::error(
                        format!(
                            "provisioner {}: cannot read {}: {error}",
                            provisioner.name,
                            path.shown()
                        ),
                        "put the file back, or change the Machinefile",
                    )
                })?;
            let wanted = WantedRun {
                name: provisioner.name.clone(),
                run: provisioner.run,
                digest,
                machines: run.machines.clone(),
            };
            let whole = (run.machines.iter())
                .all(|name| targets.iter().any(|it| it.wanted.machine.name == *name));
            if whole {
                runs.within.push(wanted);
            } else {
                runs.skipped.push(wanted);
            }
        }
        Ok(runs)
    }
}

/// Returns the note about a provisioner that has changed since it ran.
pub fn stale_line(run: &WantedRun) -> String {
    format!(
        "changed since it ran; `stead provision --only {}` runs it",
        shell_quote(&run.name)
    )
}

impl ProjectRuns {
    /// Reports those that have changed since they ran, and were not run.
    pub fn say_stale(&self, operation: &Operation) {
        for run in plan::stale_runs(&self.within, &operation.pairs()) {
            operation.reporter.event(&Event::of_provisioner(
                &run.name,
                EventKind::Notice {
                    message: stale_line(run),
                },
            ));
        }
    }

    /// Reports those that were skipped although a machine of this command lacks them, or has an older
    /// version of them.
    pub fn say_skipped(&self, operation: &Operation) {
        for run in &self.skipped {
            let name = plan::record_name(&run.name);
            let mut ran = (operation.targets.iter())
                .filter(|target| run.machines.contains(&target.wanted.machine.name))
                .map(|target| {
                    let observed = target.existing.observed.as_ref()?;
                    observed.record.provisioned.get(&name)
                });
            let lacks = ran.clone().any(|ran| ran.is_none());
            let changed = ran.any(|ran| ran.is_some_and(|ran| ran.digest != run.digest));
            let message = match run.run {
                RunPolicy::Never => continue,
                RunPolicy::Once if changed && !lacks => stale_line(run),
                _ if lacks || changed => format!(
                    "was skipped: it runs on {}, and this command did not act on all of them; `stead up` runs it",
                    run.machines.join(", ")
                ),
                _ => continue,
            };
            operation.reporter.event(&Event::of_provisioner(
                &run.name,
                EventKind::Notice { message },
            ));
        }
    }
}

/// Fails before anything begins if the plan runs Ansible on this host, but the host cannot.
pub fn need_ansible(operation: &Operation, plan: &Plan) -> Result<(), Failure> {
    let project = &operation.session.project;
    let of_project = (plan.runs.iter()).filter_map(|run| {
        let found =
            (project.provisioners.iter()).find(|it| it.provisioner.name == run.provisioner)?;
        Some(&found.provisioner.kind)
    });
    let of_machines = plan.machines.iter().flat_map(|machine| {
        let target =
            (operation.targets.iter()).find(|target| target.wanted.machine.name == machine.machine);
        machine.steps.iter().filter_map(move |step| {
            let Step::Provision { name, .. } = step else {
                return None;
            };
            let found = (target?.wanted.machine.provisioners.iter()).find(|it| it.name == *name)?;
            Some(&found.kind)
        })
    });
    for kind in of_machines.chain(of_project) {
        ansible::check(kind)?;
    }
    Ok(())
}
