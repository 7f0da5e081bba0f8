//! What is promised and limited on a host as most are: systemd, control groups of version 2, a root that may do
//! everything. That host is a machine itself (tests/host), in which stead runs as root.

use std::{collections::BTreeMap, fs, process::Command};

use crate::project::{Project, archive, own_data, text, variable};

const HOST: &str = r#"
project "guarantees"
machine "host" {
    box "host"
    cpus 2
    memory "2GiB"
    sync "inside" to="/srv/inside"
}
"#;

/// Of the project in there. TCG, since the host's emulated CPU claims to virtualise.
const BEFORE: &str = r#"
project "inside"
defaults {
    box "./spinning.img"
    accel "tcg"
}
machine "db" {
    cpus 1 reserve=#true pin="1" quota="150%"
    memory "128MiB" reserve=#true
}
machine "batch" {
    cpus 1 shares=512 quota="60%"
    memory "64MiB" hugepages="2MiB"
}
"#;

const AFTER: &str = r#"
project "inside"
defaults {
    box "./spinning.img"
    accel "tcg"
}
machine "db" {
    cpus 1 reserve=#true pin="0-1" shares=4096
    memory "128MiB" reserve=#true
}
machine "batch" {
    cpus 1 pin="0" quota="40%"
    memory "64MiB" hugepages="2MiB"
}
"#;

/// A disk whose boot sector says on the console that nothing will come, so that `up` does not wait for it, and keeps
/// its CPU busy from then on. What QEMU is held to does not depend on what runs in it.
pub(crate) fn spinning_disk() -> Vec<u8> {
    let mut sector = vec![
        0x31, 0xc0, //       xor ax, ax
        0x8e, 0xd8, //       mov ds, ax
        0xba, 0xf8, 0x03, // mov dx, 0x3f8     the first serial port
        0xbe, 0x12, 0x7c, // mov si, 0x7c12    the text
        0xac, //             next: lodsb
        0x84, 0xc0, //       test al, al
        0x74, 0xfe, //       end: jz end
        0xee, //             out dx, al
        0xeb, 0xf8, //       jmp next
    ];
    assert_eq!(sector.len(), 0x12);
    sector.extend(b"Kernel panic - not syncing: there is none\r\n\0");
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(1 << 20, 0);
    sector
}

