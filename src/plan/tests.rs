use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    boxes::{Destination, Packing},
    machine::{
        Identity, KernelSpec, Observed, Owner, Pause, Phase, Power, Provisioned, RECORD_FORMAT,
        Record, Running, Share, ShareKind, Spec,
    },
    machinefile::{
        Accel, Bytes, Forward, Hook, HookRuns, HostCommand, HostSource, Invocation, Machine,
        Moment, Ready, RunPolicy, ScriptSource, Shell, SyncFolder, SyncKind, Text, Tuning,
    },
};

use super::{
    Change, Existing, Plan, ProvisionReason, Request, Step, WantedMachine, WantedProvisioner,
    WantedRun, asked_runs, copy_name, copy_of, destroy, halt, halt_to_boot, original, pack,
    pending_runs, provision, record_name, stale_runs, up, up_again,
};

fn spec() -> Spec {
    Spec {
        box_name: "debian-12".into(),
        box_version: "12.12".into(),
        box_digest: "sha256:00".into(),
        cpus: 1,
        memory: Bytes(Bytes::GIB),
        disk: Bytes(10 * Bytes::GIB),
        hostname: "web".into(),
        user: None,
        accel: Accel::Tcg,
        cpu: None,
        kernel: None,
        user_data: None,
        forwards: Vec::new(),
        internet: true,
        tuning: Tuning::default(),
        shares: Vec::new(),
    }
}

fn identity(name: &str) -> Identity {
    Identity::of("shop", "/shop".as_ref(), name)
}

fn wanted(name: &str, depends_on: &[&str]) -> WantedMachine {
    WantedMachine {
        owner: Owner {
            project: "shop".into(),
            root: "/shop".into(),
            file: "Machinefile".into(),
        },
        identity: identity(name),
        machine: Machine {
            name: name.into(),
            one_of: None,
            hostname: name.into(),
            box_ref: "debian-12".into(),
            box_key: "debian-12".into(),
            box_file: None,
            box_sha256: None,
            cpus: 1,
            memory: Bytes(Bytes::GIB),
            disk: None,
            kernel: None,
            tuning: Tuning::default(),
            spans: Default::default(),
            labels: BTreeMap::new(),
            vars: Default::default(),
            depends_on: depends_on.iter().map(ToString::to_string).collect(),
            forwards: Vec::new(),
            syncs: Vec::new(),
            provisioners: Vec::new(),
            hooks: Vec::new(),
            ready: Ready::default(),
            user: None,
            user_data: None,
            accel: None,
            internet: true,
            cpu: None,
        },
        spec: Some(spec()),
        provisioners: vec![
            WantedProvisioner {
                name: "app".into(),
                run: RunPolicy::Once,
                digest: "one".into(),
            },
            WantedProvisioner {
                name: "hello".into(),
                run: RunPolicy::Always,
                digest: "two".into(),
            },
        ],
        copy_of: None,
        run_of: None,
    }
}

fn existing(name: &str, phase: Phase, power: Power, ready: bool) -> Existing {
    let ran = |digest: &str| Provisioned {
        digest: digest.into(),
        at: Timestamp::UNIX_EPOCH,
    };
    Existing {
        observed: Some(Observed {
            identity: identity(name),
            record: Record {
                format: RECORD_FORMAT,
                project: "shop".into(),
                root: "/shop".into(),
                file: None,
                machine: name.into(),
                phase,
                spec: spec(),
                ssh_port: 22022,
                login_user: "stead".into(),
                provisioned: BTreeMap::from([
                    ("app".to_string(), ran("one")),
                    ("hello".to_string(), ran("two")),
                ]),
                first_kernels: Default::default(),
                copy_of: None,
                run_of: None,
                login_ids: None,
                mounted: Vec::new(),
                lacks_virtiofs: None,
                new_keys: 0,
                claim: None,
            },
            power,
            condition: Default::default(),
            running: (power == Power::Running).then(|| Running {
                ready: ready.then_some(Timestamp::UNIX_EPOCH),
                ..Running::default()
            }),
        }),
        disk: true,
    }
}

