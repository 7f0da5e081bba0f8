//! Puts hooks among the steps of a machine.

use crate::{
    machine::Observed,
    machinefile::{HookRuns, Machine, Moment},
};

use super::{step::Step, wanted::WantedMachine};

/// Returns the hooks of a moment. If the guest is off, its hooks are only reported as skipped.
pub(super) fn hooks(machine: &Machine, moment: Moment, guest: bool) -> Vec<Step> {
    (machine.hooks.iter())
        .filter(|hook| hook.moment == moment)
        .zip(1..)
        .map(|(hook, n)| Step::Hook {
            left_out: !guest && matches!(hook.runs, HookRuns::Guest(_)),
            hook: Box::new(hook.clone()),
            n,
        })
        .collect()
}

/// Returns the hooks `after "up"`, if the machine becomes ready now, or became ready in an `up` that ended before
/// they had all succeeded. `ready` is the machine if it is ready already.
pub(super) fn after_up(wanted: &WantedMachine, ready: Option<&Observed>) -> Vec<Step> {
    let owed = ready.is_none_or(|observed| {
        (observed.running.as_ref()).is_some_and(|running| running.owes_after_up)
    });
    if owed {
        hooks(&wanted.machine, Moment::AfterUp, true)
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        machine::{Phase, Power},
        plan::{
            Existing, Plan, destroy, halt,
            tests::{existing, hook, one, wanted},
            up,
        },
    };

    /// They run only if the machine really starts, stops or is destroyed.
    #[test]
    fn hooks_stand_around_what_is_done() {
        let mut web = wanted("web", &[]);
        web.provisioners.clear();
        web.machine.hooks = vec![
            hook(Moment::AfterUp, true),
            hook(Moment::BeforeUp, false),
            hook(Moment::AfterUp, false),
            hook(Moment::BeforeHalt, true),
            hook(Moment::AfterHalt, false),
            hook(Moment::BeforeDestroy, true),
            hook(Moment::AfterDestroy, false),
        ];
        let ready = existing("web", Phase::Created, Power::Running, true);
        let booting = existing("web", Phase::Created, Power::Running, false);
        let off = existing("web", Phase::Created, Power::Off, false);
        let pair = |is: &Existing| [(web.clone(), is.clone())];
        let said = |plan: Plan| one(&plan).replace("web after []: ", "");
        assert_eq!(
            said(up(&pair(&off))),
            "before-up:1 box define seed start reach ready after-up:1 after-up:2"
        );
        assert_eq!(
            said(up(&pair(&booting))),
            "reach ready after-up:1 after-up:2"
        );
        assert_eq!(said(up(&pair(&ready))), "");
        assert_eq!(
            said(up(&pair(&off)).without_hooks()),
            "box define seed start reach ready"
        );
        // An earlier `up` was killed before they had all run.
        let mut owing = ready.clone();
        if let Some(running) = owing.observed.as_mut().and_then(|it| it.running.as_mut()) {
            running.owes_after_up = true;
        }
        assert_eq!(said(up(&pair(&owing))), "after-up:1 after-up:2");
        assert_eq!(
            said(halt(&pair(&ready), false)),
            "before-halt:1 stop after-halt:1"
        );
        assert_eq!(said(halt(&pair(&off), false)), "");
        assert_eq!(
            said(destroy(&pair(&ready))),
            "before-destroy:1 retire stop delete-disk remove-files undefine after-destroy:1"
        );
        let half = existing("web", Phase::Destroying, Power::Off, false);
        assert_eq!(
            said(destroy(&pair(&half))),
            "retire delete-disk remove-files undefine after-destroy:1"
        );
        assert_eq!(said(destroy(&pair(&Existing::default()))), "");
        let described: Vec<String> = (destroy(&pair(&off)).machines[0].steps.iter())
            .filter(|step| matches!(step, Step::Hook { .. }))
            .map(Step::describe)
            .collect();
        assert_eq!(
            described,
            [
                "before destroy: run an inline script in the guest (skipped: the machine is off)",
                "after destroy: run an inline script on the host"
            ]
        );
    }
}
