//! libvirt's built-in `test:///default` driver: its real API and no machine.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test that cannot go on panics"
)]

mod belonging;
mod firmware;
mod guest;
mod origins;
mod program;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use stead::{
    hypervisor::{Connection, choose_uri},
    machine::{Identity, Phase, Power, RECORD_FORMAT, Record, Running, Spec},
    machinefile::{Accel, Bytes},
};

/// All connections to `test:///default` of a process show the same host.
static ALONE: Mutex<()> = Mutex::new(());

fn connect() -> Connection {
    Connection::open(&choose_uri(Some("test:///default"), None, false)).unwrap()
}

/// Gives the domain of the project in that folder, whose host is in node.xml, what stead records while it runs.
fn mark_running(root: &Path, running: &Running) {
    let mark = format!(
        "<stead:running xmlns:stead='urn:stead:running'>{}</stead:running></metadata>",
        serde_json::to_string(running).unwrap()
    );
    let node = root.join("node.xml");
    let xml = fs::read_to_string(&node).unwrap();
    fs::write(&node, xml.replace("</metadata>", &mark)).unwrap();
}

fn record(machine: &str) -> Record {
    Record {
        format: RECORD_FORMAT,
        project: "shop".into(),
        root: PathBuf::from("/srv/it's <shop> & \"co\""),
        file: Some("Machinefile".into()),
        machine: machine.into(),
        phase: Phase::Creating,
        spec: Spec {
            box_name: "debian-12".into(),
            box_version: "12.12".into(),
            box_digest: "sha256:00".into(),
            cpus: 1,
            memory: Bytes(Bytes::GIB),
            disk: Bytes(Bytes::GIB),
            hostname: machine.into(),
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
            tuning: Default::default(),
            shares: Vec::new(),
        },
        ssh_port: 22_222,
        login_user: "stead".into(),
        provisioned: BTreeMap::new(),
        failed: BTreeMap::new(),
        first_kernels: Default::default(),
        copy_of: None,
        run_of: None,
        login_ids: None,
        mounted: Vec::new(),
        lacks_virtiofs: None,
        firmware: Default::default(),
        new_keys: 0,
        claim: None,
    }
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A domain that the test driver takes, with a record as stead writes it.
fn domain_xml(identity: &Identity, record: Option<&Record>) -> String {
    let metadata = record.map_or(String::new(), |record| {
        let json = serde_json::to_string(record).unwrap();
        let json = json.replace('&', "&amp;").replace('<', "&lt;");
        format!("<metadata><stead:machine xmlns:stead='urn:stead:machine'>{json}</stead:machine></metadata>")
    });
    format!(
        "<domain type='test'><name>{}</name><uuid>{}</uuid>{metadata}<memory>8192</memory><os><type>hvm</type></os></domain>",
        identity.domain, identity.uuid
    )
}

#[test]
fn a_record_lasts_and_a_running_mark_goes_with_the_run() {
    let _alone = alone();
    let connection = connect();
    let identity = Identity::of("shop", &PathBuf::from("/srv/shop"), "web");
    assert!(connection.observe(&identity).unwrap().is_none());
    let mut record = record("web");
    let domain = connection
        .define(&identity, &domain_xml(&identity, Some(&record)))
        .unwrap();
    assert_eq!(domain.record().unwrap(), Some(record.clone()));

    record.phase = Phase::Created;
    domain.set_record(&record).unwrap();
    domain.start().unwrap();
    domain
        .set_running(&Running {
            ready: Some(jiff::Timestamp::UNIX_EPOCH),
            ..Running::default()
        })
        .unwrap();
    let observed = connection.observe(&identity).unwrap().unwrap();
    assert_eq!(observed.power, Power::Running);
    assert!(observed.is_ready());
    assert_eq!(observed.record, record);

    domain.power_off().unwrap();
    domain.power_off().unwrap();
    let observed = connection.observe(&identity).unwrap().unwrap();
    assert_eq!(observed.power, Power::Off);
    assert!(!observed.is_ready());
    assert_eq!(observed.record, record);

    domain.undefine().unwrap();
    domain.undefine().unwrap();
    assert!(connection.observe(&identity).unwrap().is_none());
}

/// A machine that others paused, saved or crashed is told apart from one that runs or is off.
#[test]
fn states_that_stead_did_not_bring_about() {
    use stead::machine::Pause;
    let _alone = alone();
    let connection = connect();
    let identity = Identity::of("shop", &PathBuf::from("/srv/shop"), "still");
    let mut made = record("still");
    made.phase = Phase::Created;
    let domain = connection
        .define(&identity, &domain_xml(&identity, Some(&made)))
        .unwrap();
    let look = || connection.observe(&identity).unwrap().unwrap();
    domain.start().unwrap();
    assert_eq!(domain.state().unwrap(), (Power::Running, None));

    virsh(&connection, &identity, Act::Suspend);
    let seen = look();
    assert_eq!(seen.power, Power::Paused);
    assert_eq!(seen.condition.pause, Some(Pause::Asked));
    assert!(seen.is_up() && !seen.is_ready() && !seen.condition.saved);
    domain.resume(&Pause::Asked).unwrap();
    // It runs: nothing to resume, and no error.
    domain.resume(&Pause::Asked).unwrap();
    assert_eq!(look().power, Power::Running);

    virsh(&connection, &identity, Act::Save);
    let seen = look();
    assert_eq!(seen.power, Power::Off);
    assert!(seen.condition.saved && seen.condition.pause.is_none());
    domain.start().unwrap();
    let seen = look();
    assert_eq!((seen.power, seen.condition.saved), (Power::Running, false));

    // What is saved goes with the domain.
    virsh(&connection, &identity, Act::Save);
    domain.undefine().unwrap();
    assert!(connection.observe(&identity).unwrap().is_none());
}

/// `virsh create` makes a domain without a stored definition, and `virsh undefine` of a running one leaves it so.
#[test]
fn domains_without_a_stored_definition_harm_no_command() {
    let _alone = alone();
    let connection = connect();
    let others = virt::connect::Connect::open(Some(&connection.uri().uri)).unwrap();
    let foreign = Identity::of("other", &PathBuf::from("/srv/other"), "foreign");
    (connection
        .define(&foreign, &domain_xml(&foreign, None))
        .unwrap())
    .start()
    .unwrap();
    let foreign = others.lookup_domain_by_uuid(foreign.uuid).unwrap();
    foreign.undefine_flags(0).unwrap();
    assert!(connection.survey().unwrap().machines.is_empty());

    let identity = Identity::of("shop", &PathBuf::from("/srv/shop"), "undefined");
    let mut made = record("undefined");
    let domain = connection
        .define(&identity, &domain_xml(&identity, Some(&made)))
        .unwrap();
    domain.start().unwrap();
    let undefined = others.lookup_domain_by_uuid(identity.uuid).unwrap();
    undefined.undefine_flags(0).unwrap();
    assert!(!undefined.is_persistent().unwrap());
    assert_eq!(connection.survey().unwrap().machines.len(), 1);
    let seen = connection.observe(&identity).unwrap().unwrap();
    assert_eq!((seen.power, &seen.record), (Power::Running, &made));
    made.phase = Phase::Destroying;
    domain.set_record(&made).unwrap();
    assert_eq!(domain.record().unwrap(), Some(made));
    domain.undefine().unwrap();
    domain.power_off().unwrap();
    assert_eq!(domain.state().unwrap(), (Power::Off, None));
    domain.undefine().unwrap();
    assert!(connection.observe(&identity).unwrap().is_none());
    foreign.destroy().unwrap();
}

/// What was undefined while it ran is defined again as it runs, and outlasts the run.
#[test]
fn a_running_domain_without_a_definition_gets_one() {
    let _alone = alone();
    let connection = connect();
    let others = virt::connect::Connect::open(Some(&connection.uri().uri)).unwrap();
    let identity = Identity::of("shop", &PathBuf::from("/srv/shop"), "again");
    let made = record("again");
    let domain = connection
        .define(&identity, &domain_xml(&identity, Some(&made)))
        .unwrap();
    domain.start().unwrap();
    let transient = || {
        let seen = connection.observe(&identity).unwrap().unwrap();
        assert_eq!((seen.power, &seen.record), (Power::Running, &made));
        seen.condition.transient
    };
    assert!(!transient());
    domain
        .set_running(&Running {
            ready: Some(jiff::Timestamp::UNIX_EPOCH),
            ..Running::default()
        })
        .unwrap();
    (others.lookup_domain_by_uuid(identity.uuid).unwrap())
        .undefine_flags(0)
        .unwrap();
    assert!(transient());
    connection.persist(&identity).unwrap();
    connection.persist(&identity).unwrap();
    assert!(!transient());
    assert!(connection.observe(&identity).unwrap().unwrap().is_ready());
    domain.power_off().unwrap();
    let seen = connection.observe(&identity).unwrap().unwrap();
    assert_eq!((seen.power, &seen.record), (Power::Off, &made));
    domain.start().unwrap();
    // The mark was of the run before.
    assert!(!connection.observe(&identity).unwrap().unwrap().is_ready());
    domain.power_off().unwrap();
    domain.undefine().unwrap();
}

enum Act {
    Suspend,
    Save,
}

/// As another program does it.
fn virsh(connection: &Connection, identity: &Identity, act: Act) {
    let other = virt::connect::Connect::open(Some(&connection.uri().uri)).unwrap();
    let domain = other.lookup_domain_by_uuid(identity.uuid).unwrap();
    match act {
        Act::Suspend => domain.suspend().unwrap(),
        Act::Save => domain.managed_save(0).unwrap(),
    }
}

/// Commands of waits that end when a machine is paused by somebody else, or goes away.
#[test]
fn waits_end_when_what_they_wait_for_cannot_come() {
    use stead::hypervisor::{Lifecycle, LifecycleEvents};
    let _alone = alone();
    let connection = connect();
    let events = LifecycleEvents::subscribe(&connection).unwrap();
    let mut seen = events.receiver();
    let identity = Identity::of("shop", &PathBuf::from("/srv/shop"), "waited");
    let domain = connection
        .define(&identity, &domain_xml(&identity, Some(&record("waited"))))
        .unwrap();
    domain.start().unwrap();
    virsh(&connection, &identity, Act::Suspend);
    let mut next = || loop {
        let (who, what) = seen.blocking_recv().unwrap();
        if who == identity.uuid && !matches!(what, Lifecycle::Other | Lifecycle::Started) {
            return what;
        }
    };
    assert_eq!(next(), Lifecycle::Suspended);
    domain.power_off().unwrap();
    assert!(matches!(next(), Lifecycle::Stopped { .. }));
    domain.undefine().unwrap();
}

#[test]
fn domains_of_others_are_neither_seen_nor_touched() {
    let _alone = alone();
    let connection = connect();
    // The test driver comes with a domain of its own.
    assert!(connection.survey().unwrap().machines.is_empty());
    let identity = Identity::of("shop", &PathBuf::from("/srv/shop"), "db");
    // Same name and UUID, but no record: somebody else's.
    connection
        .define(&identity, &domain_xml(&identity, None))
        .unwrap();
    let error = connection.lookup(&identity).err().unwrap().to_string();
    assert!(error.contains("stead did not make"), "{error}");
    let error = connection
        .define(&identity, &domain_xml(&identity, Some(&record("db"))))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains(&identity.domain), "{error}");
    assert!(connection.survey().unwrap().machines.is_empty());
}