/// One line per machine: its steps as `plan` says them, and its drift.
fn said(plan: &Plan) -> Vec<String> {
    plan.machines
        .iter()
        .map(|machine| {
            let steps: Vec<String> = machine.steps.iter().map(|step| step.id()).collect();
            let drift: Vec<&str> = machine.drift.iter().map(|drift| drift.what).collect();
            format!(
                "{} after [{}]: {}{}",
                machine.machine,
                machine.after.join(" "),
                steps.join(" "),
                if drift.is_empty() {
                    String::new()
                } else {
                    format!("; drift {}", drift.join(" "))
                }
            )
        })
        .collect()
}

fn one(plan: &Plan) -> String {
    said(plan).remove(0)
}

const FIRST_UP: &str =
    "web after []: box define disk seed start reach provision:app provision:hello ready";

#[test]
fn from_nothing() {
    let plan = up(&[(wanted("web", &[]), Existing::default())]);
    assert_eq!(one(&plan), FIRST_UP);
}

#[test]
fn cut_short_before_the_disk_was_whole() {
    let mut half = existing("web", Phase::Creating, Power::Off, false);
    if let Some(observed) = &mut half.observed {
        observed.record.provisioned.clear();
    }
    assert_eq!(one(&up(&[(wanted("web", &[]), half)])), FIRST_UP);
}

#[test]
fn cut_short_by_a_destroy() {
    let half = existing("web", Phase::Destroying, Power::Running, true);
    assert_eq!(
        one(&up(&[(wanted("web", &[]), half)])),
        "web after []: retire stop delete-disk remove-files undefine box define disk seed start reach provision:app provision:hello ready"
    );
}

#[test]
fn halted() {
    let off = existing("web", Phase::Created, Power::Off, false);
    assert_eq!(
        one(&up(&[(wanted("web", &[]), off)])),
        "web after []: box define seed start reach provision:hello ready"
    );
}

fn paused() -> Existing {
    let mut paused = existing("web", Phase::Created, Power::Paused, true);
    if let Some(observed) = &mut paused.observed {
        observed.condition.pause = Some(Pause::Asked);
    }
    paused
}

#[test]
fn a_paused_machine_is_resumed_before_anything_is_asked_of_it() {
    assert_eq!(
        one(&up(&[(wanted("web", &[]), paused())])),
        "web after []: resume reach provision:hello ready"
    );
    let mut web = wanted("web", &[]);
    web.machine.hooks = vec![hook(Moment::BeforeHalt, true)];
    let machines = [(web, paused())];
    assert_eq!(
        one(&halt(&machines, false)),
        "web after []: resume before-halt:1 stop"
    );
    let left_out = |plan: &Plan| {
        (plan.machines[0].steps.iter())
            .any(|step| matches!(step, Step::Hook { left_out: true, .. }))
    };
    assert!(!left_out(&halt(&machines, false)));
    // With --force it is not resumed, so nobody in it runs a hook.
    assert_eq!(
        one(&halt(&machines, true)),
        "web after []: before-halt:1 stop"
    );
    assert!(left_out(&halt(&machines, true)));
}

/// What was saved goes on as it was: to define it anew would make the record lie, and libvirt
/// would start the old one all the same.
#[test]
fn a_saved_machine_goes_on_as_it_was() {
    let mut saved = existing("web", Phase::Created, Power::Off, false);
    if let Some(observed) = &mut saved.observed {
        observed.condition.saved = true;
    }
    let mut web = wanted("web", &[]);
    if let Some(spec) = &mut web.spec {
        spec.memory = Bytes(2 * Bytes::GIB);
        spec.cpus = 4;
    }
    let machines = [(web, saved)];
    assert_eq!(
        one(&up(&machines)),
        "web after []: restore reach provision:hello ready; drift cpus memory"
    );
    assert!(halt(&machines, false).machines[0].is_empty());
    assert_eq!(
        one(&halt_to_boot(&machines, false)),
        "web after []: restore stop"
    );
    // A destroy takes what was saved along.
    assert_eq!(
        one(&destroy(&machines)),
        "web after []: retire delete-disk remove-files undefine"
    );
}

