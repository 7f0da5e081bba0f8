//! Machines to try plans with, and whole plans.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    machine::{
        Identity, Observed, Owner, Pause, Phase, Power, Provisioned, Record, Running, Spec,
        sample_record,
    },
    machinefile::{
        Accel, Bytes, Forward, Hook, HookRuns, HostCommand, HostSource, Invocation, Machine,
        Moment, Ready, RunPolicy, ScriptSource, Secret, Shell, Tuning,
    },
};

use super::{
    Existing, Plan, Step, WantedMachine, WantedProvisioner, destroy, halt, halt_to_boot, up,
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
        firmware: Default::default(),
        user_data: None,
        forwards: Vec::new(),
        internet: true,
        login_card: None,
        egress: None,
        cards: Vec::new(),
        bridges: Vec::new(),
        tuning: Tuning::default(),
        shares: Vec::new(),
    }
}

pub(super) fn identity(name: &str) -> Identity {
    Identity::of("shop", "/shop".as_ref(), name)
}

pub(super) fn wanted(name: &str, depends_on: &[&str]) -> WantedMachine {
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
            firmware: None,
            secure_boot: false,
            tpm: false,
            tuning: Tuning::default(),
            spans: Default::default(),
            labels: BTreeMap::new(),
            vars: Default::default(),
            depends_on: depends_on.iter().map(ToString::to_string).collect(),
            networks: Vec::new(),
            bridges: Vec::new(),
            forwards: Vec::new(),
            syncs: Vec::new(),
            provisioners: Vec::new(),
            hooks: Vec::new(),
            ready: Ready::default(),
            user: None,
            user_data: None,
            accel: None,
            internet: true,
            egress: None,
            auto_forward: true,
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

pub(super) fn existing(name: &str, phase: Phase, power: Power, ready: bool) -> Existing {
    let ran = |digest: &str| Provisioned {
        digest: digest.into(),
        at: Timestamp::UNIX_EPOCH,
    };
    Existing {
        observed: Some(Observed {
            identity: identity(name),
            record: Record {
                root: "/shop".into(),
                file: None,
                machine: name.into(),
                phase,
                spec: spec(),
                provisioned: BTreeMap::from([
                    ("app".to_string(), ran("one")),
                    ("hello".to_string(), ran("two")),
                ]),
                failed: Default::default(),
                ..sample_record()
            },
            power,
            condition: Default::default(),
            running: (power == Power::Running).then(|| Running {
                ready: ready.then_some(Timestamp::UNIX_EPOCH),
                ..Running::default()
            }),
        }),
        disk: true,
        needs_certificate: false,
    }
}

/// Returns one line per machine: the ids of its steps, and its drift.
pub(super) fn said(plan: &Plan) -> Vec<String> {
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

pub(super) fn one(plan: &Plan) -> String {
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
    // With --force it is not resumed, so its guest cannot run hooks.
    assert_eq!(
        one(&halt(&machines, true)),
        "web after []: before-halt:1 stop"
    );
    assert!(left_out(&halt(&machines, true)));
}

/// A new definition would make the record wrong, because libvirt would start the saved machine all the same.
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
    // A destroy removes the saved memory too.
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

pub(super) fn hook(moment: Moment, guest: bool) -> Hook {
    let source = ScriptSource::Inline(Secret("true".into()));
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

#[test]
fn what_a_boot_changes_is_no_drift_of_a_machine_that_is_off() {
    let mut web = wanted("web", &[]);
    web.provisioners.clear();
    let changed = Spec {
        cpus: 4,
        disk: Bytes(20 * Bytes::GIB),
        forwards: vec![Forward::tcp(8080, 80)],
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