#[test]
fn a_record_that_cannot_be_read_is_told() {
    let _alone = alone();
    let connection = connect();
    let identity = Identity::of("shop", &PathBuf::from("/srv/shop"), "odd");
    let xml = format!(
        "<domain type='test'><name>{}</name><uuid>{}</uuid><metadata><stead:machine xmlns:stead='urn:stead:machine'>{{}}</stead:machine></metadata><memory>8192</memory><os><type>hvm</type></os></domain>",
        identity.domain, identity.uuid
    );
    connection.define(&identity, &xml).unwrap();
    let survey = connection.survey().unwrap();
    assert!(survey.machines.is_empty());
    assert_eq!(survey.unreadable[0].domain, identity.domain);
    let error = survey.unreadable[0].error.to_string();
    assert!(
        error.contains(&identity.domain) && error.contains("format"),
        "{error}"
    );
}

#[test]
fn a_newer_stead_s_record_is_never_written() {
    let _alone = alone();
    let connection = connect();
    let identity = Identity::of("shop", &PathBuf::from("/srv/newer"), "web");
    let mut newer = record("web");
    newer.format = RECORD_FORMAT + 1;
    let domain = connection
        .define(&identity, &domain_xml(&identity, Some(&newer)))
        .unwrap();
    let older = record("web");
    let refused = [
        domain.set_record(&older).err().unwrap().to_string(),
        domain
            .set_running(&Running::default())
            .err()
            .unwrap()
            .to_string(),
        (connection
            .define(&identity, &domain_xml(&identity, Some(&older)))
            .err())
        .unwrap()
        .to_string(),
    ];
    for error in refused {
        assert!(error.contains("a newer stead"), "{error}");
    }
    // It can be read, and stopped, all the same.
    assert_eq!(domain.record().unwrap(), Some(newer));
    domain.start().unwrap();
    domain.power_off().unwrap();
    domain.undefine().unwrap();
}

