//! A host that loses its power while stead is at work, and boots again. That host is a machine itself
//! (tests/host): what its kernel had not written to its disk is lost with its QEMU, and so is what that had in its
//! caches of the qcow2's tables, which is what a disk's volatile cache is.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    guarantees::spinning_disk,
    project::{Project, archive, own_data, text, variable},
};

const HOST: &str = r#"
project "power"
machine "host" {
    box "host"
    cpus 2
    memory "1GiB"
}
"#;

/// TCG, since the host's emulated CPU claims to virtualise.
const INSIDE: &str = r#"
project "inside"
machine "db" {
    box "./spinning.img"
    cpus 1
    memory "64MiB"
    accel "tcg"
}
"#;

/// Where the power goes: before a step of `up`, or so many ms after its begin.
enum Moment {
    Step(&'static str),
    After(u64),
}

const MOMENTS: [Moment; 10] = [
    // The box is taken into the store in the first of them.
    Moment::After(1_500),
    Moment::After(3_000),
    Moment::Step("define"),
    Moment::Step("disk"),
    Moment::After(5_000),
    Moment::Step("seed"),
    Moment::Step("start"),
    Moment::After(7_000),
    Moment::Step("reach"),
    Moment::After(9_000),
];

const STEAD: [&str; 3] = ["/srv/inside/stead", "-C", "/srv/inside"];

struct Host(Project);

impl Host {
    fn up() -> Self {
        let project = Project::with_data("power", HOST, &own_data("power-data"));
        project.ok(&["box", "add", archive("host").to_str().unwrap()]);
        project.ok(&["up"]);
        let inside = project.folder.join("inside");
        fs::create_dir_all(&inside).unwrap();
        fs::write(inside.join("spinning.img"), spinning_disk()).unwrap();
        fs::write(inside.join("Machinefile"), INSIDE).unwrap();
        // Without what is only for debuggers, which is most of it, and all of it has to go through SSH.
        for (from, name) in [
            ("", "stead"),
            ("-watch", "stead-watch"),
            ("-net", "stead-net"),
        ] {
            let strip = Command::new("strip")
                .arg("-o")
                .arg(inside.join(name))
                .arg(format!("{}{from}", variable("STEAD_BIN")))
                .output()
                .unwrap();
            assert!(strip.status.success(), "{}", text(&strip));
        }
        project.ok(&["copy", inside.to_str().unwrap(), "host:/tmp/inside"]);
        let host = Host(project);
        host.root("mv /tmp/inside /srv/inside && sync");
        host
    }

    #[track_caller]
    fn root(&self, script: &str) -> String {
        let words = ["exec", "host", "--", "sudo", "sh", "-euc", script];
        self.0.ok(&words).out
    }

    /// stead in there, as root, which is to end with that code.
    #[track_caller]
    fn inside(&self, arguments: &[&str], code: i32) -> String {
        let words = [&["exec", "host", "--", "sudo"][..], &STEAD, arguments].concat();
        let said = self.0.run(&words, code);
        format!("{}{}", said.out, said.err)
    }

    fn lose_power(&self, moment: &Moment) {
        let mut words = vec!["exec", "host", "--", "sudo"];
        let kill_at;
        if let Moment::Step(step) = moment {
            kill_at = format!("STEAD_TEST_KILL_AT=db/{step}");
            words.extend(["env", &kill_at]);
        }
        words.extend(STEAD);
        words.push("up");
        let mut up = (self.0.stead(&words))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        match moment {
            Moment::Step(_) => assert!(!up.wait().unwrap().success()),
            Moment::After(ms) => std::thread::sleep(Duration::from_millis(*ms)),
        }
        self.pull_the_plug();
        let _ = up.kill();
        up.wait().unwrap();
    }

    fn pull_the_plug(&self) {
        let name = format!("guest={},", self.0.domain("host"));
        let mut found = 0;
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let pid = (entry.file_name().to_str()).and_then(|name| name.parse().ok());
            if let Some(pid) = pid
                && String::from_utf8_lossy(&words).contains(&name)
            {
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
                found += 1;
            }
        }
        assert_eq!(found, 1);
        while ["ready", "booting", "booted", "provisioning"]
            .contains(&self.0.state("host").as_str())
        {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
#[ignore = "needs the box of tests/host, and minutes: ./dev test --full"]
fn a_host_that_loses_its_power_comes_back_to_what_can_go_on() {
    let host = Host::up();
    for (n, moment) in MOMENTS.iter().enumerate() {
        host.lose_power(moment);
        host.0.ok(&["up"]);
        // What only reads works, whatever is there.
        host.inside(&["status"], 0);
        // It goes on, and does all but get an answer out of the machine.
        let said = host.inside(&["up"], 1);
        assert!(
            said.contains("Kernel panic - not syncing"),
            "moment {n}: {said}"
        );
        let empty = host.root(
            "find /var/lib/stead/machines /var/lib/stead/boxes -type f -size 0 ! -name '*.log'",
        );
        assert_eq!(empty, "", "moment {n}");
        host.root(
            "for disk in /var/lib/stead/images/*.qcow2; do qemu-img check -U -q \"$disk\"; done",
        );
        host.inside(&["box", "verify"], 0);
        host.inside(&["destroy", "-y"], 0);
        let left = host.root("virsh list --all --name | grep . || true; ls /var/lib/stead/images | grep ^stead- || true");
        assert_eq!(left, "", "moment {n}");
        println!("moment {n} is survived");
    }
    host.0.ok(&["destroy", "-y"]);
}
