//! Puts hooks among the steps of a machine.

use crate::{
    machine::Observed,
    machinefile::{Hook, HookRuns, Machine, Moment},
};

use super::{steps::Step, wanted::WantedMachine};

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

/// Those of `after "up"`: for a machine that becomes ready, and for one that became so in an `up`
/// that did not come to their end. `ready` is the machine that is ready already.
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

/// Describes a hook for `stead plan`.
pub(super) fn describe(hook: &Hook, left_out: bool) -> String {
    let place = match hook.runs {
        HookRuns::Host(_) => "on the host",
        HookRuns::Guest(_) => "in the guest",
    };
    let why = if left_out {
        " (skipped: the machine is off)"
    } else {
        ""
    };
    format!("{}: run {} {place}{why}", hook.moment, hook.label())
}
