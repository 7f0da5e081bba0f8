//! Plans that halt and destroy machines.

use crate::{
    machine::{Phase, Power},
    machinefile::Moment,
};

use super::{
    hooks::hooks,
    machine_plan::{MachinePlan, Plan},
    step::Step,
    wanted::{Existing, WantedMachine},
};

/// Returns the steps that shut machines down, dependents first.
pub fn halt(machines: &[(WantedMachine, Existing)], force: bool) -> Plan {
    backwards(machines, |wanted, existing| {
        let Some(observed) = (existing.observed.as_ref()).filter(|it| it.is_up()) else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        if observed.condition.transient {
            steps.push(Step::Persist);
        }
        // A paused guest can neither run hooks nor shut down.
        let paused = observed.power == Power::Paused;
        if paused && !force {
            steps.push(Step::Resume);
        }
        steps.extend(hooks(
            &wanted.machine,
            Moment::BeforeHalt,
            !(paused && force),
        ));
        steps.push(Step::Stop { graceful: !force });
        steps.extend(hooks(&wanted.machine, Moment::AfterHalt, false));
        steps
    })
}

/// As [`halt`], for machines that are booted next. A saved machine is restored first, so that it can shut down and
/// loses nothing in its memory.
pub fn halt_to_boot(machines: &[(WantedMachine, Existing)], force: bool) -> Plan {
    let mut plan = halt(machines, force);
    for (machine, (_, existing)) in plan.machines.iter_mut().zip(machines) {
        let saved = (existing.observed.as_ref()).is_some_and(|it| it.condition.saved);
        if saved && machine.is_empty() {
            machine.steps = vec![Step::Restore, Step::Stop { graceful: !force }];
        }
    }
    plan
}

/// Returns the steps that remove machines completely, dependents first.
pub fn destroy(machines: &[(WantedMachine, Existing)]) -> Plan {
    backwards(machines, destroy_steps)
}

pub(super) fn destroy_steps(wanted: &WantedMachine, existing: &Existing) -> Vec<Step> {
    let mut steps = Vec::new();
    let Some(observed) = &existing.observed else {
        if existing.disk {
            steps.push(Step::DeleteDisk);
            steps.push(Step::RemoveFiles);
        }
        return steps;
    };
    // If a destroy was interrupted, its `before` hooks have succeeded already.
    if observed.record.phase != Phase::Destroying {
        steps.extend(hooks(
            &wanted.machine,
            Moment::BeforeDestroy,
            observed.power == Power::Running,
        ));
    }
    steps.push(Step::Retire);
    if observed.is_up() {
        steps.push(Step::Stop { graceful: false });
    }
    steps.push(Step::DeleteDisk);
    steps.push(Step::RemoveFiles);
    steps.push(Step::Undefine);
    steps.extend(hooks(&wanted.machine, Moment::AfterDestroy, false));
    steps
}

fn backwards(
    machines: &[(WantedMachine, Existing)],
    steps: impl Fn(&WantedMachine, &Existing) -> Vec<Step>,
) -> Plan {
    let plans = machines.iter().map(|(wanted, existing)| {
        let name = &wanted.machine.name;
        let after = (machines.iter())
            .filter(|(other, _)| other.machine.depends_on.contains(name))
            .map(|(other, _)| other.machine.name.clone())
            .collect();
        MachinePlan::new(name, after, steps(wanted, existing))
    });
    Plan::of(plans.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{one, wanted};

    #[test]
    fn a_machine_that_is_not_there_has_nothing_to_stop() {
        let none = || [(wanted("web", &[]), Existing::default())];
        assert_eq!(one(&halt(&none(), false)), "web after []: ");
        assert_eq!(one(&destroy(&none())), "web after []: ");
    }
}
