//! `guarantees`: whether what a machine is promised and held to is what it gets, and what watching
//! and checking cost. Runs as root on qemu:///system, where control groups are.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use stead::{
    hypervisor::{Connection, choose_uri},
    machine::{Identity, Phase, RECORD_FORMAT, Record, Running, Spec},
    machinefile::{Accel, Bytes, HostReserve},
    resources::{Capacity, HostShare, StartRequest, admit, ledger},
};

use crate::{
    Result, Trouble, While,
    figure::{Figure, Unit, median},
    project::{Ground, Project},
    timing::output,
};

const GROUP: &str = "guarantees";

/// What a machine keeps of its idle throughput beside the hogs is at least this, so it is slower
/// by no more than its inverse.
const KEPT: f64 = 0.8;

/// How long a guest counts, in seconds.
const COUNTING: u32 = 6;

const IOPS: f64 = 150.0;
const THROUGHPUT_MIB: f64 = 20.0;

pub(crate) fn measure(runs: usize) -> Result<Vec<Figure>> {
    let mut figures = vec![reservation_check()?, top()?];
    let ground = Ground::new()?;
    figures.push(hog(&ground, runs)?);
    figures.extend(disk(&ground, runs)?);
    Ok(figures)
}

// ---- CPU ---------------------------------------------------------------------------------------

/// Busy loops, two for each CPU, each in a session of its own: what one session runs may count as
/// one for the scheduler (sched(7), autogroup).
struct Hogs(Vec<Child>);

impl Hogs {
    fn start() -> Result<Self> {
        let count = thread::available_parallelism()
            .during("how many CPUs there are")?
            .get();
        let mut hogs = Hogs(Vec::new());
        for _ in 0..2 * count {
            hogs.0.push(
                Command::new("setsid")
                    .args(["sh", "-c", "while :; do :; done"])
                    .spawn()
                    .during("a CPU hog")?,
            );
        }
        // Until the scheduler has settled.
        thread::sleep(Duration::from_secs(2));
        Ok(hogs)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
            let _ = hog.wait();
        }
    }
}

/// How far the guest counts in a second.
fn count(project: &Project<'_>) -> Result<f64> {
    let script = format!(
        "import time\nend=time.monotonic()+{COUNTING}\nn=0\nwhile time.monotonic()<end:\n    n+=1\nprint(n/{COUNTING})"
    );
    let said = output(&mut project.stead(["exec", "one", "--", "python3", "-c", &script]))?;
    said.trim().parse().during("what the guest counted")
}

/// Idle and beside the hogs, in turn.
fn slowdowns(project: &Project<'_>, runs: usize) -> Result<Vec<f64>> {
    count(project)?;
    (0..runs)
        .map(|_| {
            let idle = count(project)?;
            let _hogs = Hogs::start()?;
            let beside = count(project)?;
            Ok(idle / beside)
        })
        .collect()
}

fn hog(ground: &Ground, runs: usize) -> Result<Figure> {
    let mut measured = Vec::new();
    for (name, cpus) in [("reserved", "cpus 1 reserve=#true"), ("shared", "cpus 1")] {
        let project = ground.project(name, &format!("machine \"one\" {{ {cpus}; }}"))?;
        output(&mut project.stead(["up", "-q"]))?;
        measured.push(slowdowns(&project, runs)?);
    }
    let without = median(&measured[1]);
    let with = measured.swap_remove(0);
    let kept = 1.0 / median(&with);
    let mut figure = Figure::of(
        GROUP,
        "idle over beside CPU hogs, reserved",
        Unit::Ratio,
        with,
        1.0 / KEPT,
    )?;
    figure.detail = format!(
        "keeps {kept:.2} of its idle throughput; {:.2} without a reservation",
        1.0 / without
    );
    Ok(figure)
}

// ---- disk --------------------------------------------------------------------------------------

