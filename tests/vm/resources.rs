//! What is promised and limited, seen where it has to hold: on QEMU's process, in control groups,
//! in the guest.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Duration,
};

use crate::project::{Project, Said, is_system, text, virsh};

/// QEMU's process of a domain.
#[track_caller]
fn process(domain: &str) -> PathBuf {
    let name = format!("guest={domain},");
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            fs::read(path.join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&name))
        })
        .unwrap_or_else(|| panic!("no QEMU of {domain}"))
}

/// On which CPUs the machine's first vCPU may run.
#[track_caller]
fn cpus_of_vcpu(process: &Path) -> String {
    fs::read_dir(process.join("task"))
        .unwrap()
        .flatten()
        .map(|task| task.path())
        .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|it| it.starts_with("CPU 0")))
        .map(|task| field(&task.join("status"), "Cpus_allowed_list:"))
        .expect("no thread of a vCPU")
}

#[track_caller]
fn field(file: &Path, name: &str) -> String {
    fs::read_to_string(file)
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("no {name} in {}", file.display()))
        .trim()
        .to_string()
}

/// In MiB, as the guest sees it.
#[track_caller]
fn memory(project: &Project, machine: &str) -> u64 {
    let said = project.ok(&["exec", machine, "--", "grep", "MemTotal", "/proc/meminfo"]);
    let kib: u64 = said.out.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

/// A limit of the machine's disk, as QEMU has it.
#[track_caller]
fn disk_limit(domain: &str, what: &str) -> u64 {
    let said = virsh(&["blkdeviotune", domain, "vda", "--live"]);
    let line = said.lines().find(|line| line.starts_with(what));
    let value = line.and_then(|line| line.split_once(':')).unwrap().1;
    value.trim().parse().unwrap()
}

/// The last CPU of the host that this may run on, and how many there are.
fn last_cpu() -> (u32, usize) {
    let list = field(Path::new("/proc/self/status"), "Cpus_allowed_list:");
    let last = list.rsplit([',', '-']).next().unwrap().parse().unwrap();
    let count = thread::available_parallelism().unwrap().get();
    (last, count)
}

fn can_lock() -> bool {
    field(Path::new("/proc/self/limits"), "Max locked memory").starts_with("unlimited")
        || (is_system() && {
            let hex = field(Path::new("/proc/self/status"), "CapEff:");
            u64::from_str_radix(&hex, 16).unwrap() & (1 << 24) != 0
        })
}

#[test]
fn limits_hold_and_change_while_a_machine_runs() {
    let (cpu, _) = last_cpu();
    let machinefile = |memory: &str, pin: u32, iops: u32| {
        format!(
            r#"
project "limits"
machine "web" {{
    box "debian-12"
    cpus 1 pin="{pin}" sockets=1
    memory "{memory}" max="768MiB"
    disk "12GiB" iops={iops} throughput="90MiB/s"
}}
"#
        )
    };
    let project = Project::new("limits", &machinefile("512MiB", cpu, 800));
    project.ok(&["up"]);
    let domain = project.domain("web");
    let qemu = process(&domain);
    assert_eq!(cpus_of_vcpu(&qemu), cpu.to_string());
    assert_eq!(disk_limit(&domain, "total_iops_sec"), 800);
    assert_eq!(disk_limit(&domain, "total_bytes_sec"), 90 << 20);
    let before = memory(&project, "web");
    assert!((300..=512).contains(&before), "{before} MiB");

    // All of this without a boot.
    project.write("Machinefile", &machinefile("700MiB", 0, 1200));
    assert_eq!(project.steps("web", &[]), ["tune"]);
    project.ok(&["up"]);
    assert_eq!(process(&domain), qemu);
    assert_eq!(cpus_of_vcpu(&qemu), "0");
    assert_eq!(disk_limit(&domain, "total_iops_sec"), 1200);
    let mut after = 0;
    // The guest's driver takes its time.
    for _ in 0..100 {
        after = memory(&project, "web");
        if after > before + 150 {
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
    assert!(after > before + 150, "{before} MiB, then {after} MiB");
    assert!(project.steps("web", &[]).is_empty());

    // What is used can be seen.
    let look = || {
        let look = project.json(&["top", "--once", "--json", "--interval", "1s"]);
        look["machines"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["project"] == "limits")
            .unwrap_or_else(|| panic!("{look}"))
            .clone()
    };
    let mut row = look();
    // The guest's agent may start later than its sshd.
    for _ in 0..20 {
        if row["network_sent_bytes"].is_number() {
            break;
        }
        row = look();
    }
    assert!(row["network_sent_bytes"].is_number(), "{row}");
    assert!(row["cpu_percent"].is_number(), "{row}");
    assert!(row["resident_bytes"].as_u64().unwrap() > 64 << 20, "{row}");
    assert!(row["disk_read_bytes"].is_number(), "{row}");

    // What cannot be had halts nothing.
    let sound = machinefile("700MiB", 0, 1200);
    project.write("Machinefile", &sound.replace("pin=\"0\"", "pin=\"4000\""));
    project.run(&["restart"], 2).says(&["no CPU 4000"]);
    assert_eq!(process(&domain), qemu);

    // What only a boot brings is told of, and not done.
    project.write(
        "Machinefile",
        &machinefile("700MiB", 0, 1200).replace("max=\"768MiB\"", "max=\"1GiB\""),
    );
    assert!(project.steps("web", &[]).is_empty());
    project
        .ok(&["up"])
        .says(&["memory max is 768MiB, wanted 1GiB", "stead restart web"]);
}

#[test]
fn what_cannot_be_given_is_refused_where_it_stands() {
    let project = Project::new(
        "refused",
        "project \"refused\"\nmachine \"a\" {\n    box \"debian-12\"\n    cpus 1 pin=\"4000\" model=\"Pentium9\"\n    memory \"1GiB\" hugepages=\"1GiB\"\n}\n",
    );
    let said = project.run(&["up"], 2);
    said.says(&[
        "this host has no CPU 4000",
        "Machinefile:4:16",
        "QEMU has no CPU model \"Pentium9\"",
        "1 huge page of 1GiB",
    ]);
    project.run(&["plan"], 2);
    assert_eq!(project.state("a"), "absent");

    let reserved = |what: &str| {
        project.write(
            "Machinefile",
            &format!(
                "project \"refused\"\nmachine \"a\" {{\n    box \"debian-12\"\n    {what}\n}}\n"
            ),
        );
    };
    if !is_system() {
        reserved("cpus 1 reserve=#true shares=100 quota=\"150%\"");
        project.run(&["up"], 2).says(&[
            "qemu:///session does not support reserved CPUs",
            "does not support CPU shares",
            "does not support a CPU quota",
            "qemu:///system",
        ]);
    } else {
        reserved("cpus 200 reserve=#true");
        project.run(&["up"], 1).says(&[
            "nothing was started",
            "CPUs: 200 requested",
            "this would fit",
        ]);
    }
    reserved("memory \"512MiB\" reserve=#true");
    if !can_lock() {
        project
            .run(&["up"], 2)
            .says(&["cannot lock memory", "remove reserve=#true"]);
    } else {
        reserved("memory \"4TiB\" reserve=#true");
        project
            .run(&["up"], 1)
            .says(&["nothing was started", "memory: 4.0 TiB requested"]);
    }
    assert_eq!(project.state("a"), "absent");
}

/// Two projects want the last CPU at once: one gets it, and it is really kept.
#[test]
fn the_last_cpu_is_given_once() {
    assert!(is_system(), "CPUs are reserved by control groups");
    let (cpu, count) = last_cpu();
    let memory = if can_lock() { "reserve=#true" } else { "" };
    let machinefile = |name: &str| {
        format!(
            r#"
project "{name}"
host-reserve cpus={} memory="64MiB"
machine "db" {{
    box "debian-12"
    cpus 1 reserve=#true pin="{cpu}" quota="150%"
    memory "512MiB" {memory}
    disk "10GiB" preallocate=#true
}}
"#,
            count - 1
        )
    };
    let projects = ["first", "second"].map(|name| Project::new(name, &machinefile(name)));
    let running = projects.each_ref().map(|project| {
        project
            .stead(&["up"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let ended = running.map(|child| child.wait_with_output().unwrap());
    let codes: Vec<_> = ended.iter().map(|output| output.status.code()).collect();
    let winner = usize::from(codes[0] != Some(0));
    let loser = 1 - winner;
    assert!(
        codes[winner] == Some(0) && codes[loser] == Some(1),
        "{}\n{}",
        text(&ended[0]),
        text(&ended[1])
    );
    let [first, second] = ended;
    let refused = Said::from(if loser == 0 { first } else { second });
    refused.says(&[
        "nothing was started",
        "CPUs: 1 requested, 0 left",
        &format!("reserved by db of project {}", ["first", "second"][winner]),
    ]);
    assert_eq!(projects[loser].state("db"), "absent");

    // What holds of the one that runs.
    let project = &projects[winner];
    let domain = project.domain("db");
    let qemu = process(&domain);
    assert_eq!(cpus_of_vcpu(&qemu), cpu.to_string());
    assert_weight_and_quota(&qemu);
    if can_lock() {
        let locked = field(&qemu.join("status"), "VmLck:");
        let kib: u64 = locked.trim_end_matches("kB").trim().parse().unwrap();
        assert!(kib >= 512 << 10, "{locked}");
    }
    use std::os::unix::fs::MetadataExt;
    let disk = project.data.join("images").join(format!("{domain}.qcow2"));
    let taken = fs::metadata(&disk).unwrap().blocks() * 512;
    assert!(taken >= 10 << 30, "{taken} bytes of {}", disk.display());

    let resources = project.json(&["resources", "--json"]);
    assert_eq!(resources["host"]["reserved_cpus"], 1);
    assert_eq!(resources["host"]["free_cpus"], 0);

    // It holds on to it while it runs and no longer.
    projects[loser].run(&["up"], 1).says(&["0 left"]);
    project.ok(&["halt", "--force"]);
    let resources = project.json(&["resources", "--json"]);
    assert_eq!(resources["host"]["reserved_cpus"], 0);
}

/// Reads control groups of either version.
#[track_caller]
fn assert_weight_and_quota(qemu: &Path) {
    let groups = fs::read_to_string(qemu.join("cgroup")).unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let v1 = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "cpu"))
            .then(|| fields[1].to_string())
    });
    let read = |path: PathBuf| {
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let path_of = |wanted: &dyn Fn(&str) -> bool| {
        groups
            .lines()
            .find_map(|line| {
                let (head, path) = line.rsplit_once(':')?;
                wanted(head).then(|| path.trim_start_matches('/').to_string())
            })
            .unwrap_or_else(|| panic!("{groups}"))
    };
    match v1 {
        Some(mount) => {
            let path = path_of(&|head| {
                head.split_once(':')
                    .is_some_and(|(_, names)| names.split(',').any(|name| name == "cpu"))
            });
            let mount = Path::new(&mount);
            let mut parts = path.split('/');
            let top = mount.join(parts.next().unwrap());
            let machine = top.join(parts.next().unwrap());
            assert_eq!(read(top.join("cpu.shares")).trim(), "262144", "{path}");
            assert_eq!(read(machine.join("cpu.shares")).trim(), "1024");
            assert_eq!(read(machine.join("cpu.cfs_quota_us")).trim(), "150000");
        }
        None => {
            let mount = mounts
                .lines()
                .find(|line| line.split(' ').nth(2) == Some("cgroup2"))
                .and_then(|line| line.split(' ').nth(1))
                .unwrap();
            let path = path_of(&|head| head == "0:");
            let top = Path::new(mount).join(path.split('/').next().unwrap());
            assert_eq!(read(top.join("cpu.weight")).trim(), "10000", "{path}");
            let machine = top.join(path.split('/').nth(1).unwrap());
            assert_eq!(read(machine.join("cpu.weight")).trim(), "100", "{path}");
            let limited = Path::new(mount)
                .join(&path)
                .ancestors()
                .take_while(|folder| folder.starts_with(&top))
                .any(|folder| {
                    fs::read_to_string(folder.join("cpu.max"))
                        .is_ok_and(|text| text.trim() == "150000 100000")
                });
            assert!(limited, "no quota on {path}");
        }
    }
}