/// What a machine in there is held to, in lines of a name and a value. `$1` is the machine.
const READ: &str = r#"
pid=$(cat /run/libvirt/qemu/stead-inside-$1-*.pid)
group=$(cut -d: -f3- /proc/$pid/cgroup)
scope=/sys/fs/cgroup${group%/libvirt/emulator}
slice=$(dirname "$scope")
echo pid $pid
echo group "$group"
echo slice $(basename $slice)
echo slice-weight $(cat $slice/cpu.weight)
echo weight $(cat "$scope/cpu.weight")
echo quota $(cat "$scope/libvirt/cpu.max")
echo $(grep nr_throttled "$scope/libvirt/cpu.stat")
echo locked $(sed -n 's/^VmLck:\(.*\)kB/\1/p' /proc/$pid/status)
echo huge $(sed -n 's/^HugetlbPages:\(.*\)kB/\1/p' /proc/$pid/status)
echo cpus $(sed -n 's/^Cpus_allowed_list://p' /proc/$pid/task/*/status | sort -u)
"#;

/// What db uses of the CPU that it is pinned to while a program of the user's session wants all of it too, and what that
/// gets, both in µs: until either has had three seconds.
const CONTEND: &str = r#"
taskset -c 1 sh -c 'while :; do :; done' &
trap 'kill $!' EXIT
used() {
    sed -n 's/^usage_usec //p' /sys/fs/cgroup/stead.slice/cpu.stat
    echo $(($(cut -d ' ' -f 1 /proc/$!/schedstat) / 1000))
}
# What starting it takes is not what it gets.
until grep -q '^Cpus_allowed_list:.1$' /proc/$!/status && grep -qx sh /proc/$!/comm; do sleep 0.1; done
set -- $(used)
machine_before=$1 program_before=$2 machine=0 program=0
while [ $machine -lt 3000000 ] && [ $program -lt 3000000 ]; do
    sleep 0.2
    set -- $(used)
    machine=$(($1 - machine_before)) program=$(($2 - program_before))
done
cat /proc/$!/cgroup
echo machine $machine
echo program $program
"#;

struct Host(Project);

impl Host {
    fn up() -> Self {
        let project = Project::with_data("guarantees", HOST, &own_data("guarantees-data"));
        project.ok(&["box", "add", archive("host").to_str().unwrap()]);
        let inside = project.folder.join("inside");
        fs::create_dir_all(&inside).unwrap();
        fs::write(inside.join("spinning.img"), spinning_disk()).unwrap();
        fs::write(inside.join("Machinefile"), BEFORE).unwrap();
        // Without what is only for debuggers, which is most of it, and all of it has to go through SSH.
        let strip = Command::new("strip")
            .arg("-o")
            .arg(inside.join("stead"))
            .arg(variable("STEAD_BIN"))
            .output()
            .unwrap();
        assert!(strip.status.success(), "{}", text(&strip));
        println!("{}", project.ok(&["up"]).err);
        Host(project)
    }

    /// Runs a script in there as root, with one argument.
    #[track_caller]
    fn root(&self, script: &str, argument: &str) -> String {
        let words = [
            "exec", "host", "--", "sudo", "sh", "-euc", script, "sh", argument,
        ];
        self.0.ok(&words).out
    }

    /// `stead up` in there, which does everything but get an answer out of the machines.
    #[track_caller]
    fn up_inside(&self) {
        let words = ["exec", "host", "--", "sudo"];
        let stead = ["/srv/inside/stead", "-C", "/srv/inside", "up"];
        let said = self.0.run(&[&words[..], &stead].concat(), 1);
        let hopeless = said.err.matches("Kernel panic - not syncing").count();
        assert!(hopeless >= 2, "{}", said.err);
        println!("{}", said.err);
    }

    #[track_caller]
    fn read(&self, machine: &str) -> BTreeMap<String, String> {
        let said = self.root(READ, machine);
        println!("{machine}\n{said}");
        values(&said)
    }
}

fn values(lines: &str) -> BTreeMap<String, String> {
    let pairs = lines
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace));
    pairs
        .map(|(name, value)| (name.to_string(), value.trim().to_string()))
        .collect()
}

#[track_caller]
fn assert_values(found: &BTreeMap<String, String>, wanted: &[(&str, &str)]) {
    for (name, value) in wanted {
        assert_eq!(
            found.get(*name).map(String::as_str),
            Some(*value),
            "{name} of {found:#?}"
        );
    }
}

#[track_caller]
fn number(found: &BTreeMap<String, String>, name: &str) -> u64 {
    found[name]
        .parse()
        .unwrap_or_else(|_| panic!("{name} of {found:#?}"))
}

#[test]
#[ignore = "needs the box of tests/host, and minutes: ./dev test-guarantees"]
fn a_host_with_systemd_and_control_groups_of_version_2_keeps_what_is_promised() {
    let host = Host::up();
    assert_eq!(
        host.root("stat -fc %T /sys/fs/cgroup", "").trim(),
        "cgroup2fs"
    );
    host.root("echo 32 > /proc/sys/vm/nr_hugepages", "");
    host.up_inside();

    let db = host.read("db");
    assert_values(
        &db,
        &[
            ("slice", "stead.slice"),
            ("slice-weight", "10000"),
            ("weight", "100"),
            ("quota", "150000 100000"),
            ("cpus", "1"),
        ],
    );
    // All of the guest's memory, and what QEMU is itself.
    assert!(number(&db, "locked") > 128 << 10, "{db:#?}");
    let batch = host.read("batch");
    assert_values(
        &batch,
        &[
            ("slice", "machine.slice"),
            ("slice-weight", "100"),
            ("weight", "50"),
            ("quota", "60000 100000"),
            ("cpus", "0-1"),
            ("locked", "0"),
            ("huge", "65536"),
        ],
    );
    assert!(number(&batch, "nr_throttled") > 0, "{batch:#?}");

    // 100 to 1 by weight.
    let said = host.root(CONTEND, "");
    println!("{said}");
    let used = values(&said);
    assert!(
        number(&used, "machine") > 10 * number(&used, "program"),
        "{used:#?}"
    );

    host.0.write("inside/Machinefile", AFTER);
    host.0.ok(&["sync"]);
    host.up_inside();
    let changed = host.read("db");
    assert_values(
        &changed,
        &[
            ("pid", &db["pid"]),
            ("slice", "stead.slice"),
            ("weight", "400"),
            ("quota", "max 100000"),
            ("cpus", "0-1"),
        ],
    );
    let changed = host.read("batch");
    assert_values(
        &changed,
        &[
            ("pid", &batch["pid"]),
            ("weight", "100"),
            ("quota", "40000 100000"),
            ("cpus", "0"),
        ],
    );
}