/// Seconds that the guest reads from its disk.
fn read(project: &Project<'_>, block: &str, blocks: u32) -> Result<f64> {
    let script = format!(
        "start=$(date +%s.%N); dd if=/dev/vda of=/dev/null bs={block} count={blocks} skip=100 iflag=direct 2>/dev/null; echo \"$start $(date +%s.%N)\""
    );
    let said = output(&mut project.stead(["exec", "one", "--", "sudo", "sh", "-c", &script]))?;
    let mut times = said.split_whitespace().map(str::parse::<f64>);
    match (times.next(), times.next()) {
        (Some(Ok(start)), Some(Ok(end))) => Ok(end - start),
        _ => Err(Trouble(format!("what the guest said is no times: {said}"))),
    }
}

/// How far it is from what was asked, in percent of that.
fn off(asked: f64, measured: f64) -> f64 {
    (measured / asked - 1.0).abs() * 100.0
}

fn disk(ground: &Ground, runs: usize) -> Result<Vec<Figure>> {
    let project = ground.project(
        "limited",
        &format!(
            "machine \"one\" {{ disk \"10GiB\" iops={IOPS} throughput=\"{THROUGHPUT_MIB}MiB/s\"; }}"
        ),
    )?;
    output(&mut project.stead(["up", "-q"]))?;
    let (mut requests, mut rates) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        requests.push(2250.0 / read(&project, "4k", 2250)?);
        rates.push(200.0 / read(&project, "1M", 200)?);
    }
    let figure = |name: &str, asked: f64, measured: &[f64], unit: &str| {
        let samples = measured.iter().map(|value| off(asked, *value)).collect();
        let mut figure = Figure::of(GROUP, name, Unit::Percent, samples, 10.0)?;
        figure.detail = format!("{:.1} {unit} where {asked} was asked", median(measured));
        Ok(figure)
    };
    Ok(vec![
        figure("disk limit, iops off by", IOPS, &requests, "requests/s")?,
        figure(
            "disk limit, throughput off by",
            THROUGHPUT_MIB,
            &rates,
            "MiB/s",
        )?,
    ])
}

// ---- watching and checking ---------------------------------------------------------------------

fn record(machine: &str, root: &str) -> Record {
    let mut spec = Spec {
        box_name: "none".into(),
        box_version: "0".into(),
        box_digest: "sha256:00".into(),
        cpus: 1,
        memory: Bytes(64 * Bytes::MIB),
        disk: Bytes(Bytes::GIB),
        hostname: machine.into(),
        user: None,
        kernel: None,
        firmware: Default::default(),
        cpu: None,
        accel: Accel::Tcg,
        user_data: None,
        forwards: Vec::new(),
        internet: true,
        login_card: None,
        egress: None,
        cards: Vec::new(),
        bridges: Vec::new(),
        shares: Vec::new(),
        tuning: Default::default(),
    };
    spec.tuning.memory.reserve = true;
    Record {
        format: RECORD_FORMAT,
        project: "figures".into(),
        root: root.into(),
        file: None,
        machine: machine.into(),
        phase: Phase::Created,
        spec,
        ssh_port: 22_222,
        login_user: "stead".into(),
        provisioned: Default::default(),
        failed: Default::default(),
        first_kernels: Default::default(),
        login_ids: None,
        mounted: Vec::new(),
        lacks_virtiofs: None,
        run_of: None,
        copy_of: None,
        firmware: Default::default(),
        new_keys: 0,
        claim: None,
    }
}

/// Domains with a record of stead's and nothing to boot.
struct Domains(Vec<stead::hypervisor::Domain>);

impl Domains {
    fn define(connection: &Connection, kind: &str, count: usize) -> Result<Self> {
        let root = "/srv/figures";
        let mut domains = Domains(Vec::new());
        for n in 0..count {
            let name = format!("m{n}");
            let identity = Identity::of("figures", root.as_ref(), &name);
            let json = serde_json::to_string(&record(&name, root)).during("a record")?;
            let xml = format!(
                "<domain type='{kind}'><name>{}</name><uuid>{}</uuid><metadata><stead:machine xmlns:stead='urn:stead:machine'>{json}</stead:machine></metadata><memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os></domain>",
                identity.domain, identity.uuid
            );
            let domain = connection.define(&identity, &xml).during("defining")?;
            domain.start().during("starting a domain")?;
            domain
                .set_running(&Running {
                    ready: Some(jiff::Timestamp::now()),
                    ..Running::default()
                })
                .during("marking a domain")?;
            domains.0.push(domain);
        }
        Ok(domains)
    }
}

