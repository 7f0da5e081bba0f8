//! The plan of `stead provision`.

use super::{
    hooks::after_up,
    machine_plan::{MachinePlan, Plan},
    provisioners::{Request, asked_steps},
    step::Step,
    up::install_kernel,
    wanted::{Existing, WantedMachine},
};

/// Returns the steps of `stead provision`. After them, a machine that was not ready is ready.
pub fn provision(machines: &[(WantedMachine, Existing)], asked: &Request) -> Plan {
    let plans = machines.iter().map(|(wanted, existing)| {
        let steps = provision_steps(wanted, existing, asked);
        MachinePlan::new(
            &wanted.machine.name,
            wanted.machine.depends_on.clone(),
            steps,
        )
    });
    Plan::of(plans.collect())
}

fn provision_steps(wanted: &WantedMachine, existing: &Existing, asked: &Request) -> Vec<Step> {
    let observed = existing.observed.as_ref();
    let record = observed.map(|observed| &observed.record);
    let provisions = asked_steps(wanted, existing, asked);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        machine::{Phase, Power},
        machinefile::RunPolicy,
        plan::{
            WantedProvisioner,
            tests::{existing, one, wanted},
        },
    };

    #[test]
    fn what_provision_runs() {
        let mut web = wanted("web", &[]);
        web.provisioners.insert(
            1,
            WantedProvisioner {
                name: "seed".into(),
                run: RunPolicy::Never,
                digest: "three".into(),
            },
        );
        web.provisioners[2].run = RunPolicy::Once;
        let run = |edited: bool, ready: bool, asked: Request| {
            let mut web = web.clone();
            if edited {
                web.provisioners[0].digest = "edited".into();
            }
            let is = existing("web", Phase::Created, Power::Running, ready);
            one(&provision(&[(web, is)], &asked)).replace("web after []: ", "")
        };
        assert_eq!(run(false, true, Request::Due), "");
        assert_eq!(run(true, true, Request::Due), "provision:app ready");
        assert_eq!(
            run(false, true, Request::All),
            "provision:app provision:hello ready"
        );
        assert_eq!(
            run(false, true, Request::Only(vec!["seed".into()])),
            "provision:seed ready"
        );
        assert_eq!(
            run(false, true, Request::From("app".into())),
            "provision:app provision:hello ready"
        );
        assert_eq!(
            run(false, false, Request::From("seed".into())),
            "reach provision:seed provision:hello ready"
        );
    }
}
