//! The part of `main-job` about commands that change nothing: they should cost no more than what they ask.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Result, Trouble, While,
    figure::{Figure, Unit},
    project::{Ground, Project},
    timing::{in_turn, output, peak_memory, seconds, seconds_to},
};

const GROUP: &str = "main-job";
const RUNS: usize = 20;
/// Milliseconds of a command that needs no libvirt.
const WITHOUT_LIBVIRT: f64 = 4.0;
/// Times a program that only connects and lists domains.
const OVER_LISTING: f64 = 1.1;
/// MiB.
const PEAK_MEMORY: f64 = 22.0;
const MACHINES: usize = 100;
/// Times `status` of one machine.
const OVER_ONE: f64 = 5.0;
const LIST_DOMAINS: &str = include_str!("list_domains.c");

/// What needs no libvirt: it should not be loaded.
pub(crate) fn without_libvirt(ground: &Ground) -> Result<Vec<Figure>> {
    let folder = ground.path().join("reads");
    let wrong = ground.path().join("wrong");
    for folder in [&folder, &wrong] {
        fs::create_dir(folder).during(folder.display())?;
    }
    let write = |folder: &Path, text: &str| {
        let file = folder.join("Machinefile");
        fs::write(&file, text).during(file.display())
    };
    write(
        &folder,
        "project \"reads\"\n\nmachine \"web\" {\n    box \"debian-12\"\n}\n",
    )?;
    write(
        &wrong,
        "machine \"web\" {\n    box \"debian-12\"\n    cpu 2\n}\n",
    )?;
    let commands: [(&str, &[&str], &Path, i32); 5] = [
        ("--version", &["--version"], &folder, 0),
        ("validate", &["validate"], &folder, 0),
        ("fmt --check", &["fmt", "--check"], &folder, 0),
        ("completions", &["completions", "bash"], &folder, 0),
        ("an error in the Machinefile", &["validate"], &wrong, 2),
    ];
    let mut figures = Vec::new();
    for (name, arguments, folder, code) in commands {
        let run = || seconds_to(code, ground.stead_in(folder).args(arguments));
        run()?;
        let times: Vec<f64> = (0..RUNS)
            .map(|_| run().map(|seconds| seconds * 1000.0))
            .collect::<Result<_>>()?;
        figures.push(Figure::of(
            GROUP,
            name,
            Unit::Milliseconds,
            times,
            WITHOUT_LIBVIRT,
        )?);
    }
    Ok(figures)
}

/// `status` and an `up` with nothing to do, of machines that are up, against the least that can be done.
pub(crate) fn over_listing(ground: &Ground, project: &Project) -> Result<Vec<Figure>> {
    let status: serde_json::Value =
        serde_json::from_str(&output(&mut project.stead(["status", "--json"]))?)
            .during("status --json")?;
    let uri = (status["connect"].as_str())
        .ok_or_else(|| Trouble("status --json has no `connect`".into()))?;
    let program = build(ground)?;
    let mut figures = Vec::new();
    for command in ["up", "status"] {
        let name = if command == "up" { "no-op up" } else { command };
        let pairs = in_turn(
            RUNS,
            || project.seconds([command]),
            || seconds(Command::new(&program).arg(uri)),
        )?;
        figures.push(Figure::ratio(
            GROUP,
            &format!("{name} over listing domains"),
            &pairs,
            OVER_LISTING,
        )?);
        let memory: Vec<f64> = (0..3)
            .map(|_| peak_memory(&project.stead([command])))
            .collect::<Result<_>>()?;
        let name = format!("{name}, peak memory");
        figures.push(Figure::of(
            GROUP,
            &name,
            Unit::Mebibytes,
            memory,
            PEAK_MEMORY,
        )?);
    }
    Ok(figures)
}

fn build(ground: &Ground) -> Result<PathBuf> {
    let source = ground.path().join("list_domains.c");
    let program = ground.path().join("list_domains");
    fs::write(&source, LIST_DOMAINS).during(source.display())?;
    output(
        Command::new("cc")
            .arg("-O2")
            .arg("-o")
            .args([&program, &source])
            .arg("-lvirt"),
    )?;
    Ok(program)
}

