//! Packs a machine as a box: all steps are done to a copy of it, which is a machine too.

use crate::{boxes::Packing, machine::Identity, machinefile::Ready};

use super::{
    machine_plan::{MachinePlan, Plan},
    step::{PhaseKept, Step},
    stop::destroy_steps,
    wanted::{Existing, WantedMachine},
};

/// Names of machines have no dots, so no machine of a Machinefile has the name of a copy.
const SUFFIX: &str = ".pack";

/// Returns the name of the copy of a machine while it is packed.
pub fn copy_name(machine: &str) -> String {
    format!("{machine}{SUFFIX}")
}

/// Returns the name of the machine itself, from its own name or that of its copy.
pub fn original(name: &str) -> &str {
    name.strip_suffix(SUFFIX).unwrap_or(name)
}

/// Returns the copy of an existing machine: it has the machine's settings, but no forwards and no shares, and nothing
/// of the Machinefile is done to it. `identity` is the copy's. `None` if the machine does not exist.
pub fn copy_of(
    wanted: &WantedMachine,
    existing: &Existing,
    identity: Identity,
) -> Option<WantedMachine> {
    let observed = existing.observed.as_ref()?;
    let name = copy_name(&wanted.machine.name);
    let mut spec = observed.record.spec.clone();
    spec.forwards.clear();
    spec.shares.clear();
    spec.user_data = None;
    // It runs briefly, and would take its CPUs and memory from the machine itself.
    spec.tuning = Default::default();
    let mut machine = wanted.machine.clone();
    machine.ready = Ready {
        timeout: machine.ready.timeout,
        ..Ready::default()
    };
    machine.hostname = spec.hostname.clone();
    machine.user = spec.user.clone();
    machine.cpus = spec.cpus;
    machine.memory = spec.memory;
    machine.disk = Some(spec.disk);
    machine.tuning = Default::default();
    machine.depends_on.clear();
    machine.forwards.clear();
    machine.syncs.clear();
    machine.provisioners.clear();
    machine.hooks.clear();
    machine.user_data = None;
    machine.name = name.clone();
    Some(WantedMachine {
        owner: wanted.owner.clone(),
        identity,
        machine,
        spec: Some(spec),
        provisioners: Vec::new(),
        copy_of: Some(wanted.machine.name.clone()),
        run_of: None,
    })
}

/// Returns the steps that make a box of a copy. First they destroy a copy that an earlier command left. The caller
/// must destroy this one afterwards, even if they fail.
pub fn pack(copy: &WantedMachine, existing: &Existing, packing: Packing) -> Plan {
    let mut steps = destroy_steps(copy, existing);
    steps.push(Step::Box);
    if let Some(spec) = &copy.spec {
        steps.push(Step::Define {
            spec: Box::new(spec.clone()),
            phase: PhaseKept::New,
        });
    }
    steps.extend([
        Step::CopyDisk,
        Step::Seed,
        Step::Start,
        Step::Reach,
        Step::Clean,
        // A shutdown would write to the disk.
        Step::Stop { graceful: false },
        Step::Seal,
        Step::Keep {
            packing: Box::new(packing),
        },
    ]);
    Plan::of(vec![MachinePlan::new(
        &copy.machine.name,
        Vec::new(),
        steps,
    )])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        boxes::Destination,
        machine::{Phase, Power},
        machinefile::{Bytes, Forward},
        plan::tests::{existing, identity, said, wanted},
    };

    #[test]
    fn a_copy_is_packed_and_not_the_machine() {
        let mut machine = wanted("web", &["db"]);
        machine.machine.forwards = vec![Forward::tcp(8080, 80)];
        let mut there = existing("web", Phase::Created, Power::Running, true);
        if let Some(observed) = &mut there.observed {
            observed.record.spec.forwards = machine.machine.forwards.clone();
            observed.record.spec.user_data = Some("aa".into());
        }
        assert!(copy_of(&machine, &Existing::default(), identity("web.pack")).is_none());
        let copy = copy_of(&machine, &there, identity("web.pack")).unwrap();
        assert_eq!(copy.machine.name, copy_name("web"));
        assert_eq!(original(&copy.machine.name), "web");
        assert_eq!(original("web"), "web");
        assert_eq!(copy.copy_of.as_deref(), Some("web"));
        assert_ne!(copy.identity, machine.identity);
        // It is like the machine, without forwards, user-data, dependencies and provisioners.
        let spec = copy.spec.clone().unwrap();
        assert_eq!(spec.disk, Bytes(10 * Bytes::GIB));
        assert!(spec.forwards.is_empty() && spec.user_data.is_none());
        assert!(copy.machine.depends_on.is_empty() && copy.provisioners.is_empty());

        let packing = Packing {
            name: "shop-web".into(),
            version: "1".into(),
            labels: BTreeMap::new(),
            to: Destination::Store,
        };
        let steps = "box define copy-disk seed start reach clean stop seal keep";
        assert_eq!(
            said(&pack(&copy, &Existing::default(), packing.clone())),
            [format!("web.pack after []: {steps}")]
        );
        // A copy that was left is destroyed first.
        let left = existing("web.pack", Phase::Created, Power::Running, false);
        assert_eq!(
            said(&pack(&copy, &left, packing)),
            [format!(
                "web.pack after []: retire stop delete-disk remove-files undefine {steps}"
            )]
        );
    }
}
