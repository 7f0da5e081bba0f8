//! Plans that bring machines up.

use crate::{
    machine::{KernelSpec, Phase, Power, Share, has_other_checks, lacks_copy},
    machinefile::{Machine, Moment, SyncFolder, SyncKind},
};

use super::{
    drift::{after_boot, drift},
    hooks::{after_up, hooks},
    machine_plan::{MachinePlan, Plan},
    provisioners::{due, stale},
    step::{PhaseKept, Step},
    stop::destroy_steps,
    tuning::{after_live, changes},
    wanted::{Existing, WantedMachine},
};

/// Returns the steps that bring the machines up.
pub fn up(machines: &[(WantedMachine, Existing)]) -> Plan {
    up_with(machines, false)
}

/// As [`up`], but runs every provisioner again, except those that only run by name.
pub fn up_again(machines: &[(WantedMachine, Existing)]) -> Plan {
    up_with(machines, true)
}

fn up_with(machines: &[(WantedMachine, Existing)], again: bool) -> Plan {
    let plans = machines
        .iter()
        .map(|(wanted, existing)| MachinePlan {
            machine: wanted.machine.name.clone(),
            after: wanted.machine.depends_on.clone(),
            steps: up_steps(wanted, existing, again),
            stale: if again {
                Vec::new()
            } else {
                stale(wanted, existing)
            },
            drift: match &existing.observed {
                Some(observed) if observed.record.phase == Phase::Created => {
                    let has = if observed.is_up() {
                        after_live(&observed.record.spec, wanted)
                    } else if observed.condition.saved {
                        // It continues from its saved memory, with the old settings.
                        observed.record.spec.clone()
                    } else {
                        after_boot(&observed.record.spec, wanted)
                    };
                    drift(wanted, &has)
                }
                _ => Vec::new(),
            },
        })
        .collect();
    Plan::of(plans)
}

fn up_steps(wanted: &WantedMachine, existing: &Existing, again: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    // The kernel that it runs after these steps.
    let mut kernel = wanted.spec.as_ref().and_then(|spec| spec.kernel.clone());
    let mut record = existing.observed.as_ref().map(|observed| &observed.record);
    let mut power = existing
        .observed
        .as_ref()
        .map_or(Power::Off, |observed| observed.power);
    let mut ready = existing
        .observed
        .as_ref()
        .is_some_and(|observed| observed.is_ready());
    if record.is_some_and(|record| record.phase == Phase::Destroying) {
        // A destroy was interrupted, so what is left is destroyed too.
        steps.extend(destroy_steps(wanted, existing));
        record = None;
        power = Power::Off;
        ready = false;
    }
    let saved = record.is_some_and(|record| record.phase == Phase::Created)
        && (existing.observed.as_ref()).is_some_and(|observed| observed.condition.saved);
    if saved {
        // Not defined again: libvirt starts the saved machine, and the record would not match it.
        steps.extend(hooks(&wanted.machine, Moment::BeforeUp, true));
        steps.push(Step::Restore);
    } else if power == Power::Off {
        steps.extend(hooks(&wanted.machine, Moment::BeforeUp, true));
        steps.push(Step::Box);
        match record {
            Some(record) if record.phase == Phase::Created => {
                let spec = after_boot(&record.spec, wanted);
                kernel.clone_from(&spec.kernel);
                steps.push(Step::Define {
                    spec: Box::new(spec),
                    phase: PhaseKept::Created,
                });
            }
            _ => {
                if let Some(spec) = &wanted.spec {
                    steps.push(Step::Define {
                        spec: Box::new(spec.clone()),
                        phase: PhaseKept::New,
                    });
                }
                steps.push(Step::Disk);
            }
        }
        steps.push(Step::Seed);
        steps.push(Step::Start);
    }
    // Without a definition, its disk would belong to nothing once it stops.
    if power != Power::Off
        && (existing.observed.as_ref()).is_some_and(|observed| observed.condition.transient)
    {
        steps.push(Step::Persist);
    }
    if power == Power::Paused {
        steps.push(Step::Resume);
    }
    let stays = power != Power::Off || saved;
    if stays && let Some(record) = record {
        kernel.clone_from(&record.spec.kernel);
    }
    if power != Power::Off
        && let Some(record) = record
        && let spec = after_live(&record.spec, wanted)
        && spec != record.spec
    {
        steps.push(Step::Tune {
            changes: changes(wanted, &record.spec),
            spec: Box::new(spec),
        });
    }
    if ready && existing.needs_certificate {
        steps.push(Step::Certificate);
    }
    if !ready {
        steps.push(Step::Reach);
        steps.extend(kernel.as_ref().and_then(install_kernel));
        let shares = match record {
            // Only what the domain has can be mounted.
            Some(record) if stays => &record.spec.shares,
            _ => (wanted.spec.as_ref()).map_or(&[][..], |spec| &spec.shares),
        };
        let mounted = record.map_or(&[][..], |record| &record.mounted);
        steps.extend(sync_steps(&wanted.machine, shares, mounted));
    }
    let running = (existing.observed.as_ref())
        .filter(|_| ready)
        .and_then(|observed| observed.running.as_ref());
    if let Some(record) = record.filter(|_| ready) {
        let copies = sync_steps(&wanted.machine, &record.spec.shares, &record.mounted);
        steps.extend(
            copies.into_iter().filter(
                |step| matches!(step, Step::Sync { folder } if lacks_copy(running, folder)),
            ),
        );
    }
    let other_checks = has_other_checks(running, &wanted.machine.ready);
    let provisions = due(wanted, record, again);
    let provisioned = !provisions.is_empty();
    steps.extend(provisions);
    if !ready || provisioned || other_checks {
        steps.push(Step::Ready);
    }
    steps.extend(after_up(
        wanted,
        existing.observed.as_ref().filter(|_| ready),
    ));
    steps
}