#[test]
fn up_and_not_seen_ready() {
    let booting = existing("web", Phase::Created, Power::Running, false);
    assert_eq!(
        one(&up(&[(wanted("web", &[]), booting)])),
        "web after []: reach provision:hello ready"
    );
}

#[test]
fn up_with_nothing_to_do() {
    let mut web = wanted("web", &[]);
    web.provisioners.pop();
    let ready = existing("web", Phase::Created, Power::Running, true);
    let plan = up(&[(web, ready)]);
    assert!(plan.machines[0].is_empty(), "{plan:?}");
}

/// What changed is told, and does not run by itself unless it is to.
#[test]
fn an_edited_provisioner_runs_when_it_is_to() {
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

fn hook(moment: Moment, guest: bool) -> Hook {
    let source = ScriptSource::Inline(Text("true".into()));
    let label = "an inline script".to_string();
    let run = Invocation::default();
    Hook {
        moment,
        at: "Machinefile:9:9".into(),
        runs: if guest {
            HookRuns::Guest(Shell {
                source,
                run,
                workdir: None,
                privileged: true,
                user: None,
                label,
            })
        } else {
            HookRuns::Host(HostCommand {
                what: HostSource::Script(source),
                run,
                label,
            })
        },
    }
}

/// They run when a machine really goes up, down or away.
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
    // Killed between them.
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

#[test]
fn what_a_boot_changes_is_no_drift_of_a_machine_that_is_off() {
    let mut web = wanted("web", &[]);
    web.provisioners.clear();
    let changed = Spec {
        cpus: 4,
        disk: Bytes(20 * Bytes::GIB),
        forwards: vec![Forward {
            host: 8080,
            guest: 80,
        }],
        ..spec()
    };
    web.spec = Some(changed);
    let ready = existing("web", Phase::Created, Power::Running, true);
    assert_eq!(
        one(&up(&[(web.clone(), ready)])),
        "web after []: ; drift cpus forward disk"
    );
    let off = existing("web", Phase::Created, Power::Off, false);
    assert_eq!(
        one(&up(&[(web, off)])),
        "web after []: box define seed start reach ready; drift disk"
    );
}

#[test]
fn dependents_come_up_last_and_go_down_first() {
    let machines = || {
        [("db", &[][..]), ("web", &["db"][..])].map(|(name, after)| {
            (
                wanted(name, after),
                existing(name, Phase::Created, Power::Running, true),
            )
        })
    };
    assert_eq!(up(&machines()).machines[1].after, ["db"]);
    assert_eq!(
        said(&halt(&machines(), false)),
        ["db after [web]: stop", "web after []: stop"]
    );
    assert_eq!(
        said(&destroy(&machines())),
        [
            "db after [web]: retire stop delete-disk remove-files undefine",
            "web after []: retire stop delete-disk remove-files undefine"
        ]
    );
}

#[test]
fn a_machine_that_is_not_there_has_nothing_to_stop() {
    let none = || [(wanted("web", &[]), Existing::default())];
    assert_eq!(one(&halt(&none(), false)), "web after []: ");
    assert_eq!(one(&destroy(&none())), "web after []: ");
}

#[test]
fn a_copy_is_packed_and_not_the_machine() {
    let mut machine = wanted("web", &["db"]);
    machine.machine.forwards = vec![Forward {
        host: 8080,
        guest: 80,
    }];
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
    // As the machine is, without what only one can have and without what is to be done to it.
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
    // One that was left goes first.
    let left = existing("web.pack", Phase::Created, Power::Running, false);
    assert_eq!(
        said(&pack(&copy, &left, packing)),
        [format!(
            "web.pack after []: retire stop delete-disk remove-files undefine {steps}"
        )]
    );
}

#[test]
fn what_can_change_while_it_runs_does() {
    let mut machine = wanted("web", &[]);
    let mut running = existing("web", Phase::Created, Power::Running, true);
    if let Some(observed) = &mut running.observed {
        observed.record.spec.tuning.memory.max = Some(Bytes(4 * Bytes::GIB));
    }
    if let Some(spec) = &mut machine.spec {
        spec.memory = Bytes(2 * Bytes::GIB);
        spec.tuning.memory.max = Some(Bytes(4 * Bytes::GIB));
        spec.tuning.cpu.shares = Some(512);
        spec.tuning.cpu.pin = Some("0-1".parse().unwrap());
        spec.tuning.disk.iops = Some(100);
        // These wait.
        spec.tuning.memory.reserve = false;
        spec.tuning.cpu.model = Some("Skylake-Client".into());
        spec.tuning.disk.preallocate = true;
    }
    let pairs = [(machine, running)];
    let plan = up(&pairs);
    let Step::Tune { spec, changes } = &plan.machines[0].steps[0] else {
        panic!("{:?}", plan.machines[0].steps);
    };
    assert_eq!(
        changes,
        "memory 1GiB → 2GiB, cpus pin none → 0-1, cpus shares none → 512, disk iops none → 100"
    );
    assert_eq!(spec.memory, Bytes(2 * Bytes::GIB));
    assert_eq!(spec.tuning.disk.iops, Some(100));
    assert!(!spec.tuning.disk.preallocate && spec.tuning.cpu.model.is_none());
    let left: Vec<_> = plan.machines[0]
        .drift
        .iter()
        .map(|drift| (drift.what, drift.takes))
        .collect();
    assert_eq!(
        left,
        [
            ("cpus model", Change::NextBoot),
            ("disk preallocate", Change::Replace)
        ]
    );
    // One that is off takes it all from its definition.
    let (machine, _) = &pairs[0];
    let off = existing("web", Phase::Created, Power::Off, false);
    let plan = up(&[(machine.clone(), off)]);
    assert!(
        !plan.machines[0]
            .steps
            .iter()
            .any(|step| matches!(step, Step::Tune { .. }))
    );
    assert_eq!(plan.machines[0].drift.len(), 1);
}

#[test]
fn memory_grows_no_further_than_it_was_booted_for() {
    let mut machine = wanted("web", &[]);
    let running = existing("web", Phase::Created, Power::Running, true);
    if let Some(spec) = &mut machine.spec {
        spec.memory = Bytes(2 * Bytes::GIB);
        spec.tuning.memory.max = Some(Bytes(4 * Bytes::GIB));
    }
    let plan = up(&[(machine, running)]);
    assert!(plan.machines[0].drift.len() == 2, "{:?}", plan.machines[0]);
    assert!(
        plan.machines[0]
            .drift
            .iter()
            .all(|drift| drift.takes == Change::NextBoot)
    );
}

fn installed(cmdline: &str) -> KernelSpec {
    KernelSpec {
        source: "package linux-image-6.12".into(),
        digest: Some("sha256:0123456789abcdef".into()),
        release: Some("6.12.1".into()),
        cmdline: cmdline.into(),
        installed: true,
        replaces: false,
        root: None,
    }
}

/// A machine that wants `want` and has `has`.
fn with_kernels(
    want: Option<KernelSpec>,
    has: Option<KernelSpec>,
    power: Power,
    ready: bool,
) -> Plan {
    let mut web = wanted("web", &[]);
    web.provisioners.clear();
    web.spec.as_mut().unwrap().kernel = want;
    let mut is = existing("web", Phase::Created, power, ready);
    is.observed.as_mut().unwrap().record.spec.kernel = has;
    up(&[(web, is)])
}

#[test]
fn a_kernel_is_installed_once_the_guest_answers() {
    let mut web = wanted("web", &[]);
    web.spec.as_mut().unwrap().kernel = Some(installed(""));
    assert_eq!(
        one(&up(&[(web, Existing::default())])),
        "web after []: box define disk seed start reach kernel:install provision:app provision:hello ready"
    );
    let step = super::install_kernel(&installed("")).unwrap();
    assert_eq!(
        (step.describe().as_str(), step.doing().as_str()),
        (
            "install kernel 6.12.1 in the guest and boot it, unless it runs",
            "checking kernel 6.12.1"
        )
    );
    let with = |power, ready| {
        one(&with_kernels(
            Some(installed("")),
            Some(installed("")),
            power,
            ready,
        ))
    };
    assert_eq!(
        with(Power::Off, false),
        "web after []: box define seed start reach kernel:install ready"
    );
    assert_eq!(
        with(Power::Running, false),
        "web after []: reach kernel:install ready"
    );
    assert_eq!(with(Power::Running, true), "web after []: ");
}

#[test]
fn what_a_running_machine_was_defined_with_is_installed() {
    let plan = |want, has| one(&with_kernels(want, has, Power::Running, false));
    assert_eq!(
        plan(Some(installed("")), None),
        "web after []: reach ready; drift kernel"
    );
    assert_eq!(
        plan(Some(installed("a")), Some(installed(""))),
        "web after []: reach kernel:install ready; drift cmdline"
    );
}

#[test]
fn a_kernel_that_is_installed_does_not_go_by_itself() {
    let plan = with_kernels(None, Some(installed("a")), Power::Off, false);
    assert_eq!(
        one(&plan),
        "web after []: box define seed start reach kernel:install ready; drift kernel"
    );
    let drift = &plan.machines[0].drift[0];
    assert_eq!(drift.takes, Change::Replace);
    assert_eq!(
        format!("{} → {}", drift.is, drift.wanted),
        "6.12.1 (package linux-image-6.12, 0123456789ab, installed) → the box's"
    );
    // One that QEMU loads takes its place.
    let direct = KernelSpec {
        installed: false,
        ..installed("ro")
    };
    assert_eq!(
        one(&with_kernels(
            Some(direct),
            Some(installed("a")),
            Power::Off,
            false
        )),
        "web after []: box define seed start reach ready"
    );
}

#[test]
fn options_of_a_kernel_that_is_installed_stand_beside_the_guests() {
    let plan = with_kernels(
        Some(installed("a=1")),
        Some(installed("")),
        Power::Running,
        true,
    );
    let drift = &plan.machines[0].drift[0];
    assert_eq!(
        (drift.is.as_str(), drift.wanted.as_str(), drift.takes),
        (
            "the guest's own",
            "the guest's own and \"a=1\"",
            Change::NextBoot
        )
    );
}

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
    let edited = site("two", RunPolicy::Changed);
    assert_eq!(reason(&edited, &done), Some(ProvisionReason::Changed));
    let by_name = site("one", RunPolicy::Never);
    assert_eq!(reason(&by_name, &new), None);
    let always = site("one", RunPolicy::Always);
    assert_eq!(reason(&always, &done), Some(ProvisionReason::Always));
    // One that is half gone has nothing.
    let mut going = done.clone();
    if let Some(observed) = &mut going[0].1.observed {
        observed.record.phase = Phase::Destroying;
    }
    assert_eq!(reason(&once, &going), Some(ProvisionReason::NeverRan));
}

/// One that runs once waits to be asked for when it changed, as a machine's own does.
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
    // One that was booted without them cannot mount them, and is told of it; what would be shared
    // is not copied either.
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
fn nothing_is_copied_to_where_another_folder_of_the_host_is_mounted() {
    let mut machine = wanted("web", &[]);
    // What was shared when it was booted is to be copied now: rsync would delete in the folder that
    // is mounted there.
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
    // What is shared no more is taken out of what the guest mounts.
    assert_eq!(ids(&[], &[share("/srv/app")])[0], "mount");
}