/// The ledger and its sums are as quick with many machines as a command has to be, and count who
/// runs and who is about to.
#[test]
fn what_machines_hold_is_read_from_their_records() {
    use stead::{
        host::process::Process,
        resources::{ledger, overhead},
    };
    let _alone = alone();
    let connection = connect();
    let root = PathBuf::from("/srv/ledger");
    let dead = Process {
        started: 1,
        ..Process::own().unwrap()
    };
    let mut domains = Vec::new();
    for (name, claim, starts) in [
        ("off", None, false),
        ("left", Some(dead), false),
        ("coming", Process::own(), false),
        ("up", None, true),
    ] {
        let identity = Identity::of("ledger", &root, name);
        let mut record = record(name);
        record.spec.tuning.memory.reserve = true;
        record.spec.tuning.cpu.reserve = true;
        record.claim = claim;
        let domain = connection
            .define(&identity, &domain_xml(&identity, Some(&record)))
            .unwrap();
        if starts {
            domain.start().unwrap();
        }
        domains.push(domain);
    }
    let mut held = ledger(&connection.survey().unwrap().machines);
    held.sort_by(|a, b| a.machine.cmp(&b.machine));
    let names: Vec<(&str, bool)> = held
        .iter()
        .map(|holding| (holding.machine.as_str(), holding.runs))
        .collect();
    assert_eq!(names, [("coming", false), ("up", true)]);
    assert_eq!(held[0].cpus, 1);
    assert_eq!(
        held[0].memory.0,
        Bytes::GIB + overhead(Bytes(Bytes::GIB), Accel::Tcg).0
    );
    for domain in domains {
        domain.power_off().unwrap();
        domain.undefine().unwrap();
    }
}