/// `status` of many machines over that of one, on libvirt's test driver: what each machine costs, without
/// the time of a daemon.
pub(crate) fn many_machines(ground: &Ground) -> Result<Figure> {
    let (one, many) = (Fleet::of(ground, 1)?, Fleet::of(ground, MACHINES)?);
    let pairs = in_turn(RUNS, || many.status(), || one.status())?;
    Figure::ratio(
        GROUP,
        "status of 100 machines over one, test driver",
        &pairs,
        OVER_ONE,
    )
}

/// A project with machines on a `test://FILE`, a host that a file describes.
struct Fleet<'a> {
    ground: &'a Ground,
    folder: PathBuf,
    host: String,
}

impl<'a> Fleet<'a> {
    fn of(ground: &'a Ground, machines: usize) -> Result<Self> {
        let name = format!("fleet-{machines}");
        let folder = ground.path().join(&name);
        fs::create_dir(&folder).during(folder.display())?;
        let folder = folder.canonicalize().during(folder.display())?;
        let mut machinefile = format!("project \"{name}\"\n");
        let mut domains = String::from("<node>");
        for n in 0..machines {
            let machine = format!("m{n}");
            machinefile.push_str(&format!("machine \"{machine}\" {{ box \"debian-12\" }}\n"));
            domains.push_str(&domain(&name, &folder, &machine, n));
        }
        domains.push_str("</node>");
        let host = folder.join("host.xml");
        for (file, text) in [
            (folder.join("Machinefile"), machinefile),
            (host.clone(), domains),
        ] {
            fs::write(&file, text).during(file.display())?;
        }
        let fleet = Fleet {
            ground,
            folder,
            host: format!("test://{}", host.display()),
        };
        fleet.check(machines)?;
        Ok(fleet)
    }

    fn stead(&self, arguments: &[&str]) -> Command {
        let mut command = self.ground.stead_in(&self.folder);
        command.args(["--connect", &self.host]).args(arguments);
        command
    }

    fn status(&self) -> Result<f64> {
        seconds(&mut self.stead(&["status"]))
    }

    /// Machines that stead did not find would cost nothing.
    fn check(&self, machines: usize) -> Result<()> {
        let status: serde_json::Value =
            serde_json::from_str(&output(&mut self.stead(&["status", "--json"]))?)
                .during("status --json")?;
        let up = (status["machines"].as_array()).map_or(0, |all| {
            all.iter().filter(|it| it["state"] == "booting").count()
        });
        if up == machines {
            return Ok(());
        }
        Err(Trouble(format!(
            "{}: {up} of {machines} machines are there: {status}",
            self.host
        )))
    }
}

/// A domain that the test driver takes and starts, with a record as stead writes it.
fn domain(project: &str, root: &Path, machine: &str, n: usize) -> String {
    use stead::machine::{Identity, RECORD_FORMAT};
    let identity = Identity::of(project, root, machine);
    let record = serde_json::json!({
        "format": RECORD_FORMAT,
        "project": project,
        "root": root,
        "file": "Machinefile",
        "machine": machine,
        "phase": "created",
        "spec": {
            "box_name": "debian-12",
            "box_version": "12.12",
            "box_digest": format!("sha256:{:064}", 0),
            "cpus": 1,
            "memory": 1_u64 << 30,
            "disk": 8_u64 << 30,
            "hostname": machine,
            "accel": "kvm",
        },
        "ssh_port": 20_000 + n,
        "login_user": "stead",
    });
    let record = record
        .to_string()
        .replace('&', "&amp;")
        .replace('<', "&lt;");
    format!(
        "<domain type='test'><name>{}</name><uuid>{}</uuid><metadata><stead:machine \
         xmlns:stead='urn:stead:machine'>{record}</stead:machine></metadata><memory>8192</memory>\
         <os><type>hvm</type></os></domain>",
        identity.domain, identity.uuid
    )
}