/// Returns the steps that update a machine's folders. `shares` are those of its domain, `mounted` those that its guest
/// mounts at each boot.
pub fn sync_steps(machine: &Machine, shares: &[Share], mounted: &[Share]) -> Vec<Step> {
    let mut steps = Vec::new();
    if !shares.is_empty() || !mounted.is_empty() {
        steps.push(Step::Mount {
            shares: shares.to_vec(),
        });
    }
    let copied = (machine.syncs.iter()).filter_map(|folder| {
        let kind = match folder.kind {
            // The guest mounts these. If the domain lacks one, it gets it at the next boot.
            SyncKind::Virtiofs | SyncKind::NineP => return None,
            SyncKind::Rsync | SyncKind::Auto => SyncKind::Rsync,
            SyncKind::TwoWay => SyncKind::TwoWay,
        };
        // A copy into a mounted folder of the host would write and delete files on the host.
        let taken = |share: &Share| within(&share.to, &folder.to) || within(&folder.to, &share.to);
        (!shares.iter().any(taken)).then(|| Step::Sync {
            folder: SyncFolder {
                kind,
                ..folder.clone()
            },
        })
    });
    steps.extend(copied);
    steps
}

/// Whether `path` is `above` or below it.
fn within(path: &str, above: &str) -> bool {
    (path.strip_prefix(above)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns the step after the first login on a machine whose own bootloader is to boot a kernel of the Machinefile.
pub fn install_kernel(kernel: &KernelSpec) -> Option<Step> {
    kernel.installed.then(|| Step::InstallKernel {
        kernel: (kernel.release.clone()).unwrap_or_else(|| kernel.source.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        machine::{ShareKind, mark_of_checks, mark_of_copy},
        plan::{
            Change,
            tests::{existing, one, wanted},
        },
    };

    #[test]
    fn a_machine_that_was_undefined_while_it_ran_is_defined_again() {
        let mut there = existing("web", Phase::Created, Power::Running, true);
        let steps = |there: &crate::plan::Existing| {
            let machines = [(wanted("web", &[]), there.clone())];
            let first = |plan: Plan| plan.machines[0].steps.first().cloned();
            (
                first(up(&machines)),
                first(crate::plan::halt(&machines, false)),
            )
        };
        let (up_before, halt_before) = steps(&there);
        assert!(up_before != Some(Step::Persist) && halt_before != Some(Step::Persist));
        there.observed.as_mut().unwrap().condition.transient = true;
        assert_eq!(steps(&there), (Some(Step::Persist), Some(Step::Persist)));
    }

    #[test]
    fn a_certificate_is_renewed_while_the_machine_runs_on() {
        let mut web = wanted("web", &[]);
        web.provisioners.clear();
        let said = |power, ready| {
            let mut there = existing("web", Phase::Created, power, ready);
            there.needs_certificate = true;
            one(&up(&[(web.clone(), there)])).replace("web after []: ", "")
        };
        assert_eq!(said(Power::Running, true), "certificate");
        // Otherwise it gets one when it is reached.
        assert_eq!(said(Power::Running, false), "reach ready");
    }

    fn folder(to: &str, kind: SyncKind) -> SyncFolder {
        SyncFolder {
            from: "/shop/src".into(),
            to: to.into(),
            kind,
            exclude: Vec::new(),
            delete: true,
            gitignore: false,
            owner: None,
            readonly: false,
            watch: false,
            at: "Machinefile:3:5".into(),
        }
    }

    fn share(to: &str) -> Share {
        Share {
            from: "/shop/src".into(),
            to: to.into(),
            kind: ShareKind::Virtiofs,
            readonly: false,
        }
    }

    #[test]
    fn what_is_shared_is_mounted_and_the_rest_is_copied() {
        let mut machine = wanted("web", &[]);
        machine.provisioners.clear();
        machine.machine.syncs = vec![
            folder("/srv/copied", SyncKind::Rsync),
            folder("/srv/shared", SyncKind::Virtiofs),
            folder("/srv/auto", SyncKind::Auto),
            folder("/srv/auto-copied", SyncKind::Auto),
            folder("/srv/both", SyncKind::TwoWay),
        ];
        machine.spec.as_mut().unwrap().shares = vec![share("/srv/shared"), share("/srv/auto")];
        assert_eq!(
            one(&up(&[(machine.clone(), Existing::default())])),
            "web after []: box define disk seed start reach mount sync:/srv/copied sync:/srv/auto-copied sync:/srv/both ready"
        );
        // It was booted without the shares, so it cannot mount them; `drift` reports that. A virtiofs folder is not
        // copied instead.
        let running = existing("web", Phase::Created, Power::Running, false);
        let plan = up(&[(machine.clone(), running)]);
        assert_eq!(
            one(&plan),
            "web after []: reach sync:/srv/copied sync:/srv/auto sync:/srv/auto-copied sync:/srv/both ready; drift sync"
        );
        assert_eq!(plan.machines[0].drift[0].takes, Change::NextBoot);
        let off = existing("web", Phase::Created, Power::Off, false);
        assert!(one(&up(&[(machine, off)])).contains("define seed start reach mount"));
    }

    #[test]
    fn what_changed_while_a_machine_runs_is_seen() {
        let mut machine = wanted("web", &[]);
        machine.provisioners.clear();
        machine.machine.syncs = vec![folder("/srv/app", SyncKind::Rsync)];
        let mut there = existing("web", Phase::Created, Power::Running, true);
        let said = |machine: &WantedMachine, there: &Existing| {
            one(&up(&[(machine.clone(), there.clone())])).replace("web after []: ", "")
        };
        // An older stead made it ready, and did not record by which checks.
        assert_eq!(said(&machine, &there), "");
        let running = (there.observed.as_mut())
            .and_then(|it| it.running.as_mut())
            .unwrap();
        running.checks = Some(mark_of_checks(&machine.machine.ready));
        running.copied = Some([mark_of_copy(&machine.machine.syncs[0])].into());
        assert_eq!(said(&machine, &there), "");
        machine.machine.ready.timeout *= 2;
        machine.machine.syncs[0].watch = true;
        machine.machine.syncs[0].at = "Machinefile:9:5".into();
        assert_eq!(said(&machine, &there), "");
        machine.machine.ready.tcp.push(5432);
        assert_eq!(said(&machine, &there), "ready");
        let plan = up(&[(machine.clone(), there.clone())]).without_provisioners();
        assert_eq!(one(&plan), "web after []: ready");
        machine
            .machine
            .syncs
            .push(folder("/srv/more", SyncKind::TwoWay));
        machine.machine.syncs[0].exclude.push("target".into());
        assert_eq!(said(&machine, &there), "sync:/srv/app sync:/srv/more ready");
    }

    #[test]
    fn nothing_is_copied_to_where_another_folder_of_the_host_is_mounted() {
        let mut machine = wanted("web", &[]);
        // /srv/app was shared at the last boot, and is to be copied now. rsync would delete files in the mounted
        // folder.
        machine.machine.syncs = vec![
            folder("/srv/app", SyncKind::Rsync),
            folder("/srv/app/below", SyncKind::TwoWay),
            folder("/srv", SyncKind::Rsync),
            folder("/srv/application", SyncKind::Rsync),
        ];
        let ids = |shares: &[Share], mounted: &[Share]| -> Vec<String> {
            (super::sync_steps(&machine.machine, shares, mounted).iter())
                .map(|step| step.id())
                .collect()
        };
        assert_eq!(
            ids(&[share("/srv/app")], &[]),
            ["mount", "sync:/srv/application"]
        );
        // The guest stops mounting a folder that is not shared any more.
        assert_eq!(ids(&[], &[share("/srv/app")])[0], "mount");
    }
}