impl Drop for Domains {
    fn drop(&mut self) {
        for domain in &self.0 {
            if let Err(error) = domain.power_off().and_then(|()| domain.undefine()) {
                eprintln!("figures: clean-up: {error}");
            }
        }
    }
}

/// What `up` does between its plan and its first step, with 100 machines that hold something.
fn reservation_check() -> Result<Figure> {
    let uri = choose_uri(Some("test:///default"), None, false);
    let connection = Connection::open(&uri).during("libvirt's test driver")?;
    let _domains = Domains::define(&connection, "test", 100)?;
    let asked = [StartRequest {
        machine: "one".into(),
        cpus: 0,
        pin: None,
        memory: Bytes(Bytes::MIB),
        uses: Bytes(Bytes::MIB),
    }];
    let mut samples = Vec::new();
    for _ in 0..30 {
        let start = Instant::now();
        let host = Capacity::observe().during("looking at the host")?;
        let held = ledger(&connection.survey().during("looking at machines")?.machines);
        let kept = HostShare::by(&HostReserve::default(), &host);
        let verdict = admit(&asked, &held, &host, &kept);
        samples.push(start.elapsed().as_secs_f64() * 1000.0);
        if held.len() != 100 {
            return Err(Trouble(format!("{} machines hold something", held.len())));
        }
        // Either answer will do, but it is not to be optimised away.
        std::hint::black_box(verdict.is_ok());
    }
    Figure::of(
        GROUP,
        "check of reservations, 100 domains",
        Unit::Milliseconds,
        samples,
        20.0,
    )
}

/// The processor time of `stead top` beside 10 machines.
fn top() -> Result<Figure> {
    let uri = choose_uri(Some("qemu:///system"), None, true);
    let connection = Connection::open(&uri).during("qemu:///system")?;
    let _domains = Domains::define(&connection, "qemu", 10)?;
    let ground = Ground::without_box()?;
    let mut command = ground.stead_in(ground.path());
    command
        .args(["--connect", "qemu:///system", "top", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().during("stead top")?;
    let tasks = PathBuf::from(format!("/proc/{}/task", child.id()));
    let mut lines = BufReader::new(
        child
            .stdout
            .take()
            .ok_or_else(|| Trouble("stead top has no output".into()))?,
    )
    .lines();
    let measured = (|| {
        let mut samples = Vec::new();
        let mut last: Option<(f64, Instant)> = None;
        // Of 5 looks each, which say that they see them all.
        for n in 0..=20 {
            let line = match lines.next() {
                Some(line) => line.during("stead top")?,
                None => return Err(Trouble("stead top ended".into())),
            };
            if line.matches("\"uuid\"").count() != 10 {
                return Err(Trouble(format!(
                    "stead top does not see 10 machines: {line}"
                )));
            }
            if n % 5 == 0 {
                let now = (processor_time(&tasks)?, Instant::now());
                if let Some((used, when)) = last {
                    samples.push((now.0 - used) / (now.1 - when).as_secs_f64() * 100.0);
                }
                last = Some(now);
            }
        }
        Ok(samples)
    })();
    child.kill().during("ending stead top")?;
    child.wait().during("ending stead top")?;
    Figure::of(
        GROUP,
        "stead top beside 10 machines, of a CPU",
        Unit::Percent,
        measured?,
        1.0,
    )
}

/// Seconds on a CPU, of all threads of a process (kernel, Documentation/scheduler/sched-stats.rst).
fn processor_time(tasks: &Path) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir(tasks).during(tasks.display())? {
        let file = task.during(tasks.display())?.path().join("schedstat");
        let text = fs::read_to_string(&file).during(file.display())?;
        let first = text.split_whitespace().next().unwrap_or_default();
        nanoseconds += first.parse::<f64>().during(file.display())?;
    }
    Ok(nanoseconds / 1e9)
}
