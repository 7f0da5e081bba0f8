//! Provisioners of the whole project: which a command may run, and whether this host can.

use crate::{
    failure::Failure,
    host::shell::shell_quote,
    machinefile::RunPolicy,
    plan::{self, Plan, Step, WantedRun},
    provision::{self, Inventory, ansible},
    report::{Event, EventKind, clean::Shown},
};

use super::{Session, operation::Operation, target::Target};

/// Provisioners of the project, as a command sees them that is about some machines.
#[derive(Default)]
pub struct ProjectRuns {
    /// Those whose machines it is all about.
    pub within: Vec<WantedRun>,
    /// Those that are over other machines too, which it must leave alone.
    pub left_out: Vec<WantedRun>,
}

impl Session {
    pub fn project_runs(&self, targets: &[Target]) -> Result<ProjectRuns, Failure> {
        let mut runs = ProjectRuns {
            within: Vec::new(),
            left_out: Vec::new(),
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
                runs.left_out.push(wanted);
            }
        }
        Ok(runs)
    }
}

/// Of a run that changed since it ran, where it waits to be asked for.
pub fn stale_line(run: &WantedRun) -> String {
    format!(
        "changed since it ran; `stead provision --only {}` runs it",
        shell_quote(&run.name)
    )
}

impl ProjectRuns {
    /// Says which changed since they ran, and were not run.
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

    /// Says which were left out, where some machine of this command lacks them, or has them as they
    /// were before they changed.
    pub fn say_left_out(&self, operation: &Operation) {
        for run in &self.left_out {
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
                    "was not run: it is over {}, and this was not about all of them; `stead up` runs it",
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

/// Fails before anything begins, where the plan runs Ansible on this host and that cannot be done.
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
