use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    boxes::{Destination, Packing},
    hypervisor::{
        Identity, Observed, Phase, Power, Provisioned, RECORD_FORMAT, Record, Running, Spec,
    },
    machinefile::{Accel, Bytes, Forward, Machine, Ready, RunPolicy},
};

use super::{
    Existing, Plan, Wanted, WantedProvisioner, copy_name, copy_of, destroy, halt, original, pack,
    up,
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
    }
}

fn wanted(name: &str, depends_on: &[&str]) -> Wanted {
    Wanted {
        project: "shop".into(),
        root: "/shop".into(),
        identity: Identity::of("shop", "/shop".as_ref(), name),
        machine: Machine {
            name: name.into(),
            hostname: name.into(),
            box_ref: "debian-12".into(),
            box_sha256: None,
            cpus: 1,
            memory: Bytes(Bytes::GIB),
            disk: None,
            kernel: None,
            labels: BTreeMap::new(),
            depends_on: depends_on.iter().map(ToString::to_string).collect(),
            forwards: Vec::new(),
            syncs: Vec::new(),
            provisioners: Vec::new(),
            ready: Ready::default(),
            user: None,
            user_data: None,
            accel: None,
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
    }
}

fn existing(name: &str, phase: Phase, power: Power, ready: bool) -> Existing {
    let ran = |digest: &str| Provisioned {
        digest: digest.into(),
        at: Timestamp::UNIX_EPOCH,
    };
    Existing {
        observed: Some(Observed {
            identity: Identity::of("shop", "/shop".as_ref(), name),
            record: Record {
                format: RECORD_FORMAT,
                project: "shop".into(),
                root: "/shop".into(),
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
            },
            power,
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

#[test]
fn an_edited_provisioner_runs_again() {
    let mut web = wanted("web", &[]);
    web.provisioners.pop();
    web.provisioners[0].digest = "edited".into();
    let ready = existing("web", Phase::Created, Power::Running, true);
    assert_eq!(
        one(&up(&[(web, ready)])),
        "web after []: provision:app ready"
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
    assert!(copy_of(&machine, &Existing::default()).is_none());
    let copy = copy_of(&machine, &there).unwrap();
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
